"""Erosion, dilation and distance on large masks, in a fraction of the time that scipy takes."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk


def dilate(mask: np.ndarray, steps: int = 1) -> np.ndarray:
    """Return ``mask`` grown by ``steps`` voxels along the axes.

    Args:
        mask: bool, (k, j, i).
        steps: How often each voxel's six neighbours are added.
    """
    for _ in range(steps):
        grown = mask.copy()
        for ahead, behind in _pairs(mask.ndim):
            grown[ahead] |= mask[behind]
            grown[behind] |= mask[ahead]
        mask = grown
    return mask


def erode(mask: np.ndarray, steps: int = 1) -> np.ndarray:
    """Return ``mask`` less ``steps`` voxels along the axes; beyond the array there is nothing."""
    for _ in range(steps):
        left = mask.copy()
        for axis, (ahead, behind) in enumerate(_pairs(mask.ndim)):
            left[ahead] &= mask[behind]
            left[behind] &= mask[ahead]
            ends = np.moveaxis(left, axis, 0)
            ends[0] = ends[-1] = False
        mask = left
    return mask


def distance_to(mask: np.ndarray) -> np.ndarray:
    """Return the distance in voxels to ``mask``, negative inside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    return sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, False, False, False))


def halved(values: np.ndarray) -> np.ndarray:
    """Return the means of blocks of 2 x 2 x 2 voxels as float32; odd ends are repeated."""
    even = np.pad(values, [(0, n % 2) for n in values.shape], mode="edge")
    total = np.zeros([n // 2 for n in even.shape], dtype=np.float32)
    for k in (0, 1):
        for j in (0, 1):
            for i in (0, 1):
                total += even[k::2, j::2, i::2]
    return total / np.float32(8.0)


def doubled(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo :func:`halved` for a mask: linear between the blocks, at least one half."""
    share = mask.astype(np.uint8)
    for axis in range(mask.ndim):
        share = np.moveaxis(share, axis, 0)
        fine = np.repeat(3 * share, 2, axis=0)
        fine[2::2] += share[:-1]
        fine[1:-1:2] += share[1:]
        fine[0] += share[0]
        fine[-1] += share[-1]
        share = np.moveaxis(fine[: shape[axis]], 0, axis)
    return share >= 32


def _pairs(ndim: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Return for each axis the two views of an array that are one voxel apart."""
    pairs = []
    for axis in range(ndim):
        ahead = tuple(slice(1, None) if a == axis else slice(None) for a in range(ndim))
        behind = tuple(slice(None, -1) if a == axis else slice(None) for a in range(ndim))
        pairs.append((ahead, behind))
    return pairs
