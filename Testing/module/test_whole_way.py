"""From choosing a CT to a corrected case in a training folder: the README's tutorial, smaller."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from DRAMLesionLib.lobes import Lobe
from Testing.module.cases import add_lobes, add_volume
from Testing.module.driving import choose, edit, same_as_files
from Testing.module.tutorial import SCORES, Camera, Tutorial


def test_from_a_ct_to_a_corrected_case_in_a_training_set(module, run, tmp_path):
    from DRAMLesionLib.mrml import volumes
    from Training.dataset.folder import find_cases

    steps = Tutorial(module, Camera(module))
    ct = add_volume(run.ct)
    choose(steps.widget, ct, run)
    steps.choose_input(ct, add_lobes(run.lobes, ct))
    box = steps.widget.lobeMatches.boxes["RML"]
    box.currentIndex = box.findText("Segment_3")

    result = steps.apply(600.0)
    assert steps.ui.statusLabel.text == "Done."
    fractions = [share for _stage, share in steps.seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    same_as_files(result, run)

    steps.look(result)
    steps.move_threshold(0.35)
    before = result.pseudolabel()
    lesion = np.argwhere(before == 2)[0]
    steps.point((volumes.ijk_to_world(ct) @ (*lesion[::-1], 1.0))[:3])
    np.testing.assert_array_equal(result.pseudolabel(), before, "the point was taken back")
    mask = steps.edit(lambda: edit(result, run))
    steps.add_to_training_set(tmp_path / "my data set")

    cases, problems = find_cases([tmp_path / "my data set"])
    assert [str(problem) for problem in problems if problem.fatal] == []
    assert cases[0].scores == {lobe: int(SCORES[lobe.name]) for lobe in Lobe}
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(cases[0].label)))
    np.testing.assert_array_equal(label == 2, mask & (run.array("lobes") > 0))
    scan = sitk.GetArrayFromImage(sitk.ReadImage(str(cases[0].scan)))
    np.testing.assert_array_equal(scan, sitk.GetArrayFromImage(run.ct))
