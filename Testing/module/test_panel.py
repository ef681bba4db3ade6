"""The panel with a result, and all that is no run: real widgets are clicked and typed into."""

from __future__ import annotations

import os
import shutil
import sys
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from DRAMLesionLib.lobes import Lobe
from Testing.host.host import Host, SampleDataLogic
from Testing.module.cases import MODULE, add_result, add_volume
from Testing.module.driving import (
    choose,
    edit,
    fake_library,
    finished_library,
    show_surfaces,
    type_score,
    wait_for_run,
)

# --- with a result --------------------------------------------------------------------------------


def test_the_table_shows_the_result_and_takes_scores(finished, run):
    import qt

    _module, widget, result = finished
    table = widget.ui.scoreTable
    names = [table.item(row, 0).text() for row in range(table.rowCount)]
    assert names == [*(lobe.name for lobe in Lobe), "left lung", "right lung", "total"]
    total = run.report["totals"][2]
    assert table.item(7, 3).text() == f"{total['lesion_percent']:.1f}"
    assert table.item(7, 4).text() == f"{total['score']} / 25"
    assert f"score {total['score']} / 25" in widget.ui.resultLabel.text
    for warning in result.warnings:
        assert warning in widget.ui.warningsLabel.text
    assert not table.item(0, 3).flags() & qt.Qt.ItemIsEditable
    assert not table.item(7, 5).flags() & qt.Qt.ItemIsEditable
    type_score(widget, "RUL", "4")
    assert result.reader_scores[Lobe.RUL] == 4
    type_score(widget, "RML", "7")
    assert widget.ui.readerMessageLabel.text == (
        "A reader's score is a whole number from 0 to 5, not '7'"
    )
    assert result.reader_scores[Lobe.RML] is None
    assert table.item(3, 5).text() == ""
    type_score(widget, "RML", "0")
    assert not widget.ui.readerMessageLabel.isVisible()


def test_how_sure_a_percentage_is_stands_in_the_tool_tip_until_the_numbers_are_edited(finished):
    _module, widget, result = finished
    table = widget.ui.scoreTable
    assert "to" not in table.item(0, 3).toolTip().split(":")[-1]
    sure = {
        "lesion_percent": 4.0,
        "score": 1,
        "lesion_percent_low": 2.5,
        "lesion_percent_high": 6.0,
        "score_low": 1,
        "score_high": 2,
    }
    result.set_rows([replace(result.rows[0], **sure), *result.rows[1:]], "network")
    widget.results.forget()
    widget.results.update()
    for column in (3, 4):
        tip = table.item(0, column).toolTip()
        assert tip.startswith("left upper lobe: 2.5 to 6.0 %, score 1 (1–2);")
    assert table.item(0, 0).toolTip() == "left upper lobe"
    widget.ui.thresholdSlider.value = 0.3
    assert table.item(0, 3).toolTip() == "left upper lobe"


def test_the_threshold_moves_segment_table_and_chart(finished, run):
    _module, widget, result = finished
    widget.ui.thresholdSlider.value = 0.3
    expected = (run.array("dram_refined") > np.float32(0.3)) & (run.array("lobes") > 0)
    np.testing.assert_array_equal(result.pseudolabel() == 2, expected)
    share = 100.0 * expected.sum() / (run.array("lobes") > 0).sum()
    assert widget.ui.scoreTable.item(7, 3).text() == f"{share:.1f}"
    assert widget.ui.tableSourceBox.currentText == "Pseudo-label"
    chart = result.get("chartTable").GetTable().GetColumnByName("LUL")
    lul = 100.0 * expected[run.array("lobes") == Lobe.LUL].mean()
    assert chart.GetValue(1) == pytest.approx(lul)
    assert result.get("series.LUL").GetName() == f"LUL {lul:.1f} %"
    assert result.get("pseudolabel").GetDisplayNode().GetVisibility()
    lesions = result.get("segmentation").GetDisplayNode()
    assert not lesions.GetSegmentVisibility("ground_glass")
    widget.ui.tableSourceBox.currentIndex = 0
    total = run.report["totals"][2]
    assert widget.ui.scoreTable.item(7, 3).text() == f"{total['lesion_percent']:.1f}"
    assert lesions.GetSegmentVisibility("ground_glass")


