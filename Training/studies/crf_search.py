"""Parameters of the dense CRF, searched on development phantoms.

Every setting that is drawn gets the same maps: those that a trained regression network makes of the
lobes, at the level that their score says (as the target of the refinement is made), and truths
that are blurred and disturbed, on chunks of several sizes. It is ranked by the IoU of what comes
out. Settings with which a sure map of a ball of ground glass does not survive, or a vessel grows,
are out.

``python -m Training.studies.crf_search --output FILE.json``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from DRAMLesionLib import weights
from DRAMLesionLib.images import geometry, intensity
from DRAMLesionLib.lesions import chunks
from DRAMLesionLib.lesions.crf import CRFConfig, DenseCRF
from DRAMLesionLib.lesions.dram import DRAMConfig, refine, vessel_share
from DRAMLesionLib.lesions.levels import steepen
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.phantom.make import make_phantom
from DRAMLesionLib.writing import write_text

FIRST_DEVELOPMENT_SEED = 300_000
"""Neither evaluation nor any training has these phantoms."""

SIZES = (40, 48)
"""Edges of chunks: those of the networks that ship; the widths follow the edge."""

LUNG, GLASS, FAINT, VESSEL = intensity.window(torch.tensor([-860.0, -600.0, -675.0, 40.0])).tolist()
"""Windowed intensities."""

SURVIVES, GROWS = 0.7, 1.1
BEFORE = CRFConfig(3.0, 3.0, 5.0, 0.1, 10.0, 5, 0)
"""What was shipped before there was a search."""

_LOBE_MM = 190.0
"""Edge of a large lobe's box: the coarsest chunks, in which a ball has the fewest voxels."""

_WIDTHS = ((2.0, 3.0), (4.0, 5.0, 6.0), (0.03, 0.04, 0.05, 0.07))
"""Narrower kernels have as many vertices as voxels, and take five times as long."""

_WEIGHTS = ((0.25, 0.5, 1.0, 2.0), (1.0, 2.0, 3.0, 5.0))
"""Beside the log-odds of a sure map, 3."""


@dataclass(frozen=True)
class Lobe:
    """A map of a lobe, and what it should become.

    Attributes:
        kind: ``network`` or ``disturbed``.
        image: (1, 1, k, j, i) chunk in [0, 1].
        mask: Bool, the lobe.
        vessels: Share of vessel in each voxel.
        probability: The map.
        truth: Bool, the lesions.
    """

    kind: str
    image: Tensor
    mask: Tensor
    vessels: Tensor
    probability: Tensor
    truth: Tensor


def ball(size: int, diameter_mm: float, hu: float, sure: float = 0.95) -> tuple[Tensor, ...]:
    """Return a ball of one intensity in lung, and a map that is sure of it.

    Args:
        size: Edge of the chunk in voxels; the lobe's box has an edge of 190 mm.
        diameter_mm: Of the ball.
        hu: Windowed intensity of the ball.
        sure: The map in it; as little outside.

    Returns:
        Image and map, (1, 1, size, size, size), and bool, the ball.
    """
    generator = torch.Generator().manual_seed(size)
    edge = _LOBE_MM / size
    axis = (torch.arange(size) + 0.5 - size / 2) * edge
    k, j, i = torch.meshgrid(axis, axis, axis, indexing="ij")
    inside = (k**2 + j**2 + i**2 <= (diameter_mm / 2) ** 2)[None, None]
    noise = 0.015 * torch.randn(inside.shape, generator=generator)
    image = torch.where(inside, hu, LUNG) + noise
    return image, torch.where(inside, sure, 1.0 - sure), inside


def vessel(size: int) -> tuple[Tensor, ...]:
    """Return a vessel that leaves a lesion, and a map that is half sure of the vessel.

    Returns:
        Image and map as :func:`ball`, and bool, what may be lesion in the end.
    """
    image, probability, inside = ball(size, 50.0, GLASS)
    middle = size // 2
    image[0, 0, middle, middle, :] = VESSEL
    probability[0, 0, middle, middle, :] = 0.6
    allowed = inside.clone()
    allowed[0, 0, middle, middle, :] = True
    return image, probability, allowed


def survives(crf: DenseCRF, size: int, diameter_mm: float, hu: float) -> float:
    """Return which share of a ball is still lesion after the CRF."""
    image, probability, inside = ball(size, diameter_mm, hu)
    out = refine(probability, image, torch.ones_like(inside), None, crf)
    return float((out[inside] > 0.5).float().mean())


def grows(crf: DenseCRF, size: int) -> float:
    """Return how large a lesion with a vessel is after the CRF, relative to both together."""
    image, probability, allowed = vessel(size)
    out = refine(probability, image, torch.ones_like(allowed), None, crf)
    return float((out > 0.5).sum() / allowed.sum())


def settings(count: int, seed: int) -> Iterator[CRFConfig]:
    """Return settings to try: those of before, the default, ``count`` different ones, drawn."""
    yield BEFORE
    yield CRFConfig(reference_size=80)
    random = np.random.default_rng(seed)
    seen: set[tuple[float, ...]] = set()
    while len(seen) < count:
        drawn = tuple(float(random.choice(options)) for options in (*_WIDTHS, *_WEIGHTS))
        spatial, bilateral, hu, light, heavy = drawn
        if drawn not in seen and spatial <= bilateral:
            seen.add(drawn)
            yield CRFConfig(spatial, light, bilateral, hu, heavy, 5, 80)


