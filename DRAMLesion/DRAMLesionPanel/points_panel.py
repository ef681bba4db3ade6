"""Points that the reader places: what map, pseudo-label, table and chart follow."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from DRAMLesionPanel.telling import telling

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result

PAUSE_MS = 100
"""A point that is being dragged tells so many times a second: what follows it waits so long."""


class PointsPanel:
    """Two buttons that let clicks in the views place points, and what follows the points.

    observer is a widget with the observation mixin; findResult gives the result that the panel
    shows or None; onFollowed is called when pseudo-label and numbers have changed.
    """

    def __init__(
        self,
        ui: Any,
        observer: Any,
        findResult: "Callable[[], Result | None]",
        onFollowed: "Callable[[Result], None]",
    ):
        self._ui, self._observer = ui, observer
        self._findResult, self._onFollowed = findResult, onFollowed
        self._follower: Any = None
        self._watched: tuple[Any, ...] = ()
        self._failed: tuple[Any, ...] | None = None
        self._started: tuple[str, str] | None = None
        self._filling = False
        self._buttons = {
            "lesionPoints": ui.lesionPointButton,
            "backgroundPoints": ui.backgroundPointButton,
        }
        ui.lesionPointButton.connect("toggled(bool)", self.onLesionPoint)
        ui.backgroundPointButton.connect("toggled(bool)", self.onBackgroundPoint)
        ui.undoPointButton.connect("clicked(bool)", self.onUndo)
        ui.removePointsButton.connect("clicked(bool)", self.onRemoveAll)
        ui.loadPointsButton.connect("clicked(bool)", self.onLoad)
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.connect("timeout()", self.follow)
        self._interaction = slicer.app.applicationLogic().GetInteractionNode()
        event = self._interaction.InteractionModeChangedEvent
        observer.addObserver(self._interaction, event, self._onMode)

    # --- which result, which points ---------------------------------------------------------------

    def update(self) -> None:
        """Show the points of the result that the panel shows, and follow them if need be."""
        from DRAMLesionLib.mrml.result import POINTS

        result = self._findResult()
        self._ui.clicksSection.enabled = result is not None
        nodes = [result.get(role) for role in POINTS] if result is not None else []
        self._watch(tuple(node for node in nodes if node is not None))
        if self._started is not None and self._started[1] not in [n.GetID() for n in self._watched]:
            self.stopPlacing()  # another CT was chosen, or the list was deleted
        if result is None:
            self._timer.stop()
            self._follower = None
        else:
            self._timer.start()  # a new run, a scene that was loaded, a list that was deleted
        self._show(result)

    def sceneCloses(self) -> None:
        """Let go of everything in a scene that is about to close."""
        self._timer.stop()
        self.stopPlacing()
        self._watch(())
        self._follower = self._failed = None

    def exit(self) -> None:
        """The user leaves the module: clicks in the views are for others again."""
        self.stopPlacing()

    def _watch(self, nodes: tuple[Any, ...]) -> None:
        if nodes == self._watched:
            return
        for node in self._watched:
            for event in _events(node):
                self._observer.removeObserver(node, event, self._onPoints)
        self._watched = nodes
        for node in nodes:
            for event in _events(node):
                self._observer.addObserver(node, event, self._onPoints)

    def _onPoints(self, caller: Any = None, event: Any = None) -> None:
        """A point came, went or moved; in the middle of a drag, perhaps."""
        self._timer.start()

    def follow(self) -> None:
        """Bring map, pseudo-label, table and chart to where the points are now."""
        from DRAMLesionLib.errors import InputError
        from DRAMLesionLib.mrml import clicks

        result = self._findResult()
        if result is None:
            return
        try:
            if clicks.is_followed(result):
                self._failed = None
                self._show(result)
                return
            state = (result.node.GetID(), clicks.state(result))
        except InputError:  # a transform above the CT, about which the panel has told
            return
        if state == self._failed:  # one message for each mistake, however often the panel looks
            return
        with telling(_("The points are not followed."), waitCursor=True) as attempt:
            self._ready(result).follow()
        self._failed = None if attempt.done else state
        self._show(result)
        if attempt.done:
            self._onFollowed(result)

    def _ready(self, result: "Result") -> Any:
        from DRAMLesionLib.mrml.clicks import Follower

        if self._follower is None or not self._follower.fits(result):
            self._follower = Follower(result)
        return self._follower

    def _show(self, result: "Result | None") -> None:
        from DRAMLesionLib.mrml import clicks

        ui = self._ui
        lesion, background, lost = clicks.count(result) if result is not None else (0, 0, 0)
        for button in (ui.undoPointButton, ui.removePointsButton):
            button.enabled = lesion + background > 0
        if lesion + background == 0:
            ui.pointsLabel.text = _(
                "Choose a kind of point, then click in a slice. What looks alike nearby follows."
            )
            return
        texts = [
            _("Points: {lesion} lesion, {background} background.").format(
                lesion=lesion, background=background
            )
        ]
        if self._failed is not None and self._failed[0] == result.node.GetID():
            texts.append(_("⚠ Not followed as they are now."))
        if lost:
            texts.append(_("{count} in no lobe: nothing follows there.").format(count=lost))
        ui.pointsLabel.text = " ".join(texts)

    # --- placing ----------------------------------------------------------------------------------

    def onLesionPoint(self, checked: bool) -> None:
        self._onButton("lesionPoints", checked)

    def onBackgroundPoint(self, checked: bool) -> None:
        self._onButton("backgroundPoints", checked)

    def _onButton(self, role: str, checked: bool) -> None:
        if self._filling:
            return
        result = self._findResult()
        if not checked or result is None:
            self.stopPlacing()
            return
        with telling(_("No point can be placed."), waitCursor=True):
            from DRAMLesionLib.mrml.clicks import points_node

            node = points_node(result, role)
            self._ready(result).prepare()  # so that the first click need not wait for it
            self._started = (role, node.GetID())
            self.update()
            logic = slicer.modules.markups.logic()
            logic.SetActiveList(node)
            logic.StartPlaceMode(True)
        self._showMode()

    def stopPlacing(self) -> None:
        """Leave the place mode, if it is for points of ours."""
        isOurs = self._placing() is not None
        self._started = None
        if isOurs:
            self._interaction.SwitchToViewTransformMode()
        self._showMode()

    def _placing(self) -> str | None:
        """Role of the list into which a click in a view would place a point, None for none."""
        node = self._interaction
        if self._started is None or node.GetCurrentInteractionMode() != node.Place:
            return None
        role, identifier = self._started
        active = slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID()
        return role if active == identifier else None

    def _onMode(self, caller: Any = None, event: Any = None) -> None:
        """Another button of the application, or the Escape key, may have ended the place mode."""
        self._showMode()

    def _showMode(self) -> None:
        placing = self._placing()
        self._filling = True
        for role, button in self._buttons.items():
            button.checked = role == placing
        self._filling = False

    # --- taking back, loading ---------------------------------------------------------------------

    def onUndo(self, _checked: bool = False) -> None:
        from DRAMLesionLib.mrml import clicks

        result = self._findResult()
        if result is not None:
            with telling(_("The point was not taken back.")):
                clicks.remove_last(result)
            self.follow()

    def onRemoveAll(self, _checked: bool = False) -> None:
        from DRAMLesionLib.mrml import clicks

        result = self._findResult()
        if result is not None:
            clicks.remove_all(result)
            self.follow()

    def onLoad(self, _checked: bool = False) -> None:
        from DRAMLesionLib.mrml import clicks
        from DRAMLesionLib.reading.markups import SUFFIX, read_points

        result = self._findResult()
        if result is None:
            return
        pattern = _("Points ({pattern})").format(pattern=f"*{SUFFIX}")
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), _("Load points"), "", pattern
        )
        if not path:
            return
        with telling(_("The points were not loaded."), waitCursor=True):
            clicks.add_points(result, read_points(path))
        self.update()
        self.follow()


def _events(node: Any) -> list[int]:
    """What a list of points tells; a point that only hovers over a view is told as added, too."""
    return [
        node.PointPositionDefinedEvent,
        node.PointPositionUndefinedEvent,
        node.PointModifiedEvent,
        node.PointRemovedEvent,
        slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
    ]
