"""What an evaluation leaves: tables as CSV, all figures as JSON, and one HTML page to read.

The page holds everything itself and loads nothing from anywhere.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from DRAMLesionLib.writing import whole_folder, write_text
from Training import metrics
from Training.evaluation import figures
from Training.evaluation.measure import (
    TYPES,
    CaseResult,
    by_method,
    case_content,
    histogram_of,
    summarise,
)
from Training.learning.results import csv_table, plain

JSON, HTML, TABLE, CASES, LOBES_CSV = (
    "evaluation.json",
    "evaluation.html",
    "table.csv",
    "cases.csv",
    "lobes.csv",
)
_ABLATION = (
    "row",
    "iou",
    "iou_change",
    "iou_p",
    "iou_by_fraction",
    "average_precision",
    "healthy_percent",
    "paper_iou",
)
_TEMPLATE = Path(__file__).with_name("report.html")


def write_evaluation(
    results: Sequence[CaseResult],
    output: Path,
    about: Mapping[str, Any],
    main: str | None = None,
    ablation: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Write tables, figures and page of an evaluation.

    Args:
        results: From :func:`Training.evaluation.measure.evaluate`.
        output: Folder; one that holds an earlier evaluation is replaced.
        about: What was evaluated, for the head of the page and the JSON.
        main: Row that the others are compared with and that chooses the cases to show; the last
            if left out.
        ablation: Rows of :func:`Training.studies.ablation.ablate`, if there are any.

    Returns:
        The content of the JSON.

    Raises:
        InputError: If the folder holds something else or cannot be written.
    """
    methods = by_method(results)
    summaries = {name: summarise(rows) for name, rows in methods.items()}
    main = main or list(methods)[-1]
    tests = [asdict(test) for test in compare_scans(methods, main)]
    content = plain(
        {
            "about": dict(about),
            "main": main,
            "methods": summaries,
            "paired_tests_iou": tests,
            "ablation": [{name: row.get(name) for name in _ABLATION} for row in ablation],
            "cases": [case_content(r) for r in results],
        }
    )
    rows = table_rows(summaries)
    with whole_folder(output, JSON) as folder:
        write_text(json.dumps(content, indent=1) + "\n", folder / JSON)
        write_text(csv_table(rows), folder / TABLE)
        write_text(csv_table(_case_rows(results)), folder / CASES)
        write_text(csv_table(_lobe_rows(results)), folder / LOBES_CSV)
        write_text(_page(content, rows, methods, main), folder / HTML)
    return content


def compare_scans(
    methods: Mapping[str, Sequence[CaseResult]], main: str
) -> list[metrics.Comparison]:
    """Test the IoU of scans with lesions of the main method against that of each other one."""
    values = {
        name: [r.confusion.iou for r in sorted(rows, key=lambda r: r.case) if not r.healthy]
        for name, rows in methods.items()
    }
    return metrics.compare_methods(values, reference=main)


