"""Points that a reader clicks into the views, and what follows them in the panel."""

from __future__ import annotations

import json

import numpy as np
import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.reading.markups import Point, read_points, write_points
from Testing.module.cases import add_result, add_volume
from Testing.module.driving import choose, edit, type_score

# --- driving --------------------------------------------------------------------------------------


def world(ct, voxel):
    """Middle of a voxel (k, j, i) in world RAS mm."""
    from DRAMLesionLib.mrml import volumes

    return (volumes.ijk_to_world(ct) @ (*voxel[::-1], 1.0))[:3].tolist()


def voxels(result, lobe, lesion):
    """Voxels of a lobe on one side of the threshold, in an order that jumps about."""
    from DRAMLesionLib.mrml import segments

    inside = result.lobes() == lobe
    vessels = segments.mask_of(result.get("segmentation"), "vessels", result.ct)
    where = np.argwhere(inside & ~vessels & ((result.pseudolabel() == 2) == lesion))
    return [tuple(int(v) for v in one) for one in np.random.default_rng(5).permutation(where)]


def settle(module, widget):
    """Wait until the panel has followed all points."""
    module.wait_for(lambda: not widget.points._timer.active, "the points to be followed")


def place(module, widget, result, lobe, lesion, number=0):
    """Press a button and click into the middle of what is on the wrong side; returns the voxel."""
    ui = widget.ui
    button = ui.lesionPointButton if lesion else ui.backgroundPointButton
    voxel = voxels(result, lobe, not lesion)[number]
    if not button.checked:
        button.click()
    module.mouse.hover(world(result.ct, [v + 1 for v in voxel]))
    module.mouse.click(world(result.ct, voxel))
    settle(module, widget)
    return voxel


def snapshot(result):
    """Everything that follows points, as it is now."""
    import slicer

    values = slicer.util.arrayFromVolume(result.get(result.map_role)).copy()
    return values, result.pseudolabel(), [row.lesion_ml for row in result.rows], result.edited()


def assert_same(now, before):
    for one, other in zip(now, before, strict=True):
        np.testing.assert_equal(one, other)


# --- the stand-in is as strict as the application -------------------------------------------------


def test_a_point_that_hovers_belongs_to_its_list_with_a_status_of_its_own(finished):
    import slicer

    module, widget, result = finished
    widget.ui.lesionPointButton.click()
    module.mouse.hover(world(result.ct, (10, 10, 10)))
    node = result.get("lesionPoints")
    assert node.GetNumberOfControlPoints() == 1
    assert node.GetNthControlPointPositionStatus(0) == node.PositionPreview
    module.mouse.escape()
    assert node.GetNumberOfControlPoints() == 0
    module.mouse.click(world(result.ct, (10, 10, 10)))
    assert node.GetNumberOfControlPoints() == 0, "outside of place mode a click places nothing"
    assert slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode") == [node]


# --- placing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lesion", [True, False])
def test_a_click_is_obeyed_and_changes_its_lobe_alone(finished, lesion):
    module, widget, result = finished
    before = result.pseudolabel()
    voxel = place(module, widget, result, Lobe.RLL, lesion)
    after, lobes = result.pseudolabel(), result.lobes()
    assert (after[voxel] == 2) == lesion
    np.testing.assert_array_equal(after[lobes != Lobe.RLL], before[lobes != Lobe.RLL])
    assert result.get("segmentation") is not None
    assert not result.is_edited("pseudolabel"), "nobody painted"
    assert result.pseudolabel_is_chosen


