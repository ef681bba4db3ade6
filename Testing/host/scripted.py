"""Base classes of scripted modules, and the loading of a module file as the application does it."""

# ruff: noqa: N802, N803  (the application's own names)

from __future__ import annotations

import importlib.util
import sys
import types
import unittest
from pathlib import Path
from typing import Any, ClassVar

import shiboken6
from PySide6.QtWidgets import QVBoxLayout

from .qmrml import MrmlWidget
from .qt_layer import facade_of


class ScriptedLoadableModule:
    """What a module says about itself; `parent` is the `ScriptedModule` below."""

    def __init__(self, parent: Any):
        import slicer

        self.parent = parent
        self.moduleName = type(self).__name__
        for icon in ("svg", "png"):
            path = Path(parent.path).parent / "Resources" / "Icons" / f"{self.moduleName}.{icon}"
            if path.is_file():
                import qt

                parent.icon = qt.QIcon(str(path))
                break
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename: str) -> str:
        """A file in the module's Resources."""
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """A link for the help text."""
        import slicer

        base, name = slicer.app.documentationBaseUrl, self.moduleName
        url = base + docPage if docPage else slicer.app.moduleDocumentationUrl(name)
        return f'<p>For more information, see the <a href="{url}">online documentation</a>.</p>'

    def runTest(self, msec: int = 100, **kwargs: Any) -> None:
        """Run the module's own test case."""
        case = getattr(sys.modules[type(self).__module__], f"{self.moduleName}Test")()
        case.messageDelay = msec
        case.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """A module's panel."""

    def __init__(self, parent: Any = None):
        import slicer

        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        if parent is None:
            panel = MrmlWidget()
            QVBoxLayout(panel)
            parent = facade_of(panel)
            parent.setMRMLScene(slicer.mrmlScene)
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect(
            "moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded
        )

    def resourcePath(self, filename: str) -> str:
        """A file in the module's Resources."""
        import slicer

        folder = Path(slicer.util.modulePath(self.moduleName)).parent
        return str(folder / "Resources" / filename)

    def setup(self) -> None:
        """Build the panel."""

    def cleanup(self) -> None:
        """Called before the module is unloaded."""

    def _onModuleAboutToBeUnloaded(self, name: str) -> None:
        if name == self.moduleName:
            self.cleanup()


class ScriptedLoadableModuleLogic:
    """A module's logic, with its parameter node in the scene."""

    def __init__(self, parent: Any = None):
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        """The module's parameter node, made where there is none."""
        import slicer

        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:
                node.SetAttribute("ModuleName", self.moduleName)
                return node
        else:
            existing = self.getAllParameterNodes()
            if existing:
                return existing[0]
        return slicer.mrmlScene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self) -> list[Any]:
        """All parameter nodes of the module."""
        import slicer

        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self) -> Any:
        """A new parameter node, not in the scene yet."""
        import slicer

        node = slicer.vtkMRMLScriptedModuleNode()
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A module's own test case."""

    def __init__(self, *arguments: Any, **keywords: Any):
        # the application makes it without a method name and calls runTest
        super().__init__(*(arguments or ("runTest",)), **keywords)

    def delayDisplay(
        self, message: str, requestedDelay: int | None = None, msec: int | None = None
    ) -> None:
        """A message while a test runs."""
        import slicer

        slicer.util.delayDisplay(message, 0)

    def runTest(self) -> None:
        """Overridden by the module."""


class ScriptedModule:
    """A module in `slicer.modules`: description, logic and panel.

    The attributes that a module's class sets (`title`, `categories`, …) are checked: the
    application refuses others, since its object is made in C++.
    """

    name: str
    path: str
    _application: Any
    _source: types.ModuleType
    _instance: Any
    _widget: Any
    _panel: Any
    _SETTABLE: ClassVar = [
        "title",
        "categories",
        "dependencies",
        "contributors",
        "helpText",
        "acknowledgementText",
        "icon",
        "hidden",
        "associatedNodeTypes",
        "widgetRepresentationCreationEnabled",
        "index",
    ]

    def __init__(self, path: Path, application: Any):
        values = self.__dict__
        values.update(path=str(path), name=path.stem, title="", categories=[], dependencies=[])
        values.update(contributors=[], helpText="", acknowledgementText="", hidden=False, icon=None)
        values.update(_application=application, _widget=None, _panel=None)
        values["_source"] = load_source(path)
        values["_instance"] = getattr(self._source, self.name)(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._SETTABLE:
            message = f"'{name}' does not exist on qSlicerScriptedLoadableModule"
            raise AttributeError(message)
        texts = name in ("title", "helpText", "acknowledgementText")
        if texts and not isinstance(value, str):
            message = f"'{name}' must be a str, not {value!r}"
            raise AttributeError(message)
        if name in ("categories", "dependencies", "contributors") and not (
            isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)
        ):
            message = f"'{name}' must be a list of str, not {value!r}"
            raise AttributeError(message)
        self.__dict__[name] = value

    def source(self) -> types.ModuleType:
        """The Python module; for tests."""
        return self._source

    def instance(self) -> Any:
        """The module's description object; for tests."""
        return self._instance

    def logic(self) -> Any:
        """The application gives scripted modules an empty logic, not their Python one."""
        import slicer

        return slicer.vtkSlicerScriptedLoadableModuleLogic()

    def widgetRepresentation(self) -> Any:
        """The panel, built at the first call."""
        import slicer

        if self._widget is None:
            panel = MrmlWidget()
            panel.setObjectName(f"{self.name}ModuleWidget")
            QVBoxLayout(panel)
            self.__dict__["_panel"] = panel
            facade = facade_of(panel)
            facade.setMRMLScene(slicer.mrmlScene)
            widget = getattr(self._source, f"{self.name}Widget")(facade)
            self.__dict__["_widget"] = widget
            setattr(slicer.modules, f"{self.name}Widget", widget)
            widget.setup()
        return facade_of(self._panel)

    def widget(self) -> Any:
        """The Python object of the panel; for tests."""
        self.widgetRepresentation()
        return self._widget

    def panel(self) -> Any:
        """The PySide widget of the panel."""
        self.widgetRepresentation()
        return self._panel

    def enter(self) -> None:
        """The user comes to the module."""
        if hasattr(self.widget(), "enter"):
            self.widget().enter()

    def exit(self) -> None:
        """The user leaves the module."""
        if hasattr(self.widget(), "exit"):
            self.widget().exit()

    def unload(self) -> None:
        """Call the panel's cleanup, as the application does at its end."""
        if self._widget is not None:
            self._application.moduleManager().moduleAboutToBeUnloaded.emit(self.name)
            shiboken6.delete(self._panel)
            self.__dict__.update(_widget=None, _panel=None)


def load_source(path: Path) -> types.ModuleType:
    """Load a module file under its bare name, from a path that is in `sys.path` only here."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        message = f"cannot load {path}"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def scripted_module() -> types.ModuleType:
    """The module `slicer.ScriptedLoadableModule`."""
    module = types.ModuleType("slicer.ScriptedLoadableModule")
    classes = [
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ]
    module.__all__ = [cls.__name__ for cls in classes]  # type: ignore[attr-defined]
    for cls in classes:
        setattr(module, cls.__name__, cls)
    return module
