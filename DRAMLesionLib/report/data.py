"""The report for machines: ``lobes.csv`` and ``report.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from DRAMLesionLib.lesions import severity
from DRAMLesionLib.report.model import LESION_LABELS, LobeRow, Report
from DRAMLesionLib.tables import csv_text

RESEARCH_ONLY = "Research use only. Not a medical device."
JSON_FORMAT = 1
"""Grows when a reader of report.json would have to change."""

_DECIMALS = 3
_COLUMNS = (
    "volume_ml",
    "lesion_ml",
    "ground_glass_ml",
    "consolidation_ml",
    "mixed_ml",
    "vessel_ml",
    "lesion_percent",
    "score",
    "max_score",
    "status",
    "lobe_confidence",
    "lesion_percent_low",
    "lesion_percent_high",
    "score_low",
    "score_high",
)


def to_csv(report: Report) -> str:
    """Return ``lobes.csv``: a header, the five lobes, left lung, right lung, total.

    Volumes are in ml, percentages 0 to 100; a cell without a value is empty.
    """
    rows = (*report.rows, *report.totals)
    return csv_text(("lobe", *_COLUMNS), ({"lobe": row.name, **_row(row)} for row in rows))


def to_json(report: Report) -> dict[str, Any]:
    """Return the content of ``report.json``: plain types only, None for what has no value."""
    return {
        "format": JSON_FORMAT,
        "notice": RESEARCH_ONLY,
        "title": report.title,
        "created": report.created,
        "version": report.version,
        "score": {
            "name": severity.TOTAL_SCORE_NAME,
            "value": report.total_score,
            "max": severity.MAX_SCORE * len(report.rows),
            "note": report.score_note,
        },
        "lobes_source": report.lobes_source,
        "lobes": [{"name": row.name, **_row(row)} for row in report.rows],
        "totals": [{"name": row.name, **_row(row)} for row in report.totals],
        "lesion_labels": {str(label): name for label, name in LESION_LABELS.items()},
        "warnings": [{"code": w.code, "message": w.message} for w in report.warnings],
        "grid": plain(report.grid),
        "parameters": plain(report.parameters),
        "weights": plain(report.weights),
        "timings_s": plain(report.timings_s),
    }


def plain(value: Any) -> Any:
    """Return ``value`` in the types that JSON knows.

    NaN and infinity become None. A path keeps only its last part, because folders carry names of
    people.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return str(value)


def _row(row: LobeRow) -> dict[str, Any]:
    values = {column: plain(getattr(row, column)) for column in _COLUMNS}
    return {
        key: round(value, _DECIMALS) if isinstance(value, float) else value
        for key, value in values.items()
    }