def test_table_chart_and_texts_follow(finished):
    import slicer

    module, widget, result = finished
    place(module, widget, result, Lobe.RLL, lesion=True)
    ui = widget.ui
    row = next(row for row in result.rows if row.name == "RLL")
    volume = (result.lobes() == Lobe.RLL).sum()
    lesion = ((result.lobes() == Lobe.RLL) & (result.pseudolabel() == 2)).sum()
    assert row.lesion_percent == pytest.approx(100.0 * lesion / volume)
    assert ui.tableSourceBox.currentIndex == 1
    shown = [
        ui.scoreTable.item(r, 3).text()
        for r in range(5)
        if ui.scoreTable.item(r, 0).text() == "RLL"
    ]
    assert shown == [f"{row.lesion_percent:.1f}"]
    assert ui.pointsLabel.text == "Points: 1 lesion, 0 background."
    chart = result.get("chartTable").GetTable()
    column = chart.GetColumnByName("RLL")
    numbers = [column.GetValue(n) for n in range(column.GetNumberOfValues())]
    assert any(n == pytest.approx(row.lesion_percent) for n in numbers)
    values = slicer.util.arrayFromVolume(result.get(result.map_role))
    np.testing.assert_array_equal(
        (values > np.float32(result.threshold)) & (result.lobes() > 0), result.pseudolabel() == 2
    )


def test_a_second_count_from_the_segments_gives_the_same_numbers(finished):
    module, widget, result = finished
    place(module, widget, result, Lobe.RLL, lesion=True)
    place(module, widget, result, Lobe.LUL, lesion=False)
    before = [(row.name, row.volume_ml, row.lesion_ml, row.score) for row in result.rows]
    widget.ui.updateScoresButton.click()
    after = [(row.name, row.volume_ml, row.lesion_ml, row.score) for row in result.rows]
    assert [a[0] for a in after] == [b[0] for b in before]
    for one, other in zip(after, before, strict=True):
        assert one[1:3] == pytest.approx(other[1:3])
        assert one[3] == other[3]


def test_the_buttons_show_the_mode_of_the_application(finished):
    module, widget, result = finished
    ui = widget.ui
    ui.lesionPointButton.click()
    assert (ui.lesionPointButton.checked, ui.backgroundPointButton.checked) == (True, False)
    ui.backgroundPointButton.click()
    assert (ui.lesionPointButton.checked, ui.backgroundPointButton.checked) == (False, True)
    module.mouse.escape()
    assert (ui.lesionPointButton.checked, ui.backgroundPointButton.checked) == (False, False)
    ui.lesionPointButton.click()
    ui.lesionPointButton.click()
    module.mouse.click(world(result.ct, (10, 10, 10)))
    assert result.get("lesionPoints").GetNumberOfControlPoints() == 0
    ui.lesionPointButton.click()
    module.leave()
    assert not ui.lesionPointButton.checked


def test_a_point_in_no_lobe_is_told_and_changes_nothing(finished):
    module, widget, result = finished
    before = snapshot(result)
    widget.ui.lesionPointButton.click()
    module.mouse.click(world(result.ct, (0, 0, 0)))
    settle(module, widget)
    assert_same(snapshot(result), before)
    assert "1 in no lobe" in widget.ui.pointsLabel.text
    assert not result.pseudolabel_is_chosen


# --- taking back ----------------------------------------------------------------------------------


