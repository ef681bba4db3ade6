"""What the user sees: nothing cut off, all told apart, and the slices where the lesion is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QStyle

from DRAMLesionLib.lobes import Lobe
from Testing.module.cases import add_volume
from Testing.module.driving import choose, finished_library, show_surfaces, wait_for_run

DEFAULT_WIDTH = 420
"""Of the module panel of a freshly installed Slicer, in pixels."""

# --- the table ------------------------------------------------------------------------------------


def test_nothing_in_the_table_is_cut_off_at_the_default_width(finished):
    module, widget, _result = finished
    module.app.window.resize(DEFAULT_WIDTH, 900)
    module.process_events()
    table = widget.ui.scoreTable._object
    for column in range(table.columnCount()):
        available = table.columnWidth(column)
        header = table.horizontalHeaderItem(column).text()
        texts = [*header.split("\n"), *(table.item(row, column).text() for row in range(8))]
        margin = 2 * table.style().pixelMetric(QStyle.PixelMetric.PM_FocusFrameHMargin)
        for row, text in enumerate(texts, start=-len(header.split("\n"))):
            swatch = table.iconSize().width() if column == 0 and 0 <= row < 5 else 0
            needed = table.fontMetrics().horizontalAdvance(text) + swatch + margin
            assert needed <= available, text
    assert table.viewport().width() >= sum(table.columnWidth(c) for c in range(6))


def test_the_table_is_as_high_as_its_rows_and_hidden_without_any(finished, run):
    module, widget, _result = finished
    table = widget.ui.scoreTable._object
    rows = sum(table.rowHeight(row) for row in range(8))
    assert table.viewport().height() == rows
    widget.ui.inputVolumeSelector.setCurrentNode(add_volume(run.ct, "other"))
    module.process_events()
    assert not table.isVisible()


def test_lobes_have_five_colours_and_the_same_in_table_chart_and_views(finished):
    from DRAMLesionLib.mrml.segments import LESION_SEGMENTS, LOBE_COLOURS

    _module, widget, result = finished
    segmentation = result.get("segmentation").GetSegmentation()
    seen = []
    for row, lobe in enumerate(Lobe):
        colour = LOBE_COLOURS[lobe]
        icon = widget.ui.scoreTable._object.item(row, 0).icon()
        assert icon.pixmap(10, 10).toImage().pixelColor(5, 5).getRgb()[:3] == colour
        for shown in (
            segmentation.GetSegment(f"lobe_{lobe.name}").GetColor(),
            result.get(f"series.{lobe.name}").GetColor(),
        ):
            np.testing.assert_allclose(np.array(shown) * 255, colour, atol=0.6)
        seen.append(colour)
    others = [spec.colour for spec in LESION_SEGMENTS]
    for number, one in enumerate(seen):
        for other in seen[number + 1 :] + others:
            assert np.abs(np.subtract(one, other)).sum() > 80, (one, other)


def test_the_legend_names_what_the_table_counts(finished):
    _module, widget, _result = finished
    label = widget.ui.legendLabel

    def names():
        return re.sub("<[^>]*>", "", label.text).replace("\u00a0", " ").split("■")[1:]

    assert [name.strip() for name in names()] == [
        "Ground glass",
        "Consolidation",
        "Mixed lesion",
        "Lung vessels",
    ]
    assert "#ffc43d" in label.text
    widget.ui.tableSourceBox.currentIndex = 1
    assert [name.strip() for name in names()] == [
        "Lesion (pseudo-label)",
        "Vessel (pseudo-label)",
    ]


# --- heat map, chart, surfaces --------------------------------------------------------------------


def test_the_heat_map_has_a_colour_scale(finished):
    import slicer

    _module, widget, result = finished
    logic = slicer.vtkSlicerColorLogic
    legends = []
    for index, role in enumerate(("refined", "dram")):
        widget.ui.heatMapBox.currentIndex = index
        legends.append(logic.GetColorLegendDisplayNode(result.get(role)))
        assert [legend.GetVisibility() for legend in legends] == [0] * index + [1]
        assert legends[-1].GetTitleText() == widget.ui.heatMapBox.currentText
    widget.ui.heatMapBox.currentIndex = 2
    assert [legend.GetVisibility() for legend in legends] == [0, 0]


def test_the_stand_in_s_chart_names_lobes_as_the_application_can(finished):
    from Testing.host import pictures

    _module, _widget, result = finished
    assert pictures.legend_of(result.get("chart")) == [
        f"{row.name} {row.lesion_percent:.1f} %" for row in result.rows[:5]
    ]


def test_surfaces_show_the_lesions_that_the_table_counts(finished):
    import slicer

    module, widget, result = finished
    view = slicer.app.layoutManager().threeDWidget(0).threeDView()._object
    widget.ui.tableSourceBox.currentIndex = 1
    show_surfaces(module, widget)
    assert view.fitted == 1
    pseudo = result.get("pseudolabel")
    assert pseudo.GetClosedSurfaceInternalRepresentation("lesion").GetNumberOfPoints() > 100
    assert pseudo.GetDisplayNode().GetVisibility3D()
    assert pseudo.GetDisplayNode().GetSegmentVisibility("lesion")
    before = pseudo.GetClosedSurfaceInternalRepresentation("lesion")
    widget.ui.thresholdSlider.value = 0.2
    module.wait_for(lambda: not widget.results.surfaces.running, "the surfaces")
    after = pseudo.GetClosedSurfaceInternalRepresentation("lesion")
    assert after.GetNumberOfPoints() != before.GetNumberOfPoints(), "they follow the threshold"
    widget.ui.tableSourceBox.currentIndex = 0
    module.wait_for(lambda: not widget.results.surfaces.running, "the surfaces")
    lesions = result.get("segmentation")
    shown = [
        identifier
        for identifier in ("ground_glass", "consolidation", "mixed")
        if lesions.GetClosedSurfaceInternalRepresentation(identifier).GetNumberOfPoints() > 0
        and lesions.GetDisplayNode().GetSegmentVisibility(identifier)
    ]
    assert shown
    assert not pseudo.GetDisplayNode().GetVisibility()


# --- where the slices are -------------------------------------------------------------------------


def crosshair(result) -> np.ndarray:
    """Voxel (k, j, i) of the CT where the three slices cross; the CT is turned about one axis."""
    import slicer

    from DRAMLesionLib.mrml import volumes

    manager = slicer.app.layoutManager()
    normals, offsets = [], []
    for name in manager.sliceViewNames():
        to_world = slicer.util.arrayFromVTKMatrix(
            manager.sliceWidget(name).mrmlSliceNode().GetSliceToRAS()
        )
        normals.append(to_world[:3, 2])
        offsets.append(to_world[:3, 2] @ to_world[:3, 3])
    place = np.linalg.solve(np.array(normals), np.array(offsets))
    i, j, k = (np.linalg.inv(volumes.ijk_to_world(result.ct)) @ [*place, 1])[:3]
    return np.round([k, j, i]).astype(int)


def is_worst(result, run, at, wanted, lesion) -> bool:
    inside = lesion & np.isin(run.array("lobes"), wanted)
    return bool(inside[tuple(at)]) and at[0] == inside.sum(axis=(1, 2)).argmax()


def test_a_click_on_a_row_leads_to_the_worst_slice_of_the_lobe(finished, run):
    _module, widget, result = finished
    lesion = run.array("lesions") > 0
    table = widget.ui.scoreTable._object
    rows = {0: [1], 1: [2], 4: [5], 5: [1, 2], 6: [3, 4, 5], 7: [1, 2, 3, 4, 5]}
    for row, lobes in rows.items():
        if not (lesion & np.isin(run.array("lobes"), lobes)).any():
            continue
        table.cellClicked.emit(row, 3)
        assert is_worst(result, run, crosshair(result), lobes, lesion), row
    healthy = [n for n in range(1, 6) if not (lesion & (run.array("lobes") == n)).any()]
    for lobe in healthy:
        table.cellClicked.emit(lobe - 1, 0)
        assert run.array("lobes")[tuple(crosshair(result))] == lobe, "the lobe itself"
    widget.ui.thresholdSlider.value = 0.3
    table.cellClicked.emit(0, 3)
    pseudo = result.pseudolabel() == 2
    assert is_worst(result, run, crosshair(result), [1], pseudo), "as the table counts it"


def test_a_run_ends_at_the_worst_slice(module, run, tmp_path):
    widget = module.module.widget()
    finished_library(tmp_path, run.folder)
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    wait_for_run(module, 20)
    result = widget._result()
    assert is_worst(result, run, crosshair(result), range(1, 6), run.array("lesions") > 0)


# --- the report -----------------------------------------------------------------------------------


def test_the_report_of_the_run_is_opened_and_saved(module, run, tmp_path, monkeypatch):
    import slicer

    opened: list[str] = []
    monkeypatch.setattr(
        QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()) or True
    )
    widget = module.module.widget()
    ui = widget.ui
    assert (ui.openReportButton.enabled, ui.saveReportButton.toolTip) == (
        False,
        "There is no result yet.",
    )
    finished_library(tmp_path, run.folder)
    choose(widget, add_volume(run.ct), run)
    ui.applyButton.click()
    wait_for_run(module, 20)
    page = (run.folder / "report.html").read_text()
    ui.openReportButton.click()
    assert Path(opened[0]).read_text() == page
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    module.process_events()
    module.dialogs.paths.append(str(tmp_path / "my report"))
    ui.saveReportButton.click()
    assert (tmp_path / "my report.html").read_text() == page
    module.dialogs.paths.append("")
    ui.saveReportButton.click()
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda _url: False)
    ui.openReportButton.click()
    assert "No browser could be started" in module.dialogs.messages[-1].text
