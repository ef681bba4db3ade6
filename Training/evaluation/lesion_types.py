"""How well lesion types are told where the lesions themselves are known.

    python -m Training.evaluation.lesion_types --output types.json --count 20

Phantoms of seeds that the shipped table has not seen; their true masks are typed, with the vessels
of the phantom left out of the surroundings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from DRAMLesionLib.lesions.types import LesionType, classify_lesions
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.writing import write_text
from Training.evaluation.measure import FIRST_TEST_SEED
from Training.learning.results import plain
from Training.learning.workers import in_workers
from Training.metrics import Confusion


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Training.evaluation.lesion_types")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--count", type=int, default=20, help="seeds (default 20)")
    parser.add_argument("--first-seed", type=int, default=FIRST_TEST_SEED)
    parser.add_argument("--spacing", type=float, default=1.5, help="voxel edge in mm")
    parser.add_argument("--workers", type=int, default=2, help="phantoms at a time")
    options = parser.parse_args(arguments)
    seeds = range(options.first_seed, options.first_seed + options.count)
    work = partial(measure, spacing=options.spacing)
    found = [
        one
        for _, one in in_workers(
            work, seeds, options.workers, case="phantom {}".format, setting="--workers"
        )
    ]
    content = summarise(found)
    write_text(json.dumps(plain(content), indent=1) + "\n", options.output)
    for name, value in content.items():
        sys.stdout.write(f"{name:24s} {value:.3f}\n")
    return 0


def measure(seed: int, spacing: float) -> dict[LesionType, Confusion]:
    """Type the true lesions of a phantom; returns the confusion of each type within them."""
    phantom = make_phantom(seed, spacing)
    truth = sitk.GetArrayFromImage(phantom.lesions)
    typed = classify_lesions(phantom.ct, phantom.lesions, vessels=phantom.vessels)
    found = sitk.GetArrayFromImage(typed)
    inside = truth > 0
    return {kind: Confusion.of(found == kind, truth == kind, inside) for kind in LesionType}


def summarise(found: Sequence[dict[LesionType, Confusion]]) -> dict[str, float]:
    """Return the IoU of each type over all voxels of all scans, and the share of voxels right."""
    totals = {kind: sum((one[kind] for one in found), start=Confusion()) for kind in LesionType}
    figures = {
        f"iou_{kind.name.lower()}": _ratio(total.tp, total.tp + total.fp + total.fn)
        for kind, total in totals.items()
    }
    lesion = sum(total.tp + total.fn for total in totals.values())
    figures["voxels_right"] = _ratio(sum(total.tp for total in totals.values()), lesion)
    return figures


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


if __name__ == "__main__":
    sys.exit(main())
