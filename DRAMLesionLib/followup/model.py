"""What a comparison says: two scans, their change lobe by lobe and lesion by lesion. No files."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import SimpleITK as sitk

from DRAMLesionLib.errors import ScanWarning
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.report.model import TOTALS, Report

Verdict = Literal["grown", "shrunk", "unchanged"]
Event = Literal["new", "gone", "same", "merged", "split", "regrouped", "outside"]

Point = tuple[float, float, float]

KINDS = ("ground_glass", "mixed", "consolidation")
"""Lesion types, the densest last."""


@dataclass(frozen=True)
class Scan:
    """One of the two CTs as it was read, without results.

    Attributes:
        ct: HU.
        warnings: What reading it has found.
        taken: See :class:`Timepoint`.
        patient: See :class:`Timepoint`.
    """

    ct: sitk.Image
    warnings: tuple[ScanWarning, ...] = ()
    taken: datetime.date | None = None
    patient: str | None = None


@dataclass(frozen=True)
class Timepoint:
    """One of the two scans with its results; all images on the grid of the CT.

    Attributes:
        ct: HU.
        lobes: Labels of :class:`~DRAMLesionLib.lobes.Lobe`.
        lesions: Labels of :data:`~DRAMLesionLib.report.model.LESION_LABELS`.
        report: Numbers, warnings and what produced them.
        taken: The day, where the CT says it.
        patient: A sum of the patient's identifier, where the CT has one; it is written nowhere.
        warnings: What is to be said about these results beside the report's own warnings.
    """

    ct: sitk.Image
    lobes: sitk.Image
    lesions: sitk.Image
    report: Report
    taken: datetime.date | None = None
    patient: str | None = None
    warnings: tuple[ScanWarning, ...] = ()


@dataclass(frozen=True)
class Change:
    """A volume at both times.

    Attributes:
        earlier_ml: In the earlier scan, ml.
        later_ml: In the later one, ml.
        uncertainty_ml: Differences up to this need be no change, ml; see :mod:`uncertainty`.
    """

    earlier_ml: float
    later_ml: float
    uncertainty_ml: float

    @property
    def ml(self) -> float:
        """Later minus earlier."""
        return self.later_ml - self.earlier_ml

    @property
    def verdict(self) -> Verdict:
        """What is within the uncertainty is unchanged."""
        if abs(self.ml) <= self.uncertainty_ml:
            return "unchanged"
        return "grown" if self.ml > 0 else "shrunk"


@dataclass(frozen=True)
class LobeChange:
    """One lobe, one lung or both lungs at both times.

    Attributes:
        name: ``"LUL"`` .. ``"RLL"``, ``"left lung"``, ``"right lung"`` or ``"total"``.
        earlier_volume_ml: Of the lobe; None where it could not be assessed at both times, as all
            that follows.
        later_volume_ml: The same later.
        lesion: Lesions of all types.
        kinds: The same for each of :data:`KINDS`.
        earlier_score: Severity score, 0 to 5 a lobe.
        later_score: The same later.
        status: ``"assessed"`` or why there are no numbers.
    """

    name: str
    earlier_volume_ml: float | None
    later_volume_ml: float | None
    lesion: Change | None
    kinds: Mapping[str, Change]
    earlier_score: int | None
    later_score: int | None
    status: str

    @property
    def full_name(self) -> str:
        """Name in words."""
        if self.name in TOTALS:
            return "both lungs" if self.name == "total" else self.name
        return Lobe[self.name].full_name

    @property
    def percents(self) -> tuple[float, float] | None:
        """Share of the volume that is lesion, earlier and later, 0 to 100."""
        if self.lesion is None or not self.earlier_volume_ml or not self.later_volume_ml:
            return None
        return (
            100.0 * self.lesion.earlier_ml / self.earlier_volume_ml,
            100.0 * self.lesion.later_ml / self.later_volume_ml,
        )


@dataclass(frozen=True)
class LesionChange:
    """Lesions that are one at one of the two times, or one lesion that is alone.

    Attributes:
        event: ``"new"`` and ``"gone"`` have nothing at the other time, ``"same"`` is one lesion at
            both, ``"merged"`` several that became one, ``"split"`` one that became several,
            ``"regrouped"`` several at both times. ``"outside"`` lies where the other CT does not
            reach: nothing is said about its change.
        lobes: Lobes that hold it, the largest part first.
        change: Its volume.
        kinds: The same for each of :data:`KINDS`, ml earlier and later.
        earlier_count: How many parts it has in the earlier scan.
        later_count: The same in the later one.
        earlier_percent: Share of the volume of its lobes, 0 to 100.
        later_percent: The same later.
        earlier_mm: A place in it, LPS mm of the earlier CT; where it is new, the place where it
            came; None if that is not known.
        later_mm: The same place in the later CT.
    """

    event: Event
    lobes: tuple[str, ...]
    change: Change
    kinds: Mapping[str, tuple[float, float]]
    earlier_count: int
    later_count: int
    earlier_percent: float | None
    later_percent: float | None
    earlier_mm: Point | None
    later_mm: Point | None

    @property
    def words(self) -> str:
        """What has become of it: ``"new"``, ``"grown"``, ``"merged, shrunk"`` and so on."""
        if self.event == "outside":
            return "outside of the other CT"
        verdict = self.change.verdict
        if self.event == "same" or (self.event in ("new", "gone") and verdict == "unchanged"):
            return verdict
        return self.event if self.event in ("new", "gone") else f"{self.event}, {verdict}"

    @property
    def changed(self) -> bool:
        """Whether it is more than the uncertainty."""
        return self.event != "outside" and self.change.verdict != "unchanged"


@dataclass(frozen=True)
class Fit:
    """How well the later lungs were laid over the earlier ones.

    Attributes:
        dice: Overlap of the lungs, 0 to 1.
        likeness: Correlation of what is to be seen in them, -1 to 1.
        folded: Share of the lungs where the transform folds, 0 to 1.
        volume_ratio: Volume of the lungs in the later CT over that in the earlier one.
    """

    dice: float
    likeness: float
    folded: float
    volume_ratio: float


@dataclass(frozen=True)
class Comparison:
    """Everything that the files of a comparison say. It holds nothing about the patient.

    Attributes:
        earlier: Report of the earlier scan.
        later: Report of the later one.
        days: Days between them, where both CTs say when they were taken.
        fit: How well one lies over the other.
        lobes: The five lobes, then left lung, right lung, total.
        lesions: Those that have changed first, in the order of their change in ml.
        small_ml: Lesions smaller than that are counted by lobe and not listed.
        warnings: What a reader has to know.
        version: Of the library that compared.
        created: Date, ISO 8601.
    """

    earlier: Report
    later: Report
    days: int | None
    fit: Fit
    lobes: Sequence[LobeChange]
    lesions: Sequence[LesionChange]
    small_ml: float
    warnings: Sequence[ScanWarning]
    version: str
    created: str

    def lobe(self, name: str) -> LobeChange:
        """Return the row of a lobe or a total by its name.

        Raises:
            KeyError: If there is no such row.
        """
        for row in self.lobes:
            if row.name == name:
                return row
        raise KeyError(name)
