"""What a report says: one row a lobe, the totals, and what produced them. No pictures, no files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from DRAMLesionLib.errors import ScanWarning
from DRAMLesionLib.lesions import severity
from DRAMLesionLib.lobes import LEFT_LOBES, RIGHT_LOBES, Lobe

ASSESSED = "assessed"
NOT_ASSESSABLE = "not assessable"

LESION_LABELS: dict[int, str] = {1: "ground glass", 2: "consolidation", 3: "mixed"}
"""Labels of ``lesions.nii.gz`` and what they mean; 0 is no lesion."""

TOTALS: dict[str, tuple[Lobe, ...]] = {
    "left lung": LEFT_LOBES,
    "right lung": RIGHT_LOBES,
    "total": tuple(Lobe),
}
"""Names of the rows that add up lobes, and the lobes that they add up."""


@dataclass(frozen=True)
class LobeRow:
    """Volumes and score of one lobe, one lung or both lungs.

    Attributes:
        name: ``"LUL"`` .. ``"RLL"``, or ``"left lung"``, ``"right lung"``, ``"total"``.
        volume_ml: Volume of the lobe in ml; like every number here None where not assessable.
        lesion_ml: Lesions of all types inside it, in ml.
        ground_glass_ml: Ground glass inside it, in ml.
        consolidation_ml: Consolidation inside it, in ml.
        mixed_ml: Mixed lesions inside it, in ml.
        vessel_ml: Vessels inside it, in ml; None if vessels were not counted.
        lesion_percent: Share of the volume that is lesion, 0 to 100.
        score: Severity score 0 to 5 of a lobe, for the other rows the sum over their lobes.
        status: ``"assessed"``, ``"not assessable: reason"``, or, for a sum that misses a lobe,
            ``"partly assessed: without ..."``.
        lobe_confidence: How sure the estimate of the lobe's borders is, 0 to 1; None if the lobes
            were given.
        lesion_percent_low: Lower end of the interval that holds the true ``lesion_percent`` of nine
            lobes in ten; like the following None for sums, and where the weights bring none.
        lesion_percent_high: Its upper end.
        score_low: Score at the lower end.
        score_high: Score at the upper end.
    """

    name: str
    volume_ml: float | None
    lesion_ml: float | None
    ground_glass_ml: float | None
    consolidation_ml: float | None
    mixed_ml: float | None
    vessel_ml: float | None
    lesion_percent: float | None
    score: int | None
    status: str = ASSESSED
    lobe_confidence: float | None = None
    lesion_percent_low: float | None = None
    lesion_percent_high: float | None = None
    score_low: int | None = None
    score_high: int | None = None

    @property
    def scores(self) -> str:
        """The score, and where the interval crosses a border those that it may be: ``2 (1–3)``."""
        if self.score is None:
            return ""
        if self.score_low is None or self.score_low == self.score_high:
            return str(self.score)
        return f"{self.score} ({self.score_low}–{self.score_high})"

    @property
    def assessed(self) -> bool:
        """Whether there are numbers in this row."""
        return self.lesion_percent is not None

    @property
    def full_name(self) -> str:
        """Name in words, such as ``"left upper lobe"`` or ``"both lungs"``."""
        if self.name in TOTALS:
            return "both lungs" if self.name == "total" else self.name
        return Lobe[self.name].full_name

    @property
    def max_score(self) -> int:
        """Highest score that this row can have: 5 a lobe."""
        return severity.MAX_SCORE * len(TOTALS.get(self.name, (self.name,)))

    @property
    def reason(self) -> str:
        """What the status says beyond assessed or not, such as why a lobe has no numbers."""
        return self.status.partition(": ")[2]


@dataclass(frozen=True)
class Report:
    """Everything that the report's files say.

    It holds no data about the patient; whoever fills it keeps names and paths out of ``title``,
    ``parameters`` and the warnings' messages.

    Attributes:
        rows: The five lobes, in the order of the enum.
        totals: Left lung, right lung, total.
        total_score: Sum of the five scores, 0 to 25; None as soon as a lobe has none.
        warnings: What a reader has to know.
        lobes_source: ``"given"``, ``"estimated"``, or the name of the tool that found the lobes.
        grid: ``size`` (x, y, z) in voxels and ``spacing_mm`` (x, y, z) of the CT.
        parameters: Settings of the run; may be nested.
        weights: For each weight file ``name``, ``sha256`` and ``summary`` (text or a dict).
        version: Version of the library.
        timings_s: Seconds that each stage took.
        created: Date of the run, ISO 8601.
        title: Heading that the user asked for; None for the standard one.
    """

    rows: Sequence[LobeRow]
    totals: Sequence[LobeRow]
    total_score: int | None
    lobes_source: str
    grid: Mapping[str, Any]
    version: str
    created: str
    warnings: Sequence[ScanWarning] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: Sequence[Mapping[str, Any]] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)
    title: str | None = None

    def row(self, name: str) -> LobeRow:
        """Return the row of a lobe or a total by its name.

        Raises:
            KeyError: If there is no such row.
        """
        for row in (*self.rows, *self.totals):
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def score_note(self) -> str:
        """Why there is no total score; empty if there is one."""
        missing = [row.name for row in self.rows if row.score is None]
        if self.total_score is not None or not missing:
            return ""
        return f"no total, since {_and(missing)} could not be assessed"


def tabulate(
    lobes: np.ndarray,
    lesions: np.ndarray,
    voxel_ml: float,
    not_assessable: Mapping[Lobe, str] | None = None,
    confidence: Mapping[Lobe, float] | None = None,
    vessels: np.ndarray | None = None,
    intervals: Mapping[Lobe, tuple[float, float]] | None = None,
) -> tuple[tuple[LobeRow, ...], tuple[LobeRow, ...]]:
    """Count lesions lobe by lobe.

    Args:
        lobes: (k, j, i) labels of :class:`Lobe`, 0 outside the lungs.
        lesions: (k, j, i) labels of :data:`LESION_LABELS`, 0 where there is none. Lesions outside
            the lobes are not counted.
        voxel_ml: Volume of a voxel in ml.
        not_assessable: Lobes that must not be scored, each with its reason. A lobe without any
            voxel never is.
        confidence: How sure the lobes' borders are, 0 to 1.
        vessels: (k, j, i) mask of vessels, if they should be counted as well.
        intervals: Ends of the lobes' lesion fractions, see
            :mod:`DRAMLesionLib.lesions.uncertainty`.

    Returns:
        The rows of the five lobes, and of left lung, right lung and total. A total adds up the
        lobes that could be assessed and names those that are missing.

    Raises:
        ValueError: If the arrays do not have one shape, or hold other labels than those above.
    """
    counts = _joint_counts(lobes, lesions, vessels)
    reasons = dict(not_assessable or {})
    for lobe in Lobe:
        if not counts[lobe].any():
            reasons.setdefault(lobe, "no voxel of this lobe in the scan")
    volumes = counts * voxel_ml
    sure = confidence or {}
    rows = tuple(
        _empty_row(lobe.name, f"{NOT_ASSESSABLE}: {reasons[lobe]}", sure.get(lobe))
        if lobe in reasons
        else _lobe_row(lobe, volumes[lobe], vessels is not None, sure.get(lobe), intervals or {})
        for lobe in Lobe
    )
    return rows, total_rows(rows)


def total_rows(rows: Sequence[LobeRow]) -> tuple[LobeRow, ...]:
    """Return left lung, right lung and total, each the sum of those of its lobes in ``rows``.

    Lobes that could not be assessed are left out of the sums, and named in the status.
    """
    return tuple(_sum_row(name, members, rows) for name, members in TOTALS.items())


def _joint_counts(lobes: np.ndarray, lesions: np.ndarray, vessels: np.ndarray | None) -> np.ndarray:
    """Return voxel counts [lobe 0..5, vessel 0..1, lesion type 0..3]."""
    if lobes.shape != lesions.shape or (vessels is not None and vessels.shape != lobes.shape):
        message = "lobes, lesions and vessels must be arrays of one shape"
        raise ValueError(message)
    counts = np.zeros(48, dtype=np.int64)
    # slice by slice: bincount turns its input into 64-bit numbers, 600 MB for a whole scan at once
    for k in range(lobes.shape[0]):
        lobe, lesion = lobes[k], lesions[k]
        if lobe.size and not (0 <= lobe.min() and lobe.max() <= max(Lobe)):
            message = f"lobe labels must be 0..5, slice {k} has {lobe.min()}..{lobe.max()}"
            raise ValueError(message)
        if lesion.size and not (0 <= lesion.min() and lesion.max() <= max(LESION_LABELS)):
            message = f"lesion labels must be 0..3, slice {k} has {lesion.min()}..{lesion.max()}"
            raise ValueError(message)
        code = lobe.astype(np.uint8) * 8 + lesion.astype(np.uint8)
        if vessels is not None:
            code += (vessels[k] != 0).astype(np.uint8) * 4
        counts += np.bincount(code.ravel(), minlength=48)
    return counts.reshape(6, 2, 4)


def _lobe_row(
    lobe: Lobe,
    volumes: np.ndarray,
    with_vessels: bool,
    confidence: float | None,
    intervals: Mapping[Lobe, tuple[float, float]],
) -> LobeRow:
    """Make a row from ml [vessel 0..1, lesion type 0..3]."""
    by_type = volumes.sum(axis=0)
    total_ml, lesion_ml = float(by_type.sum()), float(by_type[1:].sum())
    fraction = min(1.0, lesion_ml / total_ml)
    ends = _around(intervals.get(lobe), fraction)
    return LobeRow(
        name=lobe.name,
        volume_ml=total_ml,
        lesion_ml=lesion_ml,
        ground_glass_ml=float(by_type[1]),
        consolidation_ml=float(by_type[2]),
        mixed_ml=float(by_type[3]),
        vessel_ml=float(volumes[1].sum()) if with_vessels else None,
        lesion_percent=100.0 * lesion_ml / total_ml,
        score=severity.fraction_to_score(fraction),
        lobe_confidence=confidence,
        lesion_percent_low=100.0 * ends[0] if ends else None,
        lesion_percent_high=100.0 * ends[1] if ends else None,
        score_low=severity.fraction_to_score(ends[0]) if ends else None,
        score_high=severity.fraction_to_score(ends[1]) if ends else None,
    )


def _around(ends: tuple[float, float] | None, fraction: float) -> tuple[float, float] | None:
    """Stretch an interval, found on the network's grid, to hold the fraction that is reported."""
    return ends and (min(ends[0], fraction), max(ends[1], fraction))


