"""The stand-in for the application: everything that a scripted module finds when it is loaded."""

# ruff: noqa: N802, N803  (the application's own names)

from __future__ import annotations

import gc
import importlib
import os
import shutil
import stat
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import slicer
import vtk  # noqa: F401  (modules expect it to be importable)
from PySide6.QtCore import QCoreApplication, QEvent, QSettings
from PySide6.QtWidgets import QApplication

from . import application as application_module
from . import qmrml, segment_editor, segment_widgets, signals
from .api import slicer_api
from .ctk import ctk_module
from .dialogs import FileDialog, MessageBox, dialogs
from .dicom_database import DicomDatabase
from .observers import Observers
from .packaging_module import Packaging, i18n_module, packaging_module, pytorch_utils_module
from .parameter_node import parameter_node_module
from .placing import Mouse
from .qt_layer import NotSuppliedError, facade_of, register
from .qt_module import QtModule, application
from .scene import SceneSetup
from .scripted import ScriptedModule, scripted_module


class CoreModule:
    """One of the application's own modules: name and logic."""

    def __init__(self, name: str, logic: Any):
        self.name, self._logic = name, logic

    def logic(self) -> Any:
        """The real MRML logic."""
        return self._logic


class Modules:
    """`slicer.modules`."""

    def __init__(self, manager: Any):
        self.__dict__["_manager"] = manager

    def __getattr__(self, name: str) -> Any:
        for known, module in self._manager.modules.items():
            if known.lower() == name:
                return module
        if name in slicer_api().modules:
            message = f"slicer.modules.{name} exists in Slicer, but the stand-in lacks it"
            raise NotSuppliedError(message)
        message = f"module 'modules' has no attribute '{name}'"
        raise AttributeError(message)


class SampleDataLogic:
    """`SampleData.SampleDataLogic`: keeps what modules register.

    A data set's `customDownloader` is called by a click on its button, and by nothing else.
    """

    registered: list[dict[str, Any]]

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: Any = None,
        loadFiles: Any = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
        loadFileType: Any = None,
    ) -> None:
        """Note a data set."""
        SampleDataLogic.registered.append(dict(locals()))

    def downloadSamples(self, sampleName: str) -> list[Any]:
        """The nodes of what is downloaded, which is nothing here; [] for an unknown name.

        Raises:
            NotSuppliedError: if there is an address to download from.
        """
        for source in self.registered:
            if source["sampleName"] == sampleName and source["uris"]:
                message = f"nothing is downloaded here: {source['uris']}"
                raise NotSuppliedError(message)
        return []


