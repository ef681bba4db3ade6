"""Synthetic lesions in lungs: a data set that the training reads, with its truth."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.severity import fraction_to_score
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom import make_phantom
from Training.__main__ import main
from Training.dataset.folder import find_cases
from Training.synthesis.make import make_synthetic, other_scanner


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A phantom without lesions stands for a real scan."""
    path = tmp_path_factory.mktemp("scan") / "clear.nii.gz"
    writing.write_image(make_phantom(50, 3.0, scores={}).ct, path)
    return path


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    words = ["--scans", str(source), "--without", "clear=LLL", "--spacing", "3"]
    words += ["--output", str(folder), "--count", "2", "--healthy-share", "0", "--workers", "1"]
    assert main(["synthesis", *words]) == 0
    return folder


def test_scores_are_those_of_the_truth(made):
    cases, problems = find_cases([made])
    assert [case.name for case in cases] == ["clear-synthetic-000000", "clear-synthetic-000001"]
    assert not any(problem.fatal for problem in problems)
    for case in cases:
        lobes = sitk.GetArrayFromImage(sitk.ReadImage(str(case.lobes)))
        types = sitk.GetArrayFromImage(
            sitk.ReadImage(str(made / "truth" / "lesions" / f"{case.name}.nii.gz"))
        )
        assert not types[lobes == 0].any()
        truth = json.loads((made / "truth" / f"{case.name}.json").read_text())["fractions"]
        for lobe in set(Lobe) - {Lobe.LLL}:
            share = (types[lobes == lobe] > 0).mean()
            assert share == pytest.approx(truth[lobe.name])
            assert fraction_to_score(share) == case.scores[lobe]
    assert any(sum(s or 0 for s in case.scores.values()) > 0 for case in cases)


def test_a_lobe_left_out_has_neither_score_nor_lung(made):
    case = find_cases([made])[0][0]
    assert case.scores[Lobe.LLL] is None
    assert not (sitk.GetArrayFromImage(sitk.ReadImage(str(case.lobes))) == Lobe.LLL).any()


def test_made_again_nothing_changes(made, source):
    files = {path: path.stat().st_mtime_ns for path in made.rglob("*.nii.gz")}
    without = {"clear": [Lobe.LLL]}
    names = make_synthetic(made, [source], 2, spacing=3.0, without=without, workers=1)
    assert len(names) == 2
    assert files == {path: path.stat().st_mtime_ns for path in made.rglob("*.nii.gz")}


def test_unknown_scans_and_lobes_are_named(source, tmp_path, capsys):
    with pytest.raises(InputError, match="left out of other, but the scans are clear"):
        make_synthetic(tmp_path, [source], 1, without={"other": [Lobe.LLL]})
    words = ["--scans", str(source), "--output", str(tmp_path), "--count", "1"]
    assert main(["synthesis", *words, "--without", "clear=XXL"]) == 1
    assert "write SCAN=LOBE,LOBE" in capsys.readouterr().err


def test_another_scanner_changes_sharpness_or_noise_and_not_the_mean():
    hu = np.full((30, 30, 30), -850.0, dtype=np.float32)
    hu[:, :, 15:] = 40.0
    for seed in range(6):
        seen = other_scanner(hu, 1.5, np.random.default_rng(seed))
        assert seen[:, :, 2:10].mean() == pytest.approx(-850.0, abs=5.0)
        assert seen[:, :, 20:28].mean() == pytest.approx(40.0, abs=5.0)
        assert seen.std() > 0
