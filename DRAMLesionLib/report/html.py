"""The report for people: one self-contained page with pictures, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from DRAMLesionLib.lesions import severity
from DRAMLesionLib.report import chart, drawing
from DRAMLesionLib.report.data import RESEARCH_ONLY, plain
from DRAMLesionLib.report.model import LESION_LABELS, Report
from DRAMLesionLib.report.pictures import KeySlice

DASH = "–"
SPACE = "\u00a0"  # keeps a number and its unit on one line

# as in the pictures, the right side comes first
_TABLE_ORDER = ("right lung", "RUL", "RML", "RLL", "left lung", "LUL", "LLL", "total")
_CHART_ORDER = ("RUL", "RML", "RLL", "LUL", "LLL")


def to_html(report: Report, pictures: Sequence[KeySlice] = ()) -> str:
    """Return ``report.html``.

    Args:
        report: What to say.
        pictures: Key slices, from :func:`~DRAMLesionLib.report.pictures.key_slices`.

    Returns:
        A page that needs no other file and no network, readable on screen and on paper.
    """
    kinds = {name.replace(" ", "_"): label for label, name in LESION_LABELS.items()}
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            title=report.title or "Lung lesions on chest CT",
            notice=RESEARCH_ONLY,
            score_name=severity.TOTAL_SCORE_NAME,
            score_max=severity.MAX_SCORE * len(report.rows),
            score_bands=_score_bands(),
            findings=findings(report),
            total=report.row("total"),
            lungs=[report.row("right lung"), report.row("left lung")],
            table=[report.row(name) for name in _TABLE_ORDER],
            chart=chart.bar_chart([report.row(name) for name in _CHART_ORDER]),
            kinds=[(kind, LESION_LABELS[kinds[kind]]) for kind in chart.STACK],
            colours={kind: drawing.TYPE_COLOURS[label] for kind, label in kinds.items()},
            heat_colours=drawing.HEAT_COLOURS,
            window=drawing.WINDOW_HU,
            groups=_groups(pictures),
            with_heat=any(picture.heat for picture in pictures),
            with_vessels=any(row.vessel_ml is not None for row in report.rows),
            with_confidence=any(row.lobe_confidence is not None for row in report.rows),
            with_intervals=any(row.lesion_percent_low is not None for row in report.rows),
            dash=DASH,
            lobes_source=_lobes_source(report.lobes_source),
            parameters=list(_flat(plain(report.parameters))),
            weights=[_weight(weight) for weight in report.weights],
        )
    )


def findings(report: Report) -> str:
    """Say in one or two plain sentences what was found."""
    total = report.row("total")
    if total.lesion_ml is None or total.lesion_percent is None:
        return "No lobe could be assessed."
    place = "both lungs" if not total.reason else "the lobes that could be assessed"
    if total.lesion_ml == 0.0:
        return f"No lesion was found in {'either lung' if place == 'both lungs' else place}."
    shares = [
        (getattr(total, f"{kind}_ml") / total.lesion_ml, kind.replace("_", " "))
        for kind in chart.STACK
    ]
    parts = [f"{100.0 * share:.0f}{SPACE}% {kind}" for share, kind in shares if share >= 0.005]
    listed = f"{', '.join(parts[:-1])} and {parts[-1]}"
    if len(parts) == 1:
        listed = f"nearly all {max(shares)[1]}" if max(shares)[0] < 1.0 else f"all {max(shares)[1]}"
    most = max(report.rows, key=lambda row: row.lesion_percent or 0.0)
    return (
        f"Lesions take up {_percent(total.lesion_percent)} of {place} ({_ml(total.lesion_ml)} of "
        f"{_ml(total.volume_ml, 0)} ml), {listed}. Most affected is the {most.full_name} "
        f"({_percent(most.lesion_percent)})."
    )


def environment(*folders: Path) -> Environment:
    """Return what fills in the report's templates, and those in ``folders``."""
    filled = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filled.filters.update(
        ml=_ml, percent=_percent, fixed=_number, or_dash=_or_dash, data_uri=_data_uri
    )
    return filled


def _number(value: float | None, decimals: int) -> str:
    if value is None or not math.isfinite(value):
        return DASH
    least = 10.0**-decimals
    # what is there must not read as nothing
    return f"<{least:.{decimals}f}" if 0.0 < value < least / 2 else f"{value:.{decimals}f}"


def _ml(value: float | None, decimals: int = 1) -> str:
    return _number(value, decimals)


def _percent(value: float | None) -> str:
    text = _number(value, 1)
    return text if text == DASH else f"{text}{SPACE}%"


def _or_dash(value: object) -> str:
    return DASH if value is None else str(value)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _score_bands() -> list[tuple[int, str]]:
    """Return each score and the share of a lobe that it stands for, in words."""
    cuts = [f"{100.0 * cut:g}" for cut in severity.SCORE_CUTS]
    inner = [f"{low} to below {high} %" for low, high in pairwise(cuts)]
    return list(enumerate([f"below {cuts[0]} %", *inner, f"{cuts[-1]} % or more"]))


def _groups(pictures: Sequence[KeySlice]) -> list[dict[str, Any]]:
    """Put axial slices in one row, the others in the next, both drawn at one scale."""
    rows = [
        ("Axial", [p for p in pictures if p.plane == "axial"]),
        ("Coronal and sagittal", [p for p in pictures if p.plane != "axial"]),
    ]
    widest = max((sum(p.width for p in row) for _, row in rows), default=0)
    return [
        {"name": name, "pictures": row, "share": 100.0 * sum(p.width for p in row) / widest}
        for name, row in rows
        if row
    ]


def _lobes_source(source: str) -> str:
    if source == "given":
        return "Lobes come from the lobe mask that was given."
    if source == "estimated":
        return (
            "Estimated lobes: no lobe mask was given, so the lobes were estimated from this CT. "
            "Their borders can be wrong, above all where no fissure can be seen; figures for a "
            "whole lung are more certain than those for one lobe."
        )
    return f"Lobes were found by {source}."


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as (dotted name, value in words)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(_or_dash(item) for item in value)
        else:
            yield f"{prefix}{key}", _or_dash(value)


def _weight(weight: Mapping[str, Any]) -> dict[str, str]:
    """Return name, checksum and a one-line summary of a weight file's card."""
    summary = plain(weight.get("summary", ""))
    if isinstance(summary, dict):
        summary = " · ".join(f"{key}: {value}" for key, value in _flat(summary))
    return {
        "name": str(weight.get("name", DASH)),
        "sha256": str(weight.get("sha256", DASH)),
        "summary": str(summary or ""),
    }