def _sum_row(name: str, members: Iterable[Lobe], rows: Sequence[LobeRow]) -> LobeRow:
    """Add up the assessed lobes among ``members``."""
    wanted = [row for row in rows if Lobe[row.name] in members]
    parts = [row for row in wanted if row.assessed]
    missing = [row.name for row in wanted if not row.assessed]
    if not parts:
        return _empty_row(name, f"{NOT_ASSESSABLE}: none of its lobes could be assessed", None)

    def add(attribute: str) -> float | None:
        values = [getattr(row, attribute) for row in parts]
        return None if None in values else sum(values)

    volume_ml, lesion_ml = add("volume_ml") or 0.0, add("lesion_ml") or 0.0
    return LobeRow(
        name=name,
        volume_ml=volume_ml,
        lesion_ml=lesion_ml,
        ground_glass_ml=add("ground_glass_ml"),
        consolidation_ml=add("consolidation_ml"),
        mixed_ml=add("mixed_ml"),
        vessel_ml=add("vessel_ml"),
        lesion_percent=100.0 * lesion_ml / volume_ml,
        score=severity.total_score(row.score for row in wanted),
        status=f"partly assessed: without {_and(missing)}" if missing else ASSESSED,
    )


def _empty_row(name: str, status: str, confidence: float | None) -> LobeRow:
    return LobeRow(name, None, None, None, None, None, None, None, None, status, confidence)


def _and(names: Sequence[str]) -> str:
    """Join names in plain English: ``"RUL, RML and RLL"``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
