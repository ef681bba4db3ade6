"""From choosing a CT to a corrected case in a training folder, with pictures of every step."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from DRAMLesionLib.lobes import Lobe
from Testing.host import pictures
from Testing.module.cases import PICTURES, add_lobes, add_volume
from Testing.module.test_module import choose, edit, same_as_files, type_score, wait_for_run


class Camera:
    """Takes pictures of panel and views where this machine can draw."""

    def __init__(self, host):
        self._host, self._number = host, 0

    def panel(self, name):
        self._host.process_events()
        self._save(name, lambda path: pictures.widget_picture(self._host.app.window, path))

    def slice(self, name, view="Red", offset=None):
        def take(path):
            pictures.slice_picture(self._host.setup, view, path, offset=offset)

        if pictures.can_draw():
            self._save(name, take)

    def three_d(self, name):
        if pictures.can_draw():
            self._save(name, lambda path: pictures.three_d_picture(self._host.setup, path))

    def chart(self, name, chart):
        if pictures.can_draw():
            self._save(name, lambda path: pictures.chart_picture(chart, path))

    def _save(self, name, take):
        self._number += 1
        path = PICTURES / "module" / f"{self._number:02d}-{name}.png"
        take(path)
        assert path.stat().st_size > 500


def test_from_a_ct_to_a_corrected_case_in_a_training_set(module, run, tmp_path):
    from Training.data import find_cases

    camera = Camera(module)
    widget = module.module.widget()
    ui = widget.ui

    # input: the CT, lobes from the scene, one of them corrected
    ct = add_volume(run.ct)
    lobes = add_lobes(run.lobes, ct)
    choose(widget, ct, run)
    ui.lobesFromBox.currentIndex = 1
    ui.lobesNodeSelector.setCurrentNode(lobes)
    box = widget.lobeMatches.boxes["RML"]
    box.currentIndex = box.findText("Segment_3")
    camera.panel("input")

    # the run, in the background
    seen = []
    original = widget.onProgress
    ui.applyButton.click()
    widget.run._process._onProgress = lambda *step: (seen.append(step), original(*step))
    module.wait_for(lambda: any(share > 0.3 for _stage, share in seen), "progress", 120)
    camera.panel("running")
    wait_for_run(module)
    assert ui.statusLabel.text == "Done."
    fractions = [share for _stage, share in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0

    # the result is that of the command line
    result = widget._result()
    same_as_files(result, run)
    camera.panel("result")
    camera.slice("result-axial")
    camera.slice("result-coronal", "Green")
    camera.chart("chart", result.get("chart"))
    ui.show3DButton.click()
    camera.three_d("result-3d")

    # threshold, editing, scores
    ui.editingSection.collapsed = False
    ui.thresholdSlider.value = 0.35
    camera.slice("threshold-axial")
    ui.editButton.click()
    mask = edit(result, run)
    ui.updateScoresButton.click()
    camera.panel("editing")
    camera.slice("edited-axial")
    ui.editButton.click()
    ui.editingSection.collapsed = True
    for lobe, text in zip(("LUL", "LLL", "RUL", "RML", "RLL"), "01230", strict=True):
        type_score(widget, lobe, text)

    # the case as the training reads it
    ui.teachingSection.collapsed = False
    ui.trainingPathEdit.currentPath = str(tmp_path / "my data set")
    ui.addToTrainingButton.click()
    camera.panel("training-set")
    cases, problems = find_cases([tmp_path / "my data set"])
    assert [str(problem) for problem in problems if problem.fatal] == []
    assert cases[0].scores == dict(zip(Lobe, (0, 1, 2, 3, 0), strict=True))

    import SimpleITK as sitk

    label = sitk.GetArrayFromImage(sitk.ReadImage(str(cases[0].label)))
    np.testing.assert_array_equal(label == 2, mask & (run.array("lobes") > 0))
    scan = sitk.GetArrayFromImage(sitk.ReadImage(str(cases[0].scan)))
    np.testing.assert_array_equal(scan, sitk.GetArrayFromImage(run.ct))
