"""What the views show: the result that the panel shows, and no other."""

from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from DRAMLesionPanel.parameters import DRAMLesionParameterNode, HeatMap
from DRAMLesionPanel.telling import telling

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result


def showResult(result: "Result", parameters: DRAMLesionParameterNode, fit: bool = False) -> None:
    """Show CT, heat map and its scale in the slice views, and as segments what the table counts."""
    from DRAMLesionLib.mrml import display
    from DRAMLesionLib.mrml.result import MAPS, PSEUDOLABEL

    chosen = parameters.heatMap
    volume = None if chosen == HeatMap.NONE else result.get(chosen.value)
    if fit:
        display.show_lung_window(result.ct)
    display.show_in_slices(result.ct, volume, parameters.heatMapOpacity, fit)
    display.show_colour_scale(volume, [result.get(role) for role in MAPS], chosen.label())
    display.show_source(
        result.get("segmentation"), result.get("pseudolabel"), result.source == PSEUDOLABEL
    )


def hideOthers(result: "Result | None") -> bool:
    """Hide every other result; returns whether there is any result in the scene at all."""
    from DRAMLesionLib.mrml import display
    from DRAMLesionLib.mrml.result import MAPS, POINTS, SEGMENTATIONS, every_result

    found = every_result()
    others = [each for each in found if result is None or each.node is not result.node]
    for other in others:
        for role in (*SEGMENTATIONS, *POINTS):
            display.hide(other.get(role))
        display.show_colour_scale(None, [m for role in MAPS if (m := other.get(role))], "")
    chart = result.chart() if result is not None else None
    display.show_chart_instead([other.get("chart") for other in others], chart)
    return bool(found)


def follow(result: "Result | None", ct: Any, parameters: DRAMLesionParameterNode) -> None:
    """The panel shows another CT: show it, and its result and points where it has some."""
    from DRAMLesionLib.mrml import display
    from DRAMLesionLib.mrml.result import POINTS

    if not hideOthers(result):
        return  # nothing of ours is in the views
    isShown = ct is not None and ct.GetID() in shownBackgrounds()
    if result is not None:
        showResult(result, parameters, fit=not isShown)
        for role in POINTS:
            display.show(result.get(role))
    else:
        display.show_in_slices(ct, None, 0.0, fit=ct is not None and not isShown)


def shownBackgrounds() -> set[str]:
    """IDs of the volumes that the slice views show."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return {node.GetBackgroundVolumeID() for node in nodes}


def goToWorst(result: "Result", row: str) -> None:
    """Move the slice views to where a lobe, a lung or both have most lesion."""
    from DRAMLesionLib.mrml import display, places

    with telling(_("The slices cannot be moved."), waitCursor=True):
        place = places.worst_place(result, row)
        if place is not None:
            display.jump_slices(place)
