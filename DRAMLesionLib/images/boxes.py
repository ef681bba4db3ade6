"""Boxes around masks."""

from __future__ import annotations

import numpy as np

Slices = tuple[slice, slice, slice]
"""A box of voxels, (k, j, i)."""


def bounding_box(mask: np.ndarray, margin: int = 0) -> Slices:
    """Return the box around a mask, within its volume; empty slices where the mask is empty.

    Args:
        mask: (k, j, i) bool.
        margin: Voxels to add on every side.
    """
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if hit.size == 0:
            return slice(0, 0), slice(0, 0), slice(0, 0)
        first, last = int(hit[0]), int(hit[-1])
        box.append(slice(max(first - margin, 0), min(last + 1 + margin, mask.shape[axis])))
    return box[0], box[1], box[2]


def mirrored(index: np.ndarray, count: int) -> np.ndarray:
    """Return which voxel of an axis an index shows, among mirror images without end.

    Args:
        index: Any integers; -1 is the voxel beside the first one.
        count: Voxels of the axis.

    Returns:
        Same shape, 0 to ``count`` - 1.
    """
    period = max(2 * (count - 1), 1)
    folded = np.abs(index) % period
    return np.minimum(folded, period - folded)
