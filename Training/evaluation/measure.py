"""How good methods are on scans whose truth is known.

``python -m Training evaluate`` takes a data set with a truth (:mod:`Training.dataset.folder`);
``python -m Training.evaluation --output FILE.json`` makes phantoms from seeds that no training
uses, each once with its lesions and once healthy, and prints and writes the figures alone.
No training stage reads a truth but the supervised ceiling; this module does nothing else.

Voxels of the whole scan count as lesion or not; the lesion-free ones, for specificity, calibration
and precision, are those of the lungs. By type, prediction and truth are each taken apart into
ground glass, consolidation and mixed, and compared type by type.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions.severity import fraction_to_score
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.weights import BUNDLED
from DRAMLesionLib.writing import write_text
from Training import metrics
from Training.evaluation.sources import PhantomSource, Source, TrueScan
from Training.learning.results import plain
from Training.learning.workers import in_workers
from Training.methods import load_method
from Training.methods.base import Outcome, Prediction, Trained
from Training.metrics import Confusion, ProbabilityHistogram

FIRST_TEST_SEED = 900_000
"""Phantoms from here on are for evaluation alone."""

TYPES = {"ground glass": 1, "consolidation": 2, "mixed": 3}
BINS = 200


@dataclass(frozen=True)
class EvaluationTask:
    """One scan and one method.

    Attributes:
        source: The scan.
        trained: The method.
        estimate: Whether the lobes are estimated; otherwise the true ones are given.
    """

    source: Source
    trained: Trained
    estimate: bool


@dataclass(frozen=True)
class LobeResult:
    """A lobe as found and in truth; None where it could not be assessed."""

    name: str
    predicted: float | None
    true: float | None
    predicted_score: int | None
    true_score: int | None


@dataclass(frozen=True)
class Picture:
    """The slice of a scan with most true lesion, or of healthy lungs with most found, (j, i)."""

    grey: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    pixel_mm: tuple[float, float]


@dataclass(frozen=True)
class CaseResult:
    """What a method found in a scan, beside the truth.

    Attributes:
        case: Name of the scan.
        method: Row of the table.
        healthy: Whether the scan has no lesion.
        confusion: Voxels; the lesion-free ones are those of the lungs.
        by_type: The same for each type of lesion.
        found_of_type: Share of the true lesion of each type that was found as whatever type.
        lobes: The five lobes.
        lesion_percent: Share of both lungs that was called lesion.
        histogram: Probabilities in the lungs and the true lesions.
        seconds: Run time by stage; ``total`` is that of the whole method.
        picture: For the report.
    """

    case: str
    method: str
    healthy: bool
    confusion: Confusion
    by_type: dict[str, Confusion]
    found_of_type: dict[str, float]
    lobes: tuple[LobeResult, ...]
    lesion_percent: float
    histogram: ProbabilityHistogram = field(repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    picture: Picture | None = field(default=None, repr=False)


class Memory(Protocol):
    """What keeps results, see :mod:`Training.evaluation.kept`."""

    def find(self, task: EvaluationTask) -> list[CaseResult] | None:
        """Return the results of a task if they are known."""

    def keep(self, task: EvaluationTask, results: Iterable[CaseResult]) -> None:
        """Remember the results of a task."""


def evaluate(
    sources: Sequence[Source],
    methods: Sequence[Trained],
    workers: int,
    estimate: bool = False,
    report: Callable[[str], None] = lambda _: None,
    memory: Memory | None = None,
) -> list[CaseResult]:
    """Run methods on scans.

    Args:
        sources: The scans.
        methods: The trained methods.
        workers: Scans at a time.
        estimate: Whether the lobes are estimated; otherwise the true ones are given.
        report: Called with a line of text for each scan and method.
        memory: Where results are kept, and found if they are there.

    Returns:
        The results in the order of methods and sources.
    """
    tasks = [EvaluationTask(source, method, estimate) for method in methods for source in sources]
    known = {task: memory.find(task) if memory else None for task in tasks}
    results = {task: found for task, found in known.items() if found is not None}
    todo = [task for task in tasks if task not in results]
    if results:
        report(f"{len(results)} of {len(tasks)} results are there already")
    work = in_workers(
        _evaluate, todo, workers, case=lambda task: task.source.name, setting="--workers"
    )
    for number, (task, found) in enumerate(work, start=1):
        results[task] = found
        if memory is not None:
            memory.keep(task, found)
        last = found[-1]
        report(
            f"{number}/{len(todo)} {last.method}, {last.case}: IoU {last.confusion.iou:.3f}, "
            f"{last.seconds['total']:.1f} s"
        )
    return [result for task in tasks for result in results[task]]


def _evaluate(task: EvaluationTask) -> list[CaseResult]:
    scan = task.source.load()
    predictor = load_method(task.trained)
    start = time.perf_counter()
    outcome = predictor(scan.ct, None if task.estimate else scan.lobes)
    seconds = {**outcome.seconds, "total": time.perf_counter() - start}
    label = f"{task.trained.label}: " if task.trained.label else ""
    return [
        compare(task.source.name, label + name, scan, prediction, outcome, seconds)
        for name, prediction in outcome.predictions.items()
    ]


def compare(
    case: str,
    method: str,
    scan: TrueScan,
    prediction: Prediction,
    outcome: Outcome,
    seconds: dict[str, float],
) -> CaseResult:
    """Compare a prediction with the truth.

    Args:
        case: Name of the scan.
        method: Name of the row.
        scan: The scan with its truth.
        prediction: On the same grid.
        outcome: What it comes from.
        seconds: Run time by stage.
    """
    true_types, types = geometry.array(scan.lesions), geometry.array(prediction.lesions)
    truth, found = true_types > 0, types > 0
    lungs = geometry.array(scan.lobes) > 0
    counted = lungs | truth | found
    values = geometry.array(prediction.probability)
    by_type = {
        name: Confusion.of(types == kind, true_types == kind, counted)
        for name, kind in TYPES.items()
    }
    called = geometry.array(outcome.lobes) > 0
    return CaseResult(
        case=case,
        method=method,
        healthy=not truth.any(),
        confusion=Confusion.of(found, truth, counted),
        by_type=by_type,
        found_of_type={
            name: metrics.sensitivity(found, true_types == kind) for name, kind in TYPES.items()
        },
        lobes=_compare_lobes(scan, prediction, outcome, found, truth),
        lesion_percent=100.0 * float(found[called].mean()) if called.any() else metrics.NAN,
        histogram=ProbabilityHistogram.of(values[counted], truth[counted], BINS),
        seconds=seconds,
        picture=_picture(scan.ct, lungs, truth, found),
    )


def _compare_lobes(
    scan: TrueScan, prediction: Prediction, outcome: Outcome, found: np.ndarray, truth: np.ndarray
) -> tuple[LobeResult, ...]:
    true_lobes, lobes = geometry.array(scan.lobes), geometry.array(outcome.lobes)
    rows = []
    for lobe in Lobe:
        true = _share(truth, true_lobes == lobe)
        predicted = prediction.fractions.get(lobe, _share(found, lobes == lobe))
        if lobe in outcome.not_assessable:
            predicted = None
        score = None if true is None else fraction_to_score(true)
        if scan.scores is not None and scan.scores.get(lobe) is not None:
            score = scan.scores[lobe]
        predicted_score = None if predicted is None else fraction_to_score(min(predicted, 1.0))
        rows.append(LobeResult(lobe.name, predicted, true, predicted_score, score))
    return tuple(rows)


def _share(mask: np.ndarray, region: np.ndarray) -> float | None:
    return float(mask[region].mean()) if region.any() else None


def _picture(ct: sitk.Image, lungs: np.ndarray, truth: np.ndarray, found: np.ndarray) -> Picture:
    """Return the axial slice that :class:`Picture` shows, cut to the lungs; else the middle one.

    Slice and cut of a scan with lesions hang on the truth alone: pictures of methods fit together.
    """
    grid = geometry.working_grid(ct, max(1.5, min(ct.GetSpacing())))
    masks = [geometry.image_like(mask, ct) for mask in (truth, found, lungs)]
    true, called, inside = (
        geometry.array(geometry.resample(mask, grid, "nearest")) > 0 for mask in masks
    )
    counts = (true if true.any() else called).sum(axis=(1, 2))
    k = int(counts.argmax()) if counts.any() else len(counts) // 2
    j, i = _box((true | inside)[k], margin=8)
    hu = geometry.array(geometry.resample(ct, grid, fill=geometry.AIR_HU))[k, j, i]
    grey = np.round(np.clip((hu + 1200.0) / 1500.0, 0.0, 1.0) * 255.0).astype(np.uint8)
    spacing = grid.GetSpacing()
    return Picture(grey, true[k, j, i], called[k, j, i], (spacing[1], spacing[0]))


def _box(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Return the box around a mask (j, i) and a margin; all of it if the mask is empty."""
    if not mask.any():
        return slice(None), slice(None)
    ranges = []
    for axis in (1, 0):
        hit = np.flatnonzero(mask.any(axis=axis))
        ranges.append(slice(max(int(hit[0]) - margin, 0), int(hit[-1]) + 1 + margin))
    return ranges[0], ranges[1]


