"""Stand-ins for the MRML widgets that choose and show nodes, over the real scene."""

# ruff: noqa: N802, N815  (the application's own names)

from __future__ import annotations

import weakref
from typing import Any, ClassVar

import slicer
import vtk
from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QTableWidget, QTableWidgetItem, QWidget

from .ctk import CollapsibleButton
from .ctk_sliders import DoubleSpinBox, RangeWidget, SliderWidget
from .observers import Observers
from .properties import Property, stored
from .qt_layer import register
from .qt_module import add_widget_class

HOLDERS: weakref.WeakSet[QWidget] = weakref.WeakSet()
"""Widgets that were given a scene: they are to let go of it before it goes."""

SCENE_SIGNAL = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}


class MrmlWidget(QWidget):
    """A widget with a scene: `slicer.qMRMLWidget` and the plain `slicer.qSlicerWidget`."""

    mrmlSceneChanged = Signal(object)
    MRML_SIGNALS: ClassVar = SCENE_SIGNAL

    def setMRMLScene(self, scene: Any) -> None:
        """Set the scene and tell the widgets below."""
        if scene is not self.mrmlScene():
            HOLDERS.add(self)
            self.__dict__["_scene"] = scene
            self.scene_set()
            self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        """The scene, None before it was set."""
        return self.__dict__.get("_scene")

    def scene_set(self) -> None:
        """What a widget does when it has got another scene."""


class SortFilterProxyModel(QObject):
    """What a node selector offers, beyond classes and attributes."""

    def __init__(self, selector: NodeComboBox):
        super().__init__(selector)
        self._selector = selector

    hiddenNodeIDs = stored(
        "hiddenNodeIDs", "QStringList", [], lambda self, _: self._selector._update()
    )


