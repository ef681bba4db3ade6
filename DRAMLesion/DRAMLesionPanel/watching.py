"""Hearing of what happens to the nodes that the user has chosen."""

from collections.abc import Callable
from typing import Any

import slicer
import vtk


class Watched:
    """Observes nodes on behalf of a widget with the observation mixin.

    onChanged is called when their voxels, segments, name or transform change.
    """

    def __init__(self, observer: Any, onChanged: Callable[[], None]):
        self._observer, self._onChanged = observer, onChanged
        self._nodes: tuple[Any, ...] = ()

    def watch(self, *nodes: Any) -> None:
        """Observe these nodes, and no others; None is left out."""
        wanted = tuple(node for node in nodes if node is not None)
        if wanted == self._nodes:
            return
        self.clear()
        self._nodes = wanted
        for node in wanted:
            for event in _events(node):
                if not self._observer.hasObserver(node, event, self._changed):
                    self._observer.addObserver(node, event, self._changed)

    def clear(self) -> None:
        """Observe nothing."""
        for node in self._nodes:
            for event in _events(node):
                self._observer.removeObserver(node, event, self._changed)
        self._nodes = ()

    def _changed(self, caller: Any = None, event: Any = None) -> None:
        self._onChanged()


def _events(node: Any) -> list[int]:
    events = [vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLTransformableNode.TransformModifiedEvent]
    if node.IsA("vtkMRMLSegmentationNode"):
        kinds = slicer.vtkSegmentation
        return [*events, kinds.SegmentAdded, kinds.SegmentRemoved, kinds.SegmentModified]
    return [*events, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent]
