"""Two scans with their results in, what has changed out."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.followup.lesions import LEAST_ML, match
from DRAMLesionLib.followup.model import KINDS, Change, Comparison, Fit, LobeChange, Scan, Timepoint
from DRAMLesionLib.followup.registration import Lungs, Registration, register
from DRAMLesionLib.followup.uncertainty import border_ml, breath_ml, of_change
from DRAMLesionLib.images import geometry
from DRAMLesionLib.images.boxes import bounding_box
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.report.data import plain
from DRAMLesionLib.report.model import ASSESSED, LESION_LABELS, TOTALS, Report
from DRAMLesionLib.version import __version__

Progress = Callable[[float], None]

LEAST_DICE, SURE_DICE = 0.75, 0.93
"""Overlap of the lungs below which they are not of one place of one body, and above which they
certainly lie well."""

LEAST_LIKENESS, SURE_LIKENESS = 0.25, 0.5
"""The same for what is to be seen within the lungs: vessels of two persons do not lie alike. Two
real persons reach 0.15 and 0.19, two phantoms, whose hila and fissures are made alike, 0.34."""

MOST_FOLDED = 1e-3
BREATH = 0.12
"""A change of the lungs' volume that is told."""

SLICES = 2.0
"""Ratio of the slices' distances that is told."""

_ALL = "lesion"
_DECISIVE = ("dRAM", "segmentation", "vessels")
"""Parameters of a run that decide about its result."""


def compare(
    earlier: Timepoint, later: Timepoint, progress: Progress | None = None
) -> tuple[Comparison, Registration]:
    """Say what has changed between two scans of one patient.

    Args:
        earlier: The first scan with its results.
        later: The second one.
        progress: Called with the share done, 0 to 1; may raise to stop.

    Raises:
        InputError: If it is one CT twice, they are given in the wrong order, one has no lung, or
            the lungs do not lie over each other as those of one person do.
    """
    tell = progress or (lambda _: None)
    days = check_pair(earlier, later)
    for scan, which in ((earlier, "earlier"), (later, "later")):
        lobes = sitk.GetArrayViewFromImage(scan.lobes)
        if not lobes.any():
            message = f"the {which} CT has no lung in its lobes: nothing can be compared"
            raise InputError(message)
    found = register(_lungs(earlier), _lungs(later), lambda f: tell(0.8 * f))
    ratio = _lung_ml(later) / _lung_ml(earlier)
    fit = Fit(found.dice, found.likeness, found.folded, ratio)
    _refuse_strangers(fit)
    lesions = match(earlier, later, found)
    tell(0.95)
    comparison = Comparison(
        earlier=earlier.report,
        later=later.report,
        days=days,
        fit=fit,
        lobes=lobe_changes(earlier, later, _expansions(earlier, found)),
        lesions=lesions,
        small_ml=LEAST_ML,
        warnings=tuple(_warnings(earlier, later, fit)),
        version=__version__,
        created=datetime.date.today().isoformat(),
    )
    tell(1.0)
    return comparison, found


def check_pair(earlier: Scan | Timepoint, later: Scan | Timepoint) -> int | None:
    """Find out, before anything is computed, that two CTs cannot be compared.

    Returns:
        Days between them, None if that is not known.

    Raises:
        InputError: If it is one CT twice, or they are given in the wrong order.
    """
    days = _days(earlier, later)
    _refuse_twice(earlier, later)
    return days


def lobe_changes(
    earlier: Timepoint, later: Timepoint, expansions: Mapping[Lobe, float]
) -> tuple[LobeChange, ...]:
    """Return the rows of the five lobes, left lung, right lung and total.

    Args:
        earlier: The first scan.
        later: The second one.
        expansions: How much each lobe got larger by the breath, 1 for not at all.
    """
    before, after = _Spread(earlier), _Spread(later)
    names = {**{lobe.name: (lobe,) for lobe in Lobe}, **TOTALS}
    return tuple(
        _lobe_change(name, lobes, before, after, expansions) for name, lobes in names.items()
    )


