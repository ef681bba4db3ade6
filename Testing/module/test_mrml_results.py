"""Results as nodes: what a run wrote, edits, saving and loading, the threshold preview."""

from __future__ import annotations

import time

import numpy as np
import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from DRAMLesionLib.lobes import Lobe
from Testing.module.cases import add_result, add_volume
from Testing.module.driving import box_in_lobe, paint
from Testing.module.scenes import RIGID, put_under


def nodes():
    import slicer

    return {n.GetID() for n in slicer.util.getNodesByClass("vtkMRMLStorableNode")}


# --- results --------------------------------------------------------------------------------------


def test_a_result_holds_what_the_run_wrote(host, run):
    import slicer

    ct = add_volume(run.ct)
    put_under(RIGID, ct)
    result = add_result(run, ct)
    assert result.complete
    for role, name in (("dram", "dram"), ("refined", "dram_refined")):
        node = result.get(role)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), run.array(name))
        assert node.GetTransformNodeID() == ct.GetTransformNodeID()
    lesions, vessels = run.array("lesions"), run.array("vessels")
    assert (lesions > 0).sum() > 100
    assert (vessels > 0).sum() > 30
    expected = np.where(lesions > 0, lesions, 4 * (vessels > 0))
    np.testing.assert_array_equal(result.lesions_and_vessels(), expected)
    np.testing.assert_array_equal(result.lobes(), run.array("lobes"))
    pseudo = result.pseudolabel()
    refined = run.array("dram_refined") > np.float32(0.5)
    assert refined.sum() > 100
    np.testing.assert_array_equal(pseudo == 2, refined & (run.array("lobes") > 0))
    np.testing.assert_array_equal(pseudo == 1, (vessels > 0) & ~refined & (run.array("lobes") > 0))
    # what the application itself reads out of the segments
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(result.get("segmentation"), "lobe_RML", ct)
    np.testing.assert_array_equal(mask > 0, run.array("lobes") == Lobe.RML)


def test_table_and_chart_say_what_the_report_says(host, run):
    ct = add_volume(run.ct)
    result = add_result(run, ct)
    table = result.get("table")
    assert table.GetNumberOfRows() == 8
    for row, entry in enumerate([*run.report["lobes"], *run.report["totals"]]):
        assert table.GetCellText(row, 0) == entry["name"]
        assert float(table.GetCellText(row, 3)) == pytest.approx(entry["lesion_percent"], abs=1e-3)
        assert float(table.GetCellText(row, 8)) == entry["score"]
    chart = result.get("chart")
    assert chart.GetNumberOfPlotSeriesNodes() == 5
    assert chart.GetLegendVisibility()
    for number, entry in enumerate(run.report["lobes"]):
        series = chart.GetNthPlotSeriesNode(number)
        assert series.GetName() == f"{entry['name']} {entry['lesion_percent']:.1f} %"
        values = series.GetTableNode().GetTable().GetColumnByName(series.GetYColumnName())
        assert [values.GetValue(n) for n in range(values.GetNumberOfValues())] == [
            0.0,
            pytest.approx(entry["lesion_percent"]),
        ]
    colours = {chart.GetNthPlotSeriesNode(number).GetColor() for number in range(5)}
    assert len(colours) == 5


def test_counting_the_segments_gives_the_report_again(host, run):
    result = add_result(run, add_volume(run.ct))
    before = {row.name: row for row in result.rows}
    result.update_scores("network")
    for row in result.rows:
        for field in ("volume_ml", "lesion_ml", "ground_glass_ml", "vessel_ml", "lesion_percent"):
            assert getattr(row, field) == pytest.approx(getattr(before[row.name], field), abs=1e-3)
        assert (row.score, row.status) == (before[row.name].score, before[row.name].status)


def test_results_are_filed_beside_the_ct_in_its_study(host, run):
    import slicer

    ct = add_volume(run.ct)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(ct), study)
    result = add_result(run, ct)
    for role in ("dram", "refined", "segmentation", "pseudolabel", "table", "chart"):
        node = result.get(role)
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
        assert node.GetName().startswith("CT ")


def test_another_run_updates_the_same_nodes(host, run):
    import slicer

    ct = add_volume(run.ct)
    result = add_result(run, ct)
    result.get("segmentation").GetDisplayNode().SetSegmentVisibility("mixed", False)
    result.set_reader_score(Lobe.RUL, "4")
    before = nodes()
    again = add_result(run, ct)
    assert nodes() == before
    assert again.node is result.node
    assert again.reader_scores[Lobe.RUL] == 4
    assert not again.get("segmentation").GetDisplayNode().GetSegmentVisibility("mixed")
    again.remove()
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    assert ct.GetScene() is slicer.mrmlScene


