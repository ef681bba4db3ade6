"""Stand-ins for the widgets that choose, list and edit segments."""

# ruff: noqa: N802, N815  (the application's own names)

from __future__ import annotations

from typing import Any, ClassVar

import slicer
import vtk
from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from .api import slicer_api
from .observers import Observers
from .properties import Property, stored
from .qmrml import SCENE_SIGNAL, MrmlWidget, NodeComboBox
from .qt_layer import register
from .qt_module import add_widget_class


def segment_ids(node: Any) -> list[str]:
    """Segment IDs of a segmentation node, in order; none for None."""
    return list(node.GetSegmentation().GetSegmentIDs()) if node is not None else []


def segment_events() -> tuple[int, ...]:
    """Events after which a list of segments may have changed."""
    kinds = slicer.vtkSegmentation
    return (
        kinds.SegmentAdded,
        kinds.SegmentRemoved,
        kinds.SegmentModified,
        vtk.vtkCommand.ModifiedEvent,
    )


class SegmentSelectorWidget(MrmlWidget):
    """Chooses a segmentation and a segment of it."""

    nodeChanged = Signal(object)
    nodePresent = Signal(bool)
    currentSegmentChanged = Signal(str)
    segmentSelectionChanged = Signal("QStringList")
    MRML_SIGNALS: ClassVar = SCENE_SIGNAL | {
        "currentNodeChanged(vtkMRMLNode*)": "nodeChanged",
        "currentNodeChanged(bool)": "nodePresent",
    }

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self._nodes, self._segments = NodeComboBox(self), QComboBox(self)
        self._nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._nodes.noneEnabled = True
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._nodes)
        layout.addWidget(self._segments)
        self._selected: list[str] = []
        self._observers = Observers(self)
        self._nodes.nodeChanged.connect(self._node_changed)
        self._segments.currentIndexChanged.connect(
            lambda _: self.currentSegmentChanged.emit(self.currentSegmentID())
        )

    def scene_set(self) -> None:
        """Hand the scene on."""
        self._nodes.setMRMLScene(self.mrmlScene())

    def _node_changed(self, node: Any) -> None:
        self._observers.clear()
        if node is not None:
            for event in segment_events():
                self._observers.add(node, event, self._fill)
        self._fill()
        self.nodeChanged.emit(node)
        self.nodePresent.emit(node is not None)

    def _fill(self) -> None:
        wanted, known = (
            self.segmentIDs(),
            [self._segments.itemData(i) for i in range(self._segments.count())],
        )
        known = [identifier for identifier in known if identifier]
        if wanted == known:
            return
        before = self.currentSegmentID()
        self._segments.blockSignals(True)
        self._segments.clear()
        if self.noneEnabled:
            self._segments.addItem("None", "")
        for identifier in wanted:
            segment = self.currentNode().GetSegmentation().GetSegment(identifier)
            self._segments.addItem(segment.GetName(), identifier)
        self._segments.setCurrentIndex(max(self._segments.findData(before), 0))
        self._segments.blockSignals(False)
        if self.currentSegmentID() != before:
            self.currentSegmentChanged.emit(self.currentSegmentID())

    def currentNode(self) -> Any:
        """The chosen segmentation."""
        return self._nodes.currentNode()

    def currentNodeID(self) -> str:
        """Its ID, '' for none."""
        return self._nodes.currentNodeID

    def setCurrentNode(self, node: Any) -> None:
        """Choose a segmentation."""
        self._nodes.setCurrentNode(node)

    def setCurrentNodeID(self, identifier: str) -> None:
        """Choose a segmentation by ID."""
        self._nodes.setCurrentNodeID(identifier)

    def segmentIDs(self) -> list[str]:
        """Segments to choose from."""
        return segment_ids(self.currentNode())

    def currentSegmentID(self) -> str:
        """The chosen segment, '' for none."""
        return self._segments.currentData() or ""

    def setCurrentSegmentID(self, identifier: str) -> None:
        """Choose a segment."""
        self._segments.setCurrentIndex(self._segments.findData(identifier))

    def selectedSegmentIDs(self) -> list[str]:
        """The segments chosen where several may be."""
        return list(self._selected) if self.multiSelection else [self.currentSegmentID()]

    def setSelectedSegmentIDs(self, identifiers: list[str]) -> None:
        """Choose several segments."""
        self._selected = list(identifiers)
        self.segmentSelectionChanged.emit(self._selected)

    multiSelection = stored("multiSelection", bool, False)
    noneEnabled = stored("noneEnabled", bool, False)
    editEnabled = stored("editEnabled", bool, False)
    segmentationNodeSelectorVisible = stored(
        "segmentationNodeSelectorVisible",
        bool,
        True,
        lambda self, shown: self._nodes.setVisible(shown),
    )