class _Spread:
    """Volumes of one scan and by how much they are off.

    Attributes:
        report: Of the scan.
        sd: ml by lobe and kind of lesion, :data:`_ALL` for all of them.
        air: Share of air by kind of lesion.
    """

    def __init__(self, scan: Timepoint) -> None:
        self.report = scan.report
        lesion, where = geometry.array(scan.lesions), geometry.array(scan.lobes)
        lesion[where == 0] = 0
        box = bounding_box(lesion > 0, margin=1)
        lesion, where = lesion[box], where[box]
        spacing = scan.ct.GetSpacing()
        every = border_ml(where * (lesion > 0), spacing, len(Lobe))
        typed = border_ml(where * (lesion > 0) * 4 + lesion, spacing, 4 * len(Lobe) + 3)
        hu = sitk.GetArrayViewFromImage(scan.ct)[box]
        self.sd = {(lobe, _ALL): float(every[lobe]) for lobe in Lobe}
        self.air = {_ALL: _air(hu[lesion > 0])}
        for label, name in LESION_LABELS.items():
            kind = name.replace(" ", "_")
            self.sd |= {(lobe, kind): float(typed[4 * lobe + label]) for lobe in Lobe}
            self.air[kind] = _air(hu[lesion == label])

    def ml(self, lobes: Sequence[Lobe], kind: str) -> float:
        """Return the volume of a kind of lesion in some lobes."""
        return sum(getattr(self.report.row(lobe.name), f"{kind}_ml") or 0.0 for lobe in lobes)


def _air(hu: np.ndarray) -> float:
    return float(np.clip(-hu.mean() / 1000.0, 0.0, 1.0)) if hu.size else 0.0


def _lobe_change(
    name: str,
    lobes: Sequence[Lobe],
    before: _Spread,
    after: _Spread,
    expansions: Mapping[Lobe, float],
) -> LobeChange:
    old, new = before.report.row(name), after.report.row(name)
    # a sum counts only what could be assessed at both times
    counted = [
        lobe
        for lobe in lobes
        if all(spread.report.row(lobe.name).assessed for spread in (before, after))
    ]
    if not counted:
        reason = old.status if not old.assessed else f"{new.status} (later CT)"
        return LobeChange(name, None, None, None, {}, old.score, new.score, reason)
    missing = [lobe.name for lobe in lobes if lobe not in counted]
    return LobeChange(
        name=name,
        earlier_volume_ml=before.ml(counted, "volume"),
        later_volume_ml=after.ml(counted, "volume"),
        lesion=_change(counted, _ALL, before, after, expansions),
        kinds={kind: _change(counted, kind, before, after, expansions) for kind in KINDS},
        earlier_score=old.score,
        later_score=new.score,
        status=f"without {', '.join(missing)}" if missing else ASSESSED,
    )


def _change(
    lobes: Sequence[Lobe],
    kind: str,
    before: _Spread,
    after: _Spread,
    expansions: Mapping[Lobe, float],
) -> Change:
    earlier_ml, later_ml = before.ml(lobes, kind), after.ml(lobes, kind)
    # the borders of all lesions of one scan are off in the same way: their errors add up
    earlier_sd, later_sd = (sum(s.sd[lobe, kind] for lobe in lobes) for s in (before, after))
    # of what is not there at both times nothing is pressed together
    breath = sum(
        breath_ml(
            min(before.ml([lobe], kind), after.ml([lobe], kind)),
            expansions[lobe],
            before.air[kind],
        )
        for lobe in lobes
    )
    return Change(earlier_ml, later_ml, of_change(earlier_sd, later_sd, breath))


def _expansions(earlier: Timepoint, found: Registration) -> dict[Lobe, float]:
    """Return how much each lobe got larger by the breath."""
    lobes = geometry.array(geometry.resample(earlier.lobes, found.expansion, "nearest"))
    expansion = geometry.array(found.expansion)
    return {
        lobe: float(expansion[lobes == lobe].mean()) if (lobes == lobe).any() else 1.0
        for lobe in Lobe
    }


def _lungs(scan: Timepoint) -> Lungs:
    return Lungs(scan.ct, scan.lobes, scan.lesions)


def _lung_ml(scan: Timepoint) -> float:
    lobes = sitk.GetArrayViewFromImage(scan.lobes)
    return float(np.count_nonzero(lobes)) * geometry.voxel_ml(scan.lobes)


