"""The comparison for machines: ``comparison.json``, ``lobes.csv`` and ``lesions.csv``."""

from __future__ import annotations

from typing import Any

from DRAMLesionLib.followup.model import (
    KINDS,
    Change,
    Comparison,
    LesionChange,
    LobeChange,
    Point,
)
from DRAMLesionLib.report.data import RESEARCH_ONLY, plain
from DRAMLesionLib.report.model import Report
from DRAMLesionLib.tables import csv_text

JSON_FORMAT = 1
"""Grows when a reader of comparison.json would have to change."""

_TIMES = ("earlier", "later")
_LESION_COLUMNS = (
    "number",
    "change",
    "event",
    "verdict",
    "lobes",
    "earlier_ml",
    "later_ml",
    "change_ml",
    "uncertainty_ml",
    "earlier_percent",
    "later_percent",
    *(f"{time}_{kind}_ml" for kind in KINDS for time in _TIMES),
    "earlier_count",
    "later_count",
    *(f"{time}_{axis}_mm" for time in _TIMES for axis in "xyz"),
)


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return the content of ``comparison.json``: plain types only, None for what has no value."""
    return {
        "format": JSON_FORMAT,
        "notice": RESEARCH_ONLY,
        "created": comparison.created,
        "version": comparison.version,
        "days": comparison.days,
        "registration": plain(vars(comparison.fit)),
        "lobes": [_lobe(row) for row in comparison.lobes],
        "lesions": [_lesion(n, row) for n, row in enumerate(comparison.lesions, 1)],
        "smallest_listed_ml": comparison.small_ml,
        "warnings": [{"code": w.code, "message": w.message} for w in comparison.warnings],
        "earlier": _scan(comparison.earlier),
        "later": _scan(comparison.later),
    }


def lobes_csv(comparison: Comparison) -> str:
    """Return ``lobes.csv``: five lobes, left lung, right lung, total; ml and percentages."""
    rows = [_lobe(row) for row in comparison.lobes]
    columns = dict.fromkeys(key for row in rows for key in row)
    return csv_text(tuple(columns), rows)


def lesions_csv(comparison: Comparison) -> str:
    """Return ``lesions.csv``: a row for each lesion, in the order of the page."""
    rows = [_flat(_lesion(n, row)) for n, row in enumerate(comparison.lesions, 1)]
    return csv_text(_LESION_COLUMNS, rows)


def _lobe(row: LobeChange) -> dict[str, Any]:
    percents = row.percents or (None, None)
    values: dict[str, Any] = {
        "lobe": row.name,
        "status": row.status,
        "earlier_volume_ml": row.earlier_volume_ml,
        "later_volume_ml": row.later_volume_ml,
        "earlier_percent": percents[0],
        "later_percent": percents[1],
        "earlier_score": row.earlier_score,
        "later_score": row.later_score,
    }
    for kind, change in {"lesion": row.lesion, **row.kinds}.items():
        if change is not None:
            values |= _change(change, f"{kind}_")
    return _rounded(values)


def _change(change: Change, prefix: str = "") -> dict[str, Any]:
    return {
        f"{prefix}earlier_ml": change.earlier_ml,
        f"{prefix}later_ml": change.later_ml,
        f"{prefix}change_ml": change.ml,
        f"{prefix}uncertainty_ml": change.uncertainty_ml,
        f"{prefix}verdict": change.verdict,
    }


def _lesion(number: int, row: LesionChange) -> dict[str, Any]:
    return _rounded(
        {
            "number": number,
            "change": row.words,
            "event": row.event,
            "lobes": list(row.lobes),
            **_change(row.change),
            "earlier_percent": row.earlier_percent,
            "later_percent": row.later_percent,
            **{
                f"{time}_{kind}_ml": row.kinds[kind][n]
                for kind in KINDS
                for n, time in enumerate(_TIMES)
            },
            "earlier_count": row.earlier_count,
            "later_count": row.later_count,
            "earlier_mm": _point(row.earlier_mm),
            "later_mm": _point(row.later_mm),
        }
    )


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a lesion with its lobes and places in cells of their own."""
    places = {
        f"{time}_{axis}_mm": place[n] if (place := row[f"{time}_mm"]) else None
        for time in _TIMES
        for n, axis in enumerate("xyz")
    }
    return {**row, **places, "lobes": " ".join(row["lobes"])}


def _point(place: Point | None) -> list[float] | None:
    return None if place is None else [round(value, 1) for value in place]


def _scan(report: Report) -> dict[str, Any]:
    return {
        "version": report.version,
        "created": report.created,
        "score": report.total_score,
        "lobes_source": report.lobes_source,
        "grid": plain(report.grid),
        "weights": plain(report.weights),
        "parameters": plain(report.parameters),
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()}
