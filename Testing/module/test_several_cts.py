"""Two CTs in one scene: the views show what the panel shows, and nothing else."""

from __future__ import annotations

import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from Testing.module.cases import add_lobes, add_result, add_volume
from Testing.module.driving import choose, finished_library, show_surfaces, wait_for_run


@pytest.fixture
def two(module, run):
    """The module with the results of CT A and CT B; B is chosen."""
    widget = module.module.widget()
    found = []
    for name in ("A", "B"):
        ct = add_volume(run.ct, name)
        found.append(add_result(run, ct))
        choose(widget, ct, run)
    return module, widget, *found


def layers() -> set[tuple[str | None, str | None]]:
    """Background and foreground of the slice views."""
    import slicer

    manager = slicer.app.layoutManager()
    nodes = [manager.sliceWidget(n).mrmlSliceCompositeNode() for n in manager.sliceViewNames()]
    return {(n.GetBackgroundVolumeID(), n.GetForegroundVolumeID() or None) for n in nodes}


def visible(result) -> bool:
    """Whether any segment of a result is to be seen."""
    shown = [result.get(r).GetDisplayNode() for r in ("segmentation", "pseudolabel")]
    return any(display.GetVisibility() for display in shown)


def scale_is_shown(result) -> bool:
    import slicer

    logic = slicer.vtkSlicerColorLogic
    legends = [logic.GetColorLegendDisplayNode(result.get(role)) for role in ("dram", "refined")]
    return any(legend is not None and legend.GetVisibility() for legend in legends)


def shows_only(result, other) -> bool:
    views = layers() == {(result.ct.GetID(), result.get("refined").GetID())}
    segments = visible(result) and not visible(other)
    return views and segments and scale_is_shown(result) and not scale_is_shown(other)


def test_the_views_follow_the_ct_that_is_chosen(two):
    _module, widget, a, b = two
    selector = widget.ui.inputVolumeSelector
    assert shows_only(b, a)
    for _time in range(2):
        selector.setCurrentNode(a.ct)
        assert shows_only(a, b)
        selector.setCurrentNode(b.ct)
        assert shows_only(b, a)


def test_a_ct_without_result_hides_all_results(two, run):
    _module, widget, a, b = two
    other = add_volume(run.ct, "C")
    widget.ui.inputVolumeSelector.setCurrentNode(other)
    assert layers() == {(other.GetID(), None)}
    assert not visible(a)
    assert not visible(b)
    assert not scale_is_shown(b)
    widget.ui.inputVolumeSelector.setCurrentNode(None)
    assert layers() == {(None, None)}


def test_surfaces_chart_and_pseudo_label_follow_too(two):
    import slicer

    module, widget, a, b = two
    slicer.app.layoutManager()
    widget.ui.showChartButton.click()
    show_surfaces(module, widget)
    widget.ui.tableSourceBox.currentIndex = 1
    module.wait_for(lambda: not widget.results.surfaces.running, "the surfaces")
    widget.ui.inputVolumeSelector.setCurrentNode(a.ct)
    assert not visible(b)
    assert not widget.ui.show3DButton.checked
    charts = {n.GetPlotChartNodeID() for n in slicer.util.getNodesByClass("vtkMRMLPlotViewNode")}
    assert b.get("chart").GetID() not in charts
    widget.ui.inputVolumeSelector.setCurrentNode(b.ct)
    assert widget.ui.show3DButton.checked
    assert b.get("pseudolabel").GetDisplayNode().GetVisibility(), "the table counts it"


def test_points_are_shown_with_their_result_only(two):
    from DRAMLesionLib.mrml.clicks import points_node

    _module, widget, a, b = two
    displays = [points_node(result, "lesionPoints").GetDisplayNode() for result in (a, b)]
    selector = widget.ui.inputVolumeSelector
    for ct, shown in ((a.ct, [1, 0]), (b.ct, [0, 1])):
        selector.setCurrentNode(ct)
        assert [display.GetVisibility() for display in displays] == shown


