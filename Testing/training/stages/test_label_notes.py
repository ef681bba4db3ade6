"""Labels and their notes: killed between any two steps, stale, and corrected by a person."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import Training as training_package
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions.dram import DRAM
from DRAMLesionLib.lobes import Lobe
from Testing.training.small_cache import write_small_cache
from Training.config import load_config
from Training.dataset.cache import LABELS, LESION, MAP, VESSELS, read_cache, write_meta
from Training.learning import seals
from Training.stages import pseudolabels
from Training.stages.prepare import grid_image
from Training.stages.pseudolabels import make_pseudolabels

TINY = Path(training_package.__file__).with_name("configs") / "tiny.yaml"


class _Killed(BaseException):
    pass


def _checkpoint(folder, value):
    folder.mkdir(exist_ok=True)
    with (folder / "checkpoint.pt").open("wb") as file:
        torch.save({"step": 1, "network": {"a": torch.tensor(value)}, "optimiser": {}}, file)
    seals.seal(folder / "checkpoint.pt")


@pytest.fixture
def config():
    return load_config(TINY, ["regression.vessels=frangi", "pseudolabels.amounts=clipped"])


@pytest.fixture
def output(tmp_path, monkeypatch):
    output = tmp_path / "run"
    write_small_cache(output / "cache")
    _checkpoint(output / "regression", 1.0)
    asked = []

    def compute(case, teacher, config, fractions=None, shares=None, values=None):
        asked.append(fractions)
        labels = np.zeros(case.load("segmentation/lobes").shape, np.uint8)
        labels[: 4 + 2 * config.pseudolabels.refined] = LESION
        return labels, {Lobe.LUL: 0.5} if fractions is None else fractions

    monkeypatch.setattr(pseudolabels, "compute_label", compute)
    compute.asked = asked
    return output


def _case(output):
    return read_cache(output / "cache")[0]


def _make(output, config, **more):
    lines = []
    make_pseudolabels([_case(output)], output, config, lines.append, **more)
    return lines[0].partition(": ")[2]


def _other(config):
    refined = not config.pseudolabels.refined
    return replace(config, pseudolabels=replace(config.pseudolabels, refined=refined))


def _file(output):
    return output / "pseudolabels" / "case-0.nii.gz"


def _voxels(output):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(_file(output))))


def _kill_at(monkeypatch, number, late):
    """Let the process die at the so-many-th file that gets its name: before it does, or after."""
    honest, count = Path.replace, iter(range(number + 1))

    def replace(self, target):
        last = next(count) == number
        if last and not late:
            raise _Killed
        honest(self, target)
        if last:
            raise _Killed

    monkeypatch.setattr(Path, "replace", replace)


STEPS = [(number, late) for number in range(6) for late in (False, True)]


@pytest.mark.parametrize("before", [False, True])
def test_no_kill_makes_a_computed_label_one_by_hand(output, config, before):
    if before:
        _make(output, _other(config))
    start = output.with_name("start")
    shutil.copytree(output, start)
    assert _make(output, config).endswith("% lesion")
    wanted, cached = _voxels(output), np.array(_case(output).load(LABELS))
    np.testing.assert_array_equal(wanted, cached)
    died = 0
    for number, late in STEPS:
        shutil.rmtree(output)
        shutil.copytree(start, output)
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(patch, number, late)
            try:
                _make(output, config)
            except (_Killed, StopIteration):
                died += 1
        said = _make(output, config)
        assert said.endswith("% lesion") or said == "there already", (number, late, said)
        np.testing.assert_array_equal(_voxels(output), wanted)
        np.testing.assert_array_equal(_case(output).load(LABELS), wanted)
        assert _make(output, config) == "there already"
    # each file that a label needs gets its name once: label, note, array, note
    assert died >= 8


def test_no_kill_overwrites_a_label_by_hand(output, config):
    _make(output, config)
    edited = sitk.Cast(sitk.ReadImage(str(_file(output))) * 0 + LESION, sitk.sitkUInt8)
    sitk.WriteImage(edited, str(_file(output)))
    by_hand = _file(output).read_bytes()
    start = output.with_name("start")
    shutil.copytree(output, start)
    for number, late in STEPS:
        shutil.rmtree(output)
        shutil.copytree(start, output)
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(patch, number, late)
            try:
                _make(output, _other(config))
            except (_Killed, StopIteration):
                assert _file(output).read_bytes() == by_hand
        assert _make(output, config) == "edited by hand, kept"
        assert _file(output).read_bytes() == by_hand
        assert (_case(output).load(LABELS) == LESION).all()
    # taken away, it is computed again
    _file(output).unlink()
    assert _make(output, config).endswith("% lesion")


def test_a_correction_that_is_saved_while_the_label_is_computed_is_kept(
    output, config, monkeypatch
):
    _make(output, config)
    honest = pseudolabels.compute_label

    def compute(case, *rest, **more):
        edited = sitk.Cast(sitk.ReadImage(str(_file(output))) * 0 + LESION, sitk.sitkUInt8)
        sitk.WriteImage(edited, str(_file(output)))
        return honest(case, *rest, **more)

    monkeypatch.setattr(pseudolabels, "compute_label", compute)
    assert _make(output, _other(config)) == "edited by hand, kept"
    assert (_voxels(output) == LESION).all()
    assert (_case(output).load(LABELS) == LESION).all()


def test_a_damaged_array_is_made_again_and_a_damaged_note_is_told(output, config):
    _make(output, config)
    wanted = np.array(_case(output).load(LABELS))
    path = _case(output).folder / f"{LABELS}.npy"
    content = bytearray(path.read_bytes())
    content[500] ^= 4
    path.write_bytes(content)
    assert _make(output, config).endswith("% lesion")
    np.testing.assert_array_equal(_case(output).load(LABELS), wanted)
    (output / "pseudolabels" / ".case-0.json").write_text('{"computed_from": "ab')
    with pytest.raises(
        InputError, match=r"case-0\.json is damaged \(.*\): remove it, and case-0\.nii\.gz"
    ):
        _make(output, config)


def test_a_label_is_stale_when_anything_that_it_hangs_on_has_changed(output, config):
    asked = pseudolabels.compute_label.asked
    teacher = output / "segmentation-1"
    _checkpoint(teacher, 2.0)
    assert _make(output, config, teacher=teacher).endswith("% lesion")
    assert _make(output, config, teacher=teacher) == "there already"
    workers = replace(config.pseudolabels, workers=2)
    assert _make(output, replace(config, pseudolabels=workers), teacher=teacher) == "there already"
    # another final network: what the regression says still holds
    _checkpoint(teacher, 3.0)
    assert _make(output, config, teacher=teacher).endswith("% lesion")
    assert asked == [None, {Lobe.LUL: 0.5}]

    def vessels():
        case = _case(output)
        case.save(VESSELS, 1 - np.array(case.load(VESSELS)))

    def scores():
        case = _case(output)
        write_meta(case.folder, {**case.meta, "scores": {**case.meta["scores"], "LUL": 5}})

    for change in (vessels, scores, lambda: _checkpoint(output / "regression", 4.0)):
        asked.clear()
        change()
        assert _make(output, config, teacher=teacher).endswith("% lesion")
        assert asked == [None]
        assert _make(output, config, teacher=teacher) == "there already"


@pytest.fixture
def ranked(config, monkeypatch):
    """Labels by rank, with a regression that says a case's number; counts what it is asked."""
    asked = []

    def compute(case, run, config):
        asked.append(case.name)
        image = geometry.image_like(
            np.linspace(0, 1, 24 * 30 * 28, dtype=np.float32).reshape(24, 30, 28),
            grid_image(case.meta["grids"]["segmentation"]),
        )
        fractions = dict.fromkeys((Lobe.LUL, Lobe.LLL), 0.01 * (1 + int(case.name[-1])))
        return DRAM(image, image, fractions)

    monkeypatch.setattr(pseudolabels, "compute_maps", compute)
    compute.asked = asked
    labels = replace(config.pseudolabels, amounts="ranks", fill_vessels=False)
    return replace(config, pseudolabels=labels)


