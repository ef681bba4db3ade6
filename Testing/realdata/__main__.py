"""Measure the library on the real CTs beside the repository: print a table, write pictures.

``python -m Testing.realdata [--only CASE …] [--lungs-only] [--weights DIR] [--output DIR]``. CTs
that are not there are skipped, and named. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from DRAMLesionLib import writing
from DRAMLesionLib.errors import DRAMLesionError
from DRAMLesionLib.lobes.estimate import estimate_lobes
from DRAMLesionLib.pipeline import LesionPipeline
from DRAMLesionLib.reading import files
from DRAMLesionLib.weights import BUNDLED
from Testing.realdata import measures
from Testing.realdata.cases import CASES, Case
from Testing.realdata.pictures import montage

COLUMNS = {
    "case": 15,
    "lobes_s": 7,
    "cpu_s": 6,
    "left_ml": 7,
    "right_ml": 8,
    "dice": 6,
    "right": 6,
    "left": 6,
    "gut_ml": 6,
    "lesion_%": 8,
    "auc": 6,
    "negatives": 9,
    "missed": 20,
    "warnings": 30,
}
"""What the table shows, and how wide."""

GUT_ML, CLEAR_PERCENT, CLEAR_MEDIAN, AUC, NEGATIVES = 0.5, 1.5, 0.7, 0.96, 10.0
"""Targets: at most so much gas, lesion in clear lungs, and negative slices; at least this AUC."""


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m Testing.realdata")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], metavar="CASE")
    parser.add_argument("--lungs-only", action="store_true", help="no networks: lungs and lobes")
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="those that ship by default")
    parser.add_argument("--output", type=Path, help="folder for table.json and the pictures")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("  ".join(column.ljust(width) for column, width in COLUMNS.items()))
    pipeline = None if options.lungs_only else LesionPipeline(weights_folder=options.weights)
    for case in CASES:
        if options.only and case.name not in options.only:
            continue
        if not case.path.exists():
            print(f"{case.name}: skipped, {case.place} is not there")
            continue
        row = measure(case, pipeline, options.output)
        rows.append(row)
        print("  ".join(_cell(row.get(c)).ljust(w) for c, w in COLUMNS.items()), flush=True)
        if options.output:
            writing.write_json(rows, options.output / "table.json")
    return _judge(rows)


def measure(case: Case, pipeline: LesionPipeline | None, output: Path | None) -> dict[str, Any]:
    """Return the row of one CT; without a pipeline of its lungs and lobes alone."""
    row: dict[str, Any] = {"case": case.name}
    try:
        ct, warnings = files.read_ct(case.path)
        wall, cpu = time.perf_counter(), time.process_time()
        estimate = estimate_lobes(ct)
        row["lobes_s"] = round(time.perf_counter() - wall, 1)
        row["cpu_s"] = round(time.process_time() - cpu, 1)
        result = pipeline.run(ct, estimate.lobes) if pipeline else None
    except DRAMLesionError as error:
        return {**row, "missed": "all", "warnings": str(error)}
    contours = sitk.ReadImage(str(case.contours_path)) if case.contours_path else None
    row.update(_figures(case, ct, estimate.lobes, contours, result.lesions if result else None))
    row["warnings"] = " ".join(warning.code for warning in [*warnings, *estimate.warnings])
    row["missed"] = " ".join(_missed(case, row))
    if output:
        picture = montage(ct, estimate.lobes, contours, result.lesions if result else None)
        writing.write_bytes(picture, output / f"{case.name}.png")
    return row


def _figures(
    case: Case,
    ct: sitk.Image,
    lobes: sitk.Image,
    contours: sitk.Image | None,
    lesions: sitk.Image | None,
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, ml in measures.lung_ml(lobes).items():
        figures[f"{name}_ml"] = round(ml)
    if contours is not None:
        figures.update({k: round(v, 4) for k, v in measures.lung_dice(lobes, contours).items()})
    figures["gut_ml"] = round(measures.gut_gas_ml(ct, lobes), 1)
    if lesions is not None:
        figures["lesion_%"] = round(measures.lesion_percent(lesions, lobes), 2)
        infected = case.infected_slices()
        if infected is not None:
            compared = measures.by_slice(lesions, infected)
            figures.update({name: round(value, 3) for name, value in compared.items()})
    return figures


def _missed(case: Case, row: dict[str, Any]) -> list[str]:
    """Return the columns of a row whose target is missed."""
    wrong = {
        "dice": row.get("dice", 1.0) < case.dice,
        "gut_ml": row["gut_ml"] > GUT_ML,
        "lesion_%": case.clear and row.get("lesion_%", 0.0) > CLEAR_PERCENT,
        "auc": row.get("auc", 1.0) < AUC,
        "negatives": row.get("negatives", 0.0) > NEGATIVES,
    }
    return [column for column, missed in wrong.items() if missed]


def _judge(rows: list[dict[str, Any]]) -> int:
    """Say which targets are missed; return the exit status."""
    clear = {case.name for case in CASES if case.clear}
    shares = [row["lesion_%"] for row in rows if row["case"] in clear and "lesion_%" in row]
    missed = [f"{row['case']}: {row['missed']}" for row in rows if row["missed"]]
    if shares:
        median = statistics.median(shares)
        print(f"median lesion share of clear lungs: {median:.2f} % (at most {CLEAR_MEDIAN} %)")
        if median > CLEAR_MEDIAN:
            missed.append("median lesion share of clear lungs")
    print(f"missed: {'; '.join(missed)}" if missed else "every target is met")
    return 1 if missed else 0


def _cell(value: object) -> str:
    return "-" if value in (None, "") else str(value)


if __name__ == "__main__":
    sys.exit(main())