def test_the_views_are_left_alone_while_another_module_is_open(two):
    module, widget, a, b = two
    module.leave()
    widget._parameterNode.inputVolume = a.ct
    assert shows_only(b, a)
    module.show()
    assert shows_only(a, b)


def test_nothing_happens_to_the_views_of_those_who_have_no_result(module, run):
    import slicer

    ct, other = add_volume(run.ct, "A"), add_volume(run.ct, "B")
    slicer.util.setSliceViewerLayers(background=other)
    module.module.widget().ui.inputVolumeSelector.setCurrentNode(ct)
    assert layers() == {(other.GetID(), None)}


def test_a_run_hides_what_was_shown_before(two, run, tmp_path):
    module, widget, a, b = two
    lobes = add_lobes(run.lobes, a.ct, "from elsewhere")
    lobes.GetSegmentation().GetSegment("s4").SetName("RML")
    finished_library(tmp_path, run.folder)
    widget.ui.inputVolumeSelector.setCurrentNode(a.ct)
    widget.ui.applyButton.click()
    wait_for_run(module, 20)
    assert widget.ui.statusLabel.text == "Done."
    assert shows_only(a, b)
    assert not lobes.GetDisplayNode().GetVisibility(), "else every fissure is drawn twice"


# --- what is offered ------------------------------------------------------------------------------


def offered(selector) -> set[str]:
    return {node.GetName() for node in selector._object.nodes()}


def test_results_are_offered_neither_as_ct_nor_as_lobes(two, run, tmp_path):
    import slicer

    module, widget, a, _b = two
    add_lobes(run.lobes, a.ct)
    ui = widget.ui
    assert offered(ui.inputVolumeSelector) == {"A", "B"}
    assert offered(ui.lobesNodeSelector) == {"My lobes"}
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    module.process_events()
    assert offered(ui.inputVolumeSelector) == {"A", "B"}
    assert offered(ui.lobesNodeSelector) == {"My lobes"}


def test_a_result_that_came_without_marks_is_not_offered_either(two):
    _module, widget, _a, b = two
    for role in ("dram", "refined", "segmentation", "pseudolabel"):
        b.get(role).RemoveAttribute("DRAMLesion.Role")
    widget._hideResultNodes()
    assert offered(widget.ui.inputVolumeSelector) == {"A", "B"}
    assert offered(widget.ui.lobesNodeSelector) == set()


# --- the list of results --------------------------------------------------------------------------


def in_study(name: str, *nodes) -> None:
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    scene = hierarchy.GetSceneItemID()
    patient = hierarchy.CreateSubjectItem(scene, f"patient {name}")
    for number, node in enumerate(nodes):
        study = hierarchy.CreateStudyItem(patient, f"study {number}")
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), study)


def test_the_results_of_a_patient_are_listed_and_lead_to_their_ct(two, run):
    _module, widget, a, b = two
    stranger = add_result(run, add_volume(run.ct, "of somebody else"))
    in_study("one", a.ct, b.ct)
    in_study("two", stranger.ct)
    ui, table = widget.ui, widget.ui.studyTable
    ui.inputVolumeSelector.setCurrentNode(a.ct)
    assert table.isVisible()
    total = a.rows[-1]
    cells = [[table.item(row, column).text() for column in range(3)] for row in range(2)]
    expected = [f"{total.lesion_percent:.1f}", f"{total.score} / {total.max_score}"]
    assert cells == [["A", *expected], ["B", *expected]]
    assert table.item(0, 0).font().bold()
    table._object.cellClicked.emit(1, 0)
    assert ui.inputVolumeSelector.currentNode() is b.ct
    assert shows_only(b, a)
    ui.inputVolumeSelector.setCurrentNode(stranger.ct)
    assert not table.isVisible()
    assert not ui.studyLabel.isVisible()
