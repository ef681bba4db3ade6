"""The module in the stand-in host: real widgets are clicked and typed into."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.pipeline import STAGES
from Testing.host.host import Host
from Testing.module.cases import MODULE, add_lobes, add_volume
from Testing.module.driving import (
    alive,
    choose,
    fake_library,
    node_ids,
    same_as_files,
    temporary_folders,
    wait_for_run,
)
from Testing.module.scenes import put_under

STAGE_NAMES = ("read", *STAGES, "write")

# --- before a run ---------------------------------------------------------------------------------


def test_apply_says_what_is_missing(module, run):
    import slicer

    widget = module.module.widget()
    ui = widget.ui
    assert (ui.applyButton.enabled, ui.applyButton.toolTip) == (False, "Choose a CT.")
    small = slicer.util.addVolumeFromArray(np.zeros((5, 5, 5), np.int16), name="small")
    ui.inputVolumeSelector.setCurrentNode(small)
    assert not ui.applyButton.enabled
    assert "small" in ui.applyButton.toolTip
    assert ui.inputHintLabel.text == ui.applyButton.toolTip
    ct = add_volume(run.ct)
    ui.inputVolumeSelector.setCurrentNode(ct)
    assert ui.applyButton.enabled
    assert not ui.lobesNodeSelector.isVisible()
    ui.lobesFromBox.currentIndex = 1
    assert ui.lobesNodeSelector.isVisible()
    assert ui.applyButton.toolTip == "Choose the segmentation or label map with the lobes."
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty")
    ui.lobesNodeSelector.setCurrentNode(empty)
    assert ui.applyButton.toolTip.startswith("No lobe was recognised")
    for row, package in ((2, "TotalSegmentator"), (3, "lungmask")):
        ui.lobesFromBox.currentIndex = row
        assert ui.applyButton.toolTip == f"{package} is not installed: choose other lobes."
    ui.lobesFromBox.currentIndex = 0
    assert ui.applyButton.enabled
    ui.weightsPathEdit.currentPath = str(run.folder)
    assert "holds no weights of the regression network" in ui.applyButton.toolTip


def test_weights_of_a_method_without_an_activation_map_are_alone(module, tmp_path):
    from DRAMLesionPanel import cards

    card = {"date": "2026-01-01", "licence": "Apache-2.0", "sha256": "0" * 64, "data": ["slices"]}
    place = tmp_path / "segmentation.json"
    (tmp_path / "segmentation.safetensors").write_bytes(b"")
    place.write_text(json.dumps(card))
    assert "no weights of the regression network" in cards.problem(str(tmp_path))
    place.write_text(json.dumps({**card, "config": {"method": "decomposition"}}))
    assert cards.problem(str(tmp_path)) == ""
    assert cards.describe(str(tmp_path)).startswith("<b>segmentation</b>: decomposition, 2026")


def test_lobes_are_shown_and_can_be_corrected(module, run):
    widget = module.module.widget()
    ct = add_volume(run.ct)
    lobes = add_lobes(run.lobes, ct)
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget.ui.lobesFromBox.currentIndex = 1
    widget.ui.lobesNodeSelector.setCurrentNode(lobes)
    boxes = widget.lobeMatches.boxes
    assert {lobe: box.currentText for lobe, box in boxes.items()} == {
        "RUL": "lung_upper_lobe_right",
        "RML": "(none)",
        "RLL": "RightLowerLobe",
        "LUL": "left upper lobe",
        "LLL": "LLL",
    }
    assert widget.ui.applyButton.enabled
    boxes["RML"].currentIndex = boxes["RML"].findText("Segment_3")
    assert widget._lobeKeys["RML"] == "s4"
    boxes["RUL"].currentIndex = boxes["RUL"].findText("Segment_3")
    assert widget.ui.applyButton.toolTip == "One segment is chosen for several lobes."
    boxes["RUL"].currentIndex = boxes["RUL"].findText("lung_upper_lobe_right")
    assert widget.ui.applyButton.enabled
    lobes.GetSegmentation().RemoveSegment("s4")
    widget._onParameters()
    assert boxes["RML"].currentText == "(none)"


def test_weights_say_what_is_in_their_card(module, run):
    ui = module.module.widget().ui
    assert ui.weightsCardLabel.text == "The weights that come with DRAMLesion."
    ui.weightsPathEdit.currentPath = str(run.weights)
    for text in ("regression", "segmentation", "Apache-2.0", "nothing: set by hand", "0 steps"):
        assert text in ui.weightsCardLabel.text


def test_a_ct_that_is_too_large_for_the_memory_gets_a_hint(module, run, monkeypatch):
    from DRAMLesionPanel import memory

    assert (memory.totalBytes() or 0) > 1e9
    monkeypatch.setattr(memory, "totalBytes", lambda: 1e9)
    ui = module.module.widget().ui
    ui.inputVolumeSelector.setCurrentNode(add_volume(run.ct))
    assert "needs about 2 GB of memory, this computer has 1 GB" in ui.memoryHintLabel.text


def test_an_unsuitable_ct_gets_the_library_s_message_and_nothing_runs(module, run, tmp_path):
    widget = module.module.widget()
    pids = fake_library(tmp_path, "")
    ct = add_volume(run.ct + 1024, "no HU")
    choose(widget, ct, run)
    before = node_ids()
    widget.ui.applyButton.click()
    message = module.dialogs.messages[-1]
    assert message.icon == "Critical"
    assert "no HU is not in Hounsfield units" in message.text + message.details
    assert widget.run is None
    assert not pids.exists()
    assert temporary_folders() == []
    assert node_ids() == before


def test_missing_packages_are_installed_only_after_asking(module, run, tmp_path):
    widget = module.module.widget()
    fake_library(tmp_path, "time.sleep(30)")
    choose(widget, add_volume(run.ct), run)
    module.packaging.missing = {"torch", "safetensors"}
    module.dialogs.answers.append(("torch>=2.5, safetensors>=0.4", "Cancel"))
    widget.ui.applyButton.click()
    assert (widget.run, module.packaging.calls) == (None, [])
    module.dialogs.answers.append(("Nothing is sent about your images", "Ok"))
    widget.ui.applyButton.click()
    assert module.packaging.calls == [
        ("installTorch", ["torch>=2.5"]),
        ("pip_ensure", ["safetensors>=0.4"]),
    ]
    assert widget.run is not None
    widget.ui.applyButton.click()
    wait_for_run(module)


def test_packages_come_by_pip_where_slicer_packaging_or_the_pytorch_extension_is_missing(
    module, monkeypatch
):
    import slicer
    from DRAMLesionPanel import dependencies

    module.packaging.missing = {"torch", "safetensors"}
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    installed = []
    monkeypatch.setattr(slicer.util, "pip_install", lambda wanted: installed.extend(wanted))
    monkeypatch.setattr(dependencies, "_met", lambda wanted: wanted in installed)
    monkeypatch.setattr(dependencies, "_packaging", lambda: None)
    module.dialogs.answers.append(("torch>=2.5", "Ok"))
    assert dependencies.ensure()
    assert set(installed) == {dependencies.TORCH, *dependencies.OTHERS}
    assert dependencies.ensure()
    monkeypatch.undo()
    assert dependencies.missing() == ["torch>=2.5", "safetensors>=0.4"]


# --- runs that do not come to their end -----------------------------------------------------------


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_a_run_can_be_cancelled_in_every_stage(module, run, tmp_path, stage):
    widget = module.module.widget()
    before_stage = STAGE_NAMES[: STAGE_NAMES.index(stage) + 1]
    steps = [(name, number / 10) for number, name in enumerate(before_stage)]
    pids = fake_library(
        tmp_path,
        f"for name, share in {steps!r}:\n"
        "    print(json.dumps({'stage': name, 'fraction': share}), flush=True)\n"
        "print('not json', flush=True)\n"
        "time.sleep(30)",
    )
    choose(widget, add_volume(run.ct), run)
    before = node_ids()
    widget.ui.applyButton.click()
    assert widget.ui.applyButton.text == "&Cancel"
    assert not widget.ui.inputsSection.enabled
    shown = sys.modules["DRAMLesion"].stageText(stage)
    module.wait_for(lambda: widget.ui.statusLabel.text == shown, stage)
    assert shown != stage
    assert widget.ui.progressBar.value == round(10 * (len(steps) - 1))
    processes = [int(pid) for pid in pids.read_text().split()]
    widget.ui.applyButton.click()
    wait_for_run(module)
    module.wait_for(lambda: not any(alive(pid) for pid in processes), "the processes' end", 60)
    assert widget.ui.statusLabel.text == "Cancelled; the scene is as it was."
    assert (widget.ui.applyButton.text, widget.ui.applyButton.enabled) == ("&Apply", True)
    assert widget.ui.inputsSection.enabled
    assert not widget.ui.progressBar.isVisible()
    assert temporary_folders() == []
    assert node_ids() == before
    assert module.dialogs.messages == []


def test_a_process_that_does_not_listen_is_killed(module, run, tmp_path, monkeypatch):
    from DRAMLesionPanel import process

    monkeypatch.setattr(process, "GRACE_MS", 200)
    widget = module.module.widget()
    pids = fake_library(
        tmp_path,
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(json.dumps({'stage': 'lobes', 'fraction': 0.2}), flush=True)\ntime.sleep(30)",
    )
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    module.wait_for(lambda: "lobes" in widget.ui.statusLabel.text, "progress")
    widget.ui.applyButton.click()
    wait_for_run(module)
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_descendants_are_found_without_ps_too(module, monkeypatch):
    from DRAMLesionPanel import process

    if not Path("/proc/self/stat").is_file():
        pytest.skip("this system has no /proc")
    parent = subprocess.Popen(["sh", "-c", "sleep 60 & wait"])  # noqa: S607
    try:
        module.wait_for(lambda: process._descendants(parent.pid), "the child")
        found = process._descendants(parent.pid)

        def no_ps(*_arguments, **_keywords):
            raise FileNotFoundError

        monkeypatch.setattr(process.subprocess, "run", no_ps)
        assert process._descendants(parent.pid) == found
        monkeypatch.undo()
    finally:
        process.stopTree(parent.pid, kill=True)
        parent.wait()
    module.wait_for(lambda: not any(alive(pid) for pid in found), "the child's end", 60)


FAILURES = {
    "said": ("sys.exit('dramlesion: no lung was found')", "No lung was found"),
    "crashed": ("os.kill(os.getpid(), 9)", "The computation was ended from outside or crashed."),
    "crashed below the launcher": (
        "print('a last word', file=sys.stderr)\n"
        "sys.exit('error: [/opt/bin/PythonSlicer-real] exit abnormally - Report the problem.')",
        "The computation was ended from outside or crashed.",
    ),
    "the launcher lacks its program": (
        "sys.exit('error: [/opt/Slicer/bin/python-real] failed to start.')",
        "PythonSlicer cannot be started: is Slicer installed completely?",
    ),
    "a fault": (
        "raise KeyError('what')",
        "A fault of the program: KeyError: 'what'. The log has the details.",
    ),
    "silent": ("sys.exit(7)", "The process ended with status 7."),
    "nothing written": ("sys.exit(0)", "lesions.nii.gz"),
}


@pytest.mark.parametrize("kind", list(FAILURES))
def test_a_run_that_fails_says_why_and_leaves_nothing(module, run, tmp_path, kind):
    body, reason = FAILURES[kind]
    widget = module.module.widget()
    fake_library(tmp_path, f"child.kill()\n{body}")
    choose(widget, add_volume(run.ct), run)
    before = node_ids()
    widget.ui.applyButton.click()
    wait_for_run(module)
    told = module.dialogs.messages[-1].text
    assert reason in told
    assert ("memory is short" in told) is kind.startswith("crashed")
    assert "exit abnormally" not in told
    assert widget.ui.statusLabel.text.startswith("Not done: ")
    assert temporary_folders() == []
    assert node_ids() == before
    assert widget.ui.applyButton.enabled


UNEXPECTED = {
    "library": (InputError("lobes and CT differ"), "Lobes and CT differ"),
    "key": (KeyError("lobes"), "KeyError: 'lobes'"),
    "import": (ImportError("no module skimage"), "ImportError: no module skimage"),
    "memory": (
        MemoryError("too large"),
        "Not enough memory for this CT; close other programs or use a computer with more",
    ),
}


@pytest.mark.parametrize("kind", list(UNEXPECTED))
def test_whatever_goes_wrong_in_reading_a_result_is_told(
    module, run, tmp_path, monkeypatch, caplog, kind
):
    error, reason = UNEXPECTED[kind]

    def fail(*_arguments):
        raise error

    monkeypatch.setattr("DRAMLesionPanel.run.loadResult", fail)
    widget = module.module.widget()
    fake_library(tmp_path, "child.kill()")
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    wait_for_run(module)
    assert module.dialogs.messages[-1].text == reason
    assert widget.ui.statusLabel.text.lower() == f"Not done: {reason}".lower()
    assert widget.ui.inputsSection.enabled
    assert (widget.ui.applyButton.text, widget.ui.applyButton.enabled) == ("&Apply", True)
    assert temporary_folders() == []
    logged = "Traceback (most recent call last)" in caplog.text
    assert logged is (kind in ("key", "import")), "the log has what nobody expected"


def test_a_process_lives_as_long_as_the_message_about_its_failure(
    module, run, tmp_path, monkeypatch
):
    widget, seen, answer = module.module.widget(), [], module.dialogs.answer
    fake_library(tmp_path, "child.kill()\nsys.exit(7)")
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    widget.run._process._process._object.destroyed.connect(lambda: seen.append("deleted"))

    def answered(message):
        seen.append("answered")
        return answer(message)

    monkeypatch.setattr(module.dialogs, "answer", answered)
    wait_for_run(module)
    assert seen == ["answered", "deleted"]


def test_a_program_that_cannot_be_started_is_named(module, run, tmp_path):
    import slicer

    widget = module.module.widget()
    (Path(slicer.app.slicerHome) / "bin" / "PythonSlicer").write_text("#!/nowhere\n")
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    wait_for_run(module)
    assert "PythonSlicer cannot be started" in module.dialogs.messages[-1].text
    assert temporary_folders() == []


def test_a_program_that_fails_at_once_is_named_too(module, run, monkeypatch):
    """On some systems the process says so before `start` has returned."""
    import qt
    from DRAMLesionPanel import process

    def start(self):
        self._process = qt.QProcess()
        self._failed(qt.QProcess.FailedToStart)

    monkeypatch.setattr(process.LibraryProcess, "start", start)
    widget = module.module.widget()
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    assert "cannot be started" in module.dialogs.messages[-1].text
    assert (widget.run, widget.ui.applyButton.text) == (None, "&Apply")
    assert not widget.ui.progressBar.isVisible()


def test_the_ct_may_disappear_during_a_run(module, run, tmp_path):
    import slicer

    widget = module.module.widget()
    fake_library(tmp_path, "child.kill()\ntime.sleep(0.5)")
    ct = add_volume(run.ct)
    choose(widget, ct, run)
    widget.ui.applyButton.click()
    slicer.mrmlScene.RemoveNode(ct)
    wait_for_run(module)
    assert "The CT was removed" in module.dialogs.messages[-1].text


def test_the_scene_may_be_closed_during_a_run(module, run, tmp_path):
    import slicer

    widget = module.module.widget()
    pids = fake_library(tmp_path, "time.sleep(30)")
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    module.wait_for(pids.exists, "the process")
    time.sleep(0.1)
    slicer.mrmlScene.Clear(False)
    module.process_events()
    assert widget.run is None
    assert temporary_folders() == []
    assert not any(alive(int(pid)) for pid in pids.read_text().split())
    assert widget.ui.applyButton.text == "&Apply"
    assert widget.ui.applyButton.toolTip == "Choose a CT."
    assert module.dialogs.messages == []


def test_leaving_the_application_ends_a_run(run, tmp_path):
    with Host(MODULE) as host:
        widget = host.show()
        pids = fake_library(tmp_path, "time.sleep(30)")
        choose(widget, add_volume(run.ct), run)
        widget.ui.applyButton.click()
        host.wait_for(pids.exists, "the process")
        time.sleep(0.1)
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


# --- whole runs -----------------------------------------------------------------------------------


def test_in_process_and_command_line_agree_voxel_for_voxel_below_a_transform(host, run):
    """The CT lies untransformed in the scene, and a transform brings it to where the files are."""
    sys.path.insert(0, str(MODULE.parent))
    module = host.load(MODULE).source()
    from DRAMLesionLib.mrml import volumes

    plain = geometry.image_like(geometry.array(run.ct), run.ct)
    plain.SetDirection(np.eye(3).ravel().tolist())
    plain.SetOrigin((0.0, 0.0, 0.0))
    ct = add_volume(plain)
    matrix = volumes.ras_matrix(run.ct) @ np.linalg.inv(volumes.ras_matrix(plain))
    put_under(matrix, ct)
    lobes = add_lobes(run.lobes, add_volume(run.ct, "where the lobes were drawn"))
    keys = {lobe.name: f"s{lobe.value}" for lobe in Lobe}
    stages = []
    result = module.DRAMLesionLogic().process(
        ct,
        lobes,
        keys,
        device="cpu",
        weightsFolder=str(run.weights),
        progress=lambda stage, _share: stages.append(stage),
    )
    assert list(dict.fromkeys(stages)) == list(STAGES)
    same_as_files(result, run)
    assert ct.GetTransformNodeID() is not None
    assert result.get("refined").GetTransformNodeID() == ct.GetTransformNodeID()


def test_a_script_can_cancel_and_nothing_stays(host, run):
    from DRAMLesionLib.errors import Cancelled

    sys.path.insert(0, str(MODULE.parent))
    module = host.load(MODULE).source()
    ct = add_volume(run.ct)
    before = node_ids()
    with pytest.raises(Cancelled):
        module.DRAMLesionLogic().process(
            ct, device="cpu", weightsFolder=str(run.weights), cancel=lambda: True
        )
    assert node_ids() == before
    assert temporary_folders() == []