def summarise(results: Sequence[CaseResult]) -> dict[str, Any]:
    """Return the figures of one method.

    Fractions are in [0, 1], percentages in 0 to 100; what is not defined is NaN. Overlaps and
    fractions are over the scans with lesions; healthy scans have figures of their own. Scores and
    kappa are over the lobes of all scans, as the paper's; ``lesion_scans_weighted_kappa`` leaves
    healthy scans out, whose many zeros are easily agreed on.

    Args:
        results: One for each scan.
    """
    ill, healthy = _parted(results)
    lobes = [lobe for r in ill for lobe in r.lobes]
    known = [x for x in lobes if x.predicted is not None and x.true is not None]
    found, true = ([getattr(x, name) for x in known] for name in ("predicted", "true"))
    pairs, missing = _score_pairs(results)
    total = sum((r.confusion for r in ill), Confusion())
    histogram = _added(ill)
    overlaps, dices = ([getattr(r.confusion, n) for r in ill] for n in ("iou", "dice"))
    errors = [abs(f - t) for f, t in zip(found, true, strict=True)]
    percents = [r.lesion_percent for r in healthy]
    return {
        "scans_with_lesions": len(ill),
        "healthy_scans": len(healthy),
        "lobes": len(pairs),
        "lobes_not_assessable": missing,
        "fraction_correlation": metrics.correlation(found, true),
        "fraction_mean_absolute_error": metrics.mean_defined(errors)[0],
        "score_weighted_kappa": metrics.weighted_kappa(pairs),
        "score_weighted_kappa_interval": list(metrics.bootstrap_interval(results, _kappa, 1000)),
        "lesion_scans_weighted_kappa": _kappa(ill),
        "lesion_scans_weighted_kappa_interval": list(metrics.bootstrap_interval(ill, _kappa, 1000)),
        "score_confusion_matrix": metrics.confusion_matrix(pairs).tolist(),
        "iou_mean_of_scans": metrics.mean_defined(overlaps)[0],
        "iou_mean_of_scans_interval": list(metrics.bootstrap_interval(overlaps, _mean)),
        "dice_mean_of_scans": metrics.mean_defined(dices)[0],
        "dice_mean_of_scans_interval": list(metrics.bootstrap_interval(dices, _mean)),
        "mean_of_scans": _scan_means(ill),
        "all_voxels": total.figures(),
        "average_precision": histogram.average_precision() if histogram else metrics.NAN,
        "average_precision_interval": list(
            metrics.bootstrap_interval(ill, _average_precision, 1000)
        ),
        "calibration_error": histogram.calibration_error() if histogram else metrics.NAN,
        "by_type": {name: _summarise_type(ill, name) for name in TYPES},
        "bland_altman_lesion_percent": asdict(
            metrics.bland_altman([100 * f for f in found], [100 * t for t in true])
        ),
        "healthy_lesion_percent_mean": metrics.mean_defined(percents)[0],
        "healthy_lesion_percent_max": max(percents, default=metrics.NAN),
        "seconds_mean": metrics.mean_defined([r.seconds["total"] for r in results])[0],
    }