def test_an_empty_refined_dram_is_said_and_the_dram_shown(module, run, tmp_path):
    import SimpleITK as sitk

    widget = module.module.widget()
    folder = tmp_path / "result"
    shutil.copytree(run.folder, folder)
    refined = sitk.ReadImage(str(folder / "dram_refined.nii.gz"))
    sitk.WriteImage(refined * 1e-4, str(folder / "dram_refined.nii.gz"))
    finished_library(tmp_path, folder)
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    wait_for_run(module, 20)
    assert widget.ui.heatMapBox.currentText == "dRAM"
    widget.ui.editingSection.collapsed = False
    assert widget.ui.mapLabel.isVisible()


def test_moving_the_threshold_asks_before_it_replaces_edits(finished, run):
    module, widget, result = finished
    mask = edit(result, run)
    module.dialogs.answers.append(("was edited by hand", "Cancel"))
    widget.ui.thresholdSlider.value = 0.7
    assert widget.ui.thresholdSlider.value == pytest.approx(0.5)
    np.testing.assert_array_equal(result.pseudolabel() == 2, mask & (run.array("lobes") > 0))
    module.dialogs.answers.append(("was edited by hand", "Ok"))
    widget.ui.thresholdSlider.value = 0.6
    widget.ui.thresholdSlider.value = 0.7  # while it is being replaced: nothing is asked again
    module.wait_for(lambda: widget.results._preparing is None, "the replacement")
    assert len(module.dialogs.messages) == 2
    assert result.threshold == pytest.approx(0.7)
    assert widget.ui.thresholdSlider.tracking
    assert result.edited() == []
    assert (result.pseudolabel() == 2).sum() < mask.sum()


def test_the_open_section_makes_the_slider_ready_step_by_step(finished, run):
    module, widget, result = finished
    slider, handle = widget.ui.thresholdSlider, widget.ui.thresholdSlider._object._slider
    widget.ui.editingSection.collapsed = False
    assert not slider.tracking, "nothing was computed while the click was handled"
    module.wait_for(lambda: slider.tracking, "the preview")
    before = widget.ui.scoreTable.item(7, 3).text()
    handle.setSliderDown(True)
    handle.setValue(round(0.2 * handle.maximum()))
    assert widget.ui.scoreTable.item(7, 3).text() != before, "the table follows the drag"
    handle.setSliderDown(False)
    widget.ui.editingSection.collapsed = True
    label = edit(result, run)
    widget.ui.editingSection.collapsed = False
    module.wait_for(lambda: widget.results._preparing is None, "the look at the label")
    assert not slider.tracking
    np.testing.assert_array_equal(result.pseudolabel() == 2, label & (run.array("lobes") > 0))
    # another CT while it is being prepared: what is ready is not that of this one
    widget.ui.editingSection.collapsed = True
    widget.ui.editingSection.collapsed = False
    widget.ui.inputVolumeSelector.setCurrentNode(add_volume(run.ct, "other"))
    assert widget.results._preparing is None
    module.process_events()
    assert widget.results._preview is None


def test_a_drag_asks_about_edits_once_and_when_it_has_ended(finished, run):
    module, widget, result = finished
    edit(result, run)
    handle = widget.ui.thresholdSlider._object._slider
    handle.setSliderDown(True)
    for share in (0.6, 0.7, 0.8):
        handle.setValue(round(share * handle.maximum()))
    assert module.dialogs.messages == []
    module.dialogs.answers.append(("was edited by hand", "Ok"))
    handle.setSliderDown(False)
    assert len(module.dialogs.messages) == 1
    module.wait_for(lambda: widget.results._preparing is None, "the replacement")
    assert result.threshold == pytest.approx(widget.ui.thresholdSlider.value)
    before = widget.ui.scoreTable.item(7, 3).text()
    handle.setSliderDown(True)
    handle.setValue(round(0.2 * handle.maximum()))
    assert widget.ui.scoreTable.item(7, 3).text() != before, "now the table follows the drag"
    handle.setSliderDown(False)
    widget.ui.editButton.click()
    assert not widget.ui.thresholdSlider.tracking
    widget.ui.editButton.click()
    assert widget.ui.thresholdSlider.tracking


