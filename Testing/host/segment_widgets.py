"""Stand-ins for the widgets that choose, list and show segments."""

# ruff: noqa: N802, N815  (the application's own names)

from __future__ import annotations

from typing import Any, ClassVar

import slicer
import vtk
from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from .observers import Observers
from .properties import Property, stored
from .qmrml import SCENE_SIGNAL, MrmlWidget, NodeComboBox
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
    "qMRMLSegmentationShow3DButton": Show3DButton,
}


def segment_facades() -> dict[str, Any]:
    """Facade classes by name, for the module `slicer`."""
    return {name: add_widget_class(made, f"slicer.{name}") for name, made in _CLASSES.items()}
