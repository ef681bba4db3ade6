"""The ablation of the paper's table II: what each part of the method adds.

raw → + regulariser → + refine → + attention → + vessel suppression → + context. Each row is trained
from the same seed with the same budget, all from one configuration, and measured on scans whose
truth is known and that nothing was trained on. What a row changed is told as it was found.

Every row has a folder of its own below ``OUTPUT/ablation`` and is left alone where it is done, so a
stopped ablation goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions import segmentation
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.reading.files import read_labels
from DRAMLesionLib.typed import read_json
from DRAMLesionLib.writing import write_text
from Training.config import Config, LossWeights, dump_config
from Training.dataset.cache import CachedCase, read_cache
from Training.dataset.folder import TRUTH, case_name
from Training.learning.engine import checkpoint_sum, make_fabric, train
from Training.learning.results import csv_table, plain
from Training.learning.workers import in_workers
from Training.metrics import (
    Confusion,
    ProbabilityHistogram,
    bonferroni,
    compare_methods,
    mean_defined,
)
from Training.stages import regression, rounds, vessels
from Training.stages import segmentation as segmentation_stage
from Training.stages.prepare import grid_image, prepare
from Training.stages.pseudolabels import compute_maps, final_probabilities

NAME = "ablation"
PAPER = (0.395, 0.435, 0.452, 0.469, 0.475, 0.495)
"""Overall IoU of the rows in table II."""

_FIGURES = "figures.json"
_BINS = 200
_ADDED_BY_TRAINING = ("segmentation/labels.npy", "regression/vessels_network")

Report = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: As in the paper.
        folder: Of its run.
        config: What it is trained with.
        refined: Whether the refined map is measured; otherwise the raw dRAM.
        context: Whether the final network is measured, trained on the labels of that run.
    """

    name: str
    folder: Path
    config: Config
    refined: bool
    context: bool = False


@dataclass(frozen=True)
class MeasureTask:
    """What a worker needs to measure a row on one scan.

    Attributes:
        case: The scan, prepared.
        lesions: Its true lesions.
        row: The row.
    """

    case: CachedCase
    lesions: Path
    row: Row


@dataclass(frozen=True)
class Measured:
    """What a row finds in a scan, beside the truth.

    Attributes:
        healthy: Whether the scan has no lesion.
        at_threshold: Voxels of the mask that the method itself gives.
        by_fraction: Voxels of the mask that takes in each lobe the highest values, as many as the
            dRAM's own fraction says: right where the order of the voxels is, whatever their values.
        histogram: Values in the lungs.
        percent: Share of the lungs that was called lesion.
    """

    healthy: bool
    at_threshold: Confusion
    by_fraction: Confusion
    histogram: ProbabilityHistogram
    percent: float


def rows(config: Config, folder: Path) -> list[Row]:
    """Return the rows of the table in their order.

    Args:
        config: All settings; the weights of the terms are those of ``config.ablation``.
        folder: ``OUTPUT/ablation``.
    """
    full = config.ablation.weights
    raw = LossWeights(full.regression, 0.0, 0.0, 0.0)
    regularised = replace(raw, equivariance=full.equivariance, entropy=full.entropy)

    def variant(weights: LossWeights, attention: bool, suppress: bool) -> Config:
        settings = replace(
            config.regression, weights=weights, attention=attention, suppress_vessels=suppress
        )
        return replace(config, regression=settings)

    everything = variant(full, attention=True, suppress=True)
    last = folder / "5-vessel-suppression"
    return [
        Row("raw", folder / "1-raw", variant(raw, False, False), refined=False),
        Row(
            "+ regulariser",
            folder / "2-regulariser",
            variant(regularised, False, False),
            refined=False,
        ),
        Row("+ refine", folder / "3-refine", variant(full, False, False), refined=True),
        Row("+ attention", folder / "4-attention", variant(full, True, False), refined=True),
        Row("+ vessel suppression", last, everything, refined=True),
        Row("+ context", last, everything, refined=True, context=True),
    ]


