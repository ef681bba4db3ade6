"""The stand-in host against the API file and the application's probed behaviour, and at work."""

from __future__ import annotations

import ast
import gc
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from Testing.host import pictures
from Testing.host.api import FILE, UNLISTED, slicer_api
from Testing.host.host import Host, SampleDataLogic
from Testing.module.scenes import make_ct

DEMO = Path(__file__).parents[1] / "host" / "demo" / "Demo.py"
PICTURES = Path(__file__).parents[1] / "pictures" / "host"
ORIGINAL = Path(
    os.environ.get(
        "DRAMLESION_API",
        Path(__file__).resolve().parents[3] / "shared" / "design" / "slicer-5.12.3-api.json",
    )
)
# --- the API file ---------------------------------------------------------------------------------


@pytest.mark.skipif(not ORIGINAL.is_file(), reason="the original of the API file is not here")
def test_the_copy_of_the_api_file_is_true():
    assert json.loads(FILE.read_text()) == json.loads(ORIGINAL.read_text())


def test_every_class_is_that_of_the_application():
    done = subprocess.run(
        [sys.executable, "-m", "Testing.module.every_class"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("classes") > 75
    assert found == {"surplus": {}, "other members": [], "signals": [], "properties": []}


def test_the_widgets_of_usual_panels_are_there(host):
    import ctk
    import qt
    import slicer

    for name in (
        "QPushButton",
        "QProcess",
        "QTableWidget",
        "QSettings",
        "QMessageBox",
        "QUiLoader",
    ):
        assert getattr(qt, name) is getattr(qt, name)
    for name in ("ctkCollapsibleButton", "ctkPathLineEdit", "ctkCheckableComboBox"):
        assert getattr(ctk, name)
    for name in ("qMRMLSegmentEditorWidget", "qMRMLSegmentSelectorWidget", "qMRMLTableView"):
        assert getattr(slicer, name)
    with pytest.raises(AttributeError):
        qt.QNothing  # noqa: B018
    with pytest.raises(AttributeError):
        ctk.ctkNothing  # noqa: B018


def test_slicer_has_no_names_of_its_own(host):
    import slicer

    allowed = slicer_api().slicer_names | {"packaging"}
    own = [n for n in vars(slicer) if not n.startswith(("vtk", "q", "_")) and n not in allowed]
    assert own == []
    with pytest.raises(AttributeError):
        slicer.loadVolume  # noqa: B018


def test_application_has_only_listed_attributes(host):
    import slicer

    behind = {name for name in dir(host.app) if not name.startswith("_")}
    surplus = [name for name in behind - slicer_api().application if hasattr(slicer.app, name)]
    assert surplus == [] or set(surplus) <= set(UNLISTED)
    assert slicer.app.applicationName == "Slicer"
    assert slicer.app.majorVersion == 5
    with pytest.raises(AttributeError):
        slicer.app.exit_status  # noqa: B018


def names_and_kinds(signature: str) -> list[str]:
    """Parameter names of a signature as text, without types and defaults."""
    text = re.sub(r"<function .*? at 0x[0-9a-f]+>", "None", signature)
    arguments = ast.parse(f"def f{text}: pass").body[0].args
    return [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


@pytest.mark.parametrize("module", ["util", "packaging"])
def test_functions_have_the_signatures_of_the_application(host, module):
    import slicer

    for name, signature in getattr(slicer_api(), module).items():
        function = getattr(getattr(slicer, module), name, None)
        if function is None:
            assert name == "default_environment"
            continue
        assert list(inspect.signature(function).parameters) == [
            *names_and_kinds(signature),
            *(["kwargs"] if "**kwargs" in signature else []),
        ], name


# --- behaviour seen in the application ------------------------------------------------------------


def test_properties_are_attributes(host):
    import qt

    button = qt.QPushButton("x")
    assert (button.text, button.enabled, button.isEnabled(), button.name) == ("x", True, True, "")
    with pytest.raises(TypeError):
        button.text()
    button.text = 5
    assert button.text == "5"
    button.setText("y")
    assert button.text == "y"
    with pytest.raises(AttributeError, match="QPushButton has no attribute named 'txet'"):
        button.txet  # noqa: B018
    with pytest.raises(AttributeError, match="creating new attributes"):
        button.txet = 1
    with pytest.raises(AttributeError, match="does not accept"):
        button.text = None


def test_values_that_cannot_be_converted_are_refused(host):
    import ctk
    import qt

    slider = ctk.ctkSliderWidget()
    slider.maximum, slider.singleStep, slider.value = 1, 0, 0.5
    assert slider.value == 0.5
    with pytest.raises(
        AttributeError, match="of type 'double' does not accept an object of type str"
    ):
        slider.value = "a"
    with pytest.raises(AttributeError):
        slider.setMaximum(3)
    with pytest.raises(ValueError, match="wrong arguments"):
        qt.QLabel().setText(3.5)
    with pytest.raises(ValueError, match="Qt takes no"):
        qt.QLabel().setText(Path())


def test_signals_connect_by_signature_and_pass_what_is_taken(host, capsys):
    import qt

    got = []
    button = qt.QPushButton()
    button.checkable = True
    assert button.connect("clicked(bool)", lambda checked: got.append(checked)) is True
    assert button.connect("toggled(bool)", lambda: got.append("nothing")) is True
    assert button.clicked.connect(got.append) is True
    assert button.connect("clickedd(bool)", got.append) is False
    assert "clickedd" in capsys.readouterr().out
    button.click()
    assert got == ["nothing", True, True]
    assert button.disconnect("clicked(bool)", got.append) is True
    button.click()
    assert got == ["nothing", True, True, "nothing", False]


def test_enums_are_ints_and_lists_are_tuples(host):
    import qt

    assert (qt.Qt.AlignLeft | qt.Qt.AlignTop) == 33
    assert qt.Qt.Checked == 2
    assert qt.QProcess().state() == 0 == qt.QProcess.NotRunning
    widget = qt.QWidget()
    layout = qt.QVBoxLayout(widget)
    button = qt.QPushButton()
    layout.addWidget(button)
    assert widget.children() == (layout, button)
    assert isinstance(button, qt.QWidget)
    assert widget.findChildren(qt.QPushButton) == (button,)
    table = qt.QTableWidget()
    table.rowCount = 3
    table.columnCount = 1
    item = qt.QTableWidgetItem("a")
    item.setFlags(item.flags() & ~qt.Qt.ItemIsEditable)
    table.setItem(0, 0, item)
    assert (table.rowCount, table.item(0, 0).text(), table.item(1, 0)) == (3, "a", None)
    assert qt.QColor(255, 0, 0).name() == "#ff0000"


def test_classes_written_in_python_may_have_attributes_and_override(host):
    import qt

    class Filter(qt.QObject):
        def __init__(self):
            super().__init__()
            self.seen = []

        def eventFilter(self, watched, event):  # noqa: N802
            self.seen.append(event.type() == qt.QEvent.EnabledChange)
            return False

    watcher, button = Filter(), qt.QPushButton()
    button.installEventFilter(watcher)
    button.enabled = False
    assert any(watcher.seen)


def test_settings_and_timers(host):
    import qt

    settings = qt.QSettings()
    assert settings.value("a", "d") == "d"
    settings.setValue("b", True)
    assert settings.value("b") in (True, "true")
    fired = []
    qt.QTimer.singleShot(0, lambda: fired.append(1))
    host.wait_for(lambda: fired, "the timer")
    timer = qt.QTimer()
    timer.setInterval(5)
    assert (timer.interval, timer.active, timer.isActive()) == (5, False, False)


def test_node_selector(host):
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    assert selector.nodeTypes == ("vtkMRMLScalarVolumeNode",)
    assert (selector.currentNode(), selector.currentNodeID) == (None, "")
    chosen = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", chosen.append)
    selector.setMRMLScene(slicer.mrmlScene)
    ct, _ = make_ct()
    assert selector.currentNode() is ct, "without 'none' the first node is chosen"
    selector.noneEnabled = True
    selector.setCurrentNode(None)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    assert selector.nodeCount() == 1
    selector.setCurrentNodeID(ct.GetID())
    slicer.mrmlScene.RemoveNode(ct)
    assert chosen == [ct, None, ct, None]


def test_a_path_is_told_only_if_it_is_valid(host):
    import ctk

    edit, told = ctk.ctkPathLineEdit(), []
    edit.connect("currentPathChanged(QString)", lambda path: told.append(path))
    edit.connect("validInputChanged(bool)", lambda valid: told.append(valid))
    for path in ("/nowhere", "/elsewhere", "", "/nowhere"):
        edit.currentPath = path
    assert told == ["/nowhere", True, "/elsewhere", False, "/nowhere", True]


# --- a module at work -----------------------------------------------------------------------------


def test_module_from_start_to_result(demo):
    widget = demo.module.widget()
    ui = widget.ui
    assert SampleDataLogic.registered[0]["sampleName"] == "Demo1"
    assert (ui.applyButton.enabled, ui.applyButton.toolTip) == (False, "Choose a volume")
    ct, array = make_ct()
    ui.inputSelector.setCurrentNode(ct)
    assert ui.applyButton.enabled
    ui.applyButton.click()
    assert widget.logic.count == (array > 50).sum() == 3000
    assert {"Demo", "Choose a volume"} <= set(demo.translated)
    pictures.widget_picture(demo.app.window, PICTURES / "panel.png")


def test_widgets_and_parameter_node_follow_each_other(demo):
    widget = demo.module.widget()
    ui, parameters = widget.ui, widget._parameterNode
    ui.thresholdSlider.value = 0.25
    ui.deviceBox.currentIndex = 1
    assert (parameters.threshold, parameters.device.value) == (0.25, "cpu")
    parameters.invert = True
    assert ui.invertBox.checked
    with pytest.raises(ValueError, match="within range"):
        parameters.threshold = 2.0
    with pytest.raises(TypeError):
        parameters.invert = "yes"
    node = parameters.parameterNode
    assert (node.GetParameter("device"), node.GetParameter("invert")) == ("CPU", "True")


def test_errors_are_shown_and_fail_the_test_that_ignores_them():
    with pytest.raises(AssertionError, match="too high"), Host(DEMO) as host:  # noqa: PT012
        widget = host.show()
        ct, _ = make_ct()
        widget.ui.inputSelector.setCurrentNode(ct)
        widget.ui.thresholdSlider.value = 0.95
        widget.ui.applyButton.click()
        assert [message.icon for message in host.dialogs.messages] == ["Critical"]


def test_questions_need_an_answer(host):
    import slicer

    host.dialogs.answers.append(("really", "Ok"))
    assert slicer.util.confirmOkCancelDisplay("really?") is True
    with pytest.raises(RuntimeError, match="no answer prepared"):
        slicer.util.confirmYesNoDisplay("and now?")


def test_background_process(demo):
    widget = demo.module.widget()
    widget.runInBackground("PythonSlicer", ["-c", "print('ready'); raise SystemExit(3)"])
    demo.wait_for(lambda: hasattr(widget, "finished"), "the process")
    assert widget.output == "ready\n"
    assert widget.finished[:2] == (3, True)


def test_scene_close_and_module_leave(demo):
    import slicer

    widget = demo.module.widget()
    ct, _ = make_ct()
    widget.ui.inputSelector.setCurrentNode(ct)
    slicer.mrmlScene.Clear(False)
    demo.process_events()
    assert widget.ui.inputSelector.currentNode() is None
    assert not widget.ui.applyButton.enabled
    assert demo.setup.subject_hierarchy.GetNumberOfItems() == 0
    demo.leave()


def test_headless_has_no_window():
    with Host(DEMO, main_window=False) as host:
        import slicer

        assert slicer.app.layoutManager() is None
        assert slicer.util.mainWindow() is None
        slicer.util.exit(3)
        assert host.app.exit_status == 3


def test_nothing_of_qt_and_mrml_is_left_to_the_garbage_collector():
    import shiboken6
    import slicer

    gc.collect()
    try:
        with Host(DEMO) as host:
            host.start_up()
            host.show()
            selector = slicer.qMRMLNodeComboBox()
            selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
            selector.setMRMLScene(slicer.mrmlScene)
            slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ct")
            del selector
            gc.set_debug(gc.DEBUG_SAVEALL)
        found = list(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    alive = [thing for thing in found if isinstance(thing, shiboken6.Object)]
    assert [thing for thing in alive if shiboken6.isValid(thing)] == []
    assert [thing for thing in found if hasattr(type(thing), "IsTypeOf")] == []


def test_torch_comes_through_its_extension_or_not_at_all(host):
    import PyTorchUtils

    host.packaging.missing, host.packaging.refuse = {"torch"}, True
    logic = PyTorchUtils.PyTorchUtilsLogic()
    assert logic.torchInstalled() is False
    assert logic.installTorch(askConfirmation=True, torchVersionRequirement=">=2.5") is None
    assert host.packaging.calls == [("installTorch", ["torch>=2.5"])]


def test_packages_are_asked_for_and_never_installed(host, tmp_path):
    import slicer.packaging

    (tmp_path / "requirements.txt").write_text("scikit-image>=0.24\nsafetensors\n")
    host.packaging.missing = {"safetensors"}
    wanted = slicer.packaging.load_requirements(tmp_path / "requirements.txt")
    assert slicer.packaging.pip_check(wanted) is False
    host.app.testing = True
    slicer.packaging.pip_ensure(wanted, requester="Demo")
    assert (host.packaging.calls, slicer.packaging.pip_check(wanted)) == ([], False)
    host.app.testing = False
    slicer.packaging.pip_ensure(wanted, requester="Demo")
    assert host.packaging.calls == [("pip_ensure", ["safetensors"])]
    assert slicer.packaging.pip_check(wanted) is True
