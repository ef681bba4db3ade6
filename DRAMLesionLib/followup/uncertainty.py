"""How far a measured volume may be off, so that noise is not taken for progress.

Four things change the volume of a lesion that has not changed:

* Its border lies somewhere within the voxels on it. Noise, the kernel and the place of the grid
  move it as a whole by a share of what can be told apart, which is the voxel of the CT and that of
  the network together. The volume is off by the area of the border times this.
* So it is in the other scan, with the voxels of that one: unlike slices count by themselves.
* Another breath presses the air in a lesion together, or spreads it. Consolidation has none, ground
  glass much: the volume follows that of the lung around it by the share of air.
* A small one may be found once and not the other time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

SHIFT = 0.15
"""Standard deviation of the shift of a border, as a share of what can be told apart."""

SEEN_ML = 0.3
"""A smaller lesion may be found in one CT and not in the other, though both hold it."""

NETWORK_MM = 1.5
"""Voxels that the segmentation network sees."""

COVERAGE = 1.96
"""Standard deviations on both sides of no change that hold 95 of 100 unchanged lesions."""

_ROUGHNESS = 2.0 / 3.0
"""Area of a surface over that of the voxel faces along it, mean over all directions."""


def border_ml(labels: np.ndarray, spacing: Sequence[float], count: int) -> np.ndarray:
    """Return by how many ml each label's volume is off, as one standard deviation.

    Args:
        labels: (k, j, i) whole numbers from 0 to ``count``.
        spacing: Voxel edges (x, y, z) in mm.
        count: Highest label.

    Returns:
        (count + 1,) float; what stands for 0 has no meaning.
    """
    edges = np.array(spacing[::-1], dtype=float)
    result = np.zeros(count + 1)
    for axis in range(3):
        faces = _faces(labels, axis, count)
        area = float(np.prod(edges) / edges[axis])
        shift = SHIFT * float(np.hypot(edges[axis], NETWORK_MM))
        result += faces * area * shift * _ROUGHNESS / 1000.0
    return result


def breath_ml(volume_ml: float, expansion: float, air: float) -> float:
    """Return by how much another breath may change a volume, in ml.

    Args:
        volume_ml: Of the lesion.
        expansion: Volume of the lung around it in the later scan over that in the earlier one.
        air: Share of air in the lesion, 0 to 1.
    """
    return abs(expansion - 1.0) * air * volume_ml


def of_change(earlier_sd: float, later_sd: float, breath: float = 0.0) -> float:
    """Return up to which difference in ml nothing need have changed.

    Args:
        earlier_sd: What :func:`border_ml` gives in the earlier scan.
        later_sd: The same in the later one.
        breath: What :func:`breath_ml` gives.
    """
    return COVERAGE * float(np.hypot(earlier_sd, later_sd)) + breath


def _faces(labels: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Return how many voxel faces across an axis lie on the border of each label."""
    moved = np.moveaxis(labels, axis, 0)
    faces = np.zeros(count + 1)
    for here, there in pairwise(moved):
        border = here != there
        faces += np.bincount(here[border], minlength=count + 1)
        faces += np.bincount(there[border], minlength=count + 1)
    # the edge of the image ends a lesion as well, but there it is known where
    return faces