def test_the_editor_opens_on_the_pseudo_label_masked_to_the_lobes(finished, run):
    import slicer

    module, widget, result = finished
    widget.ui.editButton.click()
    editor = widget.results.editor.widget
    node = editor.mrmlSegmentEditorNode()
    assert editor.segmentationNode() is result.get("pseudolabel")
    assert editor.sourceVolumeNode() is result.ct
    assert editor.currentSegmentID() == "lesion"
    assert node.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
    assert node.GetMaskSegmentID() == "lungs"
    assert node.GetOverwriteMode() == slicer.vtkMRMLSegmentEditorNode.OverwriteVisibleSegments
    display = result.get("pseudolabel").GetDisplayNode()
    assert not display.GetSegmentVisibility("lungs")
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(result.get("pseudolabel"), "lungs", result.ct)
    np.testing.assert_array_equal(mask > 0, run.array("lobes") > 0)
    painted = edit(result, run)
    before = widget.ui.scoreTable.item(2, 3).text()
    widget.ui.updateScoresButton.click()
    inside = painted & (run.array("lobes") == Lobe.RUL)
    share = 100.0 * inside.sum() / (run.array("lobes") == Lobe.RUL).sum()
    assert widget.ui.scoreTable.item(2, 3).text() == f"{share:.1f}" != before
    assert editor._object.shortcuts == 10
    module.leave()
    assert editor._object.shortcuts == 0
    module.show()
    assert editor._object.shortcuts == 10
    widget.ui.editButton.click()
    assert not editor.isVisible()
    slicer.mrmlScene.Clear(False)
    assert editor.segmentationNode() is None


@pytest.mark.parametrize(("answer", "kept"), [("Keep", True), ("Replace", False), ("Cancel", None)])
def test_running_again_asks_before_it_replaces_edits(finished, run, tmp_path, answer, kept):
    module, widget, result = finished
    mask = edit(result, run)
    pids = finished_library(tmp_path, run.folder)
    module.dialogs.answers.append(("Edited by hand: CT pseudo-label", answer))
    widget.ui.applyButton.click()
    wait_for_run(module, 20)
    assert pids.exists() is (kept is not None)
    now = result.pseudolabel() == 2
    as_edited = bool((now == (mask & (run.array("lobes") > 0))).all())
    assert as_edited is (kept is not False)
    assert result.edited() == ([] if kept is False else ["pseudolabel"])


def test_edits_are_asked_about_even_if_a_part_of_the_result_was_deleted(finished, run):
    import slicer

    module, widget, result = finished
    edit(result, run)
    slicer.mrmlScene.RemoveNode(result.get("dram"))
    assert widget.ui.resultLabel.text == (
        "A part of the result of this CT was removed from the scene: dRAM. Apply computes it anew."
    )
    module.dialogs.answers.append(("Edited by hand: CT pseudo-label", "Cancel"))
    widget.ui.applyButton.click()
    assert widget.run is None
    assert len(module.dialogs.messages) == 1


def test_heat_map_and_views_follow_the_panel(finished, run):
    import slicer

    _module, widget, result = finished
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    ui = widget.ui
    ui.opacitySlider.value = 0.8
    assert composite.GetForegroundVolumeID() == result.get("refined").GetID()
    assert composite.GetBackgroundVolumeID() == result.ct.GetID()
    assert composite.GetForegroundOpacity() == pytest.approx(0.8)
    ui.floorSlider.value = 0.25
    assert result.get("refined").GetDisplayNode().GetLowerThreshold() == pytest.approx(0.25)
    ui.heatMapBox.currentIndex = 1
    assert composite.GetForegroundVolumeID() == result.get("dram").GetID()
    ui.heatMapBox.currentIndex = 2
    assert composite.GetForegroundVolumeID() is None


def test_chart_and_surfaces_on_request(finished):
    import slicer

    module, widget, result = finished
    widget.ui.showChartButton.click()
    plot_view = slicer.util.getNodesByClass("vtkMRMLPlotViewNode")
    shown = slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID()
    chart = result.get("chart").GetID()
    assert chart == shown or chart in [node.GetPlotChartNodeID() for node in plot_view]
    show_surfaces(module, widget)
    assert result.get("segmentation").GetSegmentation().ContainsRepresentation("Closed surface")
    widget.ui.show3DButton.click()
    assert not result.get("segmentation").GetSegmentation().ContainsRepresentation("Closed surface")


def test_the_panel_finds_a_saved_result_again(finished, run, tmp_path):
    import slicer

    module, widget, result = finished
    type_score(widget, "LLL", "3")
    widget.ui.thresholdSlider.value = 0.4
    rows = [row.lesion_percent for row in result.rows]
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(False)
    module.process_events()
    assert widget.ui.scoreTable.rowCount == 0
    assert widget.ui.resultLabel.text == "No result for this CT yet."
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    module.process_events()
    assert widget.ui.inputVolumeSelector.currentNode().GetName() == "CT"
    assert widget.ui.scoreTable.item(1, 5).text() == "3"
    assert widget.ui.thresholdSlider.value == pytest.approx(0.4)
    assert [row.lesion_percent for row in widget._result().rows] == rows
    widget.ui.thresholdSlider.value = 0.5
    expected = (run.array("dram_refined") > np.float32(0.5)) & (run.array("lobes") > 0)
    np.testing.assert_array_equal(widget._result().pseudolabel() == 2, expected)


