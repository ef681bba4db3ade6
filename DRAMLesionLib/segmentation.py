"""The final segmentation network over a whole scan (paper, section III-A 5)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from DRAMLesionLib import geometry, intensity
from DRAMLesionLib.networks.unet import STRIDE, VALID_EXACT_SHRINK, UNet3D
from DRAMLesionLib.networks.whole import fused, run_whole

Progress = Callable[[float], None]
Slices = tuple[slice, slice, slice]

BACKGROUND, VESSEL, LESION = 0, 1, 2
CLASSES = 3
"""Channels of the segmentation network and of the pseudo-labels it learns from."""

_HALO = VALID_EXACT_SHRINK // 2


@dataclass(frozen=True)
class SegmentationConfig:
    """Settings of the final segmentation.

    Attributes:
        spacing: Isotropic voxel size in mm.
        tile: Largest edge of a tile's output in voxels, above what most lungs need. Tiles fit
            each other exactly, so this decides about speed and memory and not about the result.
        slab: Thickness in voxels of what is worked on at a time within a tile; the same holds.
    """

    spacing: float = 1.5
    tile: int = 320
    slab: int = 16


@torch.no_grad()
def segment(
    network: UNet3D,
    ct: sitk.Image,
    lungs: sitk.Image,
    config: SegmentationConfig,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Compute the class probabilities of a scan.

    Args:
        network: Valid-padding U-Net with three classes, in evaluation mode, on ``device``.
        ct: HU on a working grid of ``config.spacing``.
        lungs: Mask on the same grid; tiles that do not touch it are skipped.
        config: Settings.
        device: Where the network is.
        progress: Called with the share done, 0 to 1.

    Returns:
        (3, k, j, i) float32 softmax probabilities of background, vessel and lesion; outside the
        bounding box of the lungs, and in tiles without lung, all of it is background.
    """
    device = device or torch.device("cpu")
    inside = geometry.array(lungs) > 0
    image = intensity.window(geometry.array(ct))
    probabilities = np.zeros((CLASSES, *inside.shape), dtype=np.float32)
    probabilities[BACKGROUND] = 1.0
    todo = [tile for tile in tiles(inside, config.tile) if inside[tile].any()]
    quick = fused(network)
    for number, tile in enumerate(todo):
        patch = torch.from_numpy(_cut_with_halo(image, tile))[None, None].to(device)
        whole = probabilities[(slice(None), *tile)]

        def take(first: int, logits: torch.Tensor, whole: np.ndarray = whole) -> None:
            # a tile may reach beyond the volume
            part = whole[:, first : first + logits.shape[2]]
            softmax = torch.softmax(logits[0].float(), dim=0).cpu().numpy()
            part[...] = softmax[(slice(None), *(slice(0, n) for n in part.shape[1:]))]

        def tell(share: float, number: int = number) -> None:
            if progress is not None:
                progress((number + share) / len(todo))

        run_whole(quick, patch, take, config.slab, tell)
    return probabilities


def lesion_margin(probabilities: np.ndarray) -> np.ndarray:
    """Return by how much lesion is the most probable class, (k, j, i) in [-1, 1].

    A voxel is lesion where this is positive. The margin, unlike the label, can be brought to
    another grid by linear interpolation.

    Args:
        probabilities: (3, k, j, i) from :func:`segment`.
    """
    return probabilities[LESION] - np.maximum(probabilities[BACKGROUND], probabilities[VESSEL])


def tiles(inside: np.ndarray, largest: int) -> Iterator[Slices]:
    """Yield output tiles that cover the bounding box of a mask without overlap.

    Args:
        inside: (k, j, i) mask.
        largest: Largest edge of a tile.

    Yields:
        Slices whose starts and lengths are multiples of 8, so that the pooling lattice is the
        same in each; the last ones may reach beyond the volume.
    """
    ranges = []
    for axis in range(3):
        hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if hit.size == 0:
            return
        start = int(hit[0]) // STRIDE * STRIDE
        extent = int(hit[-1]) + 1 - start
        count = -(-extent // max(largest // STRIDE * STRIDE, STRIDE))
        edge = -(-extent // (count * STRIDE)) * STRIDE
        ranges.append([slice(start + n * edge, start + (n + 1) * edge) for n in range(count)])
    yield from itertools.product(*ranges)


def _cut_with_halo(image: np.ndarray, tile: Slices) -> np.ndarray:
    """Cut a tile with what the network sees around it; beyond the volume there is air."""
    air = float(intensity.window(np.array(geometry.AIR_HU)))
    patch = np.full([t.stop - t.start + 2 * _HALO for t in tile], air, dtype=np.float32)
    source, target = [], []
    for t, n in zip(tile, image.shape, strict=True):
        start, stop = max(t.start - _HALO, 0), min(t.stop + _HALO, n)
        source.append(slice(start, stop))
        target.append(slice(start - t.start + _HALO, stop - t.start + _HALO))
    patch[tuple(target)] = image[tuple(source)]
    return patch
