"""The stand-in host's scene: files, segments, the Segment Editor's state, and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from Testing.host import pictures
from Testing.module.scenes import OBLIQUE, make_chart, make_ct, segmentation_of

PICTURES = Path(__file__).parents[1] / "pictures" / "host"


def test_segments_are_exact_in_oblique_geometry_and_survive_a_bundle(host, tmp_path):
    import slicer

    ct, array = make_ct()
    mask = (array > 0).astype(np.uint8)
    node, identifier = segmentation_of(ct, mask)
    back = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, ct)
    assert np.array_equal(back, mask)
    hierarchy = host.setup.subject_hierarchy
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "CT study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), study)
    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    node, ct = slicer.util.getNode("Lesions"), slicer.util.getNode("CT")
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, ct), mask)
    hierarchy = host.setup.subject_hierarchy
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
    assert hierarchy.GetItemName(parent) == "CT study"


def test_files_come_and_go(host, tmp_path):
    import slicer

    ct, array = make_ct()
    assert slicer.util.saveNode(ct, str(tmp_path / "ct.nrrd"))
    again = slicer.util.loadVolume(str(tmp_path / "ct.nrrd"))
    assert np.array_equal(slicer.util.arrayFromVolume(again), array)
    with pytest.raises(RuntimeError, match="Failed to load"):
        slicer.util.loadVolume(str(tmp_path / "nothing.nrrd"))


def test_segment_editor_keeps_the_applications_order(host):
    import slicer

    ct, array = make_ct()
    node, identifier = segmentation_of(ct, (array > 0).astype(np.uint8))
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLScene(slicer.mrmlScene)
    editor.setSegmentationNode(node)
    assert editor.segmentationNode() is None, "nothing works before the editor node is set"
    editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setSegmentationNode(node)
    editor.setSourceVolumeNode(ct)
    editor.setCurrentSegmentID(identifier)
    editor.setActiveEffectByName("Paint")
    assert editor.sourceVolumeNode() is ct
    assert editor.activeEffect().name == "Paint"
    editor.setActiveEffect(None)
    assert editor.activeEffect() is None


def test_segment_editor_does_not_follow_its_node_in_a_batch_or_a_closing_scene(host):
    import slicer

    scene = slicer.mrmlScene
    node = slicer.vtkMRMLSegmentEditorNode()
    node.SetSingletonTag("test")
    node = scene.AddNode(node)
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLScene(scene)
    editor.setMRMLSegmentEditorNode(node)
    editor.setActiveEffectByName("Paint")
    scene.StartState(scene.BatchProcessState)
    editor.setActiveEffect(None)
    assert editor.activeEffect().name == "Paint"
    scene.EndState(scene.BatchProcessState)
    assert editor.activeEffect() is None
    for keeps_node in (True, False):
        editor.setMRMLSegmentEditorNode(node)
        editor.setActiveEffectByName("Paint")
        if not keeps_node:
            editor.setMRMLSegmentEditorNode(None)
        scene.Clear(False)
        assert (editor.activeEffect() is None) is keeps_node


def test_node_selectors_lose_their_node_when_a_scene_has_been_imported(host, tmp_path):
    import slicer

    make_ct("first")
    ct, _ = make_ct("second")
    chosen = []
    with_none, without = slicer.qMRMLNodeComboBox(), slicer.qMRMLNodeComboBox()
    for selector in (with_none, without):
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.noneEnabled = selector is with_none
        selector.setMRMLScene(slicer.mrmlScene)
        selector.setCurrentNode(ct)
        selector.connect(
            "currentNodeChanged(vtkMRMLNode*)", lambda node: chosen.append(node and node.GetName())
        )
    (tmp_path / "empty.mrml").write_text('<MRML version="5.12.3"></MRML>')
    slicer.mrmlScene.SetURL(str(tmp_path / "empty.mrml"))
    slicer.mrmlScene.Import()
    assert with_none.currentNode() is None
    assert without.currentNode().GetName() == "first"
    assert chosen == [None, None, "first"]


def test_parameters_are_cached_and_a_union_says_which_alternative_it_holds(host):
    from typing import Union

    import slicer
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    lobes = Union[slicer.vtkMRMLSegmentationNode, slicer.vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007
    # annotations of a class in this file are text
    kinds = {"__annotations__": {"count": int, "lobes": lobes}}
    Parameters = parameterNodeWrapper(type("Parameters", (), kinds))  # noqa: N806
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    parameters = Parameters(node)
    names = ("lobes", "lobes.0", "lobes.1", "lobes.2")
    assert [node.HasParameter(name) for name in names] == [False, False, False, True]
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    parameters.lobes = labels
    assert [node.HasParameter(name) for name in names] == [False, False, True, False]
    assert node.GetNodeReference("lobes.1") is labels is Parameters(node).lobes
    with pytest.raises(TypeError):
        parameters.lobes = make_ct()[0]
    node.SetParameter("count", "3")
    assert (parameters.count, parameters.isCached("count")) == (3, True)
    slicer.mrmlScene.RemoveNode(labels)
    assert parameters.lobes is None


@pytest.mark.skipif(not pictures.can_draw(), reason="no EGL on this machine")
def test_pictures_show_heat_map_segments_surface_and_chart(host):
    import slicer

    ct, array = make_ct()
    mask = np.zeros_like(array, np.uint8)
    mask[8:12, 8:15, 15:25] = 1
    node, _ = segmentation_of(ct, mask)
    matrix = slicer.util.vtkMatrixFromArray(OBLIQUE)
    heat = slicer.util.addVolumeFromArray(mask.astype(np.float32), ijkToRAS=matrix, name="dRAM")
    heat.CreateDefaultDisplayNodes()
    display = heat.GetDisplayNode()
    display.SetAndObserveColorNodeID(slicer.util.getNode("Inferno").GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 1.0)
    slicer.util.setSliceViewerLayers(
        background=ct, foreground=heat, foregroundOpacity=0.6, fit=True
    )
    red = pictures.slice_picture(host.setup, "Red", PICTURES / "red.png", (300, 300))
    node.CreateClosedSurfaceRepresentation()
    three_d = pictures.three_d_picture(host.setup, PICTURES / "three_d.png", (300, 300))
    chart = pictures.chart_picture(make_chart(), PICTURES / "chart.png")
    for path, colors in ((red, 10), (three_d, 30), (chart, 5)):
        assert distinct_colors(path) > colors, path.name


def distinct_colors(path: Path) -> int:
    from PIL import Image

    return len(np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0))
