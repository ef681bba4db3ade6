"""Scans with their truth: of a data set, or phantoms made on the spot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.reading import files
from Training.dataset.folder import LOBES, SCANS, SCORES, TRUTH, case_name
from Training.dataset.scores import read_scores


@dataclass(frozen=True)
class TrueScan:
    """A scan with its truth; all images on one grid.

    Attributes:
        ct: HU.
        lobes: Labels of :class:`Lobe`.
        lesions: 0 none, 1 ground glass, 2 consolidation, 3 mixed.
        scores: Severity score of each lobe; None takes it from the other two.
    """

    ct: sitk.Image
    lobes: sitk.Image
    lesions: sitk.Image
    scores: dict[Lobe, int | None] | None = None


class Source(ABC):
    """Where a scan with its truth comes from; small enough to be sent to a worker.

    Attributes:
        name: Of the scan.
    """

    name: str

    @abstractmethod
    def load(self) -> TrueScan:
        """Read or make the scan."""

    def fingerprint(self) -> str:
        """Return what changes when the scan does, beside what the source itself says."""
        return ""


@dataclass(frozen=True)
class PhantomSource(Source):
    """A phantom.

    Attributes:
        seed: What it is drawn from.
        spacing: Voxel edge in mm.
        healthy: Whether it has no lesion.
    """

    seed: int
    spacing: float
    healthy: bool

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the phantom."""
        return f"phantom-{self.seed:06d}{'-healthy' if self.healthy else ''}"

    def load(self) -> TrueScan:
        """Make it."""
        from DRAMLesionLib.phantom import make_phantom

        phantom = make_phantom(self.seed, self.spacing, scores={} if self.healthy else None)
        return TrueScan(phantom.ct, phantom.lobes, phantom.lesions, dict(phantom.scores))


@dataclass(frozen=True)
class FileSource(Source):
    """A case of a data set.

    Attributes:
        name: Of the case.
        scan: File or DICOM folder.
        lobes: Lobe labels.
        lesions: True lesions.
        scores: As the table says.
    """

    name: str
    scan: Path
    lobes: Path
    lesions: Path
    scores: tuple[tuple[Lobe, int | None], ...]

    def fingerprint(self) -> str:
        """Return sizes and dates of the files."""
        paths = [self.scan, self.lobes, self.lesions]
        files = [f for p in paths for f in (sorted(p.rglob("*")) if p.is_dir() else [p])]
        return repr([(f.stat().st_size, f.stat().st_mtime_ns) for f in files])

    def load(self) -> TrueScan:
        """Read it."""
        ct, _ = files.read_ct(self.scan)
        lobes, lesions = (
            geometry.resample(files.read_labels(path), ct, "nearest")
            for path in (self.lobes, self.lesions)
        )
        return TrueScan(ct, lobes, lesions, dict(self.scores))


def find_sources(folder: Path) -> list[Source]:
    """Return the cases of a data set that have a truth.

    Raises:
        InputError: If there is none, or a case with a truth lacks scan, lobes or scores.
    """
    truths = _files(folder / TRUTH / "lesions")
    scans, lobes = _files(folder / SCANS), _files(folder / LOBES)
    table, _ = read_scores(folder / SCORES)
    problems = [
        f"{name} lacks {what}"
        for name in truths
        for what, known in (("a scan", scans), ("lobes", lobes), ("scores", table))
        if name not in known
    ]
    if problems or not truths:
        message = f"{folder} cannot be evaluated on: {'; '.join(problems) or 'it has no truth'}"
        raise InputError(message)
    return [
        FileSource(n, scans[n], lobes[n], truths[n], tuple(table[n].items()))
        for n in sorted(truths)
    ]


def _files(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by case; none if it is missing."""
    if not folder.is_dir():
        return {}
    named = ((case_name(path), path) for path in sorted(folder.iterdir()))
    return {name: path for name, path in named if name is not None}