class NodeComboBox(MrmlWidget):
    """Chooses a node of given classes; follows the scene."""

    nodeChanged = Signal(object)
    nodePresent = Signal(bool)
    currentNodeIDChanged = Signal(str)
    nodeAddedToScene = Signal(object)
    nodeCreated = Signal(object)
    nodeChosen = Signal(object)
    MRML_SIGNALS: ClassVar = {
        "currentNodeChanged(vtkMRMLNode*)": "nodeChanged",
        "currentNodeChanged(bool)": "nodePresent",
        "nodeAdded(vtkMRMLNode*)": "nodeAddedToScene",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeCreated",
        "nodeActivated(vtkMRMLNode*)": "nodeChosen",
    }

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self._combo = QComboBox(self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self._node: Any = None
        self._attributes: list[tuple[Any, ...]] = []
        self._observers, self._filter = Observers(self), SortFilterProxyModel(self)
        self._combo.activated.connect(self._chosen)

    def scene_set(self) -> None:
        """Follow the new scene."""
        self._observers.clear()
        scene = self.mrmlScene()
        if scene is not None:
            events = slicer.vtkMRMLScene
            for event in (
                events.NodeAddedEvent,
                events.NodeRemovedEvent,
                events.EndBatchProcessEvent,
            ):
                self._observers.add(scene, event, self._scene_changed)
            for event in (events.EndImportEvent, events.EndCloseEvent):
                self._observers.add(scene, event, self._scene_replaced)
        self._update()

    def _scene_replaced(self) -> None:
        """Take all nodes out and in again, as the scene model does: the choice is lost."""
        self._select(None)
        self._update()

    def _scene_changed(self) -> None:
        if not self.mrmlScene().IsBatchProcessing():
            self._update()

    def nodes(self) -> list[Any]:
        """The nodes to choose from, in the scene's order."""
        scene = self.mrmlScene()
        if scene is None:
            return []
        every = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
        return [node for node in every if self._offered(node)]

    def _offered(self, node: Any) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if node.GetID() in self._filter.hiddenNodeIDs:
            return False
        for kind in self.nodeTypes:
            if not node.IsA(kind) or any(node.IsA(hidden) for hidden in self.hideChildNodeTypes):
                continue
            if not self.showChildNodeTypes and node.GetClassName() != kind:
                continue
            asked = [rest for of_kind, *rest in self._attributes if of_kind == kind]
            if all(self._has_attribute(node, *rest) for rest in asked):
                return True
        return False

    @staticmethod
    def _has_attribute(node: Any, name: str, value: str | None) -> bool:
        found = node.GetAttribute(name)
        return found is not None and value in (None, "", found)

    def _update(self) -> None:
        """Rebuild the list; keep the choice if it can be kept."""
        nodes = self.nodes()
        self._combo.blockSignals(True)
        self._combo.clear()
        if self.noneEnabled:
            self._combo.addItem(self.noneDisplay, None)
        for node in nodes:
            self._combo.addItem(node.GetName() or "", node.GetID())
        self._combo.blockSignals(False)
        kept = self._node if any(node is self._node for node in nodes) else None
        if kept is None and nodes and not self.noneEnabled:
            kept = nodes[0]
        self._select(kept)

    def _select(self, node: Any) -> None:
        row = self._combo.findData(node.GetID() if node else None)
        self._combo.setCurrentIndex(row if node or self.noneEnabled else -1)
        if node is not self._node:
            self._node = node
            self.nodeChanged.emit(node)
            self.nodePresent.emit(node is not None)
            self.currentNodeIDChanged.emit(node.GetID() if node else "")

    def _chosen(self, row: int) -> None:
        self.setCurrentNodeID(self._combo.itemData(row) or "")
        self.nodeChosen.emit(self._node)

    def currentNode(self) -> Any:
        """The chosen node or None."""
        return self._node

    def setCurrentNode(self, node: Any) -> None:
        """Choose a node; one that is not offered, or None, means none (or the first)."""
        self._select(node if any(node is offered for offered in self.nodes()) else None)

    def setCurrentNodeID(self, identifier: str) -> None:
        """Choose by ID."""
        scene = self.mrmlScene()
        self.setCurrentNode(scene.GetNodeByID(identifier) if scene and identifier else None)

    def setCurrentNodeIndex(self, index: int) -> None:
        """Choose by place among the nodes."""
        self.setCurrentNode(self.nodeFromIndex(index))

    def nodeFromIndex(self, index: int) -> Any:
        """The node at a place."""
        nodes = self.nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def nodeCount(self) -> int:
        """How many nodes are offered."""
        return len(self.nodes())

    def addNode(self, kind: str = "") -> Any:
        """Create a node as the menu entry does, and choose it."""
        kind = kind or self.nodeTypes[0]
        node = self.mrmlScene().AddNewNodeByClass(kind, self.baseName)
        for of_kind, name, value in self._attributes:
            if of_kind == kind:
                node.SetAttribute(name, value)
        self._update()
        if self.selectNodeUponCreation:
            self._select(node)
        self.nodeCreated.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        """Delete the chosen node."""
        if self._node is not None:
            self.mrmlScene().RemoveNode(self._node)

    def sortFilterProxyModel(self) -> SortFilterProxyModel:
        """What is offered and what is not."""
        return self._filter

    def addAttribute(self, kind: str, name: str, value: str | None = None) -> None:
        """Offer only nodes with an attribute."""
        self._attributes.append((kind, name, value))
        self._update()

    def removeAttribute(self, kind: str, name: str) -> None:
        """Undo `addAttribute`."""
        self._attributes = [entry for entry in self._attributes if entry[:2] != (kind, name)]
        self._update()

    nodeTypes = stored("nodeTypes", "QStringList", [], lambda self, _: self._update())
    hideChildNodeTypes = stored(
        "hideChildNodeTypes", "QStringList", [], lambda self, _: self._update()
    )
    noneEnabled = stored("noneEnabled", bool, False, lambda self, _: self._update())
    noneDisplay = stored("noneDisplay", str, "None", lambda self, _: self._update())
    showHidden = stored("showHidden", bool, False, lambda self, _: self._update())
    showChildNodeTypes = stored("showChildNodeTypes", bool, True, lambda self, _: self._update())
    addEnabled = stored("addEnabled", bool, True)
    removeEnabled = stored("removeEnabled", bool, True)
    editEnabled = stored("editEnabled", bool, False)
    renameEnabled = stored("renameEnabled", bool, False)
    baseName = stored("baseName", str, "")
    selectNodeUponCreation = stored("selectNodeUponCreation", bool, True)
    currentNodeID = Property(
        str, lambda self: self._node.GetID() if self._node else "", setCurrentNodeID
    )


class ColorTableComboBox(NodeComboBox):
    """Chooses a colour node."""

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self.nodeTypes = ["vtkMRMLColorNode"]


class MrmlCollapsibleButton(CollapsibleButton):
    """A collapsible button with a scene."""

    mrmlSceneChanged = Signal(object)
    MRML_SIGNALS: ClassVar = SCENE_SIGNAL
    setMRMLScene = MrmlWidget.setMRMLScene
    mrmlScene = MrmlWidget.mrmlScene
    scene_set = MrmlWidget.scene_set


class _UnitAware:
    """What sliders and spin boxes get from MRML: a scene and a quantity, whose unit is not used."""

    def setMRMLScene(self, scene: Any) -> None:
        """Remember the scene."""
        self.__dict__["_scene"] = scene

    def mrmlScene(self) -> Any:
        """The scene, None before it was set."""
        return self.__dict__.get("_scene")


class MrmlSliderWidget(_UnitAware, SliderWidget):
    """A slider with a scene."""

    quantity = stored("quantity", str, "")


class MrmlSpinBox(_UnitAware, DoubleSpinBox):
    """A spin box with a scene."""

    quantity = stored("quantity", str, "")


class MrmlRangeWidget(_UnitAware, RangeWidget):
    """A range with a scene."""

    quantity = stored("quantity", str, "")


class TableView(QTableWidget):
    """Shows and edits a table node."""

    mrmlSceneChanged = Signal(object)
    MRML_SIGNALS: ClassVar = SCENE_SIGNAL
    setMRMLScene = MrmlWidget.setMRMLScene
    mrmlScene = MrmlWidget.mrmlScene
    scene_set = MrmlWidget.scene_set

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self._node: Any = None
        self._observers, self._filling = Observers(self), False
        self.cellChanged.connect(self._edited)

    def mrmlTableNode(self) -> Any:
        """The table node that is shown."""
        return self._node

    def setMRMLTableNode(self, node: Any) -> None:
        """Show a table node and follow it."""
        self._observers.clear()
        self._node = node
        if node is not None:
            self._observers.add(node, vtk.vtkCommand.ModifiedEvent, self._fill)
        self._fill()

    def _fill(self) -> None:
        self._filling = True
        self.clear()
        table = self._node.GetTable() if self._node is not None else vtk.vtkTable()
        if table is not None:
            self.setRowCount(table.GetNumberOfRows())
            self.setColumnCount(table.GetNumberOfColumns())
            names = [table.GetColumnName(c) or "" for c in range(table.GetNumberOfColumns())]
            self.setHorizontalHeaderLabels(names)
            for row in range(table.GetNumberOfRows()):
                for column in range(table.GetNumberOfColumns()):
                    text = table.GetValue(row, column).ToString()
                    self.setItem(row, column, QTableWidgetItem(text))
        self._filling = False

    def _edited(self, row: int, column: int) -> None:
        if not self._filling and self._node is not None and not self._node.GetLocked():
            item = self.item(row, column)
            self._node.SetCellText(row, column, item.text() if item else "")
            self._node.Modified()

    firstRowLocked = stored("firstRowLocked", bool, False)
    firstColumnLocked = stored("firstColumnLocked", bool, False)


_CLASSES: dict[str, type] = {
    "qMRMLWidget": MrmlWidget,
    "qMRMLNodeComboBox": NodeComboBox,
    "qMRMLColorTableComboBox": ColorTableComboBox,
    "qMRMLCollapsibleButton": MrmlCollapsibleButton,
    "qMRMLSliderWidget": MrmlSliderWidget,
    "qMRMLSpinBox": MrmlSpinBox,
    "qMRMLRangeWidget": MrmlRangeWidget,
    "qMRMLTableView": TableView,
    "qSlicerWidget": type("SlicerWidget", (MrmlWidget,), {}),
}


def widget_facades() -> dict[str, Any]:
    """Facade classes by name, for the module `slicer`."""
    register(SortFilterProxyModel, "slicer.qMRMLSortFilterProxyModel")
    return {name: add_widget_class(made, f"slicer.{name}") for name, made in _CLASSES.items()}
