"""The whole training on three small phantoms: from nothing to weights that ``segment`` uses."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import Training as training_package
from DRAMLesionLib.lesions.severity import score_to_interval
from DRAMLesionLib.pipeline import LesionPipeline
from DRAMLesionLib.tables import original
from DRAMLesionLib.weights import read_card
from Training.__main__ import main
from Training.config import load_config
from Training.dataset.cache import read_cache
from Training.learning.engine import read_checkpoint

TINY = Path(training_package.__file__).with_name("configs") / "tiny.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    words = ["phantoms", "--output", str(folder), "--count", "3", "--spacing", "4"]
    assert main([*words, "--first-seed", "40", "--healthy-share", "0", "--workers", "1"]) == 0
    return folder


def _run(stage, data, output, *more):
    sets = [word for setting in more for word in ("--set", setting)]
    words = [stage, "--config", str(TINY), "--data", str(data), "--output", str(output)]
    return main([*words, *sets])


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    assert _run("all", data, output) == 0
    return output


def test_the_chain_ends_in_weights_that_segment_uses(trained, data):
    card = read_card(trained / "weights", "regression")
    assert card.metrics["steps"] == 6
    assert "3 scans" in card.data[-1]
    ct = sitk.ReadImage(str(next((data / "scans").iterdir())))
    result = LesionPipeline("cpu", trained / "weights").run(ct)
    assert len(result.report.rows) == 5
    assert result.report.parameters["vessels"] == "network"
    # the paper's settings of the refined map, and the level, come from the training
    assert card.config["gain"] == result.report.parameters["dRAM"]["gain"] == 0.0
    assert card.config["refined_by"] == "crf"
    assert read_card(trained / "weights", "segmentation").config["level"] == 0.0
    names = {"vessels", "regression", "segmentation"}
    assert {entry["name"].split(".")[0] for entry in result.report.weights} == names
    for name in names:
        beside = trained / "weights" / f"{name}.training.yaml"
        assert load_config(beside) == load_config(TINY)


def test_local_networks_take_nothing_from_their_deep_levels(trained):
    for name, prefix in (("regression", "unet."), ("segmentation", "")):
        weight = read_checkpoint(trained / name)["network"][f"{prefix}decoder.1.0.weight"]
        assert (weight[:, 8:] == 0).all()
        assert (weight[:, :8] != 0).all()


def test_matched_labels_keep_to_the_intervals_of_the_scores(trained):
    for case in read_cache(trained / "cache"):
        labels, lobes = case.load("segmentation/labels"), case.load("segmentation/lobes")
        for lobe, score in case.scores.items():
            inside = lobes == lobe
            low, high = score_to_interval(score)
            assert low - 0.01 <= (labels[inside] == 2).mean() <= high + 0.01


def test_the_truth_is_never_read(trained, data):
    cases = read_cache(trained / "cache")
    assert len(cases) == 3
    arrays = {p.relative_to(c.folder).as_posix() for c in cases for p in c.folder.rglob("*.npy")}
    assert arrays == {
        "regression/image.npy",
        "regression/lobes.npy",
        "regression/vessels.npy",
        "regression/vessels_network.npy",
        "segmentation/image.npy",
        "segmentation/lobes.npy",
        "segmentation/labels.npy",
    }


def test_all_terms_together_give_finite_losses(data, trained, tmp_path):
    (tmp_path / "cache").symlink_to(trained / "cache")
    assert _run("regression", data, tmp_path) == 0
    entries = [
        json.loads(line)
        for line in (tmp_path / "regression" / "log.jsonl").read_text().split("\n")
        if line
    ]
    last = entries[-1]
    terms = {"regression", "entropy", "equivariance", "refinement", "total"}
    assert terms <= set(last)
    assert all(np.isfinite(last[name]) for name in terms)


def test_stopped_and_resumed_equals_uninterrupted(data, trained, tmp_path):
    from Training.learning.engine import make_fabric, train
    from Training.stages.regression import RegressionExperiment

    cases = read_cache(trained / "cache")

    class Interrupted(RegressionExperiment):
        def losses(self, network, batch, step):
            if step == 4:
                raise KeyboardInterrupt
            return super().losses(network, batch, step)

    config = load_config(TINY, ["regression.loop.checkpoint_every=1"])
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(cases, config), tmp_path / "a", config, make_fabric(config))
    for name in ("a", "b"):
        train(RegressionExperiment(cases, config), tmp_path / name, config, make_fabric(config))
    a, b = (read_checkpoint(tmp_path / name) for name in ("a", "b"))
    assert a["step"] == b["step"] == 6
    for key, value in a["network"].items():
        assert (value == b["network"][key]).all(), key


def test_an_edited_label_is_kept_and_used(trained, data, capsys):
    path = next((trained / "pseudolabels").glob("*.nii.gz"))
    name = path.name.removesuffix(".nii.gz")
    edited = sitk.ReadImage(str(path)) * 0 + 2
    sitk.WriteImage(sitk.Cast(edited, sitk.sitkUInt8), str(path))
    before = path.read_bytes()
    assert _run("pseudolabels", data, trained) == 0
    assert path.read_bytes() == before
    case = next(case for case in read_cache(trained / "cache") if case.name == name)
    assert (case.load("segmentation/labels") == 2).all()
    capsys.readouterr()
    # the network was trained on the label as it was
    assert _run("segmentation", data, trained) == 1
    assert f"the pseudo-labels of {name} have changed" in capsys.readouterr().err
    shutil.rmtree(trained / "segmentation")
    assert _run("segmentation", data, trained) == 0


def test_a_label_in_the_data_set_is_used_as_long_as_it_lies_there(trained, data):
    case = read_cache(trained / "cache")[1]
    computed = np.array(case.load("segmentation/labels"))
    file = trained / "pseudolabels" / f"{case.name}.nii.gz"
    before = file.read_bytes()
    label = sitk.ReadImage(str(file)) * 0 + 1
    given = data / "pseudolabels" / f"{case.name}.nii.gz"
    given.parent.mkdir()
    sitk.WriteImage(sitk.Cast(label, sitk.sitkUInt8), str(given))
    try:
        assert _run("pseudolabels", data, trained) == 0
        assert (case.load("segmentation/labels") == 1).all()
        assert file.read_bytes() == before
    finally:
        shutil.rmtree(given.parent)
    assert _run("pseudolabels", data, trained) == 0
    assert (case.load("segmentation/labels") == computed).all()


def test_other_settings_do_not_continue_a_run(trained, data, capsys):
    assert _run("regression", data, trained, "regression.beta=0.5") == 1
    assert "beta: 0.8 → 0.5" in capsys.readouterr().err


def test_a_broken_data_set_names_every_problem(tmp_path, data, capsys):
    folder = tmp_path / "data"
    (folder / "scans").mkdir(parents=True)
    (folder / "scans" / "a.nii.gz").write_bytes(b"no image")
    (folder / "scores.csv").write_text("case,LUL,LLL,RUL,RML,RLL\na,0,0,0,0,0\nb,9,,0,0,0\n")
    assert _run("prepare", folder, tmp_path / "out") == 1
    said = "".join(capsys.readouterr())
    assert "error: a:" in said
    assert "'9', not a whole number 0 to 5" in said
    assert "b: has scores but no scan" in said


def test_the_ablation_prints_all_rows_and_goes_on_where_it_was(
    data, trained, tmp_path, capsys, monkeypatch
):
    command = ["ablate", "--config", str(TINY), "--cache", str(trained / "cache")]
    command += ["--set", "regression.loop.steps=2", "--set", "segmentation.loop.steps=2"]
    command += ["--set", "regression.vessels=frangi", "--set", "ablation.workers=1"]
    words = ["--test", str(_held_out(data, tmp_path)), "--output", str(tmp_path)]
    labels = trained / "cache" / "phantom-000040" / "segmentation" / "labels.npy"
    before = labels.read_bytes()
    assert main([*command, *words]) == 0
    said = capsys.readouterr().out
    names = [
        "raw",
        "+ regulariser",
        "+ refine",
        "+ attention",
        "+ vessel suppression",
        "+ context",
    ]
    lines = said.splitlines()[-6:]
    assert [line[:22].strip() for line in lines] == names
    content = json.loads((tmp_path / "ablation" / "ablation.json").read_text())
    written = (tmp_path / "ablation" / "ablation.csv").read_text().splitlines()
    assert [row["row"] for row in content["rows"]] == names
    # a spreadsheet would take the plus for a formula
    assert [original(line.split(",")[0]) for line in written] == ["row", *names]
    for first, second in itertools.pairwise(content["rows"]):
        change = second["iou"] - first["iou"]
        assert second["iou_change"] == pytest.approx(change, abs=1e-5)
        # five changes are tested
        assert second["iou_p_corrected"] == pytest.approx(min(1.0, 5 * second["iou_p"]))
    assert labels.read_bytes() == before

    # each row's network is what the row says
    networks = [
        read_checkpoint(folder / "regression")["network"].keys()
        for folder in sorted((tmp_path / "ablation").glob("*-*"))
    ]
    assert [any("attention" in key for key in keys) for keys in networks] == [
        False,
        False,
        False,
        True,
        True,
    ]
    kept = [
        json.loads((f / "config.yaml").read_text())
        for f in sorted((tmp_path / "ablation").glob("*-*/regression"))
    ]
    assert [[k["weights"][n] > 0 for n in ("entropy", "refinement")] for k in kept] == [
        [False, False],
        [True, False],
        [True, True],
        [True, True],
        [True, True],
    ]
    assert [k["suppress_vessels"] for k in kept] == [False] * 4 + [True]

    # a row that is done is neither trained nor measured again
    monkeypatch.setattr("Training.studies.ablation._measure", None)
    (tmp_path / "ablation" / "ablation.json").unlink()
    assert main([*command, *words]) == 0
    assert json.loads((tmp_path / "ablation" / "ablation.json").read_text()) == content


def test_departures_are_taken_back_one_at_a_time(data, trained, tmp_path, capsys, monkeypatch):
    command = ["departures", "--config", str(TINY), "--cache", str(trained / "cache")]
    for setting in (
        "regression.loop.steps=2",
        "segmentation.loop.steps=2",
        "regression.loop.log_every=1",
        "segmentation.loop.log_every=1",
        "regression.vessels=frangi",
        "regression.balance=sampling",
        "pseudolabels.match_scores=true",
        "segmentation.base_channels=2",
        "ablation.workers=1",
    ):
        command += ["--set", setting]
    keys = ["regression.balance", "pseudolabels.match_scores", "segmentation.base_channels"]
    vessel = "vessels.vessel_centres"
    command += ["--test", str(_held_out(data, tmp_path)), "--output", str(tmp_path), "--only"]
    # a clock that a busy machine does not change: a step takes as long as its network is wide
    monkeypatch.setattr(
        "Training.studies.departures._median_seconds",
        lambda run: float(json.loads((run / "config.yaml").read_text())["base_channels"]),
    )
    assert main([*command, *keys]) == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[0] for line in lines] == keys
    folder = tmp_path / "departures"
    found = json.loads((folder / "departures.json").read_text())["departures"]
    assert [(row["ours"], row["paper"]) for row in found] == [
        ("sampling", "loss"),
        (True, False),
        (2, 32),
    ]
    for row in found[:2]:
        assert row["iou_change"] == pytest.approx(row["iou"] - row["iou_paper"], abs=1e-5)
        assert row["p_corrected"] == pytest.approx(min(1.0, 2 * row["p"]))
    assert "iou" not in found[2]
    assert [row["time"] for row in found] == [1, 1, 2 / 32]

    # only what the departure says is another
    kept = [
        json.loads((folder / place / "regression" / "config.yaml").read_text())
        for place in ("ours", *keys[:2])
    ]
    assert kept[1] == {**kept[0], "balance": "loss"}
    assert kept[2] == kept[0]
    networks = [
        (folder / place / "regression" / "checkpoint.pt").read_bytes()
        for place in ("ours", keys[1])
    ]
    assert networks[0] == networks[1]

    # what is done is neither trained nor measured again
    monkeypatch.setattr("Training.studies.ablation._measure", None)
    assert main([*command, *keys[:2], vessel]) == 0
    found = json.loads((folder / "departures.json").read_text())["departures"]
    assert [row["key"] for row in found] == [vessel, *keys[:2]]
    assert found[0]["dice_change"] == pytest.approx(found[0]["dice"] - found[0]["dice_paper"])
    assert main([*command, "regression.loop.steps"]) == 1
    assert "no departure" in capsys.readouterr().err


def _held_out(data, folder):
    """Make a data set of two phantoms by other names; returns its folder."""
    test = folder / "held out"
    rows = (data / "scores.csv").read_text().splitlines()
    names = [row.split(",")[0] for row in rows[1:3]]
    for kind in ("scans", "lobes", "truth/lesions"):
        (test / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(data / kind / f"{name}.nii.gz", test / kind / f"held-{name}.nii.gz")
    (test / "scores.csv").write_text("\n".join([rows[0], *(f"held-{r}" for r in rows[1:3])]))
    return test


def test_the_ablation_refuses_scans_that_were_trained_on(data, trained, tmp_path, capsys):
    words = ["--test", str(data), "--output", str(tmp_path), "--config", str(TINY)]
    assert main(["ablate", "--cache", str(trained / "cache"), *words]) == 1
    assert "must not be trained on: phantom-000040" in capsys.readouterr().err