def _days(earlier: Scan | Timepoint, later: Scan | Timepoint) -> int | None:
    if earlier.taken is None or later.taken is None:
        return None
    if later.taken < earlier.taken:
        message = (
            "the CT that was given as the earlier one was taken after the later one, as their "
            "DICOM files say: exchange the two"
        )
        raise InputError(message)
    return (later.taken - earlier.taken).days


def _refuse_twice(earlier: Scan | Timepoint, later: Scan | Timepoint) -> None:
    if not geometry.same_grid(earlier.ct, later.ct):
        return
    a, b = sitk.GetArrayViewFromImage(earlier.ct), sitk.GetArrayViewFromImage(later.ct)
    if all(np.array_equal(p, q) for p, q in zip(a, b, strict=True)):
        message = "the earlier and the later CT are the same, voxel by voxel: give two scans"
        raise InputError(message)


def _refuse_strangers(fit: Fit) -> None:
    if fit.dice >= LEAST_DICE and fit.likeness >= LEAST_LIKENESS:
        return
    message = (
        f"the lungs of the two CTs do not lie over each other (overlap {fit.dice:.2f}, likeness "
        f"of the vessels {fit.likeness:.2f}): they are not of one person, or do not show the "
        "same part of the chest; check which scans were given, and their lobes"
    )
    raise InputError(message)


def _warnings(earlier: Timepoint, later: Timepoint, fit: Fit) -> Iterator[ScanWarning]:
    for scan, which in ((earlier, "earlier"), (later, "later")):
        for warning in (*scan.report.warnings, *scan.warnings):
            text = f"In the {which} scan: {warning.message}"
            yield ScanWarning(f"{which}-{warning.code}", text)
    if earlier.patient and later.patient and earlier.patient != later.patient:
        text = (
            "The two CTs have different patient identifiers: make sure that they are of one person."
        )
        yield ScanWarning("other-patient", text)
    yield from _fit_warnings(fit)
    yield from _made_otherwise(earlier.report, later.report)
    thick, thin = (max(scan.ct.GetSpacing()) for scan in (earlier, later))
    if max(thick, thin) >= SLICES * min(thick, thin):
        text = (
            f"The slices of the earlier CT lie {thick:.1f} mm apart, those of the later one "
            f"{thin:.1f} mm: small lesions may be seen in the finer one alone."
        )
        yield ScanWarning("other-slices", text)


def _fit_warnings(fit: Fit) -> Iterator[ScanWarning]:
    if fit.dice < SURE_DICE or fit.likeness < SURE_LIKENESS:
        text = (
            f"The later lungs could not be laid well over the earlier ones (overlap "
            f"{fit.dice:.2f}, likeness of the vessels {fit.likeness:.2f}): lesions may be taken "
            "for new or gone that are neither, and the CTs may be of two persons; volumes by lobe "
            "do not depend on it."
        )
        yield ScanWarning("poor-registration", text)
    if fit.folded > MOST_FOLDED:
        text = (
            f"The registration folds {100.0 * fit.folded:.1f} % of the lungs, which no lung does: "
            "do not rely on what is said of single lesions."
        )
        yield ScanWarning("folded-registration", text)
    if abs(fit.volume_ratio - 1.0) > BREATH:
        more = "more" if fit.volume_ratio > 1.0 else "less"
        text = (
            f"The lungs hold {100.0 * abs(fit.volume_ratio - 1.0):.0f} % {more} in the later CT: "
            "another breath. It changes the density of the lung, the volume of ground glass, and "
            "the share that a lesion has of its lobe; the uncertainty allows for it."
        )
        yield ScanWarning("other-breath", text)


def _made_otherwise(earlier: Report, later: Report) -> Iterator[ScanWarning]:
    different = []
    if _sums(earlier) != _sums(later):
        different.append("weights")
    if earlier.version != later.version:
        different.append("versions of DRAMLesion")
    old, new = plain(earlier.parameters), plain(later.parameters)
    if any(old.get(key) != new.get(key) for key in _DECISIVE):
        different.append("settings")
    if earlier.lobes_source != later.lobes_source:
        different.append("sources of the lobes")
    if different:
        text = (
            f"The two results were made with different {', '.join(different)}, so a difference "
            "may be theirs: give the CTs themselves to have both made alike."
        )
        yield ScanWarning("made-otherwise", text)


def _sums(report: Report) -> Mapping[str, str]:
    return {str(weight.get("name")): str(weight.get("sha256")) for weight in report.weights}
