"""What is killed: a segmentation, a batch of scans, a training; and when each counts as done."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.lobes import Lobe
from Testing.fuzz import chest
from Testing.library.small_weights import write_small_weights

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "Training" / "configs" / "tiny.yaml"
_MARKER = "report.json"
_VOLATILE = ("seconds", "timings", "date", "created", "time", "peak", "duration")


class Job(ABC):
    """Something to be killed.

    Attributes:
        name: For the command line.
        mark: What the line contains after which most of the kills come.
    """

    name: str
    mark: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.write_inputs()

    @abstractmethod
    def write_inputs(self) -> None:
        """Write what the runs read, once."""

    @abstractmethod
    def command(self, output: Path) -> list[str]:
        """Return module or script, and the words behind it."""

    def prepare(self, output: Path, rng: np.random.Generator) -> None:  # noqa: B027
        """Put into ``output`` what an earlier run may have left there."""

    @abstractmethod
    def results(self, output: Path) -> dict[str, Any]:
        """Return what a finished run has made, without what hangs on the clock."""

    @abstractmethod
    def done(self, output: Path) -> dict[str, dict[str, Any]]:
        """Return what counts as done after a kill: parts of :meth:`results`, by part."""


class Segment(Job):
    """``segment`` of a small CT, half of the times over the results of another."""

    name, mark = "segment", '"write"'

    def write_inputs(self) -> None:
        """Write two CTs, lobes, and weights."""
        write_small_weights(self.folder / "weights")
        sitk.WriteImage(chest.ct(), str(self.folder / "ct.nii.gz"))
        sitk.WriteImage(chest.lobes(), str(self.folder / "lobes.nii.gz"))

    def command(self, output: Path) -> list[str]:
        """Segment with all maps."""
        return [
            *("DRAMLesionLib", "segment", str(self.folder / "ct.nii.gz")),
            *("-o", str(output), "--lobes", str(self.folder / "lobes.nii.gz")),
            *("--lobe-scheme", "dram", "--weights", str(self.folder / "weights")),
            *("--device", "cpu", "--maps", "--json-progress"),
        ]

    def prepare(self, output: Path, rng: np.random.Generator) -> None:
        """Leave a result of 'another CT' there: the marker, and images that are no others'."""
        if rng.random() < 0.5:
            output.mkdir()
            empty = chest.lobes() * 0
            for name in ("lesions", "lobes", "vessels"):
                sitk.WriteImage(empty, str(output / f"{name}.nii.gz"))
            (output / "lobes.csv").write_text("another\n", encoding="utf-8")
            (output / _MARKER).write_text('{"of": "another CT"}\n', encoding="utf-8")

    def results(self, output: Path) -> dict[str, Any]:
        """Voxels, table and report."""
        return _scan_results(output)

    def done(self, output: Path) -> dict[str, dict[str, Any]]:
        """All, if the marker is there and is not that of the other CT."""
        marker = output / _MARKER
        if not marker.is_file() or "another CT" in marker.read_text(encoding="utf-8"):
            return {}
        return {"": _scan_results(output)}


class Batch(Job):
    """The batch script on three small CTs."""

    name, mark = "batch", "1/3"

    def write_inputs(self) -> None:
        """Write the CTs, their lobes, and weights."""
        write_small_weights(self.folder / "weights")
        for kind in ("scans", "lobes"):
            (self.folder / kind).mkdir()
        for number in range(3):
            _write_scan(self.folder, number)

    def command(self, output: Path) -> list[str]:
        """Do all scans."""
        script = ROOT / "DRAMLesion" / "Scripts" / "DRAMLesionBatch.py"
        return [
            *(str(script), "--input", str(self.folder / "scans"), "--output", str(output)),
            *("--lobes", str(self.folder / "lobes"), "--lobe-scheme", "dram"),
            *("--weights", str(self.folder / "weights"), "--device", "cpu"),
        ]

    def results(self, output: Path) -> dict[str, Any]:
        """Results of each scan, and the summary."""
        found = {f"case-{n}": _scan_results(output / f"case-{n}") for n in range(3)}
        return {**found, "summary": _rows(output / "summary.csv")}

    def done(self, output: Path) -> dict[str, dict[str, Any]]:
        """Scans with the marker, and those that the summary calls done."""
        names = {path.parent.name for path in output.glob(f"*/{_MARKER}")}
        if (output / "summary.csv").is_file():
            rows = _rows(output / "summary.csv")
            names |= {row["scan"] for row in rows if row["status"] == "done"}
        return {name: _scan_results(output / name) for name in sorted(names)}


