"""The command ``improve``: from eager weights and four cases to better ones, stopped on its way."""

import json
import shutil

import pytest
from PIL import Image

from DRAMLesionLib.pipeline import LesionPipeline
from DRAMLesionLib.typed import read_json
from DRAMLesionLib.weights import read_card
from Testing.fuzz import chest
from Testing.training.improvement.small_set import (
    SETTINGS,
    write_case,
    write_eager_weights,
    write_set,
)
from Training.__main__ import main
from Training.improvement.split import read_split
from Training.improvement.verdict import Verdict
from Training.learning.engine import read_checkpoint
from Training.stages import segmentation


def improve(data, weights, output, *more, words=()):
    sets = [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]
    place = ["--weights", str(weights), "--output", str(output)]
    return main(["improve", str(data), *place, *sets, *words])


def verdict_of(output):
    return read_json(output / "result" / "verdict.json", Verdict)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_eager_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def improved(data, weights, tmp_path_factory):
    """A finished improvement; a test that changes it takes a copy."""
    output = tmp_path_factory.mktemp("improved") / "improvement"
    assert improve(data, weights, output) == 0
    return output


def test_better_weights_come_with_figures_pictures_and_a_card(improved, data, weights):
    verdict = verdict_of(improved)
    split = read_split(data)
    assert sorted(verdict.validation) == sorted(split.validation)
    assert sorted(verdict.training) == sorted(split.training)
    final = verdict.networks["segmentation"]
    assert final.before.clear_percent > 2, "the weights call healthy lung a lesion"
    assert final.after.clear_percent < final.before.clear_percent
    assert final.after.dice > final.before.dice
    assert final.better
    assert verdict.better
    assert [case.case for case in verdict.cases] == verdict.validation
    for case in verdict.cases:
        picture = Image.open(improved / "result" / case.picture).convert("RGB")
        assert picture.width > 2 * 200
        colours = {colour for _, colour in picture.getcolors(1 << 20)}
        assert any(r > 200 and g < 130 and b < 80 for r, g, b in colours), "found: red"
        assert any(b > 200 and r < 120 for r, g, b in colours), "the reader's label: blue"
    card = read_card(improved / verdict.weights, "segmentation")
    assert card.data[0] == read_card(weights, "segmentation").data[0]
    assert card.data[-1] == (
        "improved on 2 cases of the user with lobe scores, 2 of them with corrected "
        "pseudo-labels; 2 other cases were kept for validation"
    )
    assert card.metrics["improved_on"] == verdict.training
    assert not (improved / "unfinished.json").exists()
    before = LesionPipeline("cpu", weights).run(chest.ct(), chest.lobes(), lobe_scheme="dram")
    after = LesionPipeline("cpu", improved / verdict.weights)
    found = after.run(chest.ct(), chest.lobes(), lobe_scheme="dram")
    assert found.report.totals[-1].lesion_percent < before.report.totals[-1].lesion_percent


def test_the_same_again_is_there_already(improved, data, weights, capsys):
    path = improved / "result" / "verdict.json"
    before = path.stat().st_mtime_ns
    assert improve(data, weights, improved, "prepare.workers=2", "threads=2") == 0
    assert path.stat().st_mtime_ns == before
    assert "better weights in weights-" in capsys.readouterr().out


