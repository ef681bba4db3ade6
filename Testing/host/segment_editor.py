"""Stand-in for the Segment Editor: its state follows the editor node as in the application."""

# ruff: noqa: N802, N815  (the application's own names)

from __future__ import annotations

from typing import Any, ClassVar

import slicer
import vtk
from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QApplication,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from .api import slicer_api
from .observers import Observers
from .properties import Property, stored
from .qmrml import SCENE_SIGNAL, MrmlWidget
from .qt_layer import register
from .qt_module import add_widget_class
from .segment_widgets import SegmentsTableView, Show3DButton, segment_events, segment_ids


class Effect(QObject):
    """A Segment Editor effect: only remembers its parameters."""

    def __init__(self, name: str, editor: SegmentEditorWidget):
        super().__init__(editor)
        self._name, self._editor = name, editor

    def setParameter(self, name: str, value: Any) -> None:
        """Set a parameter on the editor node."""
        self._editor.mrmlSegmentEditorNode().SetAttribute(f"{self._name}.{name}", str(value))

    def parameter(self, name: str) -> str:
        """A parameter, '' where it was never set."""
        return self._editor.mrmlSegmentEditorNode().GetAttribute(f"{self._name}.{name}") or ""

    name = Property(str, lambda self: self._name)


class MaskBox(QComboBox):
    """The editor's list of editable areas: fixed ones, then one for each segment.

    As in the application it looks up what the node asks for, and where the list lacks that, writes
    'everywhere' into the node.
    """

    def __init__(self, editor: SegmentEditorWidget):
        super().__init__(editor)
        self._editor = editor
        modes = slicer.vtkMRMLSegmentationNode
        for text, mode in (
            ("Everywhere", modes.EditAllowedEverywhere),
            ("Inside all segments", modes.EditAllowedInsideAllSegments),
            ("Inside all visible segments", modes.EditAllowedInsideVisibleSegments),
            ("Outside all segments", modes.EditAllowedOutsideAllSegments),
            ("Outside all visible segments", modes.EditAllowedOutsideVisibleSegments),
        ):
            self.addItem(text, int(mode))
        self.insertSeparator(self.count())
        self._fixed = self.count()
        self.currentIndexChanged.connect(self._changed)

    def follow(self) -> None:
        """Show what the editor node says, and the segments as they are."""
        self._show_mode()
        self._show_segments()

    def _show_mode(self) -> None:
        node = self._editor.mrmlSegmentEditorNode()
        single = slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
        mode = int(node.GetMaskMode())
        wanted = (node.GetMaskSegmentID() or "") if mode == single else mode
        blocked = self.blockSignals(True)
        self.setCurrentIndex(self.findData(wanted))
        self.blockSignals(blocked)

    def _show_segments(self) -> None:
        segmentation = self._editor.segmentationNode()
        before = self.currentData() if self.currentIndex() >= self._fixed else None
        blocked = self.blockSignals(True)
        while self.count() > self._fixed:
            self.removeItem(self.count() - 1)
        for identifier in segment_ids(segmentation):
            name = segmentation.GetSegmentation().GetSegment(identifier).GetName()
            self.addItem(f"Inside {name}", identifier)
        if before is not None:
            self.setCurrentIndex(self.findData(before))
        self.blockSignals(blocked)
        if segmentation is not None and self.currentIndex() < 0:
            self.setCurrentIndex(0)

    def _changed(self, index: int) -> None:
        node = self._editor.mrmlSegmentEditorNode()
        if node is None:
            return
        if index >= self._fixed:
            node.SetMaskSegmentID(self.itemData(index))
            node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
        else:
            node.SetMaskMode(self.itemData(index) or 0)


