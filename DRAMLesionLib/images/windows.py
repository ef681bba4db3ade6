"""The part of an axial slice that networks for slices see: the lungs of a scan, padded to fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SliceWindow:
    """A rectangle of an axial slice, in voxels; it may reach beyond the slice.

    Attributes:
        start: First row and column, (j, i); negative where it begins beyond the slice.
        size: Rows and columns, (j, i).
    """

    start: tuple[int, int]
    size: tuple[int, int]

    def cut(self, plane: np.ndarray) -> np.ndarray:
        """Return the window of (..., j, i) values; 0 beyond the slice."""
        result = np.zeros((*plane.shape[:-2], *self.size), dtype=plane.dtype)
        inner, outer = self._overlap(plane.shape)
        result[..., inner[0], inner[1]] = plane[..., outer[0], outer[1]]
        return result

    def paste(self, values: np.ndarray, plane: np.ndarray) -> None:
        """Write (..., j, i) values of the window into a slice; what lies beyond it is dropped."""
        inner, outer = self._overlap(plane.shape)
        plane[..., outer[0], outer[1]] = values[..., inner[0], inner[1]]

    def _overlap(self, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return rows and columns of the window that lie in the slice, and those of the slice."""
        inner, outer = [], []
        for start, size, length in zip(self.start, self.size, shape[-2:], strict=True):
            first, last = max(start, 0), max(min(start + size, length), max(start, 0))
            inner.append(slice(first - start, last - start))
            outer.append(slice(first, last))
        return (inner[0], inner[1]), (outer[0], outer[1])


def lung_window(lungs: np.ndarray, least: int, multiple: int) -> SliceWindow:
    """Return the window about the lungs of a scan, the same for all of its slices.

    Args:
        lungs: (k, j, i) bool, at least one voxel.
        least: Least edge in voxels.
        multiple: Edges are a multiple of this.
    """
    starts, sizes = [], []
    for axes in ((0, 2), (0, 1)):
        hit = np.flatnonzero(lungs.any(axis=axes))
        length = int(hit[-1] - hit[0] + 1)
        size = -(-max(length, least) // multiple) * multiple
        starts.append(int(hit[0]) - (size - length) // 2)
        sizes.append(size)
    return SliceWindow((starts[0], starts[1]), (sizes[0], sizes[1]))
