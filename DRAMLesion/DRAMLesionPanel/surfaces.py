"""The button Show 3D: surfaces of what the table counts, made step by step."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from DRAMLesionPanel.steps import Steps
from DRAMLesionPanel.telling import tell

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result

LATER_MS = 400
"""How long the threshold has to rest before the surfaces follow it."""


class SurfacesButton:
    """Makes and removes the surfaces of the result that findResult gives."""

    def __init__(self, button: qt.QPushButton, findResult: "Callable[[], Result | None]"):
        self._button, self._findResult = button, findResult
        self._steps: Steps | None = None
        self._text = str(button.text)
        self._filling = False
        self._later = qt.QTimer()
        self._later.setSingleShot(True)
        self._later.setInterval(LATER_MS)
        self._later.connect("timeout()", self._makeAnew)
        button.connect("toggled(bool)", self._toggled)

    @property
    def running(self) -> bool:
        """Whether surfaces are being made, or wait to be."""
        return bool(self._later.isActive()) or (self._steps is not None and self._steps.running)

    def show(self, result: "Result | None") -> None:
        """Be pressed if a result has surfaces."""
        self.stop()
        self._filling = True
        self._button.enabled = result is not None
        self._button.checked = result is not None and _hasSurfaces(result)
        self._filling = False

    def stop(self) -> None:
        """Make no more: the scene closes, or another result is shown."""
        self._later.stop()
        if self._steps is not None:
            self._steps.stop()
            self._steps = None
        self._button.text = self._text

    def sourceChanged(self) -> None:
        """The table counts something else now: its surfaces belong into the view."""
        if self._button.checked:
            self._start()

    def voxelsChanged(self) -> None:
        """The pseudo-label is another: its surfaces follow when it has come to rest."""
        if self._button.checked:
            self._later.start()

    def _toggled(self, checked: bool) -> None:
        from DRAMLesionLib.mrml import surfaces

        result = self._findResult()
        if self._filling or result is None:
            return
        if checked:
            self._start()
        else:
            self.stop()
            surfaces.remove_surfaces(result)

    def _makeAnew(self) -> None:
        from DRAMLesionLib.mrml.segments import SURFACE

        result = self._findResult()
        if result is not None and self._button.checked:
            result.get("pseudolabel").GetSegmentation().RemoveRepresentation(SURFACE)
            self._start()

    def _start(self) -> None:
        self.stop()
        self._steps = Steps(self._make(), self._made)

    def _make(self) -> Generator[None, None, None]:
        from DRAMLesionLib.mrml import surfaces

        result = self._findResult()
        if result is None:
            return
        for share in surfaces.make_surfaces(result):
            self._button.text = f"{self._text} ({round(100 * share)} %)"
            yield
            if not result.complete:
                return

    def _made(self, error: Exception | None) -> None:
        from DRAMLesionLib.mrml import display

        self._button.text = self._text
        if error is not None:
            tell(_("The surfaces could not be made."), error)
        display.fit_3d_views()


def _hasSurfaces(result: "Result") -> bool:
    from DRAMLesionLib.mrml.segments import SURFACE

    return bool(result.get("segmentation").GetSegmentation().ContainsRepresentation(SURFACE))
