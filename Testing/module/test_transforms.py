"""The CT is put under a transform, taken out of it, hardened: the panel and the results notice."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from Testing.module.cases import add_lobes, add_volume
from Testing.module.driving import type_score
from Testing.module.scenes import RIGID, put_under

ROLES = ("dram", "refined", "segmentation", "pseudolabel")


def bent():
    """A transform that is not linear."""
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "tilted gantry")


def worlds(result) -> list[np.ndarray]:
    """Voxel to world of maps and of the label maps of the segmentations."""
    import slicer
    import vtk

    from DRAMLesionLib.mrml import volumes

    found = [volumes.ijk_to_world(result.get(role)) for role in ("dram", "refined")]
    for role, segment in (("segmentation", "lobe_RUL"), ("pseudolabel", "lesion")):
        node = result.get(role)
        matrix = vtk.vtkMatrix4x4()
        node.GetBinaryLabelmapInternalRepresentation(segment).GetImageToWorldMatrix(matrix)
        own = slicer.util.arrayFromVTKMatrix(matrix)
        parent = node.GetParentTransformNode()
        if parent is not None:
            parent.GetMatrixTransformToWorld(matrix)
            own = slicer.util.arrayFromVTKMatrix(matrix) @ own
        found.append(own)
    return found


def lies_on_ct(result) -> bool:
    from DRAMLesionLib.mrml import volumes

    wanted = volumes.ijk_to_world(result.ct)
    below = {result.get(role).GetTransformNodeID() for role in ROLES}
    return below == {result.ct.GetTransformNodeID()} and all(
        np.allclose(matrix, wanted, atol=1e-6) for matrix in worlds(result)
    )


def test_apply_notices_a_transform_that_is_put_above_the_ct_and_taken_away(module, run):
    ct, ui = add_volume(run.ct), module.module.widget().ui
    ui.inputVolumeSelector.setCurrentNode(ct)
    assert ui.applyButton.enabled
    transform = bent()
    ct.SetAndObserveTransformNodeID(transform.GetID())
    assert not ui.applyButton.enabled
    assert "tilted gantry, which is not linear" in ui.inputHintLabel.text
    ct.SetAndObserveTransformNodeID(None)
    assert ui.applyButton.enabled
    assert not ui.inputHintLabel.isVisible()


def test_apply_notices_a_transform_that_changes(module, run):
    import slicer

    ct, ui = add_volume(run.ct), module.module.widget().ui
    ui.inputVolumeSelector.setCurrentNode(ct)
    put_under(np.eye(4), ct)
    assert ui.applyButton.enabled
    skewed = np.eye(4)
    skewed[0, 1] = 0.5
    slicer.util.updateTransformMatrixFromArray(ct.GetParentTransformNode(), skewed)
    assert "skews CT" in ui.applyButton.toolTip
    slicer.util.updateTransformMatrixFromArray(ct.GetParentTransformNode(), RIGID)
    assert ui.applyButton.enabled


def test_the_results_go_along_and_are_not_called_edited(finished):
    _module, widget, result = finished
    assert lies_on_ct(result)
    lobes, pseudo = result.lobes(), result.pseudolabel()
    put_under(RIGID, result.ct)
    assert lies_on_ct(result)
    transform = result.ct.GetParentTransformNode()
    result.ct.SetAndObserveTransformNodeID(None)
    assert lies_on_ct(result)
    result.ct.SetAndObserveTransformNodeID(transform.GetID())
    result.ct.HardenTransform()
    assert result.ct.GetTransformNodeID() is None
    assert lies_on_ct(result)
    assert result.edited() == []
    np.testing.assert_array_equal(result.lobes(), lobes)
    np.testing.assert_array_equal(result.pseudolabel(), pseudo)
    assert widget.ui.scoreTable.rowCount == 8
    widget.ui.thresholdSlider.value = 0.3
    assert result.edited() == []
    assert lies_on_ct(result)


def test_a_transform_that_enlarges_is_counted(finished):
    _module, widget, result = finished
    before = float(widget.ui.scoreTable.item(7, 1).text())
    share = widget.ui.scoreTable.item(7, 3).text()
    put_under(np.diag([2.0, 2.0, 2.0, 1.0]), result.ct)
    assert float(widget.ui.scoreTable.item(7, 1).text()) == pytest.approx(8 * before, abs=8)
    assert widget.ui.scoreTable.item(7, 3).text() == share
    widget.ui.thresholdSlider.value = 0.3
    assert float(widget.ui.scoreTable.item(7, 1).text()) == pytest.approx(8 * before, abs=8)


def test_a_ct_of_another_grid_has_no_result_any_more(finished):
    import slicer

    _module, widget, result = finished
    type_score(widget, "RUL", "4")
    voxels = slicer.util.arrayFromVolume(result.ct)[2:].copy()
    slicer.util.updateVolumeFromArray(result.ct, voxels)
    assert widget.ui.resultLabel.text == (
        "The CT was changed since its result was computed: Apply computes it anew."
    )
    assert widget.ui.scoreTable.rowCount == 0
    assert not widget.ui.addToTrainingButton.enabled


def test_segments_that_come_and_go_are_noticed(module, run):
    widget = module.module.widget()
    ui, ct = widget.ui, add_volume(run.ct)
    lobes = add_lobes(run.lobes, ct)
    ui.inputVolumeSelector.setCurrentNode(ct)
    ui.lobesFromBox.currentIndex = 1
    ui.lobesNodeSelector.setCurrentNode(lobes)
    box = widget.lobeMatches.boxes["RML"]
    assert box.currentText == "(none)"
    lobes.GetSegmentation().GetSegment("s4").SetName("right middle lobe")
    assert box.currentText == "right middle lobe"
    lobes.GetSegmentation().RemoveSegment("s4")
    assert box.currentText == "(none)"
    for name in ("s1", "s2", "s3", "s5"):
        lobes.GetSegmentation().RemoveSegment(name)
    assert ui.applyButton.toolTip.startswith("No lobe was recognised")
