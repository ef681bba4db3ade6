"""The page of all scans: how scores and percentages are distributed, and a row for each scan."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from DRAMLesionLib import writing
from DRAMLesionLib.batch.settings import PAGE, Row
from DRAMLesionLib.batch.summary import DONE, FAILED, LOBES, OPEN

_HERE = Path(__file__).parent
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 420, 170, 36, 34, 12
_SCORE_MAX = 25
_PERCENT_STEPS = 20


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, in units of the view box."""

    x: float
    y: float
    width: float
    height: float
    label: str
    count: int


@dataclass(frozen=True)
class Histogram:
    """How often a value occurs.

    Attributes:
        title: What is counted.
        bars: From left to right.
        ticks: Place and text below the axis.
        most: The highest count.
    """

    title: str
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    most: int
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    base: int = _HEIGHT - _BOTTOM
    top: int = _TOP


def write_page(rows: Sequence[Row], output: Path) -> None:
    """Write ``cohort.html``, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    writing.write_text(to_html(rows), output / PAGE)


def to_html(rows: Sequence[Row]) -> str:
    """Return a page that needs no network: histograms, a table that sorts, what failed and why.

    It links the reports in the folders beside it.

    Args:
        rows: As in the summary.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from DRAMLesionLib.report.data import RESEARCH_ONLY
    from DRAMLesionLib.version import __version__

    environment = Environment(
        loader=FileSystemLoader([_HERE, _HERE.parent / "report"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    script = (_HERE / "cohort.js").read_text(encoding="utf-8").strip()
    done = [row for row in rows if row["status"] == DONE]
    return environment.get_template("cohort.html").render(
        notice=RESEARCH_ONLY,
        version=__version__,
        script=script,
        script_sum=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        count=len(rows),
        done=[_line(row) for row in done],
        failed=[row for row in rows if row["status"] == FAILED],
        waiting=[row for row in rows if row["status"] == OPEN],
        lobes=LOBES[:-1],
        charts=[scores(done), percentages(done)] if done else [],
    )


def scores(rows: Sequence[Row]) -> Histogram:
    """Count the total scores, 0 to 25; scans without one are left out."""
    values = [int(row["total_score"]) for row in rows if row["total_score"] != ""]
    counts = [values.count(score) for score in range(_SCORE_MAX + 1)]
    labels = [f"CTSS {score}" for score in range(_SCORE_MAX + 1)]
    marks = {score: str(score) for score in range(0, _SCORE_MAX + 1, 5)}
    return _histogram("CT severity score (0–25)", counts, labels, marks, between=False)


def percentages(rows: Sequence[Row]) -> Histogram:
    """Count the shares of the lungs that are lesion, in 20 steps up to the next round number."""
    found = [row["total_lesion_percent"] for row in rows]
    values = [float(value) for value in found if value != ""]
    end = next(e for e in (1, 5, 10, 25, 50, 100) if e >= min(100.0, max(values, default=0.0)))
    step = end / _PERCENT_STEPS
    counts = [0] * _PERCENT_STEPS
    for value in values:
        counts[min(int(value / step), _PERCENT_STEPS - 1)] += 1
    labels = [f"{n * step:g} to {(n + 1) * step:g} %" for n in range(_PERCENT_STEPS)]
    marks = {n: f"{n * step:g}" for n in range(0, _PERCENT_STEPS + 1, 5)}
    return _histogram("Lesion, % of both lungs", counts, labels, marks, between=True)


def _histogram(
    title: str, counts: Sequence[int], labels: Sequence[str], marks: dict[int, str], between: bool
) -> Histogram:
    slot = (_WIDTH - _LEFT - 8) / len(counts)
    most = max(1, *counts)
    full = _HEIGHT - _BOTTOM - _TOP
    bars = tuple(
        Bar(
            x=round(_LEFT + n * slot + 0.5, 1),
            y=round(_HEIGHT - _BOTTOM - full * count / most, 1),
            width=round(slot - 1, 1),
            height=round(full * count / most, 1),
            label=label,
            count=count,
        )
        for n, (count, label) in enumerate(zip(counts, labels, strict=True))
    )
    shift = 0.0 if between else 0.5
    ticks = tuple((round(_LEFT + (n + shift) * slot, 1), text) for n, text in marks.items())
    return Histogram(title, bars, ticks, most)


def _line(row: Row) -> dict[str, Any]:
    """Return what the table shows of a finished scan."""
    return {
        "scan": row["scan"],
        "link": f"{quote(row['scan'], errors='surrogateescape')}/report.html",
        "score": row["total_score"],
        "percent": row["total_lesion_percent"],
        "lesion_ml": row["total_lesion_ml"],
        "lung_ml": row["total_volume_ml"],
        "lobes": [row[f"{lobe}_lesion_percent"] for lobe in LOBES[:-1]],
        "warnings": row["warnings"],
    }


def _number(value: Any, decimals: int) -> str:
    if value == "" or not math.isfinite(value):
        return "–"
    return f"{value:.{decimals}f}"