class Processes(Batch):
    """The same scans by the command line, two processes at a time."""

    name = "processes"

    def command(self, output: Path) -> list[str]:
        """Do all scans."""
        return [
            *("DRAMLesionLib", "batch", str(self.folder / "scans"), "-o", str(output)),
            *("--lobes", str(self.folder / "lobes"), "--lobe-scheme", "dram", "--workers", "2"),
            *("--weights", str(self.folder / "weights"), "--device", "cpu"),
        ]


class Training(Job):
    """A whole training of a few steps on three small CTs."""

    name, mark = "training", "1/3"

    def write_inputs(self) -> None:
        """Write a data set."""
        for kind in ("scans", "lobes"):
            (self.folder / kind).mkdir()
        rows = [",".join(("case", *(lobe.name for lobe in Lobe)))]
        for number in range(3):
            _write_scan(self.folder, number)
            rows.append(f"case-{number}," + ",".join(str((number + k) % 5) for k in range(5)))
        (self.folder / "scores.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")

    def command(self, output: Path) -> list[str]:
        """Train everything."""
        settings = (
            "prepare.workers=1",
            "vessels.enabled=false",
            "regression.vessels=frangi",
            "regression.attention=false",
            "regression.local=false",
            "regression.sizes=[16]",
            "pseudolabels.workers=1",
            "segmentation.start=scratch",
            "segmentation.local=false",
            *(f"{s}.loop.{k}" for s in ("regression", "segmentation") for k in _LOOP),
        )
        words = ["Training", "all", "--config", str(SETTINGS)]
        words += ["--data", str(self.folder), "--output", str(output)]
        return [*words, *(word for setting in settings for word in ("--set", setting))]

    def results(self, output: Path) -> dict[str, Any]:
        """Weights, cards and labels."""
        weights = output / "weights"
        found: dict[str, Any] = {}
        for path in sorted(weights.glob("*.safetensors")):
            found[path.name] = path.read_bytes()
        for path in sorted(weights.glob("*.json")):
            found[path.name] = _steady(json.loads(path.read_text(encoding="utf-8")))
        for path in sorted((output / "pseudolabels").glob("*.nii.gz")):
            found[path.name] = _voxels(path)
            note = json.loads(path.with_name(f".{path.name[:-7]}.json").read_text())
            found[f"note of {path.name}"] = note.get("computed_from") == "by hand"
        return found

    def done(self, output: Path) -> dict[str, dict[str, Any]]:
        """Weights whose card is there."""
        weights = output / "weights"
        found = {}
        for card in sorted(weights.glob("*.json")) if weights.is_dir() else []:
            name = f"{card.stem}.safetensors"
            found[name] = {name: (weights / name).read_bytes()}
        return found


_LOOP = ("steps=3", "checkpoint_every=1", "pictures_every=0", "tensorboard=false")

JOBS: dict[str, type[Job]] = {job.name: job for job in (Segment, Batch, Processes, Training)}


def _write_scan(folder: Path, number: int) -> None:
    """Write a chest with a lesion and its lobes."""
    hu = sitk.GetArrayFromImage(chest.ct())
    lung = sitk.GetArrayFromImage(chest.lobes()) > 0
    lesion = np.zeros(lung.shape, dtype=bool)
    lesion[8 + number : 14 + number, 10:20, 6:14] = True
    noise = np.random.default_rng(number).normal(0.0, 10.0, hu.shape)
    hu = np.where(lesion & lung, hu + 500, hu + noise).round().astype(np.int16)
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(chest.ct())
    sitk.WriteImage(image, str(folder / "scans" / f"case-{number}.nii.gz"))
    sitk.WriteImage(chest.lobes(), str(folder / "lobes" / f"case-{number}.nii.gz"))


def _scan_results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {p.name: _voxels(p) for p in sorted(folder.glob("*.nii.gz"))}
    found["lobes.csv"] = (folder / "lobes.csv").read_text(encoding="utf-8")
    report = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
    found[_MARKER] = _steady(report)
    found["report.html"] = (folder / "report.html").is_file()
    return found


def _voxels(path: Path) -> Any:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _steady(content: Any) -> Any:
    """Return nested content without what hangs on the clock."""
    if isinstance(content, dict):
        kept = {k: v for k, v in content.items() if not any(word in k for word in _VOLATILE)}
        return {key: _steady(value) for key, value in kept.items()}
    return [_steady(value) for value in content] if isinstance(content, list) else content
