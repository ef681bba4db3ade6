"""The Segment Editor inside the panel, and what is typed beside it."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLineEdit, QPushButton

from DRAMLesionLib.lobes import Lobe
from Testing.module.cases import add_result, add_volume
from Testing.module.driving import choose

# --- the stand-in is as strict as the application -------------------------------------------------


def test_the_stand_in_s_editor_takes_no_mode_before_its_segment(finished):
    import slicer

    _module, widget, _result = finished
    widget.ui.editButton.click()
    node = widget.results.editor.widget.mrmlSegmentEditorNode()
    inside, everywhere = (
        int(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment),
        int(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere),
    )
    node.SetMaskMode(everywhere)
    node.SetMaskSegmentID("")
    node.SetMaskMode(inside)
    node.SetMaskSegmentID("lungs")
    assert node.GetMaskMode() == everywhere, "what the application does"
    node.SetMaskMode(inside)
    assert node.GetMaskMode() == inside


# --- the mask -------------------------------------------------------------------------------------


def is_masked(widget) -> bool:
    import slicer

    editor = widget.results.editor.widget
    node = editor.mrmlSegmentEditorNode()
    shown = editor._object.maskBox().currentText()
    inside = slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
    return (node.GetMaskMode(), node.GetMaskSegmentID()) == (inside, "lungs") and (
        shown == "Inside Lobes (mask for editing)"
    )


def test_the_mask_is_set_at_the_first_opening_and_after_each_scene(finished, run):
    import slicer

    module, widget, _result = finished
    widget.ui.editButton.click()
    assert is_masked(widget)
    for _time in range(2):
        slicer.mrmlScene.Clear(False)
        module.process_events()
        ct = add_volume(run.ct)
        add_result(run, ct)
        choose(widget, ct, run)
        widget.ui.editButton.click()
        assert is_masked(widget)


# --- effects that hold the window up are not offered ----------------------------------------------


def test_the_editor_offers_effects_that_do_not_copy_the_ct(finished):
    module, widget, _result = finished
    widget.ui.editingSection.collapsed = False
    widget.ui.editButton.click()
    module.process_events()
    editor = widget.results.editor.widget
    buttons = editor._object.effectButtons()
    offered = [name for name, button in buttons.items() if button.isVisible()]
    assert {"Paint", "Erase", "Scissors"} <= set(offered)
    assert not {"Threshold", "Level tracing", "Grow from seeds", "Mask volume"} & set(offered)
    assert editor.activeEffect() is None, "none is chosen when it opens"
    QTest.mouseClick(buttons["Erase"], Qt.MouseButton.LeftButton)
    assert editor.activeEffect().name == "Erase"
    # the digits count what is offered: no hidden effect behind any of them
    chosen = {editor.effectByIndex(number).name for number in range(1, len(offered) + 1)}
    assert chosen == set(offered)
    assert editor.effectByIndex(len(offered) + 1) is None


# --- segments are neither removed nor added by the way --------------------------------------------


def test_the_editor_offers_no_button_that_breaks_the_pseudo_label(finished):
    _module, widget, _result = finished
    widget.ui.editingSection.collapsed = False
    widget.ui.editButton.click()
    editor = widget.results.editor.widget._object
    assert editor.isVisible()
    buttons = editor.findChildren(QPushButton)
    assert {button.text() for button in buttons} >= {"Add", "Remove", "Show 3D"}
    assert [button.text() for button in buttons if button.isVisible()] == []


def test_segments_that_were_removed_elsewhere_are_there_again_in_the_editor(finished):
    _module, widget, result = finished
    segmentation = result.get("pseudolabel").GetSegmentation()
    vessels = (result.pseudolabel() == 1).sum()
    for identifier in ("lesion", "lungs"):
        segmentation.RemoveSegment(identifier)
    widget.ui.editButton.click()
    assert set(segmentation.GetSegmentIDs()) == {"lesion", "vessel", "lungs"}
    assert is_masked(widget)
    assert widget.results.editor.widget.currentSegmentID() == "lesion"
    assert (result.pseudolabel() == 1).sum() == vessels
    assert not (result.pseudolabel() == 2).any()


def test_a_pseudo_label_that_is_deleted_closes_the_editor_and_is_said(finished):
    import slicer

    _module, widget, result = finished
    widget.ui.editButton.click()
    slicer.mrmlScene.RemoveNode(result.get("pseudolabel"))
    ui = widget.ui
    assert not ui.editButton.checked
    assert not widget.results.editor.isOpen
    assert not ui.editingSection.enabled
    assert ui.resultLabel.text == (
        "A part of the result of this CT was removed from the scene: pseudo-label. "
        "Apply computes it anew."
    )
    assert ui.applyButton.enabled


def test_table_and_chart_that_were_deleted_are_made_anew(finished):
    import slicer

    _module, widget, result = finished
    for role in ("table", "chart", "series.RML", "chartTable"):
        slicer.mrmlScene.RemoveNode(result.get(role))
    assert widget.ui.scoreTable.rowCount == 8
    widget.ui.showChartButton.click()
    chart = result.get("chart")
    assert chart.GetNumberOfPlotSeriesNodes() == 5
    assert result.get("table").GetNumberOfRows() == 8


# --- digits that are typed ------------------------------------------------------------------------


def click_reader_cell(widget, row: int) -> None:
    table = widget.ui.scoreTable._object
    place = table.visualItemRect(table.item(row, 5)).center()
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)


def press(*keys) -> None:
    """Press keys where the focus is, as a keyboard does."""
    for key in keys:
        QTest.keyClick(QApplication.focusWidget(), key)
        QApplication.processEvents()


def test_scores_are_typed_lobe_by_lobe_while_the_editor_is_open(finished):
    module, widget, result = finished
    module.app.window.activateWindow()
    widget.ui.editingSection.collapsed = False
    widget.ui.editButton.click()
    editor = widget.results.editor.widget
    click_reader_cell(widget, 0)
    assert isinstance(QApplication.focusWidget(), QLineEdit)
    for digit in (Qt.Key.Key_3, Qt.Key.Key_1, Qt.Key.Key_0, Qt.Key.Key_2):
        press(digit, Qt.Key.Key_Return)
    press(Qt.Key.Key_5, Qt.Key.Key_Tab)
    assert list(result.reader_scores.values()) == [3, 1, 0, 2, 5]
    assert editor.activeEffect() is None, "no digit went to the editor"
    assert widget.ui.scoreTable.currentRow() == 0, "after the last lobe comes the first"
    press(Qt.Key.Key_Escape)
    assert widget.ui.scoreTable.currentRow() == -1
    editor.setFocus()
    press(Qt.Key.Key_1)
    assert editor.activeEffect().name == "Paint", "elsewhere they are the editor's"


def test_a_wrong_score_is_said_and_enter_goes_on(finished):
    module, widget, result = finished
    module.app.window.activateWindow()
    click_reader_cell(widget, 2)
    press(Qt.Key.Key_9, Qt.Key.Key_Return)
    assert result.reader_scores[Lobe.RUL] is None
    assert "from 0 to 5, not '9'" in widget.ui.readerMessageLabel.text
    assert widget.ui.scoreTable.currentRow() == 3
    press(Qt.Key.Key_4, Qt.Key.Key_Return)
    assert result.reader_scores[Lobe.RML] == 4
    assert np.sum([s is not None for s in result.reader_scores.values()]) == 1
