"""Verification names every problem; what prepare leaves needs no imaging library to train on."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch.utils.data import DataLoader

from DRAMLesionLib import writing
from DRAMLesionLib.errors import ScanWarning
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.reading.markups import Point, write_points
from Testing.training.small_cache import write_small_cache
from Training.config import load_config
from Training.dataset.cache import VOXELS, VOXELS_OF_SCAN, read_cache
from Training.dataset.folder import Case, find_cases
from Training.dataset.labelled import LabelledChunks
from Training.dataset.verify import load_case
from Training.dataset.weak_labels import RegionLabel
from Training.stages.prepare import prepare

ROOT = Path(__file__).resolve().parents[3]
TINY = ROOT / "Training" / "configs" / "tiny.yaml"
SCORES = dict.fromkeys(Lobe, 1)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    made = make_phantom(5, 4.0)
    writing.write_image(made.ct, folder / "ct.nii.gz")
    writing.write_image(made.lobes, folder / "lobes.nii.gz")
    return folder


def _said(case, scheme="dram"):
    """Return what verification says, fatal and not."""
    loaded, problems = load_case(case, scheme)
    assert (loaded is None) == any(problem.fatal for problem in problems)
    parts = {True: "", False: ""}
    for problem in problems:
        assert problem.case == case.name
        parts[problem.fatal] += f"{problem.message}\n"
    return parts[True], parts[False]


def _case(phantom, tmp_path, change=None, ct=None, scores=SCORES, label=None):
    """Return a case whose lobe mask or CT was changed."""
    paths = {"ct": phantom / "ct.nii.gz", "lobes": phantom / "lobes.nii.gz"}
    for kind, edit in (("lobes", change), ("ct", ct)):
        if edit is not None:
            path = tmp_path / f"{kind}.nii.gz"
            sitk.WriteImage(edit(sitk.ReadImage(str(paths[kind]))), str(path))
            paths[kind] = path
    return Case("a", paths["ct"], paths["lobes"], scores, label)


def _moved(image, millimetres):
    image.SetOrigin([x + millimetres for x in image.GetOrigin()])
    return image


def _hounsfield(function):
    def edit(image):
        values = function(sitk.GetArrayFromImage(image).astype(np.float32))
        result = sitk.GetImageFromArray(values)
        result.CopyInformation(image)
        return result

    return edit


def test_a_sound_case_is_loaded_and_has_nothing_against_it(phantom, tmp_path):
    assert _said(_case(phantom, tmp_path))[0] == ""


def test_without_a_mask_the_lobes_are_the_embedded_estimate(phantom, monkeypatch):
    true = sitk.ReadImage(str(phantom / "lobes.nii.gz"))
    asked = []

    def estimate(ct, provider, progress):
        asked.append((ct.GetSize(), provider))
        return SimpleNamespace(lobes=true, warnings=[ScanWarning("fissures", "one is missing")])

    monkeypatch.setattr("DRAMLesionLib.lobes.providers.provide_lobes", estimate)
    loaded, problems = load_case(Case("a", phantom / "ct.nii.gz", None, SCORES))
    assert asked == [(true.GetSize(), "embedded")]
    assert loaded is not None
    assert loaded.estimated
    assert "note: a: one is missing" in map(str, problems)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: image * 0, "lobe"),
        (lambda image: _moved(image, 5000.0), "overlap"),
        (lambda image: image[:, :, 5], "3"),
    ],
)
def test_masks_without_lobes_or_on_wrong_grids_are_errors(phantom, tmp_path, change, words):
    fatal, _ = _said(_case(phantom, tmp_path, change))
    assert words in fatal


def test_a_mask_on_another_grid_that_fits_is_used(phantom, tmp_path):
    fatal, _ = _said(_case(phantom, tmp_path, lambda image: sitk.Expand(image, [2, 2, 2])))
    assert fatal == ""


def test_a_mask_of_one_lobe_alone_is_told(phantom, tmp_path):
    one = _case(phantom, tmp_path, lambda image: sitk.Cast(image == 1, sitk.sitkUInt8))
    fatal, notes = _said(one)
    assert fatal == ""
    assert "Not assessable: left lower lobe: not in the lobe mask" in notes


@pytest.mark.parametrize(
    ("ct", "words"),
    [
        (_hounsfield(lambda hu: hu * 0.0 + 40.0), "empty"),
        (_hounsfield(lambda hu: hu.clip(0, None)), "not in Hounsfield units"),
        (_hounsfield(lambda hu: np.maximum(hu, -200.0)), "without any air"),
        (lambda image: image[:, :, 3], "3"),
    ],
)
def test_scans_that_are_no_ct_of_the_lungs_are_errors(phantom, tmp_path, ct, words):
    fatal, _ = _said(_case(phantom, tmp_path, ct=ct))
    assert fatal
    assert words in fatal


def test_a_file_that_is_no_image_and_a_scheme_that_nobody_knows_are_errors(phantom, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    assert _said(Case("a", broken, None, SCORES))[0]
    assert _said(Case("a", phantom / "ct.nii.gz", broken, SCORES))[0]
    assert "'of my own'" in _said(_case(phantom, tmp_path), "of my own")[0]


def test_scores_and_lobes_that_do_not_meet(phantom, tmp_path):
    change = {int(lobe): 0 for lobe in (Lobe.RML, Lobe.RLL)}
    case = _case(phantom, tmp_path, lambda image: sitk.ChangeLabel(image, change))
    fatal, notes = _said(case)
    assert fatal == ""
    for lobe in (Lobe.RML, Lobe.RLL):
        assert f"has a score for the {lobe.full_name}, which its lobes lack" in notes
    only = Case("a", case.scan, case.lobes, dict.fromkeys(Lobe) | {Lobe.RML: 2})
    assert "no lobe has both a score and a place in the scan" in _said(only)[0]


def test_labels_by_hand_are_checked(phantom, tmp_path):
    lobes = sitk.ReadImage(str(phantom / "lobes.nii.gz"))
    path = tmp_path / "label.nii.gz"
    case = _case(phantom, tmp_path, label=path)

    def said(label):
        sitk.WriteImage(label, str(path))
        return _said(case)

    assert "values 3, 4, 5" in said(lobes)[0]
    assert "lies outside of the CT" in said(_moved(sitk.Cast(lobes > 0, sitk.sitkUInt8), 5e3))[0]
    fatal, notes = said(sitk.Cast(lobes > 0, sitk.sitkUInt8))
    assert fatal == ""
    assert "has no lesion (2), but the lobes have scores above 0" in notes
    assert said(sitk.Cast(lobes > 0, sitk.sitkUInt8) * 2) == ("", "")


def _data_set(folder, phantom, table, names=("a",)):
    for kind, file in (("scans", "ct.nii.gz"), ("lobes", "lobes.nii.gz")):
        (folder / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(phantom / file, folder / kind / f"{name}.nii.gz")
    (folder / "scores.csv").write_text("case,LUL,LLL,RUL,RML,RLL\n" + table)
    return folder


def test_rows_scans_and_masks_that_belong_to_nothing_are_named(phantom, tmp_path):
    table = "a,1,1,1,1,1\nb,1,1,1,1,1\nc,,,,,\nd,1,2.5,1,1,1\na,0,0,0,0,0\n,1,1,1,1,1\n"
    folder = _data_set(tmp_path / "data", phantom, table, ("a", "c", "d", "e"))
    shutil.copy(phantom / "lobes.nii.gz", folder / "lobes" / "f.nii.gz")
    shutil.copy(phantom / "ct.nii.gz", folder / "scans" / "d.nrrd")
    cases, problems = find_cases([folder])
    said = "\n".join(map(str, problems))
    assert cases == []
    for words in (
        "error: a: has more than one row",
        "error: b: has scores but no scan",
        "error: c: has no score at all",
        "note: c: the score of the left upper lobe is missing",
        "error: d: the score of the left lower lobe is '2.5', not a whole number 0 to 5",
        "error: d: there are several files for it",
        "error: e: has no row",
        "note: f: has a mask",
        "error: scores.csv: line 7 names no case",
    ):
        assert words in said


def test_notes_are_told_again_when_a_case_is_prepared_already(phantom, tmp_path):
    change = {int(Lobe.RML): 0}
    folder = _data_set(tmp_path / "data", phantom, "a,1,,0,2,1\n")
    lobes = sitk.ChangeLabel(sitk.ReadImage(str(phantom / "lobes.nii.gz")), change)
    sitk.WriteImage(lobes, str(folder / "lobes" / "a.nii.gz"))
    config = load_config(TINY)
    first = prepare([folder], tmp_path / "out", config)
    lines: list[str] = []
    second = prepare([folder], tmp_path / "out", config, lines.append)
    assert "1 of 1 cases are prepared already" in lines
    assert list(map(str, first)) == list(map(str, second))
    kept = (tmp_path / "out" / "cache" / "problems.txt").read_text()
    assert "the score of the left lower lobe is missing" in kept
    assert "has a score for the right middle lobe, which its lobes lack" in kept


def _labelled_set(folder, phantom):
    """Write three scans with labels of other kinds than scores, one contradiction in each."""
    _data_set(folder, phantom, "", ("a", "b", "c"))
    (folder / "scores.csv").unlink()
    ct, lobes = (sitk.ReadImage(str(phantom / f"{name}.nii.gz")) for name in ("ct", "lobes"))
    values = sitk.GetArrayFromImage(lobes)
    middle = int(np.argmax((values > 0).sum(axis=(1, 2))))
    (folder / "labels.csv").write_text(
        f"case,region,lower,upper\na,lungs,30,\na,slice:{middle},diseased,\nb,LUL,free,\nb,LUL,9,\n"
    )
    k, j, i = (int(n) for n in np.argwhere(values == Lobe.RLL)[500])
    inside, outside = (ct.TransformIndexToPhysicalPoint(n) for n in ((i, j, k), (0, 0, 0)))
    (folder / "points").mkdir()
    write_points([Point(inside, True), Point(outside, False)], folder / "points" / "b.mrk.json")
    (folder / "masks").mkdir()
    mask = np.where(values == Lobe.RLL, 1, 255).astype(np.uint8)
    image = sitk.GetImageFromArray(mask)
    image.CopyInformation(lobes)
    sitk.WriteImage(image, str(folder / "masks" / "c.nii.gz"))
    return middle


def test_labels_of_every_kind_are_prepared_counted_and_learnt_from_without_scores(
    phantom, tmp_path
):
    folder = tmp_path / "data"
    middle = _labelled_set(folder, phantom)
    changes = ["prepare.vessels=false", "prepare.validation_share=0", "regression.vessels=frangi"]
    config = load_config(TINY, changes)
    lines: list[str] = []
    problems = prepare([folder], tmp_path / "out", config, lines.append)
    said = "\n".join(map(str, problems))
    assert not any(problem.fatal for problem in problems)
    assert "note: b: 'LUL free' and 'LUL 4 to 14 %' contradict each other" in said
    assert "note: b: 1 background points lie outside of the lungs" in said
    assert (
        "labels of 3 cases: 1 per cents of lungs, 1 slices diseased, 1 lobes free of lesions, "
        "1 per cents of lobes, 1 lesion points, 1 background points, 1 masks"
    ) in lines
    a, b, c = read_cache(tmp_path / "out" / "cache")
    assert [one.name for one in a.regions] == ["lungs", f"slice:{middle}"]
    assert a.known == set(Lobe)
    assert (b.outlined, c.outlined) == ({Lobe.RLL}, {Lobe.RLL})
    for case, voxels in ((b, 2), (c, None)):
        for name in (VOXELS, VOXELS_OF_SCAN):
            seen = np.asarray(case.load(name))
            lobes = np.asarray(case.load(name.replace("voxels", "lobes")))
            assert (seen == 1).any()
            assert np.mean(lobes[seen == 1] == Lobe.RLL) > 0.9
            assert voxels is None or (seen != 255).sum() in (1, voxels)
    batch = next(iter(DataLoader(LabelledChunks([a, b, c], config.regression, 0, True), 3)))
    assert bool(torch.isfinite(batch["image"]).all())
    again: list[str] = []
    assert list(map(str, prepare([folder], tmp_path / "out", config, again.append))) == list(
        map(str, problems)
    )
    assert "3 of 3 cases are prepared already" in again
    (folder / "labels.csv").write_text("case,region,lower,upper\na,lungs,40,\n")
    prepare([folder], tmp_path / "out", config, again.append)
    assert "1 of 3 cases are prepared already" in again
    assert [one.lower for one in read_cache(tmp_path / "out" / "cache")[0].regions] == [0.35]


def test_a_slice_that_the_ct_lacks_and_a_mask_of_another_scan_are_errors(phantom, tmp_path):
    case = replace(
        _case(phantom, tmp_path, scores=dict.fromkeys(Lobe)),
        regions=(RegionLabel("slice:5000", 0.0, 0.0),),
    )
    assert "has a label of slice:5000, but the CT has the slices 0 to" in _said(case)[0]
    lobes = sitk.ReadImage(str(phantom / "lobes.nii.gz"))
    path = tmp_path / "mask.nii.gz"
    sitk.WriteImage(_moved(sitk.Cast(lobes > 0, sitk.sitkUInt8), 5e3), str(path))
    assert (
        "the mask mask.nii.gz lies outside of the CT"
        in _said(replace(case, regions=(), mask=path))[0]
    )


WITHOUT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("SimpleITK", "skimage", "slicer", "vtk", "mrml",
                                  "pydicom", "nibabel"):
            raise ModuleNotFoundError(f"{name} is not on this machine")

sys.meta_path.insert(0, Blocker())
from Training.__main__ import main
for stage in sys.argv[1].split(","):
    assert main([stage, *sys.argv[2:]]) == 0, stage
"""


def test_a_machine_without_imaging_libraries_trains_on_the_cache(tmp_path):
    write_small_cache(tmp_path / "cache")
    words = ["--config", str(TINY), "--data", str(tmp_path), "--output", str(tmp_path)]
    for name in ("vessels", "regression", "segmentation"):
        words += ["--set", f"{name}.loop.steps=2"]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", WITHOUT, "vessels,regression,segmentation", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for case in read_cache(tmp_path / "cache"):
        assert case.has("regression/vessels_network")
    assert (tmp_path / "segmentation" / "checkpoint.pt").is_file()