def test_another_ct_has_a_result_of_its_own(finished, run):
    _module, widget, result = finished
    other = add_volume(run.ct, "other CT")
    widget.ui.inputVolumeSelector.setCurrentNode(other)
    assert widget.ui.scoreTable.rowCount == 0
    assert not widget.ui.addToTrainingButton.enabled
    widget.ui.inputVolumeSelector.setCurrentNode(result.ct)
    assert widget.ui.scoreTable.rowCount == 8


def test_a_case_goes_into_the_training_set(finished, run, tmp_path):
    from Training.dataset.folder import find_cases

    module, widget, _result = finished
    ui = widget.ui
    assert ui.addToTrainingButton.toolTip == "Choose the training folder."
    ui.trainingPathEdit.currentPath = str(tmp_path / "set")
    assert "Type your own scores" in ui.addToTrainingButton.toolTip
    type_score(widget, "RUL", "4")
    assert ui.caseNameEdit.text == "case-0001"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scores.csv").write_text("case,LUL,LLL,RUL,RML,RLL\ncase-0001,,,,,1\n")
    ui.trainingPathEdit.currentPath = str(tmp_path / "other")
    assert ui.caseNameEdit.text == "case-0002"
    ui.trainingPathEdit.currentPath = str(tmp_path / "set")
    ui.caseNameEdit.text = "Jane Doe"
    assert "is named with letters" in ui.addToTrainingButton.toolTip
    ui.caseNameEdit.text = "reader-1"
    ui.addToTrainingButton.click()
    assert ui.trainingMessageLabel.text == (
        "Wrote 3 files of reader-1. "
        "The pseudo-label was not changed by hand: the training computes its own."
    )
    cases, problems = find_cases([tmp_path / "set"])
    assert [str(p) for p in problems if p.fatal] == []
    assert (cases[0].name, cases[0].scores[Lobe.RUL], cases[0].label) == ("reader-1", 4, None)
    listed = widget.improvement.caseTable
    shown = [listed.item(0, column).text() for column in range(3)]
    assert (listed.rowCount, shown) == (1, ["reader-1", "– – 4 – –", "–"])
    for threshold, count in ((0.4, 4), (0.5, 3)):
        ui.thresholdSlider.value = threshold
        module.dialogs.answers.append(("has a case reader-1 already", "Ok"))
        ui.addToTrainingButton.click()
        assert ui.trainingMessageLabel.text.startswith(f"Wrote {count} files of reader-1.")
        cases, _problems = find_cases([tmp_path / "set"])
        assert (cases[0].label is not None) is (count == 4)
    module.dialogs.answers.append(("has a case reader-1 already", "Cancel"))
    ui.addToTrainingButton.click()
    (tmp_path / "set" / "scores.csv").write_text("nonsense\n")
    ui.caseNameEdit.text = "reader-2"
    ui.addToTrainingButton.click()
    message = module.dialogs.messages[-1]
    assert "is no table with the columns" in message.text


# --- the rest -------------------------------------------------------------------------------------


def test_choices_are_kept_for_the_next_scene(module, run, tmp_path):
    import slicer

    widget = module.module.widget()
    fake_library(tmp_path, "time.sleep(30)")
    choose(widget, add_volume(run.ct), run)
    widget.ui.trainingPathEdit.currentPath = str(tmp_path)
    widget.ui.applyButton.click()
    slicer.mrmlScene.Clear(False)
    module.process_events()
    assert widget.ui.weightsPathEdit.currentPath == str(run.weights)
    assert widget.ui.trainingPathEdit.currentPath == str(tmp_path)
    assert widget.ui.deviceBox.currentText == "Processor (CPU)"


def test_sample_data_is_made_here(module, run, monkeypatch):
    import DRAMLesionPanel.logic as logic

    entry = SampleDataLogic.registered[-1]
    assert (entry["category"], entry["sampleName"]) == ("DRAMLesion", "DRAMLesionPhantom")
    assert not entry["uris"]
    assert Path(entry["thumbnailFileName"]).is_file()
    monkeypatch.setattr("DRAMLesionLib.phantom.make_phantom", lambda **_options: run)
    assert SampleDataLogic().downloadSamples("DRAMLesionPhantom") == [], "a script gets nothing"
    ct = entry["customDownloader"](None)[0]
    assert ct.GetName() == "DRAMLesionPhantom"
    assert logic.DRAMLesionLogic().inputProblem(ct) == ""


