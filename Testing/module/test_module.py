"""The module in the stand-in host: real widgets are clicked and typed into."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from DRAMLesionLib import geometry
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.pipeline import STAGES
from Testing.host.host import Host, SampleDataLogic
from Testing.module.cases import MODULE, add_lobes, add_result, add_volume

STAGE_NAMES = ("read", *STAGES, "write")

FAKE = """#!{python}
import json, os, subprocess, sys, time
child = subprocess.Popen(["sleep", "60"])
with open({pids!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}")
{body}
"""


def fake_library(tmp_path: Path, body: str) -> Path:
    """Put another program in PythonSlicer's place; returns the file with the process IDs."""
    import slicer

    script, pids = Path(slicer.app.slicerHome) / "bin" / "PythonSlicer", tmp_path / "pids"
    script.write_text(FAKE.format(python=sys.executable, pids=str(pids), body=body))
    return pids


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def temporary_folders() -> list[Path]:
    import slicer

    return list(Path(slicer.app.temporaryPath).glob("DRAMLesion-*"))


def node_ids() -> set[str]:
    import slicer

    return {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}


def choose(widget, ct, run, device="cpu"):
    """Choose a CT, the test's weights and a device as a user does."""
    ui = widget.ui
    ui.inputVolumeSelector.setCurrentNode(ct)
    ui.weightsPathEdit.currentPath = str(run.weights)
    ui.deviceBox.currentIndex = [ui.deviceBox.itemText(i) for i in range(4)].index(
        {"cpu": "Processor (CPU)", "auto": "Automatic"}[device]
    )


def wait_for_run(module, timeout_s=120.0):
    widget = module.module.widget()
    module.wait_for(lambda: widget.run is None, "the run", timeout_s)


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
    for row, package in ((2, "totalsegmentator"), (3, "lungmask")):
        ui.lobesFromBox.currentIndex = row
        assert ui.applyButton.toolTip == f"{package} is not installed: choose other lobes."
    ui.lobesFromBox.currentIndex = 0
    assert ui.applyButton.enabled
    ui.weightsPathEdit.currentPath = str(run.folder)
    assert "holds no weights of the regression network" in ui.applyButton.toolTip


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
    module.errors.clear()


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
    wait_for_run(module, 10)
    module.wait_for(lambda: not any(alive(pid) for pid in processes), "the processes' end", 10)
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
    wait_for_run(module, 10)
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
    module.wait_for(lambda: not any(alive(pid) for pid in found), "the child's end", 10)


FAILURES = {
    "said": ("sys.exit('dramlesion: no lung was found')", "no lung was found"),
    "crashed": ("os.kill(os.getpid(), 9)", "The process stopped unexpectedly"),
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
    wait_for_run(module, 20)
    assert reason in module.dialogs.messages[-1].text
    assert widget.ui.statusLabel.text.startswith("Not done: ")
    assert temporary_folders() == []
    assert node_ids() == before
    assert widget.ui.applyButton.enabled


def test_a_program_that_cannot_be_started_is_named(module, run, tmp_path):
    import slicer

    widget = module.module.widget()
    (Path(slicer.app.slicerHome) / "bin" / "PythonSlicer").write_text("#!/nowhere\n")
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    wait_for_run(module, 10)
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
    wait_for_run(module, 20)
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


def same_as_files(result, folder_run):
    import slicer

    for role, name in (("dram", "dram"), ("refined", "dram_refined")):
        values = slicer.util.arrayFromVolume(result.get(role))
        np.testing.assert_array_equal(values, folder_run.array(name))
    lesions = result.lesions_and_vessels()
    np.testing.assert_array_equal(np.where(lesions < 4, lesions, 0), folder_run.array("lesions"))
    np.testing.assert_array_equal(lesions == 4, folder_run.array("vessels") > 0)
    np.testing.assert_array_equal(result.lobes(), folder_run.array("lobes"))
    assert result.report["lobes"] == folder_run.report["lobes"]


def test_in_process_and_command_line_agree_voxel_for_voxel_below_a_transform(host, run):
    """The CT lies untransformed in the scene, and a transform brings it to where the files are."""
    import slicer

    sys.path.insert(0, str(MODULE.parent))
    module = host.load(MODULE).source()
    from DRAMLesionLib.mrml import volumes

    plain = geometry.image_like(geometry.array(run.ct), run.ct)
    plain.SetDirection(np.eye(3).ravel().tolist())
    plain.SetOrigin((0.0, 0.0, 0.0))
    ct = add_volume(plain)
    matrix = volumes.ras_matrix(run.ct) @ np.linalg.inv(volumes.ras_matrix(plain))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    ct.SetAndObserveTransformNodeID(transform.GetID())
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
    assert result.get("refined").GetTransformNodeID() == transform.GetID()


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


# --- with a result --------------------------------------------------------------------------------


@pytest.fixture
def finished(module, run):
    """The module with a result of the turned phantom in the scene."""
    ct = add_volume(run.ct)
    result = add_result(run, ct)
    widget = module.module.widget()
    choose(widget, ct, run)
    widget._onParameters()
    return module, widget, result


def type_score(widget, lobe, text):
    """Type into the reader's column of the panel's table."""
    import qt

    table = widget.ui.scoreTable
    row = next(r for r in range(table.rowCount) if table.item(r, 0).text() == lobe)
    assert table.item(row, 5).flags() & qt.Qt.ItemIsEditable
    table.item(row, 5).setText(text)
    return table.item(row, 5)


def test_the_table_shows_the_result_and_takes_scores(finished, run):
    import qt

    _module, widget, result = finished
    table = widget.ui.scoreTable
    names = [table.item(row, 0).text() for row in range(table.rowCount)]
    assert names == [*(lobe.name for lobe in Lobe), "left lung", "right lung", "total"]
    total = run.report["totals"][2]
    assert table.item(7, 3).text() == f"{total['lesion_percent']:.1f}"
    assert table.item(7, 4).text() == f"{total['score']} / 25"
    assert f"score {total['score']} / 25" in widget.ui.resultLabel.text
    for warning in result.warnings:
        assert warning in widget.ui.warningsLabel.text
    assert not table.item(0, 3).flags() & qt.Qt.ItemIsEditable
    assert not table.item(7, 5).flags() & qt.Qt.ItemIsEditable
    type_score(widget, "RUL", "4")
    assert result.reader_scores[Lobe.RUL] == 4
    type_score(widget, "RML", "7")
    assert widget.ui.readerMessageLabel.text == (
        "a reader's score is a whole number from 0 to 5, not '7'"
    )
    assert result.reader_scores[Lobe.RML] is None
    assert table.item(3, 5).text() == ""
    type_score(widget, "RML", "0")
    assert not widget.ui.readerMessageLabel.isVisible()


def test_the_threshold_moves_segment_table_and_chart(finished, run):
    _module, widget, result = finished
    widget.ui.thresholdSlider.value = 0.3
    expected = (run.array("dram_refined") > np.float32(0.3)) & (run.array("lobes") > 0)
    np.testing.assert_array_equal(result.pseudolabel() == 2, expected)
    share = 100.0 * expected.sum() / (run.array("lobes") > 0).sum()
    assert widget.ui.scoreTable.item(7, 3).text() == f"{share:.1f}"
    assert widget.ui.tableSourceBox.currentText == "Pseudo-label"
    chart = result.get("chartTable").GetTable().GetColumnByName("Lesion [%]")
    lul = 100.0 * expected[run.array("lobes") == Lobe.LUL].mean()
    assert chart.GetValue(0) == pytest.approx(lul)
    assert result.get("pseudolabel").GetDisplayNode().GetVisibility()
    lesions = result.get("segmentation").GetDisplayNode()
    assert not lesions.GetSegmentVisibility("ground_glass")
    widget.ui.tableSourceBox.currentIndex = 0
    total = run.report["totals"][2]
    assert widget.ui.scoreTable.item(7, 3).text() == f"{total['lesion_percent']:.1f}"
    assert lesions.GetSegmentVisibility("ground_glass")


def test_an_empty_refined_dram_is_said_and_the_dram_shown(module, run, tmp_path):
    import SimpleITK as sitk

    widget = module.module.widget()
    folder = tmp_path / "result"
    shutil.copytree(run.folder, folder)
    refined = sitk.ReadImage(str(folder / "dram_refined.nii.gz"))
    sitk.WriteImage(refined * 1e-4, str(folder / "dram_refined.nii.gz"))
    fake_library(
        tmp_path,
        "child.kill()\nimport shutil\n"
        f"shutil.copytree({str(folder)!r}, sys.argv[sys.argv.index('-o') + 1])",
    )
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    wait_for_run(module, 20)
    assert widget.ui.heatMapBox.currentText == "dRAM"
    widget.ui.editingSection.collapsed = False
    assert widget.ui.mapLabel.isVisible()


def edit(result, run, lobe=Lobe.RUL):
    from Testing.module.test_mrml import box_in_lobe, paint

    return paint(result, "lesion", box_in_lobe(run, lobe))


def test_moving_the_threshold_asks_before_it_replaces_edits(finished, run):
    module, widget, result = finished
    mask = edit(result, run)
    module.dialogs.answers.append(("was edited by hand", "Cancel"))
    widget.ui.thresholdSlider.value = 0.7
    assert widget.ui.thresholdSlider.value == pytest.approx(0.5)
    np.testing.assert_array_equal(result.pseudolabel() == 2, mask & (run.array("lobes") > 0))
    module.dialogs.answers.append(("was edited by hand", "Ok"))
    widget.ui.thresholdSlider.value = 0.7
    assert result.edited() == []
    assert (result.pseudolabel() == 2).sum() < mask.sum()


def test_the_editor_opens_on_the_pseudo_label_masked_to_the_lobes(finished, run):
    import slicer

    module, widget, result = finished
    widget.ui.editButton.click()
    editor = widget.results.editor.widget
    node = editor.mrmlSegmentEditorNode()
    assert editor.segmentationNode() is result.get("pseudolabel")
    assert editor.sourceVolumeNode() is result.ct
    assert editor.currentSegmentID() == "lesion"
    assert node.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
    assert node.GetMaskSegmentID() == "lungs"
    assert node.GetOverwriteMode() == slicer.vtkMRMLSegmentEditorNode.OverwriteVisibleSegments
    display = result.get("pseudolabel").GetDisplayNode()
    assert not display.GetSegmentVisibility("lungs")
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(result.get("pseudolabel"), "lungs", result.ct)
    np.testing.assert_array_equal(mask > 0, run.array("lobes") > 0)
    painted = edit(result, run)
    before = widget.ui.scoreTable.item(2, 3).text()
    widget.ui.updateScoresButton.click()
    inside = painted & (run.array("lobes") == Lobe.RUL)
    share = 100.0 * inside.sum() / (run.array("lobes") == Lobe.RUL).sum()
    assert widget.ui.scoreTable.item(2, 3).text() == f"{share:.1f}" != before
    assert editor._object.shortcuts == 1
    module.leave()
    assert editor._object.shortcuts == 0
    module.show()
    assert editor._object.shortcuts == 1
    widget.ui.editButton.click()
    assert not editor.isVisible()
    slicer.mrmlScene.Clear(False)
    assert editor.segmentationNode() is None


@pytest.mark.parametrize(("answer", "kept"), [("Keep", True), ("Replace", False), ("Cancel", None)])
def test_running_again_asks_before_it_replaces_edits(finished, run, tmp_path, answer, kept):
    module, widget, result = finished
    mask = edit(result, run)
    copy = (
        f"import shutil\nshutil.copytree({str(run.folder)!r}, sys.argv[sys.argv.index('-o') + 1])"
    )
    pids = fake_library(tmp_path, f"child.kill()\n{copy}")
    module.dialogs.answers.append(("Edited by hand: CT pseudo-label", answer))
    widget.ui.applyButton.click()
    wait_for_run(module, 20)
    assert pids.exists() is (kept is not None)
    now = result.pseudolabel() == 2
    as_edited = bool((now == (mask & (run.array("lobes") > 0))).all())
    assert as_edited is (kept is not False)
    assert result.edited() == ([] if kept is False else ["pseudolabel"])


def test_edits_are_asked_about_even_if_a_part_of_the_result_was_deleted(finished, run):
    import slicer

    module, widget, result = finished
    edit(result, run)
    slicer.mrmlScene.RemoveNode(result.get("chart"))
    widget._onParameters()
    assert widget.ui.resultLabel.text == "No result for this CT yet."
    module.dialogs.answers.append(("Edited by hand: CT pseudo-label", "Cancel"))
    widget.ui.applyButton.click()
    assert widget.run is None
    assert len(module.dialogs.messages) == 1


def test_heat_map_and_views_follow_the_panel(finished, run):
    import slicer

    _module, widget, result = finished
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    ui = widget.ui
    ui.opacitySlider.value = 0.8
    assert composite.GetForegroundVolumeID() == result.get("refined").GetID()
    assert composite.GetBackgroundVolumeID() == result.ct.GetID()
    assert composite.GetForegroundOpacity() == pytest.approx(0.8)
    ui.floorSlider.value = 0.25
    assert result.get("refined").GetDisplayNode().GetLowerThreshold() == pytest.approx(0.25)
    ui.heatMapBox.currentIndex = 1
    assert composite.GetForegroundVolumeID() == result.get("dram").GetID()
    ui.heatMapBox.currentIndex = 2
    assert composite.GetForegroundVolumeID() is None


def test_chart_and_surfaces_on_request(finished):
    import slicer

    _module, widget, result = finished
    widget.ui.showChartButton.click()
    plot_view = slicer.util.getNodesByClass("vtkMRMLPlotViewNode")
    shown = slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID()
    chart = result.get("chart").GetID()
    assert chart == shown or chart in [node.GetPlotChartNodeID() for node in plot_view]
    widget.ui.show3DButton.click()
    assert result.get("segmentation").GetSegmentation().ContainsRepresentation("Closed surface")


def test_the_panel_finds_a_saved_result_again(finished, run, tmp_path):
    import slicer

    module, widget, result = finished
    type_score(widget, "LLL", "3")
    widget.ui.thresholdSlider.value = 0.4
    rows = [row.lesion_percent for row in result.rows]
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(False)
    module.process_events()
    assert widget.ui.scoreTable.rowCount == 0
    assert widget.ui.resultLabel.text == "No result for this CT yet."
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    module.process_events()
    assert widget.ui.inputVolumeSelector.currentNode().GetName() == "CT"
    assert widget.ui.scoreTable.item(1, 5).text() == "3"
    assert widget.ui.thresholdSlider.value == pytest.approx(0.4)
    assert [row.lesion_percent for row in widget._result().rows] == rows
    widget.ui.thresholdSlider.value = 0.5
    expected = (run.array("dram_refined") > np.float32(0.5)) & (run.array("lobes") > 0)
    np.testing.assert_array_equal(widget._result().pseudolabel() == 2, expected)


def test_another_ct_has_a_result_of_its_own(finished, run):
    _module, widget, result = finished
    other = add_volume(run.ct, "other CT")
    widget.ui.inputVolumeSelector.setCurrentNode(other)
    assert widget.ui.scoreTable.rowCount == 0
    assert not widget.ui.addToTrainingButton.enabled
    widget.ui.inputVolumeSelector.setCurrentNode(result.ct)
    assert widget.ui.scoreTable.rowCount == 8


def test_a_case_goes_into_the_training_set(finished, run, tmp_path):
    from Training.data import find_cases

    module, widget, _result = finished
    ui = widget.ui
    assert ui.addToTrainingButton.toolTip == "Choose the training folder."
    ui.trainingPathEdit.currentPath = str(tmp_path / "set")
    assert "Type your own scores" in ui.addToTrainingButton.toolTip
    type_score(widget, "RUL", "4")
    assert ui.caseNameEdit.text == "case-0001"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scores.csv").write_text("case,LUL,LLL,RUL,RML,RLL\ncase-0001,,,,,1\n")
    ui.trainingPathEdit.currentPath = str(tmp_path / "other")
    assert ui.caseNameEdit.text == "case-0002"
    ui.trainingPathEdit.currentPath = str(tmp_path / "set")
    ui.caseNameEdit.text = "Jane Doe"
    assert "is named with letters" in ui.addToTrainingButton.toolTip
    ui.caseNameEdit.text = "reader-1"
    ui.addToTrainingButton.click()
    assert ui.trainingMessageLabel.text == (
        "Wrote 3 files of reader-1. "
        "The pseudo-label was not changed by hand: the training computes its own."
    )
    cases, problems = find_cases([tmp_path / "set"])
    assert [str(p) for p in problems if p.fatal] == []
    assert (cases[0].name, cases[0].scores[Lobe.RUL], cases[0].label) == ("reader-1", 4, None)
    for threshold, count in ((0.4, 4), (0.5, 3)):
        ui.thresholdSlider.value = threshold
        module.dialogs.answers.append(("has a case reader-1 already", "Ok"))
        ui.addToTrainingButton.click()
        assert ui.trainingMessageLabel.text.startswith(f"Wrote {count} files of reader-1.")
        cases, _problems = find_cases([tmp_path / "set"])
        assert (cases[0].label is not None) is (count == 4)
    module.dialogs.answers.append(("has a case reader-1 already", "Cancel"))
    ui.addToTrainingButton.click()
    (tmp_path / "set" / "scores.csv").write_text("nonsense\n")
    ui.caseNameEdit.text = "reader-2"
    ui.addToTrainingButton.click()
    message = module.dialogs.messages[-1]
    assert "is no table with the columns" in message.text + message.details
    module.errors.clear()


# --- the rest -------------------------------------------------------------------------------------


def test_choices_are_kept_for_the_next_scene(module, run, tmp_path):
    import slicer

    widget = module.module.widget()
    fake_library(tmp_path, "time.sleep(30)")
    choose(widget, add_volume(run.ct), run)
    widget.ui.trainingPathEdit.currentPath = str(tmp_path)
    widget.ui.applyButton.click()
    slicer.mrmlScene.Clear(False)
    module.process_events()
    assert widget.ui.weightsPathEdit.currentPath == str(run.weights)
    assert widget.ui.trainingPathEdit.currentPath == str(tmp_path)
    assert widget.ui.deviceBox.currentText == "Processor (CPU)"


def test_sample_data_is_made_here(module, run, monkeypatch):
    import DRAMLesionPanel.logic as logic

    entry = SampleDataLogic.registered[-1]
    assert (entry["category"], entry["sampleName"]) == ("DRAMLesion", "DRAMLesionPhantom")
    assert not entry["uris"]
    assert Path(entry["thumbnailFileName"]).is_file()
    monkeypatch.setattr("DRAMLesionLib.phantom.make_phantom", lambda **_options: run)
    ct = entry["customDownloader"](None)[0]
    assert ct.GetName() == "DRAMLesionPhantom"
    assert logic.DRAMLesionLogic().inputProblem(ct) == ""


def test_the_module_s_own_test_runs(module, run, monkeypatch):
    import DRAMLesionPanel.self_test as self_test

    monkeypatch.setattr("DRAMLesionLib.phantom.make_phantom", lambda **_options: run)
    monkeypatch.setattr(self_test.dependencies, "missing", lambda: ["torch>=2.5"])
    module.module.instance().runTest(msec=0)
    monkeypatch.setattr(self_test.dependencies, "missing", list)

    def process(_logic, ct, _lobes, device):
        return add_result(run, ct)

    monkeypatch.setattr(self_test.DRAMLesionLogic, "process", process)
    module.module.instance().runTest(msec=0)


def test_a_result_that_needs_a_missing_package_says_so(module, run, monkeypatch):
    ct = add_volume(run.ct)
    add_result(run, ct)
    monkeypatch.setitem(sys.modules, "DRAMLesionLib.report.model", None)
    widget = module.module.widget()
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    assert "cannot be shown yet: DRAMLesionLib.report.model is not" in widget.ui.resultLabel.text
    assert widget.ui.scoreTable.rowCount == 0
    monkeypatch.undo()
    widget._onParameters()
    assert widget.ui.scoreTable.rowCount == 8


def test_everything_can_be_reached_with_the_keyboard(finished):
    import qt

    _module, widget, _result = finished
    ui = widget.ui
    mnemonics = []
    for name, child in vars(ui).items():
        text = getattr(child, "text", "") if hasattr(child, "text") else ""
        if isinstance(text, str) and "&" in text:
            mnemonics.append(text[text.index("&") + 1].lower())
            if child.inherits("QLabel"):
                assert child.buddy() is not None, name
    assert len(mnemonics) == len(set(mnemonics)), sorted(mnemonics)
    assert not set(mnemonics) & set("fevh"), "the menus of Slicer's window have these"
    kinds = (qt.QPushButton, qt.QComboBox, qt.QTableWidget, qt.QLineEdit)
    for name, child in vars(ui).items():
        if isinstance(child, kinds) and not name.startswith("qt_"):
            assert child.focusPolicy & qt.Qt.TabFocus, name
            assert child.toolTip, name


def test_help_says_what_it_is_and_what_to_cite(module):
    description = module.module
    assert description.title == "DRAMLesion"
    assert description.categories == ["Segmentation"]
    assert "Not a medical device" in description.helpText
    assert "arXiv:2105.11748" in description.acknowledgementText
    for text in ("&Apply", "Choose a CT.", "No result for this CT yet."):
        assert text in module.translated


def test_it_works_without_a_window(run):
    with Host(MODULE, main_window=False) as host:
        logic = host.module.source().DRAMLesionLogic()
        ct = add_volume(run.ct)
        assert logic.inputProblem(ct) == ""
        result = add_result(run, ct)
        assert result.complete
    assert os.environ.get("HOME")
