"""Pictures for people to look at: slice views, the 3D view, charts and panels, drawn off screen."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import slicer
import vtk

_SLICE_MANAGERS = (
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)
_THREE_D_MANAGERS = (
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)


_PROBE = """
import vtk
window = vtk.vtkEGLRenderWindow()
window.SetOffScreenRendering(1)
window.AddRenderer(vtk.vtkRenderer())
window.Render()
"""


@functools.cache
def can_draw() -> bool:
    """Whether this machine has EGL for off-screen drawing; VTK crashes where it has not."""
    probe = [sys.executable, "-c", _PROBE]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0  # noqa: S603


def _window(size: tuple[int, int]) -> Any:
    window = vtk.vtkEGLRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetSize(*size)
    window.SetMultiSamples(0)
    return window


def _capture(window: Any) -> Any:
    capture = vtk.vtkWindowToImageFilter()
    capture.SetInput(window)
    capture.ReadFrontBufferOff()
    capture.Update()
    return capture.GetOutput()


def _save(window: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(_capture(window))
    writer.Write()
    return path


def slice_picture(
    setup: Any,
    view: str,
    path: Path,
    size: tuple[int, int] = (500, 500),
    offset: float | None = None,
) -> Path:
    """Save what a slice view shows.

    Args:
        setup: the host's `SceneSetup`.
        view: Red, Yellow or Green.
        path: PNG file to write.
        size: width and height in pixels.
        offset: place of the slice in mm along its axis; the middle by default.
    """
    logic = setup.slice_logics[view]
    node = logic.GetSliceNode()
    node.SetDimensions(*size, 1)
    logic.FitSliceToBackground(*size)
    logic.SnapSliceOffsetToIJK()
    if offset is not None:
        logic.SetSliceOffset(offset)
    logic.UpdatePipeline()
    window = _window(size)
    window.SetNumberOfLayers(2)
    background, overlay = vtk.vtkRenderer(), vtk.vtkRenderer()
    background.SetLayer(0)
    overlay.SetLayer(1)
    window.AddRenderer(background)
    window.AddRenderer(overlay)
    if logic.GetImageDataConnection() is not None:
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(logic.GetImageDataConnection())
        actor = vtk.vtkActor2D()
        actor.SetMapper(mapper)
        background.AddViewProp(actor)
    group = _managers(setup, _SLICE_MANAGERS, overlay, node)
    return _drawn(window, group, path)


def three_d_picture(setup: Any, path: Path, size: tuple[int, int] = (500, 500)) -> Path:
    """Save what the 3D view shows, seen from the front, a little from above."""
    window, renderer = _window(size), vtk.vtkRenderer()
    window.AddRenderer(renderer)
    setup.view_node.SetBoxVisible(False)
    setup.view_node.SetAxisLabelsVisible(False)
    group = _managers(setup, _THREE_D_MANAGERS, renderer, setup.view_node)
    renderer.SetBackground(1.0, 1.0, 1.0)
    renderer.SetBackground2(0.85, 0.88, 0.95)
    camera = renderer.GetActiveCamera()
    camera.SetPosition(0.3, 1.0, 0.3)
    camera.SetFocalPoint(0.0, 0.0, 0.0)
    camera.SetViewUp(0.0, 0.0, 1.0)
    renderer.ResetCamera()
    return _drawn(window, group, path)


def _managers(setup: Any, names: tuple[str, ...], renderer: Any, node: Any) -> Any:
    # displayable managers take an interactor for granted, and crash without one
    interactor = vtk.vtkGenericRenderWindowInteractor()
    interactor.SetRenderWindow(renderer.GetRenderWindow())
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.SetRenderer(renderer)
    managers = []
    for name in names:
        manager = getattr(slicer, name)()
        manager.SetMRMLApplicationLogic(setup.application_logic)
        group.AddDisplayableManager(manager)
        managers.append(manager)
    group.SetMRMLDisplayableNode(node)
    for legend in slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode"):
        # in the application the views are there first, and hear of every scale that is added
        setup.scene.InvokeEvent(slicer.vtkMRMLScene.NodeAddedEvent, legend)
    group.kept = managers, interactor
    return group


def _drawn(window: Any, group: Any, path: Path) -> Path:
    window.Render()
    _save(window, path)
    group.SetMRMLDisplayableNode(None)
    window.Finalize()
    return path


def chart_picture(chart: Any, path: Path, size: tuple[int, int] = (600, 400)) -> Path:
    """Save a simple drawing of a plot chart node: bars or lines of its series.

    The application's plot view is not in the wheel; this one draws the same columns with VTK, and
    as little text as that view can.
    """
    view = vtk.vtkContextView()
    window = _window(size)
    view.SetRenderWindow(window)
    view.GetRenderer().SetBackground(1.0, 1.0, 1.0)
    drawing = vtk.vtkChartXY()
    view.GetScene().AddItem(drawing)
    drawing.SetTitle(chart.GetTitle() or "")
    drawing.SetShowLegend(bool(chart.GetLegendVisibility()))
    drawing.GetAxis(vtk.vtkAxis.BOTTOM).SetTitle(chart.GetXAxisTitle() or "")
    drawing.GetAxis(vtk.vtkAxis.LEFT).SetTitle(chart.GetYAxisTitle() or "")
    kept = [
        _draw_series(drawing, chart.GetNthPlotSeriesNode(index))
        for index in range(chart.GetNumberOfPlotSeriesNodes())
    ]
    window.Render()
    _save(window, path)
    window.Finalize()
    del kept
    return path


def legend_of(chart: Any) -> list[str]:
    """The names that a chart shows: those of its series, and nothing but them.

    The application's plot view writes numbers below bars; label columns show when the mouse points
    at one.
    """
    count = chart.GetNumberOfPlotSeriesNodes() if chart.GetLegendVisibility() else 0
    return [chart.GetNthPlotSeriesNode(index).GetName() for index in range(count)]


def _draw_series(drawing: Any, series: Any) -> Any:
    bars = series.GetPlotType() == slicer.vtkMRMLPlotSeriesNode.PlotTypeBar
    plot = drawing.AddPlot(vtk.vtkChart.BAR if bars else vtk.vtkChart.LINE)
    values = series.GetTableNode().GetTable().GetColumnByName(series.GetYColumnName())
    heights = vtk.vtkDoubleArray()
    heights.SetName(series.GetName())
    for row in range(values.GetNumberOfValues()):
        heights.InsertNextValue(values.GetVariantValue(row).ToDouble())
    table = vtk.vtkTable()
    table.AddColumn(heights)
    plot.SetUseIndexForXSeries(True)
    plot.SetInputData(table, "", series.GetName())
    plot.SetColorF(*series.GetColor())
    return table


def widget_picture(widget: Any, path: Path) -> Path:
    """Save a picture of a widget (a facade or a PySide widget)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    getattr(widget, "_object", widget).grab().save(str(path))
    return path
