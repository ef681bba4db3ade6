"""Lobe chunks: one lobe cut out, all else dark, resized to a cube (paper, section III-A 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from DRAMLesionLib.images.boxes import Slices, bounding_box
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.typed import Between

Scale = Annotated[float, Between(0.1, 10)]
"""A chunk size, relative to ``ChunkConfig.size``."""


@dataclass(frozen=True)
class ChunkConfig:
    """How lobes become network input.

    Attributes:
        spacing: Isotropic voxel size in mm of the grid that the lobes are cut from.
        size: Edge of the cube in voxels, a multiple of 8.
    """

    spacing: Annotated[float, Between(0.1, 20)] = 1.2
    size: Annotated[int, Between(8, 512, step=8)] = 80


@dataclass(frozen=True)
class LobeChunk:
    """One lobe as network input.

    Attributes:
        lobe: Which lobe.
        box: Bounding box of the lobe in the volume, slices over (k, j, i).
        image: (1, 1, size, size, size) float32 in [0, 1]; 0 outside the lobe.
        mask: (1, 1, size, size, size) bool, true inside the lobe.
    """

    lobe: Lobe
    box: Slices
    image: Tensor
    mask: Tensor


def lobe_boxes(lobes: np.ndarray) -> dict[Lobe, Slices]:
    """Return the bounding box of each lobe that is present.

    Args:
        lobes: (k, j, i) label array with the values of :class:`Lobe`.
    """
    boxes = {lobe: bounding_box(lobes == lobe) for lobe in Lobe}
    return {lobe: box for lobe, box in boxes.items() if box[0].stop}


def cut_chunk(
    image: np.ndarray | Tensor, lobes: np.ndarray, lobe: Lobe, box: Slices, size: int
) -> LobeChunk:
    """Cut one lobe out of a windowed volume.

    Args:
        image: (k, j, i) values in [0, 1], see :func:`DRAMLesionLib.images.intensity.window`.
        lobes: (k, j, i) lobe labels on the same grid.
        lobe: The lobe to cut.
        box: Its bounding box, from :func:`lobe_boxes`.
        size: Edge of the chunk in voxels.
    """
    inside = torch.from_numpy(np.ascontiguousarray(lobes[box] == lobe)).float()[None, None]
    values = torch.as_tensor(image[box], dtype=torch.float32)[None, None]
    share = resize(inside, (size,) * 3)
    mask = share > 0.5
    # divided by the lobe's share of the voxel: the dark outside must not bleed into the lobe
    image_chunk = resize(values * inside, (size,) * 3) / share.clamp_min(0.5) * mask
    return LobeChunk(lobe, box, image_chunk, mask)


def paste_chunk(values: Tensor, chunk_box: Slices, inside: np.ndarray, target: np.ndarray) -> None:
    """Write a chunk's map back to the volume it came from, in place.

    Args:
        values: (1, 1, size, size, size) map of a chunk.
        chunk_box: The chunk's box.
        inside: (k, j, i) bool of the box's extent: which voxels belong to the lobe.
        target: (k, j, i) float32 volume.
    """
    extent = (inside.shape[0], inside.shape[1], inside.shape[2])
    resized = resize(values.float(), extent)[0, 0].cpu().numpy()
    target[chunk_box][inside] = resized[inside]


def resize(x: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Resize the last three axes with a triangle filter that widens when the grid gets coarser.

    Equals trilinear interpolation with ``align_corners=False`` where the size grows, and averages
    instead of skipping voxels where it shrinks. Voxel edges stay where they are, so a map that is
    resized back is not shifted. Differentiable.

    Args:
        x: (batch, channels, k, j, i).
        size: New (k, j, i).
    """
    for axis, new in zip((2, 3, 4), size, strict=True):
        old = x.shape[axis]
        if new == old:
            continue
        weights = _triangle_weights(old, new, x.device, x.dtype)
        x = torch.tensordot(x, weights, dims=([axis], [1])).movedim(-1, axis)
    return x


def _triangle_weights(old: int, new: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the (new, old) matrix of a one-dimensional resize; rows add up to 1."""
    ratio = old / new
    width = max(ratio, 1.0)
    centres = (torch.arange(new, device=device, dtype=torch.float64) + 0.5) * ratio - 0.5
    # beyond the last voxel centre the edge value is repeated
    centres = centres.clamp(0.0, old - 1.0)
    positions = torch.arange(old, device=device, dtype=torch.float64)
    weights = (1.0 - (positions[None] - centres[:, None]).abs() / width).clamp_min(0.0)
    return (weights / weights.sum(dim=1, keepdim=True)).to(dtype)
