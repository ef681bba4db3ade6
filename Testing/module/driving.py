"""What the module's tests do again and again: choose, type, paint, wait, put a fake in place."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from DRAMLesionLib.lobes import Lobe

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


def finished_library(tmp_path: Path, files: Path, before: str = "") -> Path:
    """Put a program in PythonSlicer's place that writes the files of a run made before."""
    copy = f"import shutil\nshutil.copytree({str(files)!r}, sys.argv[sys.argv.index('-o') + 1])"
    return fake_library(tmp_path, f"child.kill()\n{before}\n{copy}")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def temporary_folders() -> list[Path]:
    import slicer

    return list(Path(slicer.app.temporaryPath).glob(".dramlesion-*"))


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


def wait_for_run(module, timeout_s=600.0):
    widget = module.module.widget()
    module.wait_for(lambda: widget.run is None, "the run", timeout_s)


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


def type_score(widget, lobe, text):
    """Type into the reader's column of the panel's table."""
    import qt

    table = widget.ui.scoreTable
    row = next(r for r in range(table.rowCount) if table.item(r, 0).text() == lobe)
    assert table.item(row, 5).flags() & qt.Qt.ItemIsEditable
    table.item(row, 5).setText(text)
    return table.item(row, 5)


def paint(result, segment, box):
    """Add a box to a segment by the call that the effects of the Segment Editor end in."""
    import slicer

    from DRAMLesionLib.mrml import segments

    node, ct = result.get("pseudolabel"), result.ct
    mask = segments.mask_of(node, segment, ct)
    brush = np.zeros(mask.shape, np.uint8)
    brush[box] = 1
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    image = segments.oriented_image(brush, ct)
    assert logic.SetBinaryLabelmapToSegment(image, node, segment, logic.MODE_MERGE_MASK)
    return mask | (brush > 0)


def box_in_lobe(run, lobe, edge=4):
    """A box around the middle of a lobe."""
    where = np.argwhere(run.array("lobes") == lobe)
    middle = where[len(where) // 2]
    return tuple(slice(m - edge, m + edge) for m in middle)


def edit(result, run, lobe=Lobe.RUL):
    return paint(result, "lesion", box_in_lobe(run, lobe))


def show_surfaces(module, widget):
    """Press Show 3D, and wait until all surfaces are there."""
    widget.ui.show3DButton.click()
    assert widget.ui.show3DButton.checked
    module.wait_for(lambda: not widget.results.surfaces.running, "the surfaces")
