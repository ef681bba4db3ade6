"""How good the whole way is on phantoms whose truth is known.

``python -m Training.evaluation --output FILE.json`` makes phantoms from seeds that no training
uses, each once with its lesions and once healthy, runs the pipeline on them, and prints and writes
what it found. No training stage reads a truth; this module does nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.weights import BUNDLED
from Training.data import write_whole
from Training.workers import in_workers

FIRST_TEST_SEED = 900_000
"""Phantoms from here on are for evaluation alone."""


@dataclass(frozen=True)
class EvaluationTask:
    """One phantom to evaluate on.

    Attributes:
        seed: What the phantom is drawn from.
        spacing: Voxel edge in mm.
        healthy: Whether it has no lesion.
        estimate: Whether the lobes are estimated; otherwise the true ones are given.
        weights: Folder with the weights.
    """

    seed: int
    spacing: float
    healthy: bool
    estimate: bool
    weights: Path


@dataclass(frozen=True)
class CaseResult:
    """What the pipeline found in one phantom, beside the truth.

    Attributes:
        seed: Of the phantom.
        healthy: Whether it has no lesion.
        predicted: Lesion fraction of each lobe by the final segmentation; None if not assessable.
        dram: Lesion fraction of each lobe, the mean of its dRAM.
        true: True lesion fraction of each lobe.
        predicted_scores: Severity scores by the final segmentation.
        true_scores: True scores.
        intersection: Voxels of the final lesion mask that are lesion.
        union: Voxels that are either.
        lesion_percent: Share of both lungs that was called lesion.
    """

    seed: int
    healthy: bool
    predicted: dict[str, float | None]
    dram: dict[str, float]
    true: dict[str, float]
    predicted_scores: dict[str, int | None]
    true_scores: dict[str, int]
    intersection: int
    union: int
    lesion_percent: float


def evaluate_phantoms(tasks: Sequence[EvaluationTask], workers: int) -> list[CaseResult]:
    """Run the pipeline on phantoms, some at a time; results are in the order of the tasks."""
    results = dict(in_workers(_evaluate, tasks, workers))
    return [results[task] for task in tasks]


def summarise(results: Sequence[CaseResult]) -> dict[str, Any]:
    """Return the figures of an evaluation.

    Fractions are in [0, 1], percentages in 0 to 100. Lobes that could not be assessed are counted
    and left out.

    Args:
        results: One for each phantom; those with lesions and healthy ones.
    """
    from sklearn.metrics import cohen_kappa_score

    ill = [r for r in results if not r.healthy]
    healthy = [r for r in results if r.healthy]
    names = [lobe.name for lobe in Lobe]
    pairs = [(r, n) for r in ill for n in names if r.predicted[n] is not None]
    true = np.array([r.true[n] for r, n in pairs])
    found = np.array([r.predicted[n] for r, n in pairs], dtype=float)
    dram = np.array([r.dram.get(n, 0.0) for r, n in pairs])
    kappa = cohen_kappa_score(
        [r.true_scores[n] for r, n in pairs],
        [r.predicted_scores[n] for r, n in pairs],
        labels=list(range(6)),
        weights="linear",
    )
    overlaps = [r.intersection / r.union for r in ill if r.union]
    return {
        "scans_with_lesions": len(ill),
        "healthy_scans": len(healthy),
        "lobes": len(pairs),
        "lobes_not_assessable": len(ill) * len(names) - len(pairs),
        "fraction_correlation": _correlation(found, true),
        "fraction_mean_absolute_error": float(np.abs(found - true).mean()),
        "dram_fraction_correlation": _correlation(dram, true),
        "score_weighted_kappa": float(kappa),
        "iou_mean_of_scans": float(np.mean(overlaps)),
        "healthy_lesion_percent_mean": float(np.mean([r.lesion_percent for r in healthy])),
        "healthy_lesion_percent_max": float(np.max([r.lesion_percent for r in healthy])),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return Pearson's correlation; None where one of the two does not vary."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line; returns the exit status."""
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
    tasks = [
        EvaluationTask(seed, options.spacing, healthy, options.estimate_lobes, options.weights)
        for seed in range(options.first_seed, options.first_seed + options.count)
        for healthy in (False, True)
    ]
    results = evaluate_phantoms(tasks, options.workers)
    summary = summarise(results)
    content = {"summary": summary, "cases": [asdict(result) for result in results]}
    write_whole(options.output, json.dumps(content, indent=1) + "\n")
    for name, value in summary.items():
        text = f"{value:.3f}" if isinstance(value, float) else str(value)
        sys.stdout.write(f"{name:32s} {text}\n")
    return 0


def _evaluate(task: EvaluationTask) -> CaseResult:
    # imported in the worker: the parent needs neither torch nor phantoms
    from DRAMLesionLib import geometry
    from DRAMLesionLib.phantom import make_phantom
    from DRAMLesionLib.pipeline import LesionPipeline

    phantom = make_phantom(task.seed, task.spacing, scores={} if task.healthy else None)
    pipeline = LesionPipeline("cpu", task.weights)
    lobes = None if task.estimate else phantom.lobes
    result = pipeline.run(phantom.ct, lobes, lobe_scheme="dram")
    found = geometry.array(result.lesions) > 0
    truth = geometry.array(phantom.lesions) > 0
    rows = {row.name: row for row in result.report.rows}
    return CaseResult(
        seed=task.seed,
        healthy=task.healthy,
        predicted={
            name: None if row.lesion_percent is None else row.lesion_percent / 100.0
            for name, row in rows.items()
        },
        dram={lobe.name: fraction for lobe, fraction in result.maps.fractions.items()},
        true={lobe.name: float(phantom.fractions[lobe]) for lobe in Lobe},
        predicted_scores={name: row.score for name, row in rows.items()},
        true_scores={lobe.name: int(phantom.scores[lobe]) for lobe in Lobe},
        intersection=int((found & truth).sum()),
        union=int((found | truth).sum()),
        lesion_percent=float(result.report.row("total").lesion_percent or 0.0),
    )


if __name__ == "__main__":
    sys.exit(main())