def test_images_that_do_not_fit_leave_the_scene_as_it_was(host, run):
    from DRAMLesionLib.mrml import result

    ct = add_volume(run.ct)
    before = nodes()
    images = run.images
    images["dram"] = images["dram"][1:]
    with pytest.raises(ValueError, match="do not fit"):
        result.show(ct, images, run.report)
    assert nodes() == before
    assert result.Result.find(ct) is None


def test_edits_are_noticed_counted_kept_and_replaced_only_on_wish(host, run):
    from DRAMLesionLib.mrml import segments

    ct = add_volume(run.ct)
    result = add_result(run, ct)
    assert result.edited() == []
    result.update_scores("pseudolabel")
    before = next(row for row in result.rows if row.name == "RUL").lesion_ml
    vessels = (result.pseudolabel() == 1).sum()
    mask = paint(result, "lesion", box_in_lobe(run, Lobe.RUL))
    assert result.edited() == ["pseudolabel"]
    lungs = segments.mask_of(result.get("pseudolabel"), "lungs", ct)
    np.testing.assert_array_equal(lungs, run.array("lobes") > 0)
    assert segments.mask_of(result.get("pseudolabel"), "vessel", ct).sum() == vessels
    result.update_scores("pseudolabel")
    after = next(row for row in result.rows if row.name == "RUL").lesion_ml
    inside = mask & (run.array("lobes") == Lobe.RUL)
    assert after == pytest.approx(inside.sum() * 0.064)
    assert after > before
    kept = add_result(run, ct, keep=("pseudolabel",))
    np.testing.assert_array_equal(kept.pseudolabel() == 2, mask & (run.array("lobes") > 0))
    assert kept.edited() == ["pseudolabel"]
    replaced = add_result(run, ct)
    assert replaced.edited() == []
    assert (replaced.pseudolabel() == 2).sum() < mask.sum()


@pytest.mark.parametrize("ending", ["mrb", "mrml"])
def test_everything_is_found_again_in_a_saved_scene(host, run, tmp_path, ending):
    import slicer

    from DRAMLesionLib.mrml.result import Result

    ct = add_volume(run.ct)
    result = add_result(run, ct)
    result.set_reader_score(Lobe.LLL, "2")
    mask = paint(result, "lesion", box_in_lobe(run, Lobe.LLL))
    pseudo, lesions = result.pseudolabel(), result.lesions_and_vessels()
    result.update_scores("pseudolabel")
    rows = result.rows
    file = tmp_path / f"scene.{ending}"
    if ending == "mrml":
        for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
            if node.GetSaveWithScene() and node.GetName() and node.GetName().startswith("CT"):
                node.AddDefaultStorageNode()
                kind = "seg.nrrd" if node.IsA("vtkMRMLSegmentationNode") else "nrrd"
                kind = "tsv" if node.IsA("vtkMRMLTableNode") else kind
                if not node.IsA("vtkMRMLPlotChartNode") and not node.IsA("vtkMRMLPlotSeriesNode"):
                    slicer.util.saveNode(node, str(tmp_path / f"{node.GetID()}.{kind}"))
    assert slicer.util.saveScene(str(file))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(file))
    loaded = Result.find(slicer.util.getNode("CT"))
    assert loaded is not None
    assert loaded.complete
    np.testing.assert_array_equal(loaded.pseudolabel(), pseudo)
    np.testing.assert_array_equal(loaded.lesions_and_vessels(), lesions)
    assert (loaded.pseudolabel() == 2).sum() == (mask & (run.array("lobes") > 0)).sum()
    assert loaded.edited() == ["pseudolabel"]
    assert loaded.reader_scores[Lobe.LLL] == 2
    assert loaded.rows == rows
    assert loaded.report == run.report
    assert loaded.source == "pseudolabel"


@pytest.mark.parametrize("text", ["6", "-1", "2.5", "x", "٣", "55"])
def test_a_reader_s_score_is_a_whole_number_from_0_to_5(host, run, text):
    result = add_result(run, add_volume(run.ct))
    with pytest.raises(ValueError, match="from 0 to 5"):
        result.set_reader_score(Lobe.RUL, text)
    assert result.reader_scores[Lobe.RUL] is None


def test_five_reader_s_scores_make_a_total(host, run):
    result = add_result(run, add_volume(run.ct))
    for lobe, text in zip(Lobe, ("1", " 2 ", "0", "5", "3"), strict=True):
        result.set_reader_score(lobe, text)
    texts = [result.get("table").GetCellText(row, 9) for row in range(8)]
    assert texts == ["1", "2", "0", "5", "3", "", "", "11"]
    result.set_reader_score(Lobe.RML, "")
    assert result.get("table").GetCellText(7, 9) == ""