def ablate(
    data: Sequence[Path],
    test: Path,
    output: Path,
    config: Config,
    report: Report = lambda _: None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Train and measure all rows.

    Args:
        data: Data sets to train on.
        test: Data set with a truth, to measure on.
        output: Folder of the ablation.
        config: All settings.
        report: Called with lines of text.
        cache: Prepared training data of another run, which is used and not changed.

    Returns:
        What ``OUTPUT/ablation/ablation.json`` says.

    Raises:
        InputError: If a data set cannot be used, or scans are in both.
    """
    folder = output / NAME
    folder.mkdir(parents=True, exist_ok=True)
    cases, held_out, truths = gather(data, test, output, config, report, cache)
    measured: dict[str, dict[str, Any]] = {}
    for row in rows(config, folder):
        report(f"{row.name}: training")
        train_row(row, cases, report)
        measured[row.name] = measure_row(row, held_out, truths, report)
    compared = _compare(measured)
    content = {"rows": compared, "scans": len(held_out), "config": dump_config(config)}
    write_text(json.dumps(plain(content), indent=1) + "\n", folder / "ablation.json")
    write_text(csv_table(compared, _COLUMNS), folder / "ablation.csv")
    report(table(compared))
    return content


def gather(
    data: Sequence[Path],
    test: Path,
    output: Path,
    config: Config,
    report: Report,
    cache: Path | None = None,
) -> tuple[list[CachedCase], list[CachedCase], dict[str, Path]]:
    """Prepare what is trained on and what is measured on.

    Args:
        data: Data sets to train on.
        test: Data set with a truth.
        output: Folder to prepare them in.
        config: All settings.
        report: Called with lines of text.
        cache: Prepared training data of another run instead of ``data``.

    Returns:
        Cases to train on, cases to measure on, and the true lesions of these by case.

    Raises:
        InputError: If a data set cannot be used, or scans are in both.
    """
    if cache is not None:
        link_cache(cache, output / "cache")
    else:
        prepare(data, output, config, report)
    truths = _truths(test)
    prepare([test], output / "test", config, report)
    cases, held_out = read_cache(output / "cache"), read_cache(output / "test" / "cache")
    held_out = [case for case in held_out if case.name in truths]
    if both := {case.name for case in cases} & {case.name for case in held_out}:
        message = f"scans to measure on must not be trained on: {', '.join(sorted(both))}"
        raise InputError(message)
    if config.regression.vessels == "network":
        fabric = make_fabric(config)
        train(vessels.VesselExperiment(cases, config), output / vessels.NAME, config, fabric)
        vessels.find_vessels([*cases, *held_out], output, config, report)
    return cases, held_out, truths


def link_cache(source: Path, target: Path, without: tuple[str, ...] = _ADDED_BY_TRAINING) -> None:
    """Make a prepared data set of links to another one.

    Args:
        source: Prepared data set.
        target: Folder of the new one.
        without: Files of a case that are left out, by the beginning of their names: what a training
            adds to them.
    """
    for case in read_cache(source):
        for path in sorted(case.folder.rglob("*")):
            inner = path.relative_to(source)
            if path.is_file() and not inner.as_posix().partition("/")[2].startswith(without):
                link = target / inner
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(path.resolve())
    index = target / "index.json"
    write_text((source / "index.json").read_text(encoding="utf-8"), index)


def train_row(row: Row, cases: Sequence[CachedCase], report: Report) -> None:
    """Train what a row needs, as far as it is not there yet."""
    fabric = make_fabric(row.config)
    if not row.context:
        experiment = regression.RegressionExperiment(cases, row.config)
        train(experiment, row.folder / regression.NAME, row.config, fabric)
        return
    rounds.label(cases, row.folder, row.config, report)
    rounds.train_final(cases, row.folder, row.config, fabric, report)


def measure_row(
    row: Row, cases: Sequence[CachedCase], truths: dict[str, Path], report: Report
) -> dict[str, Any]:
    """Return the figures of a row; those that are there already are kept.

    Args:
        row: The row, trained.
        cases: Prepared scans to measure on.
        truths: Their true lesions by case.
        report: Called with a line of text for each scan.
    """
    stage = segmentation_stage.NAME if row.context else regression.NAME
    source = row.config.regression.vessels
    digest = hashlib.sha256(checkpoint_sum(row.folder / stage).encode())
    digest.update(repr((row, [(case.name, case.fingerprint(source)) for case in cases])).encode())
    file = row.folder / stage / _FIGURES
    with suppress(InputError):  # damaged ones are measured again
        kept = read_json(file, dict[str, Any])
        if kept.get("computed_from") == digest.hexdigest():
            return kept
    tasks = [MeasureTask(case, truths[case.name], row) for case in cases]
    found: dict[str, Measured] = {}
    work = in_workers(
        _measure,
        tasks,
        row.config.ablation.workers,
        case=lambda task: task.case.name,
        setting="ablation.workers",
    )
    for task, result in work:
        found[task.case.name] = result
        report(f"{row.name}: {task.case.name} IoU {result.at_threshold.iou:.3f}")
    figures = plain(_figures([found[case.name] for case in cases]))
    figures["cases"] = [case.name for case in cases]
    figures["computed_from"] = digest.hexdigest()
    write_text(json.dumps(figures, indent=1) + "\n", file)
    return figures


def _figures(found: Sequence[Measured]) -> dict[str, Any]:
    ill = [result for result in found if not result.healthy]
    if not ill:
        message = "none of the scans to measure on has a lesion"
        raise InputError(message)
    at_threshold = [result.at_threshold.iou for result in ill]
    by_fraction = [result.by_fraction.iou for result in ill]
    histogram = ill[0].histogram
    for result in ill[1:]:
        histogram = histogram + result.histogram
    return {
        "iou": mean_defined(at_threshold)[0],
        "iou_all_voxels": sum((r.at_threshold for r in ill), Confusion()).iou,
        "iou_by_fraction": mean_defined(by_fraction)[0],
        "average_precision": histogram.average_precision(),
        "healthy_percent": mean_defined([r.percent for r in found if r.healthy])[0],
        "iou_of_scans": at_threshold,
        "iou_by_fraction_of_scans": by_fraction,
    }


def _measure(task: MeasureTask) -> Measured:
    """Compare what a row finds in a scan with the truth, on the grid of the truth."""
    truth_image = read_labels(task.lesions)
    probability, margin, fractions = (_context if task.row.context else _map)(task.case, task.row)
    lobes = _on(task.case, "regression/lobes", truth_image, "nearest")
    truth = geometry.array(truth_image) > 0
    lungs = lobes > 0
    values = geometry.array(geometry.resample(probability, truth_image)) * lungs
    found = (geometry.array(geometry.resample(margin, truth_image, fill=-1.0)) > 0) & lungs
    chosen = np.zeros_like(found)
    for lobe in Lobe:
        inside = lobes == lobe
        if inside.any():
            share = fractions.get(lobe, float(found[inside].mean()))
            chosen |= inside & (values > np.quantile(values[inside], 1.0 - share))
    counted = lungs | truth
    return Measured(
        healthy=not truth.any(),
        at_threshold=Confusion.of(found, truth, counted),
        by_fraction=Confusion.of(chosen, truth, counted),
        histogram=ProbabilityHistogram.of(values[counted], truth[counted], _BINS),
        percent=100.0 * float(found[lungs].mean()),
    )


def _map(case: CachedCase, row: Row) -> tuple[sitk.Image, sitk.Image, dict[Lobe, float]]:
    """Return a row's map, by how much it lies above the threshold, and its fractions."""
    maps = compute_maps(case, row.folder / regression.NAME, row.config)
    chosen = maps.refined if row.refined else maps.dram
    return chosen, chosen - row.config.regression.threshold, maps.fractions


def _context(case: CachedCase, row: Row) -> tuple[sitk.Image, sitk.Image, dict[Lobe, float]]:
    """Return the final network's probability of lesion, and its lead before the other classes."""
    probabilities = final_probabilities(case, row.folder / segmentation_stage.NAME, row.config)
    grid = grid_image(case.meta["grids"]["segmentation"])
    lesion = geometry.image_like(probabilities[segmentation.LESION], grid)
    margin = segmentation.lesion_margin(probabilities, row.config.segmentation.level)
    return lesion, geometry.image_like(margin, grid), {}


def _on(case: CachedCase, name: str, target: sitk.Image, how: Any) -> np.ndarray:
    grid = grid_image(case.meta["grids"][name.partition("/")[0]])
    image = geometry.image_like(np.array(case.load(name)), grid)
    return geometry.array(geometry.resample(image, target, how))


def _truths(test: Path) -> dict[str, Path]:
    """Return the true lesions of a data set by case."""
    folder = test / TRUTH / "lesions"
    found = {case_name(p): p for p in sorted(folder.iterdir())} if folder.is_dir() else {}
    truths = {name: path for name, path in found.items() if name is not None}
    if not truths:
        message = f"{folder} has no true lesions: an ablation is measured on scans with a truth"
        raise InputError(message)
    return truths


def _compare(measured: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with what each has changed; p is corrected for the number of changes."""
    result: list[dict[str, Any]] = []
    previous: dict[str, Any] | None = None
    for (name, figures), paper in zip(measured.items(), PAPER, strict=True):
        row = {"row": name, **figures, "paper_iou": paper}
        if previous is not None:
            for key in ("iou", "iou_by_fraction", "average_precision"):
                row[f"{key}_change"] = figures[key] - previous[key]
            pair = {"this": figures["iou_of_scans"], "previous": previous["iou_of_scans"]}
            p = compare_methods(pair)[0].p
            row["iou_p"] = p
            row["iou_p_corrected"] = bonferroni(p, len(measured) - 1)
        previous = figures
        result.append(row)
    return result


_COLUMNS = (
    "row",
    "iou",
    "iou_change",
    "iou_p",
    "iou_p_corrected",
    "iou_all_voxels",
    "iou_by_fraction",
    "iou_by_fraction_change",
    "average_precision",
    "average_precision_change",
    "healthy_percent",
    "paper_iou",
)


def table(content: Sequence[dict[str, Any]]) -> str:
    """Return the rows as lines of text; a change is the one against the row before.

    p is corrected for the number of changes that are tested.
    """
    lines = [
        f"{'':22s}{'IoU':>7s}{'change':>9s}{'p':>7s}  {'IoU by fraction':>16s}{'change':>9s}"
        f"  {'precision':>9s}{'change':>9s}  {'healthy %':>9s}  {'paper':>6s}"
    ]
    for row in content:
        lines.append(
            f"{row['row']:22s}{row['iou']:7.3f}{_change(row, 'iou'):>9s}"
            f"{_number(row.get('iou_p_corrected'), 3):>7s}  {row['iou_by_fraction']:16.3f}"
            f"{_change(row, 'iou_by_fraction'):>9s}  {row['average_precision']:9.3f}"
            f"{_change(row, 'average_precision'):>9s}  {_number(row['healthy_percent'], 2):>9s}"
            f"  {row['paper_iou']:6.3f}"
        )
    return "\n".join(lines)


def _change(row: dict[str, Any], key: str) -> str:
    change = row.get(f"{key}_change")
    return "" if change is None else f"{change:+.3f}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or value != value else f"{value:.{digits}f}"
