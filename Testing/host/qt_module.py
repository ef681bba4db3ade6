"""The module `qt` of the application, made of facades over PySide6."""

# ruff: noqa: N802, N803  (the application's own names)

from __future__ import annotations

import functools
import operator
import types
import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtUiTools import QUiLoader

from .api import slicer_api
from .conversion import wrap
from .qt_layer import FacadeType, facade_class, facade_of, register

# Classes of qt that the file does not cover, but that slicer.util or a usual module needs. Their
# members are those of PySide6; keep what depends on them small.
UNCOVERED = frozenset(
    [
        "QByteArray",
        "QCheckBox",
        "QCursor",
        "QDate",
        "QDateTime",
        "QDialog",
        "QDialogButtonBox",
        "QDir",
        "QEvent",
        "QFile",
        "QFileInfo",
        "QIODevice",
        "QLayout",
        "QLocale",
        "QModelIndex",
        "QObject",
        "QPalette",
        "QPoint",
        "QPointF",
        "QProcessEnvironment",
        "QRect",
        "QSizePolicy",
        "QSpacerItem",
        "QStandardItem",
        "QStandardItemModel",
        "QStandardPaths",
        "QStyle",
        "QSysInfo",
        "QTime",
        "QTreeWidgetItem",
        "QListWidgetItem",
        "QUiLoader",
        "QAbstractButton",
        "QAbstractItemView",
        "QBrush",
        "QPainter",
        "QDoubleValidator",
        "QRegularExpression",
        "QToolBar",
        "QMainWindow",
        "QDockWidget",
        "QStatusBar",
        "QTextCursor",
    ]
)

widget_classes: dict[str, type] = {}
"""PySide stand-ins by their class name in .ui files."""


class Namespace:
    """A class that only holds enums, such as `qt.Qt`, with ints for its values."""

    def __init__(self, source: Any):
        self._source = source

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._source, name)
        return Namespace(value) if isinstance(value, type) else wrap(value)

    def __call__(self, value: int) -> Any:
        return wrap(self._source(value))


class UiLoader(QUiLoader):
    """Loads .ui files with the stand-ins in place of ctk and qMRML widgets."""

    def __init__(self, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        self._missing: list[str] = []

    def createWidget(
        self, className: str, parent: QtWidgets.QWidget | None = None, name: str = ""
    ) -> QtWidgets.QWidget:
        """One widget of the file; unknown classes are noted and shown as plain widgets."""
        if className in widget_classes:
            widget = widget_classes[className](parent)
            widget.setObjectName(name)
            return widget
        if className.startswith(("ctk", "qMRML", "qSlicer")):
            self._missing.append(className)
            return super().createWidget("QWidget", parent, name)
        return super().createWidget(className, parent, name)

    def load(self, device: Any, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        """Load a file and redo the connections that carry a scene, which Qt cannot make here.

        Raises:
            LookupError: the file has a widget class without stand-in.
        """
        content = bytes(device.readAll().data())
        root = ElementTree.fromstring(content)  # noqa: S314  (a file of this repository)
        scene_connections = _take_scene_connections(root)
        _resolve_enums(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        self._missing = []
        widget = super().load(buffer, parent)
        if self._missing:
            message = f"no stand-in for {sorted(set(self._missing))}: supply it in Testing/host"
            raise LookupError(message)
        for sender, receiver in scene_connections:
            source = _named(widget, sender)
            target = _named(widget, receiver)
            source.mrmlSceneChanged.connect(target.setMRMLScene)
        return widget


def _named(widget: QtWidgets.QWidget, name: str) -> Any:
    return widget if widget.objectName() == name else widget.findChild(QtWidgets.QWidget, name)


def _take_scene_connections(root: ElementTree.Element) -> list[tuple[str, str]]:
    """Remove the scene's connections from the tree; (sender, receiver) of each."""
    taken = []
    for connections in root.iter("connections"):
        for connection in list(connections):
            if (connection.findtext("signal") or "").startswith("mrmlSceneChanged("):
                pair = connection.findtext("sender") or "", connection.findtext("receiver") or ""
                taken.append(pair)
                connections.remove(connection)
    return taken


def _resolve_enums(root: ElementTree.Element) -> None:
    """Replace enumerators of stand-ins by numbers, since Qt cannot know them."""
    for value in [*root.iter("set"), *root.iter("enum")]:
        words = [word.split("::") for word in (value.text or "").split("|")]
        if all(word[0] in widget_classes for word in words):
            members = [getattr(widget_classes[word[0]], word[-1]) for word in words]
            value.tag = "number"
            value.text = str(functools.reduce(operator.or_, (int(m.value) for m in members)))


def add_widget_class(implementation: type, api_name: str) -> FacadeType:
    """Register a stand-in for scripts and for .ui files."""
    widget_classes[api_name.rpartition(".")[2]] = implementation
    return register(implementation, api_name)


class QtModule(types.ModuleType):
    """`import qt`: the classes that the application is known to have."""

    Qt = Namespace(QtCore.Qt)

    def __getattr__(self, name: str) -> Any:
        if not (slicer_api().covers(f"qt.{name}") or name in UNCOVERED):
            message = f"module 'qt' has no attribute '{name}' (or the stand-in does not know of it)"
            raise AttributeError(message)
        if name == "QUiLoader":
            return register(UiLoader, "qt.QUiLoader")
        for source in (QtWidgets, QtGui, QtCore):
            if hasattr(source, name):
                cls = facade_class(getattr(source, name))
                setattr(self, name, cls)
                return cls
        raise AttributeError(name)


def application() -> QtWidgets.QApplication:
    """The one QApplication of the process, off screen unless QT_QPA_PLATFORM says otherwise."""
    import os

    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    existing = QtWidgets.QApplication.instance()
    return existing if isinstance(existing, QtWidgets.QApplication) else QtWidgets.QApplication([])


__all__ = ["QtModule", "UiLoader", "add_widget_class", "application", "facade_of", "widget_classes"]