def test_surfaces_lie_where_the_segments_are_and_go_with_their_voxels(host, run):
    import slicer
    from vtk.util.numpy_support import vtk_to_numpy

    from DRAMLesionLib.mrml import surfaces, volumes

    ct = add_volume(run.ct)
    result = add_result(run, ct)
    node = result.get("segmentation")
    shares = list(surfaces.make_surfaces(result))
    assert shares == sorted(shares)
    assert len(shares) == len(node.GetSegmentation().GetSegmentIDs())
    assert list(surfaces.make_surfaces(result)) == [], "all are there"
    to_world = volumes.ijk_to_world(ct)
    for lobe in Lobe:
        surface = node.GetClosedSurfaceInternalRepresentation(f"lobe_{lobe.name}")
        points = vtk_to_numpy(surface.GetPoints().GetData())
        k, j, i = np.nonzero(run.array("lobes") == lobe)
        voxels = (to_world @ np.stack([i, j, k, np.ones_like(i)]))[:3].T
        np.testing.assert_allclose(points.min(axis=0), voxels.min(axis=0), atol=4.5)
        np.testing.assert_allclose(points.max(axis=0), voxels.max(axis=0), atol=4.5)
        outside = points - points.mean(axis=0)
        normals = vtk_to_numpy(surface.GetPointData().GetNormals())
        assert (np.einsum("ij,ij->i", outside, normals) > 0).mean() > 0.6, "they look outwards"
    assert not result.get("pseudolabel").GetSegmentation().ContainsRepresentation(surfaces.SURFACE)
    result.update_scores("pseudolabel")
    assert len(list(surfaces.make_surfaces(result))) == 3
    pseudo = result.get("pseudolabel").GetClosedSurfaceInternalRepresentation("lesion")
    assert pseudo.GetNumberOfPoints() > 100
    add_result(run, ct)
    assert not node.GetSegmentation().ContainsRepresentation(surfaces.SURFACE)
    assert slicer.mrmlScene.GetNodeByID(node.GetID()) is node


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 3), (3, 2, 2)])
def test_blocks_are_the_share_of_their_voxels(size):
    from DRAMLesionLib.mrml.surfaces import _blocks

    mask = np.random.default_rng(1).random((7, 6, 8)) > 0.5
    found = _blocks(mask, np.array(size))
    assert found[0].max() == found[-1].max() == found[:, 0].max() == found[:, :, -1].max() == 0
    for k, j, i in np.ndindex(*(n - 2 for n in found.shape)):
        a, b, c = size
        part = mask[k * a : (k + 1) * a, j * b : (j + 1) * b, i * c : (i + 1) * c]
        assert found[k + 1, j + 1, i + 1] == pytest.approx(part.sum() / (a * b * c))


# --- threshold preview ----------------------------------------------------------------------------


def test_the_preview_shows_what_counting_anew_gives(host, run):
    from DRAMLesionLib.mrml.preview import ThresholdPreview

    result = add_result(run, add_volume(run.ct))
    refined, lobes = run.array("dram_refined"), run.array("lobes")
    preview = ThresholdPreview(result)
    for threshold in (0.4, 0.05, 0.06, 0.93, 1.0, 0.07, 0.5):
        preview.move(threshold)
        expected = (refined > np.float32(threshold)) & (lobes > 0)
        pseudo = result.pseudolabel()
        np.testing.assert_array_equal(pseudo == 2, expected)
        vessels = (run.array("vessels") > 0) & (lobes > 0) & ~expected
        np.testing.assert_array_equal(pseudo == 1, vessels)
        shown = {row.name: row for row in result.rows}
        for lobe in Lobe:
            share = 100.0 * expected[lobes == lobe].mean()
            assert shown[lobe.name].lesion_percent == pytest.approx(share)
        assert preview.current
        assert result.threshold == pytest.approx(threshold)
        assert result.edited() == []
    table = result.get("table")
    titles = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    assert titles[:5] == ["Lobe", "Volume [ml]", "Lesion [ml]", "Lesion [%]", "Score"]
    result.update_scores("pseudolabel")
    assert {row.name: row.score for row in result.rows} == {n: r.score for n, r in shown.items()}


