"""The README's tutorial, followed step by step through the stand-in host, with its pictures.

``python -m Testing.module.tutorial`` makes the phantom of the tutorial, takes it all the way with
the bundled weights (some minutes) and writes the pictures of the README into ``docs``. Given a
training folder with an outcome of *Improve the weights*, it only makes a picture of that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from Testing.host import pictures
from Testing.module.cases import MODULE, PICTURES, ROOT
from Testing.module.driving import show_surfaces, type_score

SCORES = {"LUL": "2", "LLL": "1", "RUL": "0", "RML": "0", "RLL": "3"}
"""What the reader types into the table."""


class Camera:
    """Takes pictures of panel and views where this machine can draw."""

    def __init__(self, host: Any, folder: Path = PICTURES / "module"):
        self._host, self._folder, self._number = host, folder, 0

    def panel(self, name: str) -> Path:
        """The module's panel."""
        self._host.process_events()
        return self._save(name, lambda path: pictures.widget_picture(self._host.app.window, path))

    def slice(self, name: str, view: str = "Red", offset: float | None = None) -> Path | None:
        """A slice view."""
        return self._draw(
            name, lambda path: pictures.slice_picture(self._host.setup, view, path, offset=offset)
        )

    def three_d(self, name: str) -> Path | None:
        """The 3D view."""
        return self._draw(name, lambda path: pictures.three_d_picture(self._host.setup, path))

    def chart(self, name: str, chart: Any) -> Path | None:
        """The chart."""
        return self._draw(name, lambda path: pictures.chart_picture(chart, path, (500, 500)))

    def _draw(self, name: str, take: Any) -> Path | None:
        return self._save(name, take) if pictures.can_draw() else None

    def _save(self, name: str, take: Any) -> Path:
        self._number += 1
        path = self._folder / f"{self._number:02d}-{name}.png"
        take(path)
        assert path.stat().st_size > 500
        return path


class Tutorial:
    """The steps, in the README's order; each is what a user clicks and types.

    Attributes:
        shots: Pictures by name.
    """

    def __init__(self, host: Any, camera: Camera):
        self.host, self.camera = host, camera
        self.widget = host.module.widget()
        self.ui = self.widget.ui
        self.shots: dict[str, Path | None] = {}
        self.seen: list[tuple[str, float]] = []

    def choose_input(self, ct: Any, lobes: Any) -> None:
        """Step 2: the CT, and the lobes that came with it."""
        self.ui.inputVolumeSelector.setCurrentNode(ct)
        self.ui.lobesFromBox.currentIndex = 1
        self.ui.lobesNodeSelector.setCurrentNode(lobes)

    def apply(self, timeout_s: float = 600.0) -> Any:
        """Step 3: Apply, and wait; returns the result."""
        shown = self.widget.onProgress
        self.shots["input"] = self.camera.panel("input")
        self.ui.applyButton.click()
        self.widget.run._process._onProgress = lambda *step: (self.seen.append(step), shown(*step))
        self.host.wait_for(lambda: any(f > 0.3 for _s, f in self.seen), "progress", timeout_s)
        self.shots["running"] = self.camera.panel("running")
        self.host.wait_for(lambda: self.widget.run is None, "the run", timeout_s)
        return self.widget._result()

    def look(self, result: Any, place: np.ndarray | None = None) -> None:
        """Step 4: table, heat map, chart, 3D."""
        axial, coronal = (None, None) if place is None else (place[2], place[1])
        self.shots["result"] = self.camera.panel("result")
        self.shots["axial"] = self.camera.slice("result-axial", "Red", axial)
        self.shots["coronal"] = self.camera.slice("result-coronal", "Green", coronal)
        self.ui.showChartButton.click()
        self.shots["chart"] = self.camera.chart("chart", result.get("chart"))
        show_surfaces(self.host, self.widget)
        self.shots["3d"] = self.camera.three_d("result-3d")

    def move_threshold(self, threshold: float, place: np.ndarray | None = None) -> None:
        """Step 5: the pseudo-label follows the threshold."""
        self.ui.inputsSection.collapsed = True
        self.ui.editingSection.collapsed = False
        self.ui.thresholdSlider.value = threshold
        self.host.wait_for(lambda: not self.widget.results.surfaces.running, "the surfaces")
        axial = None if place is None else place[2]
        self.shots["threshold"] = self.camera.slice("threshold-axial", "Red", axial)

    def point(self, place: np.ndarray) -> None:
        """Step 6: a click on what is no lesion; what looks like it follows."""
        self.ui.clicksSection.collapsed = False
        self.ui.backgroundPointButton.click()
        self.host.mouse.click(place.tolist())
        self.host.wait_for(lambda: not self.widget.points._timer.active, "the point's effect")
        self.shots["points"] = self.camera.panel("points")
        self.shots["pointed"] = self.camera.slice("pointed-axial", "Red", place[2])
        self.ui.undoPointButton.click()
        self.host.wait_for(lambda: not self.widget.points._timer.active, "the point's undoing")
        self.ui.clicksSection.collapsed = True

    def edit(self, paint: Any, place: np.ndarray | None = None) -> Any:
        """Step 7: Edit, paint, Update scores."""
        self.ui.editButton.click()
        painted = paint()
        self.ui.updateScoresButton.click()
        self.host.wait_for(lambda: not self.widget.results.surfaces.running, "the surfaces")
        axial = None if place is None else place[2]
        self.shots["editing"] = self.camera.panel("editing")
        self.shots["edited"] = self.camera.slice("edited-axial", "Red", axial)
        self.ui.editButton.click()
        self.ui.editingSection.collapsed = True
        return painted

    def add_to_training_set(self, folder: Path) -> None:
        """Step 8: the reader's scores, and the case into a data set."""
        for lobe, text in SCORES.items():
            type_score(self.widget, lobe, text)
        self.ui.teachingSection.collapsed = False
        self.ui.trainingPathEdit.currentPath = str(folder)
        self.ui.addToTrainingButton.click()
        self.shots["training"] = self.camera.panel("training-set")