class Host:
    """The application with one module loaded, for the length of a `with` block.

    Errors that slots, timers or MRML observers raise do not stop Qt, so the block ends with an
    AssertionError if there were any; a test that expects some clears `host.errors`.

    Attributes:
        app: the `Application` behind `slicer.app`.
        setup: scene, logics and views.
        module: the module under test, None without path.
        mouse: the user's mouse in the views, while points are placed.
        dialogs: answers to message boxes and file dialogs, and what was shown.
        packaging: packages that are missing, and what was to be installed.
        translated: every text that went through `_()`.
        errors: what slots raised.
    """

    def __init__(self, module_path: Path | None = None, *, main_window: bool = True):
        self._path, self._main_window = module_path, main_window
        self._folders: list[Path] = []
        self.packaging = Packaging()
        self.translated: list[str] = []
        self.module: Any = None
        self.dialogs, self.errors = dialogs, signals.slot_errors

    def __enter__(self) -> Self:
        self._home = Path(tempfile.mkdtemp(prefix="host-"))
        (self._home / "tmp").mkdir()
        self._saved = (dict(sys.modules), list(sys.path), dict(os.environ), sys.excepthook)
        sys.excepthook = self._note_error
        self._qt_application = application()
        self._use_settings()
        self._make_python_slicer()
        self.dialogs.clear()
        self.errors.clear()
        SampleDataLogic.registered = []
        self.setup = SceneSetup(str(self._home / "tmp"))
        self.mouse = Mouse(self.setup.application_logic)
        self._install_modules()
        self.app = application_module.Application(self.setup, self._home, self._main_window)
        self._fill_slicer()
        if self._path is not None:
            self.module = self.load(self._path)
        return self

    def __exit__(self, kind: Any, *_rest: Any) -> None:
        if self.module is not None:
            if self._main_window:
                self.leave()
            self.module.unload()
        errors = list(self.errors)
        self._close_windows()
        Observers.clear_all()
        self.mouse.close()
        self.setup.close()
        for name in self._added:
            if hasattr(slicer, name):
                delattr(slicer, name)
        modules, path, environment, hook = self._saved
        for name in set(sys.modules) - set(modules):
            if self._is_own(name, sys.modules[name]):
                del sys.modules[name]
        sys.path[:], sys.excepthook = path, hook
        os.environ.clear()
        os.environ.update(environment)
        self.module = None
        self.app.let_go()
        self.setup.let_go()
        gc.collect()
        shutil.rmtree(self._home, ignore_errors=True)
        if kind is None and errors:
            message = f"slots or observers raised {len(errors)} error(s): {errors}"
            raise AssertionError(message) from errors[0]

    def _close_windows(self) -> None:
        """Delete every window that is left.

        Qt takes a window and what is in it apart in an order of its own; Python's garbage collector
        would do it in any order.
        """
        for window in QApplication.topLevelWidgets():
            window.close()
            window.deleteLater()
        self.process_events()
        for widget in list(qmrml.HOLDERS):
            vars(widget).clear()
        qmrml.HOLDERS.clear()

    def _is_own(self, name: str, module: Any) -> bool:
        """Whether a module belongs to this host: its stand-ins, and the module under test."""
        if name in self._module_names or getattr(module, "__spec__", None) is None:
            return True
        file = getattr(module, "__file__", None) or ""
        return any(Path(file).is_relative_to(folder) for folder in self._folders)

    def _note_error(self, kind: Any, error: BaseException, trace: Any) -> None:
        # VTK prints what an observer raises and goes on; it comes by here
        sys.__excepthook__(kind, error, trace)
        self.errors.append(error)

    def _use_settings(self) -> None:
        QCoreApplication.setOrganizationName("host")
        QCoreApplication.setApplicationName("Slicer")
        ini = QSettings.Format.IniFormat
        QSettings.setDefaultFormat(ini)
        QSettings.setPath(ini, QSettings.Scope.UserScope, str(self._home / "settings"))

    def _make_python_slicer(self) -> None:
        script = self._home / "bin" / "PythonSlicer"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        os.environ["PATH"] = f"{script.parent}{os.pathsep}{os.environ['PATH']}"

    def _install_modules(self) -> None:
        _hide_leaked_names()
        register(MessageBox, "qt.QMessageBox")
        register(FileDialog, "qt.QFileDialog")
        qt = QtModule("qt")
        qt.QMessageBox = register(MessageBox, "qt.QMessageBox")  # type: ignore[attr-defined]
        qt.QFileDialog = register(FileDialog, "qt.QFileDialog")  # type: ignore[attr-defined]
        sample_data = types.ModuleType("SampleData")
        sample_data.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
        made: dict[str, types.ModuleType] = {"qt": qt}
        sys.modules["qt"] = qt
        made["ctk"] = ctk_module()
        made["SampleData"] = sample_data
        if self.packaging.has_pytorch_extension:
            made["PyTorchUtils"] = pytorch_utils_module(self.packaging)
        made["slicer.i18n"] = i18n_module(self.translated)
        made["slicer.packaging"] = packaging_module(self.packaging)
        made["slicer.parameterNodeWrapper"] = parameter_node_module()
        made["slicer.ScriptedLoadableModule"] = scripted_module()
        sys.modules.update(made)
        self._module_names = set(made)

    def _fill_slicer(self) -> None:
        values: dict[str, Any] = {
            "app": facade_of(self.app),
            "mrmlScene": self.setup.scene,
            "util": importlib.import_module("slicer.util"),
            "selfTests": {},
            "qSlicerScriptedLoadableModule": ScriptedModule,
            "qSlicerScriptedLoadableModuleWidget": (),
        }
        application_module.view_facades()
        for facades in (
            qmrml.widget_facades(),
            segment_widgets.segment_facades(),
            segment_editor.editor_facades(),
            application_module.view_facades(),
        ):
            values |= facades
        manager = self.app.moduleManager()
        for name, logic in self.setup.logics.items():
            manager.modules[name] = CoreModule(name, logic)
        values["modules"] = Modules(manager)
        for name in self._module_names:
            package, _, rest = name.partition(".")
            if package == "slicer":
                values[rest] = sys.modules[name]
        self._added = [name for name in values if name != "util"]
        for name, value in values.items():
            setattr(slicer, name, value)

    def open_dicom_database(self, *folders: Path) -> DicomDatabase:
        """Let `slicer.dicomDatabase` know the files of some folders, as the module DICOM does."""
        database = slicer.dicomDatabase = DicomDatabase(*folders)
        self._added.append("dicomDatabase")
        return database

    def load(self, path: Path) -> ScriptedModule:
        """Load a module file, as the application does at its start or from the extension wizard."""
        self._module_names.add(path.stem)
        self._folders.append(path.resolve().parent)
        module = ScriptedModule(path, self.app)
        self.app.moduleManager().modules[module.name] = module
        setattr(slicer.modules, f"{module.name}Instance", module.instance())
        return module

    def start_up(self) -> None:
        """All modules are loaded: tell those who wait for it."""
        self.app.startupCompleted.emit()
        self.process_events()

    def show(self, size: tuple[int, int] = (560, 900)) -> Any:
        """Open the module in the main window; returns its Python widget."""
        window = self._window()
        window.resize(*size)
        window.show()
        window.moduleSelector().selectModule(self.module.name)
        self.process_events()
        return self.module.widget()

    def leave(self) -> None:
        """Go to no module."""
        self._window().moduleSelector().leave()

    def _window(self) -> application_module.MainWindow:
        assert self.app.window is not None, "the host was started without main window"
        return self.app.window

    def process_events(self) -> None:
        """Let Qt do what is waiting, deletions included."""
        QApplication.processEvents()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QApplication.processEvents()

    def wait_for(
        self, condition: Callable[[], Any], what: str = "", timeout_s: float = 240.0
    ) -> None:
        """Process events until a condition holds.

        Raises:
            TimeoutError: if it does not within `timeout_s`.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                message = f"waited {timeout_s} s for {what or condition}"
                raise TimeoutError(message)
            QApplication.processEvents()
            time.sleep(0.002)
        self.process_events()


def _hide_leaked_names() -> None:
    """Take from `slicer` what the wheel puts there, but the application does not.

    The wheel copies all of slicer.util into `slicer`: `slicer.loadVolume` would work here and fail
    in the application.
    """
    known = slicer_api().slicer_names
    for name in list(vars(slicer)):
        kept = name.startswith(("vtk", "VTK_", "_")) or name in known
        if not kept and not isinstance(getattr(slicer, name), type(None)):
            delattr(slicer, name)
    for name in list(vars(slicer)):
        if name.startswith("vtk") and isinstance(getattr(slicer, name), types.ModuleType):
            delattr(slicer, name)
