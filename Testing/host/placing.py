"""A user's mouse in the views while the application places points of Markups.

The nodes are the real ones. What the views' widgets do to them is done here: in place mode a point
hovers under the mouse before the click and belongs to the list already, with a status of its own; a
click places it in the list that is active, and ends the mode unless that is to persist.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
import vtk

_FIDUCIALS = "vtkMRMLMarkupsFiducialNode"


class Mouse:
    """The mouse over the slice views; places are world RAS mm."""

    def __init__(self, application_logic: Any):
        self._interaction = application_logic.GetInteractionNode()
        self._selection = application_logic.GetSelectionNode()
        self._event = self._interaction.AddObserver(
            self._interaction.InteractionModeChangedEvent, lambda *_: self._mode_changed()
        )
        self._preview: tuple[Any, str] | None = None

    def close(self) -> None:
        """Hear of no mode any more."""
        self._interaction.RemoveObserver(self._event)

    def _active(self) -> Any:
        """The list that a click adds to; None outside of place mode."""
        node = self._interaction
        if node.GetCurrentInteractionMode() != node.Place:
            return None
        if self._selection.GetActivePlaceNodeClassName() != _FIDUCIALS:
            return None
        return slicer.mrmlScene.GetNodeByID(self._selection.GetActivePlaceNodeID() or "")

    def hover(self, world: Sequence[float]) -> None:
        """Move over a view."""
        active = self._active()
        if active is None:
            return
        if self._preview is None:
            number = active.AddControlPointWorld(vtk.vtkVector3d(*world))
            self._preview = (active, active.GetNthControlPointID(number))
        number = self._number()
        status = active.PositionPreview
        active.SetNthControlPointPositionWorld(number, list(world), status)

    def click(self, world: Sequence[float]) -> None:
        """Click into a view: a point comes, in place mode."""
        self.hover(world)
        if self._preview is None:
            return
        active, number = self._preview[0], self._number()
        self._preview = None
        active.SetNthControlPointPositionWorld(number, list(world), active.PositionDefined)
        if not self._interaction.GetPlaceModePersistence():
            self._interaction.SwitchToViewTransformMode()

    def escape(self) -> None:
        """Press Escape, or click with the other button: out of the place mode."""
        self._interaction.SwitchToViewTransformMode()

    @staticmethod
    def drag(node: Any, number: int, world: Sequence[float], steps: int = 5) -> None:
        """Pull a point to another place: it tells so at each step."""
        start = [0.0, 0.0, 0.0]
        node.GetNthControlPointPositionWorld(number, start)
        node.InvokeEvent(node.PointStartInteractionEvent)
        for step in range(1, steps + 1):
            at = [a + (b - a) * step / steps for a, b in zip(start, world, strict=True)]
            node.SetNthControlPointPositionWorld(number, at, node.PositionDefined)
        node.InvokeEvent(node.PointEndInteractionEvent)

    def _number(self) -> int:
        assert self._preview is not None
        node, identifier = self._preview
        return int(node.GetNthControlPointIndexByID(identifier))

    def _mode_changed(self) -> None:
        """What hovers goes when the mode ends or another list becomes active."""
        if self._preview is not None and self._active() is not self._preview[0]:
            node, number = self._preview[0], self._number()
            self._preview = None
            if number >= 0:
                node.RemoveNthControlPoint(number)