def table_rows(summaries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return table II: one row a method, overall and by type."""
    rows = []
    for name, s in summaries.items():
        low, high = s["iou_mean_of_scans_interval"]
        kappa_low, kappa_high = s["score_weighted_kappa_interval"]
        row = {
            "method": name,
            "IoU": s["iou_mean_of_scans"],
            "IoU low": low,
            "IoU high": high,
            **{f"IoU {t}": s["by_type"][t]["iou_mean_of_scans"] for t in TYPES},
            **{f"found {t}": s["by_type"][t]["found_as_any_type"] for t in TYPES},
            "IoU all voxels": s["all_voxels"]["iou"],
            "Dice": s["dice_mean_of_scans"],
            "PPV": s["all_voxels"]["ppv"],
            "sensitivity": s["all_voxels"]["sensitivity"],
            "specificity": s["all_voxels"]["specificity"],
            "average precision": s["average_precision"],
            "kappa": s["score_weighted_kappa"],
            "kappa low": kappa_low,
            "kappa high": kappa_high,
            "healthy lesion %": s["healthy_lesion_percent_mean"],
            "seconds": s["seconds_mean"],
        }
        rows.append(row)
    return rows


def _case_rows(results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    return [
        {
            "method": r.method,
            "case": r.case,
            "healthy": int(r.healthy),
            **r.confusion.figures(),
            **{f"iou {name}": c.iou for name, c in r.by_type.items()},
            "average_precision": r.histogram.average_precision(),
            "lesion_percent": r.lesion_percent,
            "seconds": r.seconds["total"],
        }
        for r in results
    ]


def _lobe_rows(results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    return [
        {"method": r.method, "case": r.case, **asdict(lobe)} for r in results for lobe in r.lobes
    ]


def _page(
    content: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    methods: Mapping[str, Sequence[CaseResult]],
    main: str,
) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["number"] = _number
    environment.filters["p_value"] = _p_value
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    summary = content["methods"][main]
    return template.render(
        about=content["about"],
        main=main,
        summary=summary,
        rows=rows,
        types=list(TYPES),
        tests=content["paired_tests_iou"],
        ablation=content["ablation"],
        plots=[(title, _data_url(png)) for title, png in _plots(summary, methods, main)],
        cases=_case_pictures(methods, main),
    )


def _plots(
    summary: Mapping[str, Any], methods: Mapping[str, Sequence[CaseResult]], main: str
) -> list[tuple[str, bytes]]:
    histograms = {n: h for n, rows in methods.items() if (h := histogram_of(rows)) is not None}
    lobes = [lobe for r in methods[main] if not r.healthy for lobe in r.lobes]
    pairs = [
        (100 * lobe.predicted, 100 * lobe.true)
        for lobe in lobes
        if lobe.predicted is not None and lobe.true is not None
    ]
    matrix = np.array(summary["score_confusion_matrix"])
    plots = []
    if histograms:
        plots.append(("Precision and recall over all voxels", figures.precision_recall(histograms)))
        plots.append(("Calibration of the probability", figures.calibration(histograms)))
    plots.append((f"Scores of lobes, {main}", figures.score_matrix(matrix, "lobes")))
    if pairs:
        found, true = zip(*pairs, strict=True)
        plots.append((f"Lesion % of lobes, {main}", figures.bland_altman_plot(found, true)))
    plots.append(("Run time", figures.run_times(methods)))
    return plots


def _case_pictures(
    methods: Mapping[str, Sequence[CaseResult]], main: str
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return a title and the pictures of all methods, with captions, for each chosen scan."""
    found: dict[str, dict[str, CaseResult]] = {}
    for name, results in methods.items():
        for result in results:
            found.setdefault(result.case, {})[name] = result
    return [
        (f"{kind}: {case}", [_captioned(name, result) for name, result in found[case].items()])
        for kind, case in _chosen_cases(methods[main])
    ]


def _chosen_cases(results: Sequence[CaseResult]) -> list[tuple[str, str]]:
    """Return the best, the median and the worst scan, and the healthy one with most lesion."""
    ill = sorted((r for r in results if not r.healthy), key=lambda r: r.confusion.iou)
    chosen = []
    if ill:
        chosen = [("best", ill[-1]), ("median", ill[len(ill) // 2]), ("worst", ill[0])]
    healthy = [r for r in results if r.healthy]
    if healthy:
        chosen.append(("most lesion in healthy lungs", max(healthy, key=_lesion_percent)))
    return [(kind, result.case) for kind, result in chosen]


def _captioned(name: str, result: CaseResult) -> tuple[str, str]:
    """Return the caption of a picture and the picture; it is empty where there is none."""
    figure = (
        f"{result.lesion_percent:.2f} %" if result.healthy else f"IoU {result.confusion.iou:.3f}"
    )
    picture = "" if result.picture is None else _data_url(figures.outlines(result.picture))
    return f"{name}: {figure}", picture


def _lesion_percent(result: CaseResult) -> float:
    return float(np.nan_to_num(result.lesion_percent))


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _p_value(value: Any) -> str:
    return "< 0.0001" if value is not None and value < 0.0001 else _number(value, 4)


def _number(value: Any, digits: int = 3) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    # no minus before what is rounded to zero, and a real minus elsewhere
    return f"{round(float(value), digits) + 0.0:.{digits}f}".replace("-", "−")