class SegmentsTableView(MrmlWidget):
    """Lists the segments of a segmentation."""

    segmentAboutToBeModified = Signal(str)

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self._table = QTableWidget(0, 1, self)
        self._table.setHorizontalHeaderLabels(["Segment"])
        self._table.horizontalHeader().setStretchLastSection(True)
        QVBoxLayout(self).addWidget(self._table)
        self._node: Any = None
        self._observers = Observers(self)

    def segmentationNode(self) -> Any:
        """The segmentation that is listed."""
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        """List a segmentation and follow it."""
        self._observers.clear()
        self._node = node
        if node is not None:
            for event in segment_events():
                self._observers.add(node, event, self._fill)
        self._fill()

    def _fill(self) -> None:
        identifiers = segment_ids(self._node)
        self._table.setRowCount(len(identifiers))
        for row, identifier in enumerate(identifiers):
            item = QTableWidgetItem(self._node.GetSegmentation().GetSegment(identifier).GetName())
            item.setData(Qt.ItemDataRole.UserRole, identifier)
            self._table.setItem(row, 0, item)

    def tableWidget(self) -> QTableWidget:
        """The table inside."""
        return self._table

    def displayedSegmentIDs(self) -> list[str]:
        """Segments that are listed."""
        return segment_ids(self._node)

    def selectedSegmentIDs(self) -> list[str]:
        """Segments of the selected rows."""
        role = Qt.ItemDataRole.UserRole
        return [item.data(role) for item in self._table.selectedItems()]

    def setSelectedSegmentIDs(self, identifiers: list[str]) -> None:
        """Select rows."""
        self._table.clearSelection()
        for row, identifier in enumerate(segment_ids(self._node)):
            if identifier in identifiers:
                self._table.item(row, 0).setSelected(True)

    segmentCount = Property(int, lambda self: len(segment_ids(self._node)))
    readOnly = stored("readOnly", bool, False)
    headerVisible = stored("headerVisible", bool, True)
    filterBarVisible = stored("filterBarVisible", bool, False)
    colorColumnVisible = stored("colorColumnVisible", bool, True)
    opacityColumnVisible = stored("opacityColumnVisible", bool, True)
    statusColumnVisible = stored("statusColumnVisible", bool, False)
    visibilityColumnVisible = stored("visibilityColumnVisible", bool, True)
    selectionMode = stored("selectionMode", int, 3)


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
        self.shortcuts = 0
        self._table = SegmentsTableView(self)
        QVBoxLayout(self).addWidget(self._table)

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

    def installKeyboardShortcuts(self, _parent: QWidget | None = None) -> None:
        """Keys of the effects are not needed here; counted, so that tests see the pairs."""
        self.shortcuts += 1

    def uninstallKeyboardShortcuts(self) -> None:
        """Undo `installKeyboardShortcuts`."""
        self.shortcuts = 0

    def removeViewObservations(self) -> None:
        """No view is observed here."""

    def updateWidgetFromMRML(self) -> None:
        """Follow the editor node, though not while the scene closes or is in a batch."""
        scene = self.mrmlScene()
        if scene is None or scene.IsClosing() or scene.IsBatchProcessing() or self._editor is None:
            return
        self._table.setSegmentationNode(self.segmentationNode())
        self._effect = self.effectByName(self._editor.GetActiveEffectName() or "")

    def setMaximumNumberOfUndoStates(self, count: int) -> None:
        """Set how many steps can be undone."""
        self.maximumNumberOfUndoStates = count

    def effectByName(self, name: str) -> Effect | None:
        """An effect, None for an unknown name."""
        return self._effects.get(name)

    maximumNumberOfUndoStates = stored("maximumNumberOfUndoStates", int, 10)
    readOnly = stored("readOnly", bool, False)
    segmentationNodeSelectorVisible = stored("segmentationNodeSelectorVisible", bool, True)
    sourceVolumeNodeSelectorVisible = stored("sourceVolumeNodeSelectorVisible", bool, True)


class Show3DButton(QPushButton):
    """Creates and shows the closed surfaces of a segmentation."""

    def __init__(self, parent: QWidget | None = None):
        super().__init__("Show 3D", parent)
        self.setCheckable(True)
        self._node: Any = None
        self.toggled.connect(self._toggled)

    def segmentationNode(self) -> Any:
        """The segmentation."""
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        """Set the segmentation; the button is pressed if it has surfaces."""
        self._node = node
        name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
        shown = node is not None and node.GetSegmentation().ContainsRepresentation(name)
        self.blockSignals(True)
        self.setChecked(bool(shown))
        self.blockSignals(False)

    def _toggled(self, shown: bool) -> None:
        if self._node is None:
            return
        if shown:
            self._node.CreateClosedSurfaceRepresentation()
        else:
            self._node.RemoveClosedSurfaceRepresentation()

    locked = stored("locked", bool, False)


_CLASSES: dict[str, type] = {
    "qMRMLSegmentSelectorWidget": SegmentSelectorWidget,
    "qMRMLSegmentsTableView": SegmentsTableView,
    "qMRMLSegmentEditorWidget": SegmentEditorWidget,
    "qMRMLSegmentationShow3DButton": Show3DButton,
}


def segment_facades() -> dict[str, Any]:
    """Facade classes by name, for the module `slicer`."""
    register(Effect, "slicer.qSlicerSegmentEditorAbstractEffect")
    return {name: add_widget_class(made, f"slicer.{name}") for name, made in _CLASSES.items()}