def test_vessels_that_are_changed_by_hand_are_what_the_next_point_finds(finished):
    import slicer

    module, widget, result = finished
    place(module, widget, result, Lobe.RLL, lesion=True)
    follower = widget.points._follower
    assert follower.fits(result)
    node = result.get("segmentation")
    nothing = np.zeros(result.lobes().shape, np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(nothing, node, "vessels", result.ct)
    assert not follower.fits(result)


def test_undo_takes_back_one_point_after_the_other_without_a_trace(finished):
    module, widget, result = finished
    states = [snapshot(result)]
    for lobe, lesion in ((Lobe.RLL, True), (Lobe.RLL, False), (Lobe.LUL, True)):
        place(module, widget, result, lobe, lesion)
        states.append(snapshot(result))
    for before in states[-2::-1]:
        widget.ui.undoPointButton.click()
        settle(module, widget)
        if before is states[0]:
            before[2][:] = snapshot(result)[2]  # the table counted the network's lesions then
        assert_same(snapshot(result), before)
    assert result.get("beforeClicks") is None
    assert not widget.ui.undoPointButton.enabled


def test_points_deleted_and_moved_in_the_scene_are_followed(finished):
    module, widget, result = finished
    first = place(module, widget, result, Lobe.RLL, lesion=True)
    one = snapshot(result)
    place(module, widget, result, Lobe.RLL, lesion=True)
    node = result.get("lesionPoints")
    node.RemoveNthControlPoint(1)
    settle(module, widget)
    assert_same(snapshot(result), one)
    elsewhere = voxels(result, Lobe.LLL, lesion=False)[0]
    module.mouse.drag(node, 0, world(result.ct, elsewhere))
    settle(module, widget)
    assert result.pseudolabel()[elsewhere] == 2
    module.mouse.drag(node, 0, world(result.ct, first))
    settle(module, widget)
    assert_same(snapshot(result), one)


def test_a_list_that_is_deleted_takes_its_points_along(finished):
    import slicer

    module, widget, result = finished
    before = snapshot(result)
    place(module, widget, result, Lobe.RLL, lesion=True)
    slicer.mrmlScene.RemoveNode(result.get("lesionPoints"))
    settle(module, widget)
    np.testing.assert_array_equal(result.pseudolabel(), before[1])
    assert not widget.ui.lesionPointButton.checked


def test_remove_all_leaves_what_the_network_said(finished):
    module, widget, result = finished
    before = snapshot(result)
    for lesion in (True, False):
        place(module, widget, result, Lobe.RUL, lesion)
    widget.ui.removePointsButton.click()
    settle(module, widget)
    np.testing.assert_array_equal(result.pseudolabel(), before[1])
    np.testing.assert_array_equal(snapshot(result)[0], before[0])
    assert "Choose a kind of point" in widget.ui.pointsLabel.text


# --- beside the other tools -----------------------------------------------------------------------


def test_what_was_painted_by_hand_elsewhere_stays(finished, run):
    module, widget, result = finished
    painted = edit(result, run, Lobe.RUL)
    place(module, widget, result, Lobe.RLL, lesion=True)
    upper = result.lobes() == Lobe.RUL
    np.testing.assert_array_equal((result.pseudolabel() == 2)[upper], painted[upper])
    assert result.is_edited("pseudolabel"), "it is asked about as before"


def test_points_hold_when_the_threshold_moves(finished):
    module, widget, result = finished
    yes = place(module, widget, result, Lobe.RLL, lesion=True)
    no = place(module, widget, result, Lobe.RLL, lesion=False)
    widget.ui.editingSection.collapsed = False
    for threshold in (0.9, 0.1, 0.5):
        widget.ui.thresholdSlider.value = threshold
        assert result.threshold == pytest.approx(threshold)
        assert (result.pseudolabel()[yes], result.pseudolabel()[no] == 2) == (2, False)


def test_a_new_run_is_followed_by_the_points_that_are_there(finished, run):
    module, widget, result = finished
    place(module, widget, result, Lobe.RLL, lesion=True)
    before = snapshot(result)
    add_result(run, result.ct)
    widget.results.forget()
    widget._onParameters()
    settle(module, widget)
    np.testing.assert_array_equal(result.pseudolabel(), before[1])


def test_points_follow_the_ct_under_a_transform(finished):
    import slicer

    module, widget, result = finished
    place(module, widget, result, Lobe.RLL, lesion=True)
    before = snapshot(result)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = slicer.util.vtkMatrixFromArray(
        np.array([[1, 0, 0, 30], [0, 1, 0, -9], [0, 0, 1, 4], [0, 0, 0, 1.0]])
    )
    transform.SetMatrixTransformToParent(matrix)
    result.ct.SetAndObserveTransformNodeID(transform.GetID())
    settle(module, widget)
    assert result.get("lesionPoints").GetTransformNodeID() == transform.GetID()
    assert_same(snapshot(result), before)
    result.ct.HardenTransform()
    settle(module, widget)
    assert_same(snapshot(result), before)


# --- files ----------------------------------------------------------------------------------------


def test_points_are_saved_and_loaded_with_the_scene(finished, run, tmp_path):
    import slicer

    module, widget, result = finished
    original = snapshot(result)
    place(module, widget, result, Lobe.RLL, lesion=True)
    before = snapshot(result)
    place(module, widget, result, Lobe.LUL, lesion=False)
    path = tmp_path / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(False)
    module.process_events()
    assert not widget.ui.clicksSection.enabled
    slicer.util.loadScene(str(path))
    module.process_events()
    from DRAMLesionLib.mrml.result import Result

    again = Result.find(widget._parameterNode.inputVolume)
    settle(module, widget)
    assert widget.ui.pointsLabel.text == "Points: 1 lesion, 1 background."
    widget.ui.undoPointButton.click()
    settle(module, widget)
    assert_same(snapshot(again), before)
    widget.ui.undoPointButton.click()
    settle(module, widget)
    np.testing.assert_array_equal(again.pseudolabel(), original[1])


def test_a_file_of_slicer_is_loaded_and_a_bad_one_refused_in_one_line(finished, tmp_path):
    module, widget, result = finished
    voxel = voxels(result, Lobe.RLL, lesion=False)[0]
    x, y, z = world(result.ct, voxel)
    path = tmp_path / "points.mrk.json"
    write_points([Point((-x, -y, z), lesion=True)], path)
    for _time in range(2):  # what is there already comes once
        module.dialogs.paths.append(str(path))
        widget.ui.loadPointsButton.click()
        settle(module, widget)
        assert result.pseudolabel()[voxel] == 2
        assert widget.ui.pointsLabel.text == "Points: 1 lesion, 0 background."
    path.write_text("{}")
    module.dialogs.paths.append(str(path))
    widget.ui.loadPointsButton.click()
    assert "lacks the field 'markups'" in module.dialogs.messages[-1].text


def test_the_training_set_gets_the_points(finished, tmp_path):
    module, widget, result = finished
    place(module, widget, result, Lobe.RLL, lesion=True)
    place(module, widget, result, Lobe.RUL, lesion=False)
    type_score(widget, "RLL", "3")
    widget.ui.trainingPathEdit.currentPath = str(tmp_path / "set")
    widget.ui.caseNameEdit.text = "case-7"
    widget.ui.addToTrainingButton.click()
    points = read_points(tmp_path / "set" / "points" / "case-7.mrk.json")
    assert [point.lesion for point in points] == [True, False]
    assert (tmp_path / "set" / "pseudolabels" / "case-7.nii.gz").is_file()
    widget.ui.removePointsButton.click()
    settle(module, widget)
    module.dialogs.answers.append(("has a case", "Ok"))
    widget.ui.addToTrainingButton.click()
    assert not (tmp_path / "set" / "points" / "case-7.mrk.json").exists()


def test_contradicting_points_are_told_once(finished):
    module, widget, result = finished
    voxel = place(module, widget, result, Lobe.RLL, lesion=True)
    before = snapshot(result)
    widget.ui.backgroundPointButton.click()
    module.mouse.click(world(result.ct, voxel))
    settle(module, widget)
    widget._onParameters()
    settle(module, widget)
    told = [box for box in module.dialogs.messages if "as lesion and as background" in box.text]
    assert len(told) == 1
    assert_same(snapshot(result), before)
    assert "Not followed" in widget.ui.pointsLabel.text
    widget.ui.undoPointButton.click()
    settle(module, widget)
    assert json.loads(result.node.GetParameter("clicks")).keys() == {str(int(Lobe.RLL))}
    assert "Not followed" not in widget.ui.pointsLabel.text


def test_another_ct_ends_the_placing_of_points(finished, run):
    module, widget, result = finished
    widget.ui.lesionPointButton.click()
    other = add_volume(run.ct, "Other")
    choose(widget, other, run)
    assert not widget.ui.lesionPointButton.checked
    module.mouse.click(world(result.ct, (10, 10, 10)))
    assert result.get("lesionPoints").GetNumberOfControlPoints() == 0
    assert not widget.ui.clicksSection.enabled
