"""`slicer.app`, its main window and its layout manager."""

# ruff: noqa: N802, N815  (the application's own names)

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any, ClassVar

import vtk
from PySide6.QtCore import QLocale, QObject, QProcessEnvironment, QSettings, Signal
from PySide6.QtWidgets import QApplication, QMainWindow, QScrollArea, QWidget

from .files import IoManager
from .properties import Property, stored
from .qmrml import SCENE_SIGNAL, TableView
from .qt_layer import register
from .scene import SceneSetup


class SliceWidget(QWidget):
    """A slice view: the real slice logic, without a window."""

    def __init__(self, logic: Any):
        super().__init__()
        self._logic = logic

    def sliceLogic(self) -> Any:
        """The vtkMRMLSliceLogic."""
        return self._logic

    def mrmlSliceNode(self) -> Any:
        """The slice node."""
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        """The node with the layers."""
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self) -> None:
        """Zoom to the background volume."""
        self._logic.FitSliceToBackground()


class ThreeDWidget(QWidget):
    """A 3D view without a window."""

    def __init__(self, node: Any):
        super().__init__()
        self._node, self._view = node, ThreeDView(self)

    def mrmlViewNode(self) -> Any:
        """The view node."""
        return self._node

    def threeDView(self) -> QWidget:
        """The view inside."""
        return self._view


class ThreeDView(QWidget):
    """Counts what would turn and zoom the view.

    Attributes:
        fitted: How often it was zoomed to what it shows.
    """

    def __init__(self, parent: QWidget):
        super().__init__(parent)
        self.fitted = 0

    def resetFocalPoint(self) -> None:
        """Centre the view on what it shows."""

    def resetCamera(self) -> None:
        """Zoom to what is shown."""
        self.fitted += 1


class LayoutManager(QObject):
    """`slicer.app.layoutManager()`."""

    layoutChanged = Signal(int)

    def __init__(self, setup: SceneSetup, parent: QObject):
        super().__init__(parent)
        self._setup = setup
        self._slices = {name: SliceWidget(logic) for name, logic in setup.slice_logics.items()}
        self._view, self._table = ThreeDWidget(setup.view_node), TableView()

    def sliceViewNames(self) -> list[str]:
        """Red, Yellow, Green."""
        return list(self._slices)

    def sliceWidget(self, name: str) -> SliceWidget | None:
        """A slice view by name."""
        return self._slices.get(name)

    def mrmlSliceLogics(self) -> Any:
        """A vtkCollection of the slice logics."""
        collection = vtk.vtkCollection()
        for logic in self._setup.slice_logics.values():
            collection.AddItem(logic)
        return collection

    def setLayout(self, layout: int) -> None:
        """Switch to another arrangement of the views."""
        self._setup.layout_node.SetViewArrangement(layout)
        self.layoutChanged.emit(layout)

    layout = Property(int, lambda self: self._setup.layout_node.GetViewArrangement(), setLayout)
    threeDViewCount = Property(int, lambda _self: 1)

    def threeDWidget(self, _index: int) -> ThreeDWidget:
        """The 3D view."""
        return self._view

    def tableWidget(self, _index: int) -> TableView:
        """The table view."""
        return self._table

    def resetSliceViews(self) -> None:
        """Fit all slice views."""
        for widget in self._slices.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        """Fit all 3D views."""


class ModuleSelector(QObject):
    """The main window's module selector; enters and leaves modules."""

    moduleSelected = Signal(str)

    def __init__(self, window: MainWindow, modules: ModuleManager):
        super().__init__(window)
        self._window, self._modules, self._current = window, modules, ""

    def selectModule(self, name: str) -> None:
        """Leave the current module and enter another; an unknown name does nothing."""
        module = self._modules.module(name)
        if module is None or name == self._current:
            return
        self.leave()
        self._current = name
        if hasattr(module, "widgetRepresentation"):
            self._window.panel.setWidget(module.panel())
            module.enter()
        self.moduleSelected.emit(name)

    def leave(self) -> None:
        """Leave the current module."""
        module = self._modules.module(self._current)
        if module is not None and hasattr(module, "exit"):
            self._window.panel.takeWidget()
            module.exit()
        self._current = ""

    selectedModule = Property(str, lambda self: self._current)


class MainWindow(QMainWindow):
    """The application's window with the module panel in it."""

    def __init__(self, modules: ModuleManager):
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.panel = QScrollArea(self)
        self.panel.setWidgetResizable(True)
        self.setCentralWidget(self.panel)
        self._selector = ModuleSelector(self, modules)

    def moduleSelector(self) -> ModuleSelector:
        """The module selector."""
        return self._selector


class _FactoryManager(QObject):
    """`moduleManager().factoryManager()`."""

    def loadedModuleNames(self) -> list[str]:
        """Names of the modules."""
        return list(self.parent().modules)


class ModuleManager(QObject):
    """`slicer.app.moduleManager()`: modules by name."""

    moduleAboutToBeUnloaded = Signal(str)

    def __init__(self, parent: QObject):
        super().__init__(parent)
        self.modules: dict[str, Any] = {}
        self._factory = _FactoryManager(self)

    def module(self, name: str) -> Any:
        """A module, None for an unknown name."""
        return self.modules.get(name)

    def factoryManager(self) -> QObject:
        """Knows the names."""
        return self._factory


