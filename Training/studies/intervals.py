"""Intervals of lobe fractions: found on some phantoms, tried on others.

``python -m Training.studies.intervals --output FILE.json`` asks the final network of some weights
for the lesions of phantoms, with the true lobes given. On the first of them it chooses how sure
and how possible a voxel has to be, and the margins with which nine intervals in ten hold the truth
(split conformal prediction), so that the intervals are as narrow as can be. On phantoms of other
seeds it counts how many do. ``--card`` writes what was found into the card of the weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib import typed, weights, writing
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions import density, segmentation
from DRAMLesionLib.lesions.segmentation import SegmentationConfig
from DRAMLesionLib.lesions.severity import fraction_to_score
from DRAMLesionLib.lesions.uncertainty import IntervalConfig, ends, widened
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.phantom.make import Phantom, make_phantom
from Training.learning.workers import in_workers

FIRST_CALIBRATION_SEED, FIRST_CHECK_SEED = 320_000, 310_000
"""Neither evaluation nor any training has these phantoms."""

SURE, POSSIBLE = (0.5, 0.7, 0.8, 0.9, 0.95), (0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class Task:
    """What a worker needs for one phantom."""

    seed: int
    spacing: float
    healthy: bool
    folder: Path


@dataclass(frozen=True)
class LobeFinding:
    """A lobe beside its truth.

    Attributes:
        seed: Of the phantom.
        true: True lesion fraction.
        found: The fraction that was found.
        least: Surely lesion, for each of :data:`SURE`.
        most: Possibly lesion, for each of :data:`POSSIBLE`.
    """

    seed: int
    true: float
    found: float
    least: tuple[float, ...]
    most: tuple[float, ...]


def phantom_of(task: Task) -> Phantom:
    """Return the phantom of a task."""
    scores = dict.fromkeys(Lobe, 0) if task.healthy else None
    return make_phantom(task.seed, task.spacing, scores=scores)


def find(task: Task) -> list[LobeFinding]:
    """Return the lobes of a phantom."""
    network, card = weights.load_network(task.folder, "segmentation")
    config = weights.settings(task.folder, card, SegmentationConfig, ("spacing",))
    phantom = phantom_of(task)
    lungs = sitk.Cast(phantom.lobes > 0, sitk.sitkUInt8)
    level = density.find_level(phantom.ct, lungs)
    lesions = segmentation.find_lesions(
        cast(UNet3D, network),
        density.at_common_level(phantom.ct, level),
        lungs,
        config,
        expiration=level.expiration,
    )
    return _lobes(task.seed, phantom, lesions)


def _lobes(seed: int, phantom: Phantom, lesions: segmentation.Lesions) -> list[LobeFinding]:
    mask, labels = geometry.array(lesions.mask) > 0, geometry.array(phantom.lobes)
    coarse_mask, coarse_labels = (
        geometry.array(geometry.resample(image, lesions.share, "nearest"))
        for image in (lesions.mask, phantom.lobes)
    )
    share = geometry.array(lesions.share)
    each = [
        ends(coarse_mask > 0, share, coarse_labels, sure, possible)
        for sure, possible in zip(SURE, POSSIBLE, strict=True)
    ]
    return [
        LobeFinding(
            seed,
            phantom.fractions[lobe],
            float(mask[labels == lobe].mean()),
            tuple(both[lobe][0] for both in each),
            tuple(both[lobe][1] for both in each),
        )
        for lobe in Lobe
    ]


def calibrate(lobes: Sequence[LobeFinding], coverage: float = 0.9) -> IntervalConfig:
    """Return the settings with the narrowest intervals that hold often enough.

    Each end may fail in half of the cases that both together may.

    Raises:
        ValueError: If there are too few lobes for that coverage.
    """
    best: tuple[float, IntervalConfig] | None = None
    for (m, sure), (n, possible) in itertools.product(enumerate(SURE), enumerate(POSSIBLE)):
        low = [_angle(lobe.least[m]) - _angle(lobe.true) for lobe in lobes]
        high = [_angle(lobe.true) - _angle(lobe.most[n]) for lobe in lobes]
        part = 1.0 - (1.0 - coverage) / 2.0
        config = IntervalConfig(
            sure, possible, _margin(low, part), _margin(high, part), coverage, len(lobes)
        )
        width = float(np.mean([b - a for a, b in (interval(lobe, config) for lobe in lobes)]))
        if best is None or width < best[0]:
            best = width, config
    assert best is not None  # noqa: S101
    return best[1]


def _margin(excess: Sequence[float], part: float) -> float:
    """Return the quantile of split conformal prediction, 0 at least."""
    place = math.ceil((len(excess) + 1) * part)
    if place > len(excess):
        message = f"{len(excess)} lobes are too few to hold in {100 * part:.0f} % of the cases"
        raise ValueError(message)
    return round(max(0.0, sorted(excess)[place - 1]), 4)


def _angle(fraction: float) -> float:
    return math.asin(math.sqrt(min(max(fraction, 0.0), 1.0)))


def interval(lobe: LobeFinding, config: IntervalConfig) -> tuple[float, float]:
    """Return the interval of a lobe, as the report has it."""
    low, high = widened(
        lobe.least[SURE.index(config.sure)], lobe.most[POSSIBLE.index(config.possible)], config
    )
    return min(low, lobe.found), max(high, lobe.found)


def check(lobes: Sequence[LobeFinding], config: IntervalConfig) -> dict[str, Any]:
    """Return how often intervals hold, how wide they are, and how often they cross a border."""
    both = [interval(lobe, config) for lobe in lobes]
    holds = [a <= lobe.true <= b for lobe, (a, b) in zip(lobes, both, strict=True)]
    crossing = [fraction_to_score(a) != fraction_to_score(b) for a, b in both]
    right = [
        fraction_to_score(a) <= fraction_to_score(lobe.true) <= fraction_to_score(b)
        for lobe, (a, b) in zip(lobes, both, strict=True)
    ]
    ill = [n for n, lobe in enumerate(lobes) if lobe.true > 0]
    return {
        "lobes": len(lobes),
        "hold": round(float(np.mean(holds)), 3),
        "hold_with_lesions": round(float(np.mean([holds[n] for n in ill])), 3) if ill else None,
        "mean_width_percent": round(100 * float(np.mean([b - a for a, b in both])), 2),
        "cross_a_border": round(float(np.mean(crossing)), 3),
        "true_score_within": round(float(np.mean(right)), 3),
        "score_itself_right": round(
            float(
                np.mean([fraction_to_score(x.found) == fraction_to_score(x.true) for x in lobes])
            ),
            3,
        ),
    }


def _gather(first: int, count: int, options: argparse.Namespace) -> list[LobeFinding]:
    # every fifth is healthy
    tasks = [
        Task(seed, options.spacing, seed % 5 == 4, options.weights)
        for seed in range(first, first + count)
    ]
    found: list[LobeFinding] = []
    work = in_workers(
        find, tasks, options.workers, case=lambda task: str(task.seed), setting="--workers"
    )
    for task, lobes in work:
        found += lobes
        sys.stdout.write(f"phantom {task.seed}\n")
    return found


def write_card(folder: Path, config: IntervalConfig) -> None:
    """Write the settings of intervals into the card of the final network."""
    path = folder / "segmentation.json"
    content = typed.load_json(path)
    content["config"] = {**content.get("config", {}), "interval": asdict(config)}
    writing.write_json(content, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Calibrate and check from the command line; returns the exit status."""
    name = "python -m Training.studies.intervals"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--weights", type=Path, default=weights.BUNDLED)
    parser.add_argument("--calibrate", type=int, default=20, help="phantoms to calibrate on")
    parser.add_argument("--check", type=int, default=20, help="phantoms of other seeds to check on")
    parser.add_argument("--spacing", type=float, default=2.0, help="voxel edge in mm")
    parser.add_argument("--workers", type=int, default=2, help="phantoms at a time")
    parser.add_argument("--card", action="store_true", help="write into the card of the weights")
    options = parser.parse_args(arguments)
    first = _gather(FIRST_CALIBRATION_SEED, options.calibrate, options)
    config = calibrate(first)
    second = _gather(FIRST_CHECK_SEED, options.check, options)
    content = {
        "interval": asdict(config),
        "calibration": check(first, config),
        "check": check(second, config),
        "lobes": {"calibration": [asdict(x) for x in first], "check": [asdict(x) for x in second]},
    }
    writing.write_text(json.dumps(content, indent=1) + "\n", options.output)
    for part in ("interval", "calibration", "check"):
        sys.stdout.write(f"{part}: {json.dumps(content[part])}\n")
    if options.card:
        write_card(options.weights, config)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
