"""How sure a lobe's lesion percentage is: an interval from the final network's own probabilities.

A voxel of which the network is half sure may be lesion or not. What it is surest of is the lower
end of a lobe's fraction, and what it cannot rule out around that the upper one. How sure is sure
enough, and a margin for what the network does not know of, are found on phantoms whose truth is
known (``python -m Training.studies.intervals``), so that nine intervals in ten hold the truth. They
stand in the card of the weights they were found for. The cost is a count of voxels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy import ndimage

from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.typed import Between

Share = Annotated[float, Between(0, 1)]

REACH_VOXELS = 3
"""So far from what was found, what the network cannot rule out counts for the upper end."""


@dataclass(frozen=True)
class IntervalConfig:
    """How intervals are made.

    Attributes:
        sure: The lower end counts what was found with a probability above this.
        possible: The upper end counts, near what was found, a probability above this.
        margin_low: Added below the lower end, in units of ``asin(sqrt(fraction))``, in which the
            scatter of a fraction is the same wherever it lies.
        margin_high: Added above the upper end, likewise.
        coverage: Share of the intervals that hold the truth.
        lobes: How many lobes it was found on.
    """

    sure: Share
    possible: Share
    margin_low: Annotated[float, Between(0, 2)]
    margin_high: Annotated[float, Between(0, 2)]
    coverage: Share = 0.9
    lobes: Annotated[int, Between(0)] = 0


def ends(
    found: np.ndarray, share: np.ndarray, lobes: np.ndarray, sure: float, possible: float
) -> dict[Lobe, tuple[float, float]]:
    """Return the fraction of each lobe that is surely, and possibly, lesion.

    Args:
        found: (k, j, i) bool, what was called lesion.
        share: (k, j, i) probability of lesion.
        lobes: (k, j, i) labels of :class:`Lobe`.
        sure: See :class:`IntervalConfig`.
        possible: See :class:`IntervalConfig`.
    """
    near = ndimage.maximum_filter(found.view(np.uint8), 2 * REACH_VOXELS + 1) > 0
    inner = found & (share > sure)
    outer = found | (near & (share > possible))
    total, least, most = (
        np.bincount(lobes[mask].ravel(), minlength=len(Lobe) + 1)
        for mask in (lobes > 0, inner, outer)
    )
    return {
        lobe: (float(least[lobe] / total[lobe]), float(most[lobe] / total[lobe]))
        for lobe in Lobe
        if total[lobe]
    }


def widened(low: float, high: float, config: IntervalConfig) -> tuple[float, float]:
    """Return an interval of fractions with the margins that make it hold as often as it should."""
    return (
        _back(_stretched(low) - config.margin_low),
        _back(_stretched(high) + config.margin_high),
    )


def intervals(
    found: np.ndarray, share: np.ndarray, lobes: np.ndarray, config: IntervalConfig
) -> dict[Lobe, tuple[float, float]]:
    """Return the interval of each lobe's lesion fraction; arguments as for :func:`ends`."""
    both = ends(found, share, lobes, config.sure, config.possible)
    return {lobe: widened(low, high, config) for lobe, (low, high) in both.items()}


def _stretched(fraction: float) -> float:
    return math.asin(math.sqrt(min(max(fraction, 0.0), 1.0)))


def _back(value: float) -> float:
    return math.sin(min(max(value, 0.0), math.pi / 2)) ** 2
