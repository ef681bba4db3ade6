"""How well lesions are counted and found where they are: MAE and GAME (paper 003, section 4.4)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from Training.learning.point_losses import find_blobs

LEVEL = 4
"""L of GAME: 4**L cells of a slice."""


def count_error(found: np.ndarray, truth: np.ndarray) -> int:
    """Return |count of found regions - count of true regions|; its mean over images is the MAE.

    Args:
        found: Mask of a slice or a volume.
        truth: Same shape.
    """
    return abs(find_blobs(found)[1] - find_blobs(truth)[1])


def game(found: np.ndarray, truth: np.ndarray, level: int = LEVEL) -> int:
    """Return the grid average mean absolute error of one image; its mean over images is GAME(L).

    The sum over the cells of |found - true|, each region counted in the cell of its centroid. The
    last two axes are parted into 2**L each, so a volume has columns for cells. The cells cover all
    of the image, whatever its size.

    Args:
        found: Mask of a slice or a volume.
        truth: Same shape.
        level: L; 0 is the count error.
    """
    edge = 2**level
    return int(np.abs(_counts(found, edge) - _counts(truth, edge)).sum())


def _counts(mask: np.ndarray, edge: int) -> np.ndarray:
    """Return how many regions of a mask have their centroid in each of edge x edge cells."""
    blobs, count = find_blobs(mask)
    cells = np.zeros((edge, edge), dtype=np.int64)
    centres = ndimage.center_of_mass(mask, blobs, range(1, count + 1))
    for *_, j, i in centres:
        # voxel n reaches from n to n + 1
        place = [
            min(edge - 1, int((x + 0.5) * edge / n))
            for x, n in zip((j, i), mask.shape[-2:], strict=True)
        ]
        cells[place[0], place[1]] += 1
    return cells