def _scan_means(ill: Sequence[CaseResult]) -> dict[str, dict[str, float]]:
    """Return the mean of each overlap over the scans, and over how many it goes."""
    means = {}
    for name in Confusion().figures():
        mean, scans = metrics.mean_defined([getattr(r.confusion, name) for r in ill])
        means[name] = {"mean": mean, "scans": scans}
    return means


def _summarise_type(ill: Sequence[CaseResult], name: str) -> dict[str, Any]:
    """Return the figures of one type; scans without it in truth are left out of the mean."""
    having = [r for r in ill if r.by_type[name].tp + r.by_type[name].fn]
    total = sum((r.by_type[name] for r in ill), Confusion())
    return {
        "scans": len(having),
        "iou_mean_of_scans": metrics.mean_defined([r.by_type[name].iou for r in having])[0],
        "iou_all_voxels": total.iou if total.tp + total.fn else metrics.NAN,
        "found_as_any_type": metrics.mean_defined([r.found_of_type[name] for r in having])[0],
    }


def _parted(results: Sequence[CaseResult]) -> tuple[list[CaseResult], list[CaseResult]]:
    return [r for r in results if not r.healthy], [r for r in results if r.healthy]


def _score_pairs(results: Sequence[CaseResult]) -> tuple[list[tuple[int, int]], int]:
    lobes = [lobe for r in results for lobe in r.lobes]
    return metrics.assessable(
        [lobe.predicted_score for lobe in lobes], [lobe.true_score for lobe in lobes]
    )