def show_outcome(host: Any, folder: Path, target: Path) -> None:
    """Steps 9 and 10: the cases of a training folder, and the weights before and after."""
    widget = host.module.widget()
    for name in ("inputsSection", "resultsSection", "editingSection", "clicksSection"):
        getattr(widget.ui, name).collapsed = True
    widget.ui.teachingSection.collapsed = False
    widget.ui.trainingPathEdit.currentPath = str(folder)
    host.process_events()
    assert widget.improvement.verdictLabel.text, f"{folder} has no outcome"
    area = widget.ui.teachingSection._object
    area.resize(area.width(), area.sizeHint().height())
    host.process_events()
    target.parent.mkdir(exist_ok=True)
    pictures.widget_picture(area, target)


def montage(panel: Path, views: list[Path], target: Path, columns: int = 2) -> None:
    """Set a panel beside views, as in the application's window."""
    side = 540
    height = side * (len(views) // columns)
    left = Image.open(panel).convert("RGB")
    whole = Image.new("RGB", (left.width + columns * side, height), (239, 239, 239))
    whole.paste(left.crop((0, 0, left.width, height)), (0, 0))
    for number, path in enumerate(views):
        view = Image.open(path).convert("RGB").resize((side - 4, side - 4))
        whole.paste(view, (left.width + number % columns * side + 2, number // columns * side + 2))
    target.parent.mkdir(exist_ok=True)
    whole.save(target, optimize=True)


def main() -> None:
    """Follow the tutorial on the phantom, and write the README's pictures."""
    import tempfile

    from Testing.host.host import Host, SampleDataLogic

    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    if len(sys.argv) > 1:
        with Host(MODULE) as host:
            host.start_up()
            host.show((420, 1500))
            show_outcome(host, Path(sys.argv[1]), ROOT / "docs" / "module-improve.png")
        return
    with Host(MODULE) as host, tempfile.TemporaryDirectory() as folder:
        host.start_up()
        host.show((420, 1080))  # the width that the panel has in a new Slicer
        ct = SampleDataLogic.registered[0]["customDownloader"](None)[0]
        import slicer

        lobes = slicer.util.getNode("DRAMLesionPhantom lobes")
        steps = Tutorial(host, Camera(host, PICTURES / "tutorial"))
        steps.choose_input(ct, lobes)
        result = steps.apply()
        place = largest_lesion(result)
        steps.look(result, place)
        steps.move_threshold(0.4, place)
        steps.point(place)
        steps.edit(lambda: paint_ball(result, place), place)
        steps.add_to_training_set(Path(folder) / "my data set")
        shots = steps.shots
        views = [shots[name] for name in ("axial", "3d", "coronal", "chart")]
        montage(shots["result"], views, ROOT / "docs" / "module.png")
        views = [shots[name] for name in ("threshold", "edited")]
        montage(shots["editing"], views, ROOT / "docs" / "module-edit.png", columns=1)


def largest_lesion(result: Any) -> np.ndarray:
    """Return the RAS mm of a voxel in the slice with most lesion."""
    from DRAMLesionLib.mrml import volumes

    lesions = np.isin(result.lesions_and_vessels(), (1, 2, 3))
    k = int(lesions.sum(axis=(1, 2)).argmax())
    j = int(lesions[k].sum(axis=1).argmax())
    i = int(np.flatnonzero(lesions[k, j]).mean()) if lesions[k, j].any() else 0
    return (volumes.ijk_to_world(result.ct) @ (i, j, k, 1))[:3]


def paint_ball(result: Any, place: np.ndarray, radius_mm: float = 14.0) -> np.ndarray:
    """Paint lesion as the Paint effect does: a ball, inside the lobes; returns the segment."""
    import slicer

    from DRAMLesionLib.mrml import volumes

    node, ct = result.get("pseudolabel"), result.ct
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, "lesion", ct) > 0
    k, j, i = np.indices(mask.shape).reshape(3, -1)
    points = volumes.ijk_to_world(ct)[:3] @ np.stack([i, j, k, np.ones_like(i)])
    near = np.linalg.norm(points - place[:, None] + [[0.0], [18.0], [0.0]], axis=0) < radius_mm
    mask |= near.reshape(mask.shape) & (result.lobes() > 0)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, "lesion", ct)
    return mask


if __name__ == "__main__":
    main()