def be_quick(monkeypatch, run):
    """Let the module's own test have a phantom and a run that are there already."""
    from DRAMLesionPanel.logic import DRAMLesionLogic

    def process(_logic, ct, _lobes, device):
        return add_result(run, ct)

    monkeypatch.setattr("DRAMLesionLib.phantom.make_phantom", lambda **_options: run)
    monkeypatch.setattr(DRAMLesionLogic, "process", process)


def test_the_module_s_own_test_runs(module, run, monkeypatch):
    import DRAMLesionPanel.self_test as self_test

    be_quick(monkeypatch, run)
    monkeypatch.setattr(self_test.dependencies, "missing", lambda: ["torch>=2.5"])
    module.module.instance().runTest(msec=0)
    monkeypatch.setattr(self_test.dependencies, "missing", list)
    module.module.instance().runTest(msec=0)


def test_the_module_s_own_test_runs_under_unittest_too(module, run, monkeypatch):
    """The way of slicer_add_python_unittest: the loader's, not that of runTest."""
    import DRAMLesionPanel.self_test as self_test

    def results():
        found = unittest.TestResult()
        tests = unittest.TestLoader().loadTestsFromTestCase(module.module.source().DRAMLesionTest)
        assert tests.countTestCases() == 2
        tests.run(found)
        assert (found.errors, found.failures) == ([], [])
        return [test.id().rpartition(".")[2] for test, _reason in found.skipped]

    be_quick(monkeypatch, run)
    monkeypatch.setattr(self_test.dependencies, "missing", lambda: ["torch>=2.5"])
    assert results() == ["test_result"]
    monkeypatch.setattr(self_test.dependencies, "missing", list)
    assert results() == []


def test_a_result_that_needs_a_missing_package_says_so(module, run, monkeypatch):
    ct = add_volume(run.ct)
    add_result(run, ct)
    monkeypatch.setitem(sys.modules, "DRAMLesionLib.report.model", None)
    widget = module.module.widget()
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    assert "cannot be shown yet: DRAMLesionLib.report.model is not" in widget.ui.resultLabel.text
    assert widget.ui.scoreTable.rowCount == 0
    monkeypatch.undo()
    widget._onParameters()
    assert widget.ui.scoreTable.rowCount == 8


def test_everything_can_be_reached_with_the_keyboard(finished):
    import qt

    _module, widget, _result = finished
    ui = widget.ui
    mnemonics = []
    for name, child in vars(ui).items():
        text = getattr(child, "text", "") if hasattr(child, "text") else ""
        if isinstance(text, str) and "&" in text:
            mnemonics.append(text[text.index("&") + 1].lower())
            if child.inherits("QLabel"):
                assert child.buddy() is not None, name
    assert len(mnemonics) == len(set(mnemonics)), sorted(mnemonics)
    assert not set(mnemonics) & set("fevh"), "the menus of Slicer's window have these"
    kinds = (qt.QPushButton, qt.QComboBox, qt.QTableWidget, qt.QLineEdit)
    for name, child in vars(ui).items():
        if isinstance(child, kinds) and not name.startswith("qt_"):
            assert child.focusPolicy & qt.Qt.TabFocus, name
            assert child.toolTip, name


def slicer_modules() -> tuple[str, ...]:
    import slicer

    return slicer.app.moduleManager().factoryManager().loadedModuleNames()


def test_help_says_what_it_is_and_what_to_cite(module):
    description = module.module
    assert description.title == "DRAMLesion"
    assert description.categories == ["Segmentation"]
    assert all(name in slicer_modules() for name in description.dependencies)
    assert "Not a medical device" in description.helpText
    assert "arXiv:2105.11748" in description.acknowledgementText
    for text in ("&Apply", "Choose a CT.", "No result for this CT yet."):
        assert text in module.translated


def test_it_works_without_a_window(run):
    with Host(MODULE, main_window=False) as host:
        logic = host.module.source().DRAMLesionLogic()
        ct = add_volume(run.ct)
        assert logic.inputProblem(ct) == ""
        result = add_result(run, ct)
        assert result.complete
    assert os.environ.get("HOME")
