"""How long the panel lets the window stand still: ``python -m Testing.module.standstill``.

A phantom is made as large as a CT of 512 x 512 x 300, and what a user does is done to it over the
tests' host. For each step it prints the seconds of processor time that the window's own thread
takes in one go: of the click, or of the longest turn of the event loop after it. Views are not
drawn, and Slicer's own effects are not there.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from PySide6.QtWidgets import QApplication
from scipy import ndimage

from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom import Phantom, make_phantom
from DRAMLesionLib.report.data import to_json
from DRAMLesionLib.report.model import Report, tabulate
from Testing.module.cases import MODULE
from Testing.module.driving import paint

TIMES = (6, 6, 5)
"""So many voxels (k, j, i) are made of each of a phantom at 4 mm."""


class Clock:
    """Does what a user does, and prints how long the window stood still for it."""

    def __call__(
        self, name: str, click: Callable[[], Any], done: Callable[[], Any] = lambda: True
    ) -> None:
        """Do something, and wait until what follows it has ended."""
        start = time.thread_time()
        click()
        longest = total = time.thread_time() - start
        rest = time.monotonic() + 0.5
        while time.monotonic() < rest or not done():
            start = time.thread_time()
            QApplication.processEvents()
            took = time.thread_time() - start
            longest, total = max(longest, took), total + took
            time.sleep(0.002)
        print(f"{longest:6.2f} s of {total:5.2f} s  {name}", flush=True)


def enlarged(values: np.ndarray) -> np.ndarray:
    """Return an array (k, j, i) with more voxels."""
    for axis, times in enumerate(TIMES):
        values = np.repeat(values, times, axis=axis)
    return np.ascontiguousarray(values)


def made_up(phantom: Phantom) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return images and report of a run that found what there is."""
    lobes = sitk.GetArrayFromImage(phantom.lobes)
    lesions = ((sitk.GetArrayFromImage(phantom.lesions) > 0) & (lobes > 0)).astype(np.uint8)
    vessels = (sitk.GetArrayFromImage(phantom.vessels) > 0) & (lobes > 0) & (lesions == 0)
    spread = np.where(lobes > 0, ndimage.gaussian_filter(lesions.astype(np.float32), 1.0), 0)
    rows, totals = tabulate(lobes, lesions, float(np.prod(phantom.lobes.GetSpacing())) / 1000)
    report = Report(
        rows=rows,
        totals=totals,
        total_score=totals[2].score,
        lobes_source="given",
        grid={},
        version="",
        created="",
    )
    images = {"lesions": lesions, "vessels": vessels.astype(np.uint8), "lobes": lobes}
    images |= {name: spread.astype(np.float32) for name in ("dram", "dram_refined")}
    return {name: enlarged(values) for name, values in images.items()}, to_json(report)


def main() -> None:
    """Do all of it once."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from Testing.host.host import Host

    phantom = make_phantom(seed=3, spacing=4.0)
    with Host(MODULE) as host:
        host.start_up()
        host.show()
        _go(host, phantom, Clock())


def _go(host: Any, phantom: Phantom, clock: Clock) -> None:
    import slicer

    from DRAMLesionLib.mrml import exchange, result, volumes

    from DRAMLesionPanel.steps import Steps  # isort: skip  (there once the module is loaded)

    widget = host.module.widget()
    ui = widget.ui
    matrix = volumes.ras_matrix(phantom.ct)
    matrix[:3, :3] /= np.array(TIMES[::-1])
    values = enlarged(sitk.GetArrayFromImage(phantom.ct))
    print(f"{values.size / 1e6:.0f} million voxels")
    ct = slicer.util.addVolumeFromArray(values, ijkToRAS=slicer.util.vtkMatrixFromArray(matrix))
    images, report = made_up(phantom)
    for name in ("dram", "dram_refined"):  # as the thread that reads them makes them
        taken = volumes.new_image(values.shape)
        np.copyto(volumes.view(taken), images[name])
        images[name] = taken
    clock("choosing the CT", lambda: ui.inputVolumeSelector.setCurrentNode(ct))
    ended: list[Any] = []
    steps = result.show_in_steps(ct, images, report)
    clock("loading a result", lambda: Steps(steps, ended.append), lambda: ended)
    widget._onParameters()
    clock("showing it", widget.results.showNew)
    clock("a click on a row", lambda: widget.results.onRow("RUL"))
    clock("numbers of the pseudo-label", lambda: setattr(ui.tableSourceBox, "currentIndex", 1))
    clock("numbers of the network", lambda: setattr(ui.tableSourceBox, "currentIndex", 0))
    surfaces = widget.results.surfaces
    clock("Show 3D", ui.show3DButton.click, lambda: not surfaces.running)
    clock("hiding it", ui.show3DButton.click)
    is_ready = lambda: widget.results._preparing is None  # noqa: E731
    clock("opening the threshold", lambda: setattr(ui.editingSection, "collapsed", False), is_ready)
    clock("moving the threshold", lambda: setattr(ui.thresholdSlider, "value", 0.4))
    clock("Edit pseudo-label", ui.editButton.click)
    found = widget._result()
    places = np.argwhere(sitk.GetArrayFromImage(phantom.lobes) == Lobe.RLL)
    where = places[len(places) // 2] * TIMES
    paint(found, "lesion", tuple(slice(n - 4, n + 4) for n in where))
    clock("Update scores after a stroke", ui.updateScoresButton.click)
    clock("closing the editor", ui.editButton.click)
    host.dialogs.answers.append(("Replace", "Ok"))
    move = lambda: setattr(ui.thresholdSlider, "value", 0.5)  # noqa: E731
    clock("the threshold of an edited one", move, is_ready)
    clock("Lesion point", ui.lesionPointButton.click)
    world = volumes.ijk_to_world(ct)

    def point(number: int) -> Callable[[], None]:
        place = (world @ (*(places[len(places) * number // 7] * TIMES)[::-1], 1))[:3].tolist()
        return lambda: host.mouse.click(place)

    clock("a first point", point(2))
    clock("another point", point(4))
    clock("taking it back", ui.undoPointButton.click)
    clock("Remove all", ui.removePointsButton.click)
    with tempfile.TemporaryDirectory() as name:
        written: list[Any] = []
        work = exchange.write_result(found, Path(name), [], Path(name))
        clock("DICOM, before the process", lambda: Steps(work, written.append), lambda: written)
        found.set_reader_score(Lobe.RUL, "2")
        clock("Add to training set", lambda: widget.logic.addToTrainingSet(found, name, "case-1"))
    clock("another CT", lambda: ui.inputVolumeSelector.setCurrentNode(None))
    clock("back to it", lambda: ui.inputVolumeSelector.setCurrentNode(ct))
    clock("closing the scene", lambda: slicer.mrmlScene.Clear(0))


if __name__ == "__main__":
    main()