class SegmentEditorWidget(MrmlWidget):
    """The Segment Editor's state; its effects do nothing here."""

    currentSegmentIDChanged = Signal(str)
    segmentationSet = Signal(object)
    sourceSet = Signal(object)
    MRML_SIGNALS: ClassVar = SCENE_SIGNAL | {
        "segmentationNodeChanged(vtkMRMLSegmentationNode*)": "segmentationSet",
        "sourceVolumeNodeChanged(vtkMRMLVolumeNode*)": "sourceSet",
    }

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self._editor: Any = None
        self._effects = {name: Effect(name, self) for name in slicer_api().effects}
        self._effect: Effect | None = None
        self._of_scene, self._of_editor = Observers(self), Observers(self)
        self._of_segments, self._observed = Observers(self), None
        self._shortcuts: list[QShortcut] = []
        self._order: list[str] = []
        self._displayed: list[str] = []
        self._buttons = {name: self._button(name) for name in self._effects}
        self._table, self._mask = SegmentsTableView(self), MaskBox(self)
        self._add, self._remove = QPushButton("Add", self), QPushButton("Remove", self)
        self._show_3d = Show3DButton(self)
        self._add.clicked.connect(self._add_segment)
        self._remove.clicked.connect(self._remove_segment)
        buttons = QHBoxLayout()
        for button in (self._add, self._remove, self._show_3d):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.addLayout(buttons)
        layout.addWidget(self._table)
        self._grid = QGridLayout()
        layout.addLayout(self._grid)
        layout.addWidget(self._mask)
        self.updateEffectList()

    def _button(self, name: str) -> QToolButton:
        button = QToolButton(self)
        button.setText(name)
        button.clicked.connect(lambda *_: self.setActiveEffectByName(name))
        return button

    def setEffectNameOrder(self, names: list[str]) -> None:
        """Which effects come first, in the list when it is updated."""
        self._order = list(names)

    def updateEffectList(self) -> None:
        """Show the buttons of the effects: those in the order, then the others unless hidden."""
        names = [name for name in self._order if name in self._effects]
        rest = [name for name in self._effects if name not in names]
        self._displayed = names + (rest if self.unorderedEffectsVisible else [])
        for button in self._buttons.values():
            self._grid.removeWidget(button)
            button.hide()
        for number, name in enumerate(self._displayed):
            self._grid.addWidget(self._buttons[name], number // 4, number % 4)
            self._buttons[name].show()

    def effectByIndex(self, index: int) -> Effect | None:
        """The effect at a place in what is shown; the first place is that of no effect."""
        shown = [None, *(self._effects[name] for name in self._displayed)]
        return shown[index] if 0 <= index < len(shown) else None

    def effectButtons(self) -> dict[str, QToolButton]:
        """The buttons of the effects by name; for tests."""
        return self._buttons

    def _add_segment(self) -> None:
        self.segmentationNode().GetSegmentation().AddEmptySegment()

    def _remove_segment(self) -> None:
        self.segmentationNode().GetSegmentation().RemoveSegment(self.currentSegmentID())

    def mrmlSegmentEditorNode(self) -> Any:
        """The node with the editor's state."""
        return self._editor

    def scene_set(self) -> None:
        """Follow the new scene."""
        self._of_scene.clear()
        scene, events = self.mrmlScene(), slicer.vtkMRMLScene
        if scene is not None:
            for event in (events.EndCloseEvent, events.EndBatchProcessEvent):
                self._of_scene.add(scene, event, self.updateWidgetFromMRML)

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        """Set the node with the editor's state; without one nothing is updated any more."""
        self._of_editor.clear()
        self._editor = node
        if node is not None:
            self._of_editor.add(node, vtk.vtkCommand.ModifiedEvent, self.updateWidgetFromMRML)
            self.updateWidgetFromMRML()

    def segmentationNode(self) -> Any:
        """The segmentation that is edited."""
        return self._editor.GetSegmentationNode() if self._editor else None

    def setSegmentationNode(self, node: Any) -> None:
        """Edit a segmentation; does nothing without an editor node, as in the application."""
        if self._editor is not None and node is not self.segmentationNode():
            self._editor.SetAndObserveSegmentationNode(node)
            self.setActiveEffect(None)
            self.segmentationSet.emit(node)

    def sourceVolumeNode(self) -> Any:
        """The volume that is shown under the segments."""
        return self._editor.GetSourceVolumeNode() if self._editor else None

    def setSourceVolumeNode(self, node: Any) -> None:
        """Set the source volume; it needs a segmentation first, as in the application."""
        if self._editor is not None and self.segmentationNode() is not None:
            self._editor.SetAndObserveSourceVolumeNode(node)
            self.segmentationNode().SetReferenceImageGeometryParameterFromVolumeNode(node)
            self.sourceSet.emit(node)

    def currentSegmentID(self) -> str:
        """The segment that is edited."""
        return (self._editor.GetSelectedSegmentID() or "") if self._editor else ""

    def setCurrentSegmentID(self, identifier: str) -> None:
        """Choose the segment that is edited."""
        self._editor.SetSelectedSegmentID(identifier)
        self.currentSegmentIDChanged.emit(identifier)

    def availableEffectNames(self) -> list[str]:
        """Names of the effects."""
        return slicer_api().effects

    def setActiveEffectByName(self, name: str) -> None:
        """Switch to an effect; an unknown name means none."""
        self.setActiveEffect(self.effectByName(name))

    def activeEffect(self) -> Effect | None:
        """The active effect or None."""
        return self._effect

    def setActiveEffect(self, effect: Effect | None) -> None:
        """Name an effect, or none, in the editor node; it is switched when the widget follows."""
        if self._editor is not None:
            self._editor.SetActiveEffectName(effect.name if effect is not None else "")

    def installKeyboardShortcuts(self, parent: QWidget | None = None) -> None:
        """Let the digits switch the effects, wherever in the main window the focus is."""
        self.uninstallKeyboardShortcuts()
        windows = QApplication.topLevelWidgets()
        main = next((w for w in windows if w.objectName() == "qSlicerMainWindow"), None)
        for number in range(1, 11):
            shortcut = QShortcut(QKeySequence(str(number % 10)), parent or main or self)
            shortcut.activated.connect(lambda number=number: self._toggle(number))
            self._shortcuts.append(shortcut)

    def _toggle(self, number: int) -> None:
        effect = self.effectByIndex(number)
        self.setActiveEffect(None if effect is self._effect else effect)

    def uninstallKeyboardShortcuts(self) -> None:
        """Undo `installKeyboardShortcuts`."""
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []

    @property
    def shortcuts(self) -> int:
        """How many keys are caught; for tests."""
        return len(self._shortcuts)

    def removeViewObservations(self) -> None:
        """No view is observed here."""

    def updateWidgetFromMRML(self) -> None:
        """Follow the editor node, though not while the scene closes or is in a batch."""
        scene = self.mrmlScene()
        if scene is None or scene.IsClosing() or scene.IsBatchProcessing() or self._editor is None:
            return
        node = self.segmentationNode()
        if node is not self._observed:
            self._of_segments.clear()
            self._observed = node
            for event in segment_events() if node is not None else ():
                self._of_segments.add(node, event, self.updateWidgetFromMRML)
            self._table.setSegmentationNode(node)
            self._show_3d.setSegmentationNode(node)
        self._effect = self.effectByName(self._editor.GetActiveEffectName() or "")
        self._mask.follow()

    def maskBox(self) -> QComboBox:
        """The list of editable areas; for tests."""
        return self._mask

    def setMaximumNumberOfUndoStates(self, count: int) -> None:
        """Set how many steps can be undone."""
        self.maximumNumberOfUndoStates = count

    def effectByName(self, name: str) -> Effect | None:
        """An effect, None for an unknown name."""
        return self._effects.get(name)

    def _show_add_and_remove(self, shown: bool) -> None:
        self._add.setVisible(shown)
        self._remove.setVisible(shown)

    maximumNumberOfUndoStates = stored("maximumNumberOfUndoStates", int, 10)
    unorderedEffectsVisible = stored("unorderedEffectsVisible", bool, True)
    readOnly = stored("readOnly", bool, False)
    segmentationNodeSelectorVisible = stored("segmentationNodeSelectorVisible", bool, True)
    sourceVolumeNodeSelectorVisible = stored("sourceVolumeNodeSelectorVisible", bool, True)
    switchToSegmentationsButtonVisible = stored("switchToSegmentationsButtonVisible", bool, True)
    show3DButtonVisible = stored(
        "show3DButtonVisible", bool, True, lambda self, shown: self._show_3d.setVisible(shown)
    )
    addRemoveSegmentButtonsVisible = stored(
        "addRemoveSegmentButtonsVisible", bool, True, _show_add_and_remove
    )


def editor_facades() -> dict[str, Any]:
    """Facade classes by name, for the module `slicer`."""
    register(Effect, "slicer.qSlicerSegmentEditorAbstractEffect")
    name = "qMRMLSegmentEditorWidget"
    return {name: add_widget_class(SegmentEditorWidget, f"slicer.{name}")}
