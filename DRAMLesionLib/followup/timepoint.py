"""One of the two scans: a CT that is segmented now, or what ``segment`` wrote and its CT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.followup.model import Scan, Timepoint
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.reading import dicom_origin, files
from DRAMLesionLib.report.model import LESION_LABELS, NOT_ASSESSABLE, LobeRow, Report, tabulate
from DRAMLesionLib.report.output import MARKER
from DRAMLesionLib.typed import Between, read_json

if TYPE_CHECKING:
    from DRAMLesionLib.pipeline import LesionPipeline

_SAME_ML = 0.02
"""Volumes in a report are rounded; what differs by more was counted on other voxels."""


@dataclass(frozen=True)
class Given:
    """What the command line names for one of the two.

    Attributes:
        path: CT, or folder with the results of ``segment``.
        ct: The CT of those results.
        which: ``"earlier"`` or ``"later"``.
    """

    path: Path
    ct: Path | None
    which: str

    @property
    def is_results(self) -> bool:
        """Whether there are results, and no CT."""
        return (self.path / MARKER).is_file()

    def check(self) -> None:
        """Find out before anything is computed that something is missing.

        Raises:
            InputError: If results come without their CT, or a CT with another one.
        """
        if self.is_results and self.ct is None:
            message = (
                f"{self.path} holds results of `segment`, which keep no CT: name it with "
                f"--{self.which}-ct"
            )
            raise InputError(message)
        if not self.is_results and self.ct is not None:
            message = (
                f"{self.path} holds no results of `segment` ({MARKER} is missing), so "
                f"--{self.which}-ct makes no sense: give the CT alone, or the folder with results"
            )
            raise InputError(message)


@dataclass(frozen=True)
class _Grid:
    size: tuple[int, int, int]
    voxels: str | None = None


@dataclass(frozen=True)
class _Row:
    name: str
    status: str
    volume_ml: float | None = None
    lesion_ml: float | None = None
    lobe_confidence: Annotated[float, Between(0, 1)] | None = None


@dataclass(frozen=True)
class _Stored:
    """What is read of a ``report.json``."""

    version: str
    created: str
    lobes_source: str
    grid: _Grid
    lobes: list[_Row]
    parameters: dict[str, Any]
    weights: list[dict[str, Any]]
    warnings: list[ScanWarning] = field(default_factory=list)


def read(given: Given) -> Scan:
    """Read one of the two CTs.

    Raises:
        InputError: If it cannot be read.
    """
    path = given.ct or given.path
    ct, warnings = files.read_ct(path)
    taken, patient = dicom_origin.when_and_who(path) if path.is_dir() else (None, None)
    return Scan(ct, tuple(warnings), taken, patient)


def with_results(
    given: Given,
    scan: Scan,
    pipeline: Callable[[], LesionPipeline],
    progress: Callable[[float], None],
) -> Timepoint:
    """Return a scan with its results.

    Args:
        given: Which.
        scan: What :func:`read` gave.
        pipeline: Called for what segments, if that is needed.
        progress: Called with the share done, 0 to 1.

    Raises:
        InputError: If the CT or the results cannot be used, or do not belong together.
    """
    progress(0.0)
    if given.is_results:
        there = from_results(given.path, scan.ct, given.which)
    else:
        result = pipeline().run(
            scan.ct,
            progress=lambda _, fraction: progress(fraction),
            name=f"the {given.which} CT ({given.path})",
            warnings=scan.warnings,
        )
        there = Timepoint(scan.ct, result.lobes, result.lesions, result.report)
    progress(1.0)
    return replace(there, taken=scan.taken, patient=scan.patient)


def from_results(folder: Path, ct: sitk.Image, which: str = "given") -> Timepoint:
    """Return what ``segment`` wrote, counted anew from its images.

    Args:
        folder: With ``report.json``, ``lobes.nii.gz`` and ``lesions.nii.gz``.
        ct: The CT that they were made from.
        which: What to call the CT in errors.

    Raises:
        InputError: If something is missing or damaged, or the CT is another one.
    """
    stored = read_json(folder / MARKER, _Stored, others=True)
    lobes = _labels(folder / "lobes.nii.gz", ct, len(Lobe), which)
    lesions = _labels(folder / "lesions.nii.gz", ct, len(LESION_LABELS), which)
    if stored.grid.voxels is not None and stored.grid.voxels != geometry.voxel_sum(ct):
        message = (
            f"the {which} CT is not the one from which the results in {folder} were made: its "
            "voxels differ; give that CT, or the CT without results"
        )
        raise InputError(message)
    report = _report(stored, ct, lobes, lesions)
    warnings = []
    if _differs(stored.lobes, report.rows):
        text = (
            "The images of lesions or lobes were edited after the report was written: the "
            "comparison counts what the images hold now."
        )
        warnings.append(ScanWarning("edited", text))
    return Timepoint(ct, lobes, lesions, report, warnings=tuple(warnings))


def _labels(path: Path, ct: sitk.Image, highest: int, which: str) -> sitk.Image:
    labels = files.read_labels(path)
    if not geometry.same_grid(labels, ct, tolerance=0.01):
        message = (
            f"{path} does not lie on the grid of the {which} CT: these results were made from "
            "another CT, or the CT was converted since; give the CT that was segmented"
        )
        raise InputError(message)
    found = int(sitk.GetArrayViewFromImage(labels).max())
    if found > highest:
        message = (
            f"{path} has the label {found}, but labels go from 0 to {highest}: it was edited with "
            "other labels; segment the CT again"
        )
        raise InputError(message)
    plain = sitk.Cast(labels, sitk.sitkUInt8)
    plain.CopyInformation(ct)
    return plain


def _report(stored: _Stored, ct: sitk.Image, lobes: sitk.Image, lesions: sitk.Image) -> Report:
    names = {row.name: row for row in stored.lobes if row.name in Lobe.__members__}
    reasons = {
        Lobe[name]: row.status.removeprefix(f"{NOT_ASSESSABLE}: ")
        for name, row in names.items()
        if row.status.startswith(NOT_ASSESSABLE)
    }
    sure = {
        Lobe[name]: row.lobe_confidence
        for name, row in names.items()
        if row.lobe_confidence is not None
    }
    rows, totals = tabulate(
        sitk.GetArrayViewFromImage(lobes),
        sitk.GetArrayViewFromImage(lesions),
        geometry.voxel_ml(ct),
        reasons,
        sure,
    )
    return Report(
        rows=rows,
        totals=totals,
        total_score=next(row.score for row in totals if row.name == "total"),
        lobes_source=stored.lobes_source,
        grid={"size": ct.GetSize(), "spacing_mm": [round(s, 4) for s in ct.GetSpacing()]},
        version=stored.version,
        created=stored.created,
        warnings=tuple(stored.warnings),
        parameters=stored.parameters,
        weights=tuple(stored.weights),
    )


def _differs(stored: Sequence[_Row], counted: Sequence[LobeRow]) -> bool:
    """Tell whether what the report says is not what the images hold."""
    before = {row.name: row for row in stored}
    for row in counted:
        old = before.get(row.name)
        if old is None:
            return True
        for was, now in ((old.volume_ml, row.volume_ml), (old.lesion_ml, row.lesion_ml)):
            if (was is None) != (now is None) or abs((was or 0.0) - (now or 0.0)) > _SAME_ML:
                return True
    return False
