"""At which level the final network should decide, and what the rules after it are worth.

``python -m Training.studies.decision --output FILE.json`` asks the final network of some weights
once for each phantom, with the true lobes given, and decides at several levels: IoU and bias of the
lobes' fractions on phantoms with lesions, the share that is called lesion in healthy ones. The most
probable class (level 0) is decided once more without the rule that drops components.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib import weights, writing
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions import density, segmentation
from DRAMLesionLib.lesions.segmentation import SegmentationConfig
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.unet import UNet3D
from Training.learning.workers import in_workers
from Training.metrics import Confusion
from Training.studies.intervals import FIRST_CALIBRATION_SEED, Task, phantom_of

LEVELS = (0.0, 0.5, 0.4, 0.3)
WITHOUT_RULE = "no components dropped"


@dataclass(frozen=True)
class Found:
    """What one way to decide finds in a phantom.

    Attributes:
        iou: With the true lesions.
        errors: Found less true fraction of each lobe, in percent.
        small: Share of the true voxels of small lesions (below 1 ml) that was found, and how many
            there are.
        percent: Share of the lungs that was called lesion.
    """

    iou: float
    errors: tuple[float, ...]
    small: tuple[int, int]
    percent: float


def measure(task: Task) -> dict[str, Found]:
    """Return what each way to decide finds, by its name."""
    network, card = weights.load_network(task.folder, "segmentation")
    config = weights.settings(task.folder, card, SegmentationConfig, ("spacing",))
    phantom = phantom_of(task)
    lungs = sitk.Cast(phantom.lobes > 0, sitk.sitkUInt8)
    level = density.find_level(phantom.ct, lungs)
    ct = density.at_common_level(phantom.ct, level)
    grid = geometry.working_grid(ct, config.spacing)
    coarse_ct = geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True)
    coarse_lungs = geometry.resample(lungs, grid, "nearest")
    three = segmentation.segment(cast(UNet3D, network), coarse_ct, coarse_lungs, config)
    ways = {f"level {x:g}": replace(config, level=x) for x in LEVELS}
    ways[WITHOUT_RULE] = replace(config, level=0.0, least_ml=0.0, rim_share=1.0)
    truth, labels = geometry.array(phantom.lesions) > 0, geometry.array(phantom.lobes)
    voxel_ml = geometry.voxel_ml(phantom.ct)
    small = _small(phantom.lesions, voxel_ml)
    found = {}
    for name, way in ways.items():
        lesions = segmentation.decide(
            three, ct, lungs, coarse_ct, coarse_lungs, way, level.expiration
        )
        mask = geometry.array(lesions.mask) > 0
        inside = labels > 0
        found[name] = Found(
            iou=Confusion.of(mask, truth, inside | truth).iou,
            errors=tuple(
                100.0 * float(mask[labels == lobe].mean() - truth[labels == lobe].mean())
                for lobe in Lobe
            ),
            small=(int((mask & small).sum()), int(small.sum())),
            percent=100.0 * float(mask[inside].mean()),
        )
    return found


def _small(lesions: sitk.Image, voxel_ml: float) -> np.ndarray:
    components = sitk.ConnectedComponent(lesions > 0, True)
    labels = geometry.array(components)
    sizes = np.bincount(labels.ravel()) * voxel_ml
    sizes[0] = np.inf
    return sizes[labels] < 1.0


def summary(results: Sequence[tuple[Task, dict[str, Found]]]) -> dict[str, dict[str, float]]:
    """Return the figures of each way to decide."""
    content = {}
    for name in results[0][1]:
        ill = [found[name] for task, found in results if not task.healthy]
        healthy = [found[name].percent for task, found in results if task.healthy]
        errors = [error for one in ill for error in one.errors]
        some, all_small = (sum(one.small[n] for one in ill) for n in (0, 1))
        content[name] = {
            "iou": round(float(np.mean([one.iou for one in ill])), 4),
            "bias_points": round(float(np.mean(errors)), 3),
            "mean_absolute_error_points": round(float(np.mean(np.abs(errors))), 3),
            "below_1_ml_found": round(some / max(all_small, 1), 4),
            "healthy_percent": round(float(np.mean(healthy)), 4) if healthy else float("nan"),
        }
    return content


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure from the command line; returns the exit status."""
    name = "python -m Training.studies.decision"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--weights", type=Path, default=weights.BUNDLED)
    parser.add_argument("--count", type=int, default=6, help="phantoms; every fifth is healthy")
    parser.add_argument("--spacing", type=float, default=1.5, help="voxel edge in mm")
    parser.add_argument("--workers", type=int, default=2, help="phantoms at a time")
    options = parser.parse_args(arguments)
    tasks = [
        Task(FIRST_CALIBRATION_SEED + n, options.spacing, n % 5 == 4, options.weights)
        for n in range(options.count)
    ]
    work = in_workers(
        measure, tasks, options.workers, case=lambda task: str(task.seed), setting="--workers"
    )
    content = summary(list(work))
    writing.write_text(json.dumps(content, indent=1) + "\n", options.output)
    for way, figures in content.items():
        sys.stdout.write(f"{way}: {json.dumps(figures)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