def test_progress_is_one_object_a_line_and_never_falls(improved, data, weights, tmp_path, capsys):
    output = tmp_path / "again"
    shutil.copytree(improved / "cache", output / "cache")
    quick = ("segmentation.loop.steps=2", "regression.loop.steps=2")
    assert improve(data, weights, output, *quick, words=["--json-progress"]) == 0
    steps = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    fractions = [step["fraction"] for step in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    stages = list(dict.fromkeys(step["stage"] for step in steps))
    assert stages == ["prepare", "regression", "pseudolabels", "segmentation", "measure"]


def test_stopped_and_gone_on_with_is_the_same(improved, data, weights, tmp_path, monkeypatch):
    output = tmp_path / "stopped"
    shutil.copytree(improved / "cache", output / "cache")
    once = segmentation.SegmentationExperiment.losses

    def stop(self, network, batch, step):
        if step == 12:
            raise KeyboardInterrupt
        return once(self, network, batch, step)

    monkeypatch.setattr(segmentation.SegmentationExperiment, "losses", stop)
    assert improve(data, weights, output) == 130
    assert not (output / "result").exists()
    assert json.loads((output / "unfinished.json").read_text()) == {"weights": str(weights)}
    assert read_checkpoint(output / "segmentation")["step"] == 10
    monkeypatch.undo()
    assert improve(data, weights, output) == 0
    assert verdict_of(output) == verdict_of(improved)
    assert not (output / "unfinished.json").exists()


def test_no_worse_weights_are_ever_offered(improved, data, weights, tmp_path):
    output = tmp_path / "worse"
    shutil.copytree(improved / "cache", output / "cache")
    good = improved / verdict_of(improved).weights
    # hardly a step from weights that are good already
    slow = ("segmentation.optimiser.learning_rate=1e-9", "regression.optimiser.learning_rate=1e-9")
    assert improve(data, good, output, "segmentation.loop.steps=1", *slow) == 0
    verdict = verdict_of(output)
    assert (verdict.better, verdict.weights) == (False, None)
    assert [n.better for n in verdict.networks.values()] == [False, False]
    assert list(output.glob("weights-*")) == []
    assert (output / "result" / verdict.cases[0].picture).is_file()


def test_a_further_case_begins_anew_and_moves_none(improved, data, weights, tmp_path):
    grown = tmp_path / "set"
    shutil.copytree(data, grown)
    output = tmp_path / "improvement"
    shutil.copytree(improved, output)
    before = read_split(grown)
    write_case(grown, "case-0009", 20.0, labelled=False)
    quick = ("segmentation.loop.steps=2", "regression.loop.steps=2")
    assert improve(grown, weights, output, *quick) == 0
    after = read_split(grown)
    assert set(before.validation) <= set(after.validation)
    assert set(before.training) <= set(after.training)
    verdict = verdict_of(output)
    assert "case-0009" in [*verdict.training, *verdict.validation]
    assert read_checkpoint(output / "segmentation")["step"] == 2


def test_what_contradicts_itself_is_told(data, weights, tmp_path, capsys):
    odd = tmp_path / "set"
    shutil.copytree(data, odd)
    split = read_split(odd)
    kept, (trained, gone) = split.validation[0], split.training
    (odd / "scans" / f"{gone}.nii.gz").unlink()
    shutil.copy(odd / "scans" / f"{kept}.nii.gz", odd / "scans" / "twin.nii.gz")
    shutil.copy(odd / "lobes" / f"{kept}.nii.gz", odd / "lobes" / "twin.nii.gz")
    rows = (odd / "scores.csv").read_text().splitlines()
    rows = [f"{trained},0,0,0,0,0" if row.startswith(trained) else row for row in rows]
    rows = [row for row in rows if not row.startswith(gone)]
    twin_row = next(row for row in rows if row.startswith(kept)).replace(kept, "twin")
    (odd / "scores.csv").write_text("\n".join([*rows, twin_row, "lost,1,1,1,1,1"]) + "\n")
    split = json.loads((odd / "split.json").read_text())
    split["training"].append("twin")
    (odd / "split.json").write_text(json.dumps(split))
    quick = ("segmentation.loop.steps=1", "regression.loop.steps=1")
    assert improve(odd, weights, tmp_path / "out", *quick) == 0
    notes = verdict_of(tmp_path / "out").notes
    assert any("lost: has scores but no scan" in note for note in notes)
    assert f"twin is the same scan as {kept}, which is kept for validation: left out" in notes
    assert any(
        note.startswith(f"{trained}: the corrected pseudo-label marks")
        and note.endswith("which has the score 0: one of the two is wrong")
        for note in notes
    )
    assert any(
        note.startswith("the regression was left as it is: 5 scored lobes to train on, of 1 diff")
        for note in notes
    )
    assert not verdict_of(tmp_path / "out").networks["regression"].trained


def test_one_case_is_not_enough(weights, tmp_path, capsys):
    write_case(tmp_path / "set", "only")
    assert improve(tmp_path / "set", weights, tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "has 0 cases to train on and 1 kept for validation" in said