def test_the_dram_takes_the_place_of_an_empty_refined_one(host, run):
    from DRAMLesionLib.mrml import result as results
    from DRAMLesionLib.mrml.preview import ThresholdPreview

    ct = add_volume(run.ct)
    images = run.images
    images["dram_refined"] = np.full_like(images["dram"], 1e-4)
    result = results.show(ct, images, run.report)
    assert result.map_role == "dram"
    for threshold in (result.threshold, 0.3):
        ThresholdPreview(result).move(threshold)
        expected = (images["dram"] > np.float32(threshold)) & (images["lobes"] > 0)
        assert expected.any()
        np.testing.assert_array_equal(result.pseudolabel() == 2, expected)
    assert add_result(run, ct).map_role == "refined"


def test_thresholds_are_counted_exactly():
    from DRAMLesionLib.mrml.preview import _thresholds_below

    steps = (np.arange(101) / 100).astype(np.float32)
    near = [np.nextafter(steps, np.float32(side)) for side in (-1, 2)]
    values = np.clip(np.concatenate([steps, *near]), 0, 1)
    expected = (steps[None, :] < values[:, None]).sum(axis=1)
    np.testing.assert_array_equal(_thresholds_below(values), expected)


def test_slice_views_are_told_of_a_move(host, run):
    """The application's views follow SegmentModified, not the label map's own events."""
    import slicer

    from DRAMLesionLib.mrml.preview import ThresholdPreview

    result = add_result(run, add_volume(run.ct))
    preview = ThresholdPreview(result)
    told = []
    result.get("pseudolabel").AddObserver(
        slicer.vtkSegmentation.SegmentModified, lambda *_: told.append(1)
    )
    preview.move(0.3)
    assert told == [1]
    preview.move(0.3)
    assert told == [1], "nothing has changed"
    assert preview.current


def test_the_preview_notices_edits_of_others(host, run):
    from DRAMLesionLib.mrml.preview import ThresholdPreview

    result = add_result(run, add_volume(run.ct))
    preview = ThresholdPreview(result)
    preview.move(0.4)
    paint(result, "lesion", box_in_lobe(run, Lobe.RLL))
    assert not preview.current
    assert result.edited() == ["pseudolabel"]


@pytest.mark.slow
def test_a_move_of_the_threshold_takes_less_than_a_fifth_of_a_second(host):
    """On a CT of 512 x 512 x 300 voxels; the sorting before the first move is not counted.

    Of processor time: what else the machine does makes no difference.
    """
    import slicer

    from DRAMLesionLib.mrml import result as results
    from DRAMLesionLib.mrml.preview import ThresholdPreview

    shape = (300, 512, 512)
    j, i = np.ogrid[:512, :512]
    lobes = np.zeros(shape, np.uint8)
    for lobe, (x, low, high) in zip(
        Lobe,
        ((350, 140, 290), (350, 10, 140), (160, 190, 290), (160, 140, 190), (160, 10, 140)),
        strict=True,
    ):
        inside = ((i - x) / 60.0) ** 2 + ((j - 256) / 85.0) ** 2 < 1
        lobes[low:high, inside] = lobe
    rng = np.random.default_rng(0)
    refined = np.zeros(shape, np.float32)
    refined[lobes > 0] = rng.random(int((lobes > 0).sum()), dtype=np.float32)
    matrix = slicer.util.vtkMatrixFromArray(np.diag([-0.7, -0.7, 1.0, 1.0]))
    ct = slicer.util.addVolumeFromArray(np.zeros(shape, np.int16), ijkToRAS=matrix, name="CT")
    empty = np.zeros(shape, np.uint8)
    row = {"lobe_confidence": None, "status": "assessed", "score": 0, "lesion_percent": 0.0}
    row |= dict.fromkeys(
        ("volume_ml", "lesion_ml", "ground_glass_ml", "consolidation_ml", "mixed_ml", "vessel_ml"),
        0.0,
    )
    names = ("left lung", "right lung", "total")
    report = {
        "lobes": [{"name": lobe.name, **row} for lobe in Lobe],
        "totals": [{"name": name, **row} for name in names],
    }
    images = {"lesions": empty, "vessels": empty, "lobes": lobes}
    images |= {"dram": refined, "dram_refined": refined}
    result = results.show(ct, images, report)
    preview = ThresholdPreview(result)
    times = []
    assert 8e6 < (lobes > 0).sum() < 14e6, "five litres"
    # every voxel has a value, evenly spread: twenty times as many change as in a real map
    for threshold in (0.51, 0.52, 0.55, 0.54, 0.50, 0.40, 0.41):
        start = time.process_time()
        preview.move(threshold)
        times.append(time.process_time() - start)
    print([f"{t:.3f} s" for t in times])
    assert np.median(times) < 0.2
    assert max(times) < 0.6