@pytest.fixture
def run(tmp_path):
    output = tmp_path / "run"
    write_small_cache(output / "cache")
    _checkpoint(output / "regression", 1.0)
    return output


def _shares(output):
    found = {}
    for case in read_cache(output / "cache"):
        labels, lobes = case.load(LABELS), case.load("segmentation/lobes")
        for lobe in (Lobe.LUL, Lobe.LLL):
            found[case.name, lobe] = (labels == LESION)[lobes == lobe].mean()
    return found


def test_ranked_labels_ask_the_regression_once_and_leave_no_map_behind(run, ranked):
    cases = read_cache(run / "cache")
    make_pseudolabels(cases, run, ranked)
    assert sorted(pseudolabels.compute_maps.asked) == [case.name for case in cases]
    assert not any(case.has(MAP) for case in cases)
    shares = _shares(run)
    # scores 2 at cases 0 and 2, 4 at cases 1 and 2: the quarters of their intervals
    assert shares["case-0", Lobe.LLL] == pytest.approx(0.10, abs=0.01)
    assert shares["case-2", Lobe.LUL] == pytest.approx(0.20, abs=0.01)
    assert shares["case-1", Lobe.LUL] == pytest.approx(0.5625, abs=0.01)
    assert shares["case-2", Lobe.LLL] == pytest.approx(0.6875, abs=0.01)
    assert shares["case-0", Lobe.LUL] == 0
    lines = []
    make_pseudolabels(cases, run, ranked, lines.append)
    assert [line.partition(": ")[2] for line in lines] == ["there already"] * 3
    assert len(pseudolabels.compute_maps.asked) == 3


def test_ranked_labels_are_the_same_after_a_kill_and_keep_what_a_person_made(run, ranked):
    start = run.with_name("start")
    shutil.copytree(run, start)
    make_pseudolabels(read_cache(run / "cache"), run, ranked)
    wanted = _shares(run)
    for number in range(0, 20, 3):
        shutil.rmtree(run)
        shutil.copytree(start, run)
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(patch, number, late=True)
            with suppress(_Killed, StopIteration):
                make_pseudolabels(read_cache(run / "cache"), run, ranked)
        make_pseudolabels(read_cache(run / "cache"), run, ranked)
        assert _shares(run) == wanted
        assert not any(case.has(MAP) for case in read_cache(run / "cache"))
    file = _file(run)
    edited = sitk.Cast(sitk.ReadImage(str(file)) * 0 + LESION, sitk.sitkUInt8)
    sitk.WriteImage(edited, str(file))
    make_pseudolabels(read_cache(run / "cache"), run, ranked)
    shares = _shares(run)
    assert shares["case-0", Lobe.LLL] == 1.0
    # the corrected scan keeps its place, so that the labels of all others are as they were
    assert {key: shares[key] for key in wanted if key[0] != "case-0"} == {
        key: share for key, share in wanted.items() if key[0] != "case-0"
    }


def test_the_note_of_an_earlier_version_still_tells_a_computed_label(output, config):
    _make(output, config)
    path = output / "pseudolabels" / ".case-0.json"
    content = json.loads(path.read_text())
    old = {key: content[key] for key in ("computed_from", "file", "fractions")}
    path.write_text(json.dumps(old))
    assert _make(output, config).endswith("% lesion")
