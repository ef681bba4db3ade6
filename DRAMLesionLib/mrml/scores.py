"""Lobe scores as a table node and a bar chart, and the reader's own scores beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk

from DRAMLesionLib.lesions import severity
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.mrml.segments import LOBE_COLOURS

if TYPE_CHECKING:
    from DRAMLesionLib.report.model import LobeRow

NUMBERS = {
    "Volume [ml]": "volume_ml",
    "Lesion [ml]": "lesion_ml",
    "Lesion [%]": "lesion_percent",
    "Ground glass [ml]": "ground_glass_ml",
    "Consolidation [ml]": "consolidation_ml",
    "Mixed [ml]": "mixed_ml",
    "Vessels [ml]": "vessel_ml",
    "Score": "score",
}
"""Columns of numbers, and the field of a row that each shows; NaN where there is no value.

A column without any value, such as the lesion types of a pseudo-label, is left out.
"""

ROW, READER, STATUS, PERCENT = "Lobe", "Reader's score", "Status", "Lesion [%]"


def rows_of_report(report: Mapping[str, Any]) -> list[LobeRow]:
    """Return the rows of a ``report.json``: five lobes, left lung, right lung, total."""
    from DRAMLesionLib.report.model import LobeRow

    entries = [*report["lobes"], *report["totals"]]
    return [
        LobeRow(**{key: value for key, value in entry.items() if key != "max_score"})
        for entry in entries
    ]


def count_rows(
    lobes: np.ndarray,
    lesions: np.ndarray,
    voxel_ml: float,
    before: Sequence[LobeRow],
    vessels: np.ndarray | None = None,
) -> list[LobeRow]:
    """Count lesions lobe by lobe, from edited segments for instance.

    Args:
        lobes: (k, j, i) labels of :class:`Lobe`.
        lesions: (k, j, i) labels 1 to 3, see :mod:`DRAMLesionLib.report.model`.
        voxel_ml: Volume of a voxel in ml.
        before: Rows of the run: its lobes that could not be assessed stay so, its confidences are
            taken over.
        vessels: (k, j, i) mask of vessels.
    """
    from DRAMLesionLib.report.model import tabulate

    known = {row.name: row for row in before}
    reasons = {
        lobe: known[lobe.name].reason or "see the report"
        for lobe in Lobe
        if lobe.name in known and not known[lobe.name].assessed
    }
    confidences = {lobe: known[lobe.name].lobe_confidence for lobe in Lobe if lobe.name in known}
    sure = {lobe: value for lobe, value in confidences.items() if value is not None}
    rows, totals = tabulate(lobes, lesions, voxel_ml, reasons, sure, vessels)
    return [*rows, *totals]


def untyped_rows(
    lobe_ml: Mapping[Lobe, float], lesion_ml: Mapping[Lobe, float], before: Sequence[LobeRow]
) -> list[LobeRow]:
    """Return rows from volumes alone; the columns of the lesion types are left empty.

    Args:
        lobe_ml: Volume of each lobe.
        lesion_ml: Lesion inside each lobe.
        before: As in :func:`count_rows`.
    """
    from DRAMLesionLib.report import model

    known = {row.name: row for row in before}
    rows = []
    for lobe in Lobe:
        old = known.get(lobe.name)
        volume, lesion = lobe_ml.get(lobe, 0.0), lesion_ml.get(lobe, 0.0)
        status = old.status if old and not old.assessed else model.ASSESSED
        if volume == 0.0 and status == model.ASSESSED:
            status = f"{model.NOT_ASSESSABLE}: no voxel of this lobe in the scan"
        none = status != model.ASSESSED
        share = 0.0 if none else min(1.0, lesion / volume)
        rows.append(
            model.LobeRow(
                name=lobe.name,
                volume_ml=None if none else volume,
                lesion_ml=None if none else lesion,
                ground_glass_ml=None,
                consolidation_ml=None,
                mixed_ml=None,
                vessel_ml=None,
                lesion_percent=None if none else 100.0 * share,
                score=None if none else severity.fraction_to_score(share),
                status=status,
                lobe_confidence=old.lobe_confidence if old else None,
            )
        )
    return [*rows, *model.total_rows(rows)]


def check_reader_score(text: str) -> int | None:
    """Return what a reader typed as a score, None for nothing.

    Raises:
        ValueError: If it is no whole number from 0 to 5.
    """
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= severity.MAX_SCORE):
        message = f"a reader's score is a whole number from 0 to {severity.MAX_SCORE}, not '{text}'"
        raise ValueError(message)
    return int(text)


def fill_table(node: Any, rows: Sequence[LobeRow], reader: Mapping[Lobe, int | None]) -> None:
    """Write rows into a table node; its columns are made anew.

    Args:
        node: vtkMRMLTableNode.
        rows: Lobes and totals.
        reader: The reader's own scores; their sum appears where all five are there.
    """
    before = node.StartModify()
    try:
        node.RemoveAllColumns()
        _add_texts(node, ROW, [row.name for row in rows])
        for title, field in NUMBERS.items():
            numbers = [getattr(row, field) for row in rows]
            if any(number is not None for number in numbers):
                _add_numbers(node, title, numbers)
        total = severity.total_score(reader.get(lobe) for lobe in Lobe)
        texts = {lobe.name: reader.get(lobe) for lobe in Lobe} | {"total": total}
        _add_texts(node, READER, [_text(texts.get(row.name)) for row in rows])
        _add_texts(node, STATUS, [row.status for row in rows])
    finally:
        node.EndModify(before)


def fill_chart(table: Any, series: Mapping[Lobe, Any], rows: Sequence[LobeRow]) -> None:
    """Write lesion % of the five lobes into the table that the chart draws, 0 where unknown.

    Slicer's plot view cannot write names under bars: each lobe is a series of one bar, and the
    legend names it together with its number.

    Args:
        table: vtkMRMLTableNode; one column a lobe. Its first row is empty: the view begins at the
            middle of the first group of bars, and would show half of them.
        series: The vtkMRMLPlotSeriesNode of each lobe, which gets the text of the legend as name.
        rows: Lobes; others are left out.
    """
    shares = {Lobe[row.name]: row.lesion_percent for row in rows if row.name in Lobe.__members__}
    before = table.StartModify()
    try:
        table.RemoveAllColumns()
        for lobe in Lobe:
            _add_numbers(table, lobe.name, [0.0, shares.get(lobe) or 0.0])
    finally:
        table.EndModify(before)
    for lobe, node in series.items():
        share = shares.get(lobe)
        node.SetName(f"{lobe.name} –" if share is None else f"{lobe.name} {share:.1f} %")


def make_chart(series: Mapping[Lobe, Any], chart: Any, table: Any, title: str) -> None:
    """Set up a bar chart of lesion % by lobe.

    Args:
        series: The vtkMRMLPlotSeriesNode of each lobe.
        chart: vtkMRMLPlotChartNode.
        table: Node that :func:`fill_chart` fills.
        title: Heading of the chart.
    """
    for lobe, node in series.items():
        node.SetAndObserveTableNodeID(table.GetID())
        node.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeBar)
        node.SetYColumnName(lobe.name)
        node.SetColor(*(value / 255.0 for value in LOBE_COLOURS[lobe]))
        if not chart.HasPlotSeriesNodeID(node.GetID()):
            chart.AddAndObservePlotSeriesNodeID(node.GetID())
    chart.SetTitle(title)
    chart.SetYAxisTitle(PERCENT)
    chart.SetXAxisTitle("  ·  ".join(lobe.name for lobe in series))
    chart.SetLegendVisibility(True)


def _add_numbers(node: Any, title: str, numbers: Sequence[float | None]) -> None:
    column = vtk.vtkDoubleArray()
    column.SetName(title)
    for number in numbers:
        column.InsertNextValue(math.nan if number is None else float(number))
    node.AddColumn(column)


def _add_texts(node: Any, title: str, texts: Sequence[str]) -> None:
    column = vtk.vtkStringArray()
    column.SetName(title)
    for text in texts:
        column.InsertNextValue(text)
    node.AddColumn(column)


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
