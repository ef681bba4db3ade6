"""The geometry of the bar chart: lesion share of each lobe, stacked by type. Drawn by the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from DRAMLesionLib.lesions import severity
from DRAMLesionLib.report.model import LobeRow

WIDTH = 860
LEFT = 150  # room for the lobes' names
RIGHT = 190  # room for the numbers at the end of a bar
TOP = 40  # room for the scores above
ROW = 30
BAR = 16
BOTTOM = 26

STACK = ("ground_glass", "mixed", "consolidation")
"""Types from left to right, the densest last."""

_AXIS_ENDS = (10.0, 25.0, 50.0, 75.0, 100.0)
_LEAST_PX_FOR_TEXT = 26.0


@dataclass(frozen=True)
class Segment:
    """One lesion type's part of a bar, in drawing units."""

    kind: str
    x: float
    width: float


@dataclass(frozen=True)
class Bar:
    """One lobe: where its bar is and what is written beside it."""

    row: LobeRow
    y: float
    segments: tuple[Segment, ...]
    end: float


@dataclass(frozen=True)
class Tick:
    """A vertical line where the score changes, or the end of the axis."""

    x: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Everything that the page has to draw, in units of the view box."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    bar_height: int
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    scores: tuple[Tick, ...]


def bar_chart(rows: Sequence[LobeRow]) -> Chart:
    """Lay out one bar a lobe, its length the percentage of the lobe that is lesion.

    The axis ends at the next border between two scores, so that small shares stay readable.
    """
    shares = [row.lesion_percent or 0.0 for row in rows]
    end = next(e for e in _AXIS_ENDS if e >= min(100.0, max(shares, default=0.0)))
    plot = WIDTH - LEFT - RIGHT

    def x(percent: float) -> float:
        return round(LEFT + plot * percent / end, 1)

    bars = tuple(_bar(row, TOP + n * ROW, x) for n, row in enumerate(rows))
    return Chart(
        width=WIDTH,
        height=TOP + ROW * len(rows) + BOTTOM,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP - 6,
        bottom=TOP + ROW * len(rows) - 4,
        bar_height=BAR,
        bars=bars,
        ticks=_ticks(end, x),
        scores=_scores(end, x),
    )


def _bar(row: LobeRow, top: float, x: Callable[[float], float]) -> Bar:
    segments = []
    start = 0.0
    for kind in STACK:
        ml = getattr(row, f"{kind}_ml")
        if ml and row.volume_ml:
            stop = start + 100.0 * ml / row.volume_ml
            segments.append(Segment(kind, x(start), round(x(stop) - x(start), 1)))
            start = stop
    return Bar(row=row, y=top + (ROW - BAR) / 2 - 4, segments=tuple(segments), end=x(start))


def _ticks(end: float, x: Callable[[float], float]) -> tuple[Tick, ...]:
    """Return a line at each border between scores; its number only where there is room for it."""
    borders = {0.0, end, *(100.0 * cut for cut in severity.SCORE_CUTS)}
    ticks: list[Tick] = []
    for percent in sorted(border for border in borders if border <= end):
        near = any(t.text and x(percent) - t.x < _LEAST_PX_FOR_TEXT for t in ticks)
        ticks.append(Tick(x(percent), "" if near else f"{percent:g}"))
    return tuple(ticks)


def _scores(end: float, x: Callable[[float], float]) -> tuple[Tick, ...]:
    cuts = [0.0, *(100.0 * cut for cut in severity.SCORE_CUTS), 100.0]
    bands = [
        (score, x(low), x(min(high, end)))
        for score, (low, high) in enumerate(pairwise(cuts))
        if low < end
    ]
    return tuple(
        Tick(round((low + high) / 2, 1), str(score))
        for score, low, high in bands
        if high - low >= _LEAST_PX_FOR_TEXT / 2
    )