def development_lobes(count: int, spacing: float, folder: Path) -> list[Lobe]:
    """Return lobes with lesions of development phantoms, with their maps.

    Args:
        count: Phantoms.
        spacing: Voxel edge of the phantoms in mm.
        folder: Weights of the regression network that makes maps.
    """
    network, card = weights.load_network(folder, "regression")
    config = weights.settings(folder, card, DRAMConfig)
    lobes: list[Lobe] = []
    for seed in range(FIRST_DEVELOPMENT_SEED, FIRST_DEVELOPMENT_SEED + count):
        phantom = make_phantom(seed, spacing)
        image = intensity.window(geometry.array(phantom.ct).astype(np.float32))
        labels = geometry.array(phantom.lobes)
        lesions, pipes = (geometry.array(m) > 0 for m in (phantom.lesions, phantom.vessels))
        for n, (lobe, box) in enumerate(chunks.lobe_boxes(labels).items()):
            if not 0.005 < phantom.fractions[lobe] < 0.9:
                continue
            size = SIZES[(seed + n) % len(SIZES)]
            for edge, kind in ((config.chunk.size, "network"), (size, "disturbed")):
                chunk = chunks.cut_chunk(image, labels, lobe, box, edge)
                truth = (vessel_share(lesions, box, edge) > 0.5) & chunk.mask
                if kind == "network":
                    found = _of_network(cast(RegressionNetwork, network), chunk, truth, config.gain)
                else:
                    found = disturbed(truth, seed + n)
                pipe = vessel_share(pipes & ~lesions, box, edge)
                lobes.append(Lobe(kind, chunk.image, chunk.mask, pipe, found * chunk.mask, truth))
    return lobes


@torch.no_grad()
def _of_network(
    network: RegressionNetwork, chunk: chunks.LobeChunk, truth: Tensor, gain: float
) -> Tensor:
    """Return what the network makes of a lobe, at the level of the true fraction."""
    attended = torch.sigmoid(network(chunk.image).attended)
    share = float(truth.sum() / chunk.mask.sum())
    return steepen(attended, chunk.mask, share, gain)


def disturbed(truth: Tensor, seed: int) -> Tensor:
    """Return a map that knows the truth roughly: edges moved by noise, few values near 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    soft = _blurred(truth.float())
    noise = _blurred(torch.randn(truth.shape, generator=generator))
    return torch.sigmoid(6.0 * (soft - 0.5) + 1.5 * noise / noise.std())


def _blurred(x: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool3d(x, 3, 1, 1, count_include_pad=False)


def measure(config: CRFConfig, lobes: Sequence[Lobe]) -> dict[str, Any]:
    """Return the figures of a setting, IoU only where it is fit.

    ``network`` and ``disturbed`` are the IoU of the refined maps, ``…_before`` of the maps.
    """
    crf = DenseCRF(config)
    balls = {
        f"{name}_{mm:g}mm": min(survives(crf, size, mm, hu) for size in SIZES)
        for name, hu in (("glass", GLASS), ("faint", FAINT))
        for mm in (10.0, 20.0)
    }
    growth = max(grows(crf, size) for size in SIZES)
    row: dict[str, Any] = {
        "config": asdict(config),
        "balls": {name: round(share, 3) for name, share in balls.items()},
        "vessel": round(growth, 3),
        "fit": min(balls.values()) >= SURVIVES and growth <= GROWS,
        "score": 0.0,
    }
    if not row["fit"] and config != BEFORE:
        return row
    found: dict[str, list[float]] = {}
    for lobe in lobes:
        out = refine(lobe.probability, lobe.image, lobe.mask, lobe.vessels, crf)
        found.setdefault(lobe.kind, []).append(_iou(out, lobe.truth))
        found.setdefault(f"{lobe.kind}_before", []).append(
            _iou(lobe.probability * (1.0 - lobe.vessels), lobe.truth)
        )
    means = {kind: float(np.mean(values)) for kind, values in found.items()}
    row["iou"] = {kind: round(mean, 4) for kind, mean in means.items()}
    row["score"] = round(float(np.mean([means["network"], means["disturbed"]])), 4)
    return row


def _iou(probability: Tensor, truth: Tensor) -> float:
    found = probability > 0.5
    return float((found & truth).sum() / (found | truth).sum().clamp_min(1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Search from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m Training.studies.crf_search", description=__doc__
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--phantoms", type=int, default=6)
    parser.add_argument("--spacing", type=float, default=2.0, help="voxel edge in mm")
    parser.add_argument("--settings", type=int, default=80, help="settings to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--weights", type=Path, default=weights.BUNDLED)
    options = parser.parse_args(arguments)
    lobes = development_lobes(options.phantoms, options.spacing, options.weights)
    tried = []
    for config in settings(options.settings, options.seed):
        tried.append(measure(config, lobes))
        tried.sort(key=lambda row: (row["fit"], row["score"]), reverse=True)
        write_text(
            json.dumps({"lobes": len(lobes), "tried": tried}, indent=1) + "\n", options.output
        )
    for row in tried[:5]:
        sys.stdout.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
