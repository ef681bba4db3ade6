"""How results look: heat maps over the CT, slice views, 3D."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import slicer

HEAT_COLOURS = ("Inferno", "Magma", "ColdToHotRainbow", "Rainbow")
"""Colour nodes by name; the first that the application has is taken."""


def show_as_heat_map(volume: Any, low: float = 0.15) -> None:
    """Colour a map with values 0 to 1, transparent below ``low``."""
    if volume.GetDisplayNode() is None:
        volume.CreateDefaultDisplayNodes()
    node = volume.GetDisplayNode()
    before = node.StartModify()
    try:
        colours = _first_colour_node()
        if colours is not None:
            node.SetAndObserveColorNodeID(colours.GetID())
        node.AutoWindowLevelOff()
        node.SetWindowLevelMinMax(0.0, 1.0)
        node.AutoThresholdOff()
        node.ApplyThresholdOn()
        node.SetInterpolate(True)
    finally:
        node.EndModify(before)
    hide_below(volume, low)


def hide_below(volume: Any, low: float) -> None:
    """Make a heat map transparent below a value (0 to 1)."""
    node = volume.GetDisplayNode()
    if node is not None:
        # Slicer keeps what equals the lower threshold: nothing at all must not be drawn
        node.SetThreshold(max(low, 1e-3), 1.0)


def _first_colour_node() -> Any:
    for name in HEAT_COLOURS:
        found = slicer.mrmlScene.GetFirstNodeByName(name)
        if found is not None and found.IsA("vtkMRMLColorNode"):
            return found
    return None


def show_in_slices(ct: Any, heat_map: Any, opacity: float, fit: bool = False) -> None:
    """Show the CT in all slice views, and a heat map over it.

    Args:
        ct: The CT's volume node.
        heat_map: Volume node, or None for the CT alone.
        opacity: Of the heat map, 0 to 1.
        fit: Whether to zoom to the CT.
    """
    if slicer.app.layoutManager() is None:
        return
    slicer.util.setSliceViewerLayers(
        background=ct,
        foreground=heat_map,
        foregroundOpacity=opacity if heat_map is not None else 0.0,
        fit=fit,
    )


def show_lung_window(ct: Any) -> None:
    """Set the lung window, width 1500 HU and level -600 HU, where no other was chosen by hand."""
    node = ct.GetDisplayNode()
    if node is not None and node.GetAutoWindowLevel():
        node.AutoWindowLevelOff()
        node.SetWindowLevel(1500.0, -600.0)


def show_source(lesions: Any, pseudolabel: Any, pseudolabel_counts: bool) -> None:
    """Show in the views what the table counts: the network's lesions or the pseudo-label.

    Args:
        lesions: Segmentation node with the lesion types.
        pseudolabel: Segmentation node with the pseudo-label.
        pseudolabel_counts: Which of the two.
    """
    lesions.GetDisplayNode().SetVisibility(True)
    pseudolabel.GetDisplayNode().SetVisibility(pseudolabel_counts)
    for identifier in ("ground_glass", "consolidation", "mixed"):
        if lesions.GetSegmentation().GetSegment(identifier) is not None:
            lesions.GetDisplayNode().SetSegmentVisibility(identifier, not pseudolabel_counts)


def show(node: Any) -> None:
    """Show a segmentation or a list of points in the views; None is ignored."""
    _set_visible(node, True)


def hide(node: Any) -> None:
    """Hide a segmentation or a list of points in all views; None is ignored."""
    _set_visible(node, False)


def _set_visible(node: Any, visible: bool) -> None:
    if node is not None and node.GetDisplayNode() is not None:
        node.GetDisplayNode().SetVisibility(visible)


def show_chart_instead(others: Collection[Any], chart: Any) -> None:
    """Let plot views that show one of other charts show this one, or nothing if it is None."""
    identifiers = {node.GetID() for node in others if node is not None}
    for view in slicer.util.getNodesByClass("vtkMRMLPlotViewNode"):
        if view.GetPlotChartNodeID() in identifiers:
            view.SetPlotChartNodeID(chart.GetID() if chart is not None else None)


def show_colour_scale(shown: Any, others: Collection[Any], title: str) -> None:
    """Show beside the slices what the colours of a heat map mean, and no other scale of ours.

    Args:
        shown: The heat map, None for none.
        others: Maps whose scales are hidden.
        title: What the scale is called.
    """
    logic = slicer.vtkSlicerColorLogic
    for volume in others:
        legend = logic.GetColorLegendDisplayNode(volume)
        if legend is not None and volume is not shown:
            legend.SetVisibility(False)
    if shown is None:
        return
    legend = logic.AddDefaultColorLegendDisplayNode(shown)
    legend.SetTitleText(title)
    legend.SetLabelFormat("%.1f")
    legend.SetNumberOfLabels(3)
    legend.SetVisibility2D(True)
    legend.SetVisibility3D(False)
    legend.SetVisibility(True)


def jump_slices(place: tuple[float, float, float]) -> None:
    """Move all slice views to a place, world RAS mm, at the zoom that they have."""
    offset = slicer.vtkMRMLSliceNode.OffsetJumpSlice
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *place, offset)


def fit_3d_views() -> None:
    """Zoom the 3D views to what they show."""
    manager = slicer.app.layoutManager()
    for index in range(manager.threeDViewCount if manager is not None else 0):
        view = manager.threeDWidget(index).threeDView()
        view.resetFocalPoint()
        view.resetCamera()