class CommandOptions(QObject):
    """`slicer.app.commandOptions()`, as far as slicer.util.exit uses it."""

    runPythonAndExit = stored("runPythonAndExit", bool, False)
    noMainWindow = stored("noMainWindow", bool, False)


class Application(QObject):
    """`slicer.app`. What is not written here is the QApplication's.

    Attributes:
        exit_status: what `slicer.app.exit` was called with; None while running.
    """

    startupCompleted = Signal()
    aboutToQuit = Signal()
    mrmlSceneChanged = Signal(object)
    MRML_SIGNALS: ClassVar = SCENE_SIGNAL

    def __init__(self, setup: SceneSetup, home: Path, main_window: bool):
        super().__init__()
        self._setup, self._home = setup, home
        self._modules = ModuleManager(self)
        self._io = IoManager(setup.scene, setup.logics["Volumes"])
        self._options = CommandOptions(self)
        self._settings = QSettings()
        self.exit_status: int | None = None
        self.testing = False
        self.window = MainWindow(self._modules) if main_window else None
        self._layout = LayoutManager(setup, self) if main_window else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(QApplication.instance(), name)

    def mrmlScene(self) -> Any:
        """The scene."""
        return self._setup.scene

    def applicationLogic(self) -> Any:
        """The vtkSlicerApplicationLogic."""
        return self._setup.application_logic

    def moduleLogic(self, name: str) -> Any:
        """A module's logic."""
        return self._setup.logics.get(name)

    def layoutManager(self) -> LayoutManager | None:
        """The layout manager; None without main window."""
        return self._layout

    def moduleManager(self) -> ModuleManager:
        """The module manager."""
        return self._modules

    def coreIOManager(self) -> IoManager:
        """The I/O manager."""
        return self._io

    def ioManager(self) -> IoManager:
        """The I/O manager."""
        return self._io

    def commandOptions(self) -> CommandOptions:
        """The command line's options."""
        return self._options

    def settings(self) -> QSettings:
        """The user's settings."""
        return self._settings

    def userSettings(self) -> QSettings:
        """The user's settings."""
        return self._settings

    def revisionUserSettings(self) -> QSettings:
        """The user's settings for this version."""
        return self._settings

    def startupEnvironment(self) -> QProcessEnvironment:
        """The environment that the application was started in."""
        return QProcessEnvironment.systemEnvironment()

    def environment(self) -> QProcessEnvironment:
        """The application's own environment."""
        return QProcessEnvironment.systemEnvironment()

    def exit(self, status: int = 0) -> None:
        """Note the exit status; tests look at it."""
        self.exit_status = status
        self.aboutToQuit.emit()

    def let_go(self) -> None:
        """Keep nothing of the scene any more: see `SceneSetup.let_go`."""
        self._modules.modules.clear()
        for part in filter(None, (self._io, self._layout)):
            vars(part).clear()

    def testingEnabled(self) -> bool:
        """Whether the application was started with --testing."""
        return self.testing

    def translate(self, _context: str, text: str) -> str:
        """No language is loaded."""
        return text

    def moduleDocumentationUrl(self, name: str) -> str:
        """Address of a module's documentation."""
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def pauseRender(self) -> None:
        """Nothing is drawn by itself here."""

    def resumeRender(self) -> None:
        """Nothing is drawn by itself here."""

    def setRenderPaused(self, _paused: bool) -> None:
        """Nothing is drawn by itself here."""

    slicerHome = Property(str, lambda self: str(self._home))
    temporaryPath = Property(str, lambda self: str(self._home / "tmp"))
    cachePath = Property(str, lambda self: str(self._home / "cache"))
    extensionsInstallPath = Property(str, lambda self: str(self._home / "ext"))
    slicerSharePath = Property(str, lambda self: str(self._home / "share"))
    launcherExecutableFilePath = Property(str, lambda self: str(self._home / "Slicer"))
    applicationName = Property(str, lambda _self: "Slicer")
    applicationVersion = Property(str, lambda _self: "5.12.3-2026-07-22")
    majorVersion = Property(int, lambda _self: 5)
    minorVersion = Property(int, lambda _self: 12)
    revision = Property(str, lambda _self: "0")
    os = Property(str, lambda _self: {"darwin": "macosx"}.get(sys.platform, sys.platform))
    arch = Property(str, lambda _self: platform.machine())
    applicationLocale = Property(QLocale, lambda _self: QLocale("en_US"))
    applicationLocaleName = Property(str, lambda _self: "en_US")
    documentationBaseUrl = Property(str, lambda _self: "https://slicer.readthedocs.io/en/5.12/")


def view_facades() -> dict[str, Any]:
    """Facade classes of the views, for the module `slicer`."""
    register(Application, "slicer.qSlicerApplication")
    made = {
        "qMRMLSliceWidget": SliceWidget,
        "qMRMLThreeDWidget": ThreeDWidget,
        "qMRMLThreeDView": ThreeDView,
    }
    for name in ("LayoutManager", "MainWindow", "ModuleManager", "ModuleSelector"):
        register(globals()[name], f"slicer.qSlicer{name}")
    return {name: register(cls, f"slicer.{name}") for name, cls in made.items()}


__all__ = ["Application", "LayoutManager", "MainWindow", "view_facades"]
