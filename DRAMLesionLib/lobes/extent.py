"""Extent of the whole lungs, also where the scan shows only a slab of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

LEFT, RIGHT = 1, 2
CUT_SHARE = 0.12
"""A lung whose first or last slice has more than this share of its largest section is cut."""
HEIGHT_OVER_WIDTH = 1.05
"""Height of the lungs over the width of both, at deep inspiration."""
CARINA_LEVEL = 0.69
"""Share of the way from the lungs' bottom to their top; also the pairs below."""
MEDIASTINUM_LEVELS = ((0.22, 0.25, 0.30, 0.35, 0.45, 0.60), (0.70, 0.60, 0.48, 0.42, 0.35, 0.25))
"""Level by the share of the chest's section that heart and mediastinum take."""
AIRWAY_LEVELS = ((0.0, 25.0, 50.0, 110.0, 200.0, 300.0), (0.30, 0.42, 0.47, 0.52, 0.60, 0.65))
"""Level by the area in mm² of the bronchi's lumen, below the carina."""
MIN_TRACHEA_MM2 = 90.0


@dataclass(frozen=True)
class Heights:
    """Where the lungs begin and end along the body.

    Attributes:
        bottom: For each side (1 left, 2 right) the index k of the lowest recess; may lie outside
            the scan.
        top: The same for the apex.
        cut: Whether the scan shows only a part of the lungs.
    """

    bottom: dict[int, float]
    top: dict[int, float]
    cut: bool


def whole_heights(lungs: np.ndarray, airways: np.ndarray, spacing: float) -> Heights:
    """Return the heights of the whole lungs.

    For lungs that the scan cuts they follow from the width of the chest and from landmarks: apex
    or recess, where one is seen, else the carina, the bronchi and the size of the heart.

    Args:
        lungs: uint8 (k, j, i), 1 left, 2 right.
        airways: Lumen of trachea and bronchi.
        spacing: Edge of a voxel in mm.

    Returns:
        The heights, in voxels.
    """
    sides = [side for side in (LEFT, RIGHT) if (lungs == side).any()]
    area = (lungs > 0).sum(axis=(1, 2))
    seen = np.flatnonzero(area)
    bottom_cut = seen[0] <= 1 and area[seen[0]] > CUT_SHARE * area.max()
    top_cut = seen[-1] >= len(area) - 2 and area[seen[-1]] > CUT_SHARE * area.max()
    ends = {side: _span(lungs == side, (1, 2)) for side in sides}
    bottom = {side: ends[side][0] for side in sides}
    top = {side: ends[side][1] for side in sides}
    height = HEIGHT_OVER_WIDTH * _width(lungs)
    if bottom_cut and top_cut:
        level, place = _level(lungs, airways, spacing)
        bottom = dict.fromkeys(sides, place - level * height)
        top = dict.fromkeys(sides, place + (1.0 - level) * height)
    elif bottom_cut:
        bottom = {side: min(bottom[side], top[side] - height) for side in sides}
    elif top_cut:
        top = {side: max(top[side], bottom[side] + height) for side in sides}
    return Heights(bottom, top, bool(bottom_cut or top_cut))


def _width(lungs: np.ndarray) -> float:
    """Return the width of both lungs in voxels; of one lung alone, twice its own."""
    low, high = _span(lungs > 0, (0, 1))
    single = len(np.unique(lungs)) < 3
    return (2.2 if single else 1.0) * (high - low + 1.0)


def _span(mask: np.ndarray, others: tuple[int, int]) -> tuple[float, float]:
    used = np.flatnonzero(mask.any(axis=others))
    return float(used[0]), float(used[-1])


def _level(lungs: np.ndarray, airways: np.ndarray, spacing: float) -> tuple[float, float]:
    """Return the level (0 bottom of the lungs, 1 top) of a slice and the index k of that slice."""
    lumens = np.array([ndimage.label(s, np.ones((3, 3)))[1] for s in airways])
    lumen_area = airways.sum(axis=(1, 2)) * spacing**2
    single = (lumens == 1) & (lumen_area > MIN_TRACHEA_MM2)
    below = (lumens >= 2) & (lumen_area > MIN_TRACHEA_MM2)
    middle = (len(lungs) - 1) / 2.0
    if single.any() and below.any() and np.flatnonzero(single)[-1] > np.flatnonzero(below)[0]:
        carina = (np.median(np.flatnonzero(single)) + np.median(np.flatnonzero(below))) / 2.0
        return CARINA_LEVEL, float(carina)
    if single.mean() > 0.5:
        return 0.8, middle
    section = float(np.median([_mediastinum(s) for s in lungs[:: max(1, len(lungs) // 8)]]))
    by_heart = float(np.interp(section, *MEDIASTINUM_LEVELS))
    by_airways = float(np.interp(np.median(lumen_area), *AIRWAY_LEVELS))
    return (by_heart + by_airways) / 2.0, middle


def _mediastinum(section: np.ndarray) -> float:
    """Return the share of the lungs' convex hull in one slice that is not lung."""
    lung = section > 0
    if not lung.any():
        return 1.0
    return 1.0 - lung.sum() / convex_hull_image(lung).sum()