def _kappa(results: Sequence[CaseResult]) -> float:
    return metrics.weighted_kappa(_score_pairs(results)[0])


def _average_precision(results: Sequence[CaseResult]) -> float:
    total = _added(results)
    return metrics.NAN if total is None else total.average_precision()


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _added(results: Sequence[CaseResult]) -> ProbabilityHistogram | None:
    total: ProbabilityHistogram | None = None
    for result in results:
        total = result.histogram if total is None else total + result.histogram
    return total


def histogram_of(results: Sequence[CaseResult]) -> ProbabilityHistogram | None:
    """Return the probabilities of all scans with lesions; None if there is none."""
    return _added(_parted(results)[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate on phantoms from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Training.evaluation", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--count", type=int, default=20, help="seeds (default 20)")
    parser.add_argument("--first-seed", type=int, default=FIRST_TEST_SEED)
    parser.add_argument("--spacing", type=float, default=1.5, help="voxel edge in mm")
    parser.add_argument("--weights", type=Path, default=BUNDLED)
    parser.add_argument("--workers", type=int, default=2, help="phantoms at a time")
    parser.add_argument(
        "--estimate-lobes", action="store_true", help="estimate the lobes instead of giving them"
    )
    options = parser.parse_args(arguments)
    sources = [
        PhantomSource(seed, options.spacing, healthy)
        for seed in range(options.first_seed, options.first_seed + options.count)
        for healthy in (False, True)
    ]
    method = Trained("dram", options.weights)
    results = evaluate(sources, [method], options.workers, options.estimate_lobes)
    final = results[-1].method
    summary = summarise([r for r in results if r.method == final])
    content = {
        "summary": summary,
        "stages": {name: summarise(rows) for name, rows in by_method(results).items()},
        "cases": [case_content(r) for r in results if r.method == final],
    }
    write_text(json.dumps(plain(content), indent=1) + "\n", options.output)
    for name, value in summary.items():
        if isinstance(value, int | float):
            text = f"{value:.3f}" if isinstance(value, float) else str(value)
            sys.stdout.write(f"{name:32s} {text}\n")
    return 0


def by_method(results: Sequence[CaseResult]) -> dict[str, list[CaseResult]]:
    """Return the results of each method, in the order in which they first appear."""
    parted: dict[str, list[CaseResult]] = {}
    for result in results:
        parted.setdefault(result.method, []).append(result)
    return parted


def case_content(result: CaseResult) -> dict[str, Any]:
    """Return what a file says about one scan."""
    return {
        "case": result.case,
        "method": result.method,
        "healthy": result.healthy,
        **result.confusion.figures(),
        "by_type": {name: c.figures() for name, c in result.by_type.items()},
        "lobes": [asdict(lobe) for lobe in result.lobes],
        "lesion_percent": result.lesion_percent,
        "seconds": result.seconds,
    }
