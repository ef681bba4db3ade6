"""The comparison for people: one self-contained page with both scans side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from DRAMLesionLib.followup.model import KINDS, Change, Comparison, LesionChange, Point, Timepoint
from DRAMLesionLib.followup.registration import Registration
from DRAMLesionLib.report import drawing, html, pictures
from DRAMLesionLib.report.data import RESEARCH_ONLY
from DRAMLesionLib.report.model import LESION_LABELS

_AXIAL = 4
"""Pairs of axial pictures at most."""

_SAME_LEVEL_MM = 8.0
"""Lesions so near to a level are shown in its picture."""

_NUMBERED_ML = 1.0
"""Unchanged lesions of that size have their number in the pictures."""

_LISTED = 200
"""Rows of the table of lesions at most; the CSV has all."""

_TABLE_ORDER = ("right lung", "RUL", "RML", "RLL", "left lung", "LUL", "LLL", "total")
_WORDS = ("new", "grown", "merged", "split", "regrouped", "shrunk", "gone")


@dataclass(frozen=True)
class Pair:
    """One place of the body in both scans.

    Attributes:
        earlier: Picture of the earlier scan.
        later: Picture of the later one.
        numbers: Lesions that are to be seen there.
    """

    earlier: pictures.KeySlice
    later: pictures.KeySlice
    numbers: tuple[int, ...]


def pairs(
    comparison: Comparison, earlier: Timepoint, later: Timepoint, found: Registration
) -> list[Pair]:
    """Draw both scans at the places of the lesions that have changed most.

    Each scan is drawn as it is, in a plane of its own: the plane through the place of the earlier
    CT, and through the same place of the body in the later one.

    Returns:
        Axial pairs, the most changed lesion first, then a coronal one. Without lesions: the middle
        of the lungs.
    """
    drawn = _Drawn(comparison, earlier, later)
    levels: list[Point] = []
    result: list[Pair] = []
    for _, lesion in drawn.placed:
        here, there = lesion.earlier_mm, lesion.later_mm
        far = here and all(abs(here[2] - level[2]) > _SAME_LEVEL_MM for level in levels)
        if here and there and far and len(result) < _AXIAL:
            levels.append(here)
            result.append(drawn.pair("axial", here, there))
    x, y, z = (float(value) for value in drawn.boxes[0].mean(axis=0))
    middle = levels[0] if levels else (x, y, z)
    there = found.transform.TransformPoint(middle)
    if not levels:
        result.append(drawn.pair("axial", middle, there))
    return [*result, drawn.pair("coronal", middle, there)]


class _Drawn:
    """Both scans as they are drawn, at one scale.

    Attributes:
        boxes: What is shown of each.
        placed: Lesions with a place in both, by their numbers.
    """

    def __init__(self, comparison: Comparison, earlier: Timepoint, later: Timepoint) -> None:
        self.boxes = [pictures.lungs_box(scan.lobes) for scan in (earlier, later)]
        scale = max(pictures.scale_of(box) for box in self.boxes)
        self._scans = [
            pictures.Scan(scan.ct, scan.lobes, scan.lesions, None, box, scale)
            for scan, box in zip((earlier, later), self.boxes, strict=True)
        ]
        self.placed = [
            (n, lesion)
            for n, lesion in enumerate(comparison.lesions, 1)
            if lesion.earlier_mm is not None and lesion.later_mm is not None
        ]

    def pair(self, plane: pictures.Plane, here: Point, there: Point) -> Pair:
        """Draw a plane of each scan through one place of the body."""
        axis = 2 if plane == "axial" else 1
        near = [
            (n, lesion)
            for n, lesion in self.placed
            if lesion.earlier_mm is not None
            and abs(lesion.earlier_mm[axis] - here[axis]) <= _SAME_LEVEL_MM
            and (lesion.changed or lesion.change.earlier_ml >= _NUMBERED_ML)
        ]
        first, second = self._scans
        return Pair(
            first.draw(plane, here[axis], 0.0, [(str(n), one.earlier_mm or ()) for n, one in near]),
            second.draw(plane, there[axis], 0.0, [(str(n), one.later_mm or ()) for n, one in near]),
            tuple(n for n, _ in near),
        )


def to_html(comparison: Comparison, shots: Sequence[Pair]) -> str:
    """Return ``comparison.html``: a page that needs no other file and no network."""
    kinds = {name.replace(" ", "_"): label for label, name in LESION_LABELS.items()}
    page = html.environment(Path(__file__).parent)
    page.filters.update(signed=_signed, place=_place, lobe_names=_lobe_names)
    return page.get_template("comparison.html").render(
        comparison=comparison,
        title="Lung lesions on two chest CTs",
        notice=RESEARCH_ONLY,
        findings=findings(comparison),
        figures=_figures(comparison),
        table=[comparison.lobe(name) for name in _TABLE_ORDER],
        lesions=list(enumerate(comparison.lesions, 1))[:_LISTED],
        kinds=[(kind, kind.replace("_", " ")) for kind in KINDS],
        colours={kind: drawing.TYPE_COLOURS[label] for kind, label in kinds.items()},
        window=drawing.WINDOW_HU,
        pairs=shots,
        scans=(("Earlier", comparison.earlier), ("Later", comparison.later)),
    )


def findings(comparison: Comparison) -> str:
    """Say in a few plain sentences what has changed."""
    total = comparison.lobe("total")
    if total.lesion is None or total.percents is None:
        return "No lobe could be assessed in both scans."
    change, percents = total.lesion, total.percents
    verb = {
        "grown": "Lesions have grown",
        "shrunk": "Lesions have shrunk",
        "unchanged": "The volume of lesions has not changed by more than its uncertainty",
    }[change.verdict]
    text = (
        f"{verb}: {change.earlier_ml:.1f} to {change.later_ml:.1f} ml ({_signed(change)} ml), "
        f"{percents[0]:.1f} to {percents[1]:.1f} % of both lungs."
    )
    counts: Counter[str] = Counter(
        lesion.event if lesion.event != "same" else lesion.change.verdict
        for lesion in comparison.lesions
        if lesion.changed
    )
    parts = [f"{counts[word]} {word}" for word in _WORDS if counts[word]]
    same = sum(not lesion.changed and lesion.event != "outside" for lesion in comparison.lesions)
    parts += [f"{same} unchanged"] if same else []
    return f"{text} Of the lesions followed one by one: {', '.join(parts)}." if parts else text


def _figures(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return title, figure and small print of what stands on top."""
    rows = [comparison.lobe(name) for name in ("total", "right lung", "left lung")]
    figures = [
        (
            f"Lesion, {row.full_name}, ml",
            _signed(row.lesion) if row.lesion else html.DASH,
            f"{row.percents[0]:.1f} → {row.percents[1]:.1f} % of volume, {row.lesion.verdict}"
            if row.lesion and row.percents
            else row.status,
        )
        for row in rows
    ]
    ratio = comparison.fit.volume_ratio
    figures.append(
        ("Volume of the lungs", f"{100.0 * (ratio - 1.0):+.0f} %".replace("-", "−"), "the breath")
    )
    return figures


def _signed(change: Change) -> str:
    """Return a difference with its uncertainty."""
    return f"{change.ml:+.1f} ± {change.uncertainty_ml:.1f}".replace("-", "−")


def _place(lesion: LesionChange) -> str:
    """Return where a lesion is in both CTs, as a viewer shows it."""
    return " → ".join(
        html.DASH
        if point is None
        else ", ".join(
            f"{ends[v < 0]}{html.SPACE}{abs(v):.0f}"
            for ends, v in zip(("LR", "PA", "SI"), point, strict=True)
        )
        for point in (lesion.earlier_mm, lesion.later_mm)
    )


def _lobe_names(lesion: LesionChange) -> str:
    return ", ".join(lesion.lobes)
