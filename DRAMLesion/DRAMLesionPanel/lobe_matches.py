"""The table 'RUL → Segment_3': which segment or label is which lobe, correctable."""

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

LOBES = ("RUL", "RML", "RLL", "LUL", "LLL")


class LobeMatches:
    """One combo box a lobe; onCorrected is called with the lobe's name and the chosen key."""

    def __init__(self, layout: qt.QFormLayout, onCorrected: Callable[[str, str], None]):
        self._onCorrected = onCorrected
        self._filling = False
        self._keys: list[str] = []
        self._known: tuple[Any, ...] | None = None
        self._found: dict[str, str] = {}
        self.boxes: dict[str, qt.QComboBox] = {}
        for lobe in LOBES:
            box = qt.QComboBox()
            box.objectName = f"lobeMatchBox{lobe}"
            box.toolTip = _("Segment or label of the lobe {lobe}").format(lobe=lobe)
            box.connect("currentIndexChanged(int)", self._slot(lobe))
            layout.addRow(f"{lobe} →", box)
            self.boxes[lobe] = box

    def _slot(self, lobe: str) -> Callable[[int], None]:
        def changed(index: int) -> None:
            if not self._filling and index >= 0:
                self._onCorrected(lobe, self._keys[index])

        return changed

    def show(self, node: Any, corrections: dict[str, str]) -> dict[str, str]:
        """Show the matches of a node with the user's corrections; returns them without gaps."""
        from DRAMLesionLib.mrml import lobes

        stamp = (node.GetID(), node.GetMTime(), _contentTime(node))
        if self._known != stamp:
            self._found = {lobe.name: key for lobe, key in lobes.match(node).items()}
            self._fill(lobes.choices(node))
            self._known = stamp
        wanted = {lobe: corrections.get(lobe, self._found.get(lobe, "")) for lobe in LOBES}
        self._filling = True
        for lobe, key in wanted.items():
            self.boxes[lobe].currentIndex = self._keys.index(key) if key in self._keys else 0
        self._filling = False
        return {lobe: key for lobe, key in wanted.items() if key in self._keys and key}

    def _fill(self, choices: list[tuple[str, str]]) -> None:
        self._keys = ["", *(key for key, _name in choices)]
        self._filling = True
        for box in self.boxes.values():
            box.clear()
            for name in (_("(none)"), *(name for _key, name in choices)):
                box.addItem(name)
        self._filling = False


def _contentTime(node: Any) -> int:
    """When what a node holds was changed last."""
    if node.IsA("vtkMRMLSegmentationNode"):
        segmentation = node.GetSegmentation()
        parts = [segmentation.GetSegment(name) for name in segmentation.GetSegmentIDs()]
        return max(int(part.GetMTime()) for part in (segmentation, *parts))
    return int(node.GetImageData().GetMTime()) if node.GetImageData() is not None else 0
