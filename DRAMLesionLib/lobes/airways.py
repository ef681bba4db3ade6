"""Trachea and large bronchi by isolation in the slices and a growth that is stopped at leaks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

LUMEN_HU = -850.0
WALL_HU = -600.0
MAX_AREA_MM2 = 900.0
MIN_AREA_MM2 = 12.0
MIN_SEED_ML = 0.3
MAX_AIRWAYS_ML = 150.0
LEAK_FACTOR = 2.0
"""A growth that at least doubles the tree from one threshold to the next has leaked."""

_IN_PLANE = np.zeros((3, 3, 3), dtype=bool)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def find_airways(hu: np.ndarray, air: np.ndarray, spacing: float) -> np.ndarray:
    """Return the lumen of trachea and large bronchi.

    A slab need not hold the trachea: seeds are all small, dark, round spaces near the middle that
    tissue encloses within their slice, as trachea and main bronchi are until they enter the lungs.

    Args:
        hu: HU, (k, j, i), LPS.
        air: Air inside the body.
        spacing: Edge of a voxel in mm.

    Returns:
        Boolean array; empty if there is no airway to be seen.
    """
    seeds = _enclosed_lumen(hu, air, spacing)
    if not seeds.any():
        return seeds
    return _grow(np.where(air, hu, 0.0), seeds, spacing)


def _enclosed_lumen(hu: np.ndarray, air: np.ndarray, spacing: float) -> np.ndarray:
    labels, count = ndimage.label(air & (hu < WALL_HU), structure=_IN_PLANE)
    if count == 0:
        return np.zeros(air.shape, dtype=bool)
    areas = np.bincount(labels.ravel(), minlength=count + 1) * spacing**2
    boxes = ndimage.find_objects(labels)
    lumen = hu < LUMEN_HU
    dark = np.bincount(labels[lumen], minlength=count + 1) > 0
    middle = _middle_by_slice(air)
    good = np.zeros(count + 1, dtype=bool)
    for c in np.flatnonzero((areas > MIN_AREA_MM2) & (areas < MAX_AREA_MM2) & dark):
        if c == 0:
            continue
        k, j, i = boxes[c - 1]
        extent = spacing**2 * (j.stop - j.start) * (i.stop - i.start)
        centre = (i.start + i.stop - 1) / 2.0
        good[c] = areas[c] > 0.45 * extent and abs(centre - middle[k.start]) * spacing < 45.0
    candidates = good[labels] & lumen
    return _chained(candidates, spacing)


def _middle_by_slice(air: np.ndarray) -> np.ndarray:
    """Return for each slice the column midway between the outermost air, smoothed along k."""
    occupied = np.asarray(air.any(axis=1))
    first = np.argmax(occupied, axis=1)
    last = occupied.shape[1] - 1 - np.argmax(occupied[:, ::-1], axis=1)
    has = occupied.any(axis=1)
    middle = np.where(has, (first + last) / 2.0, np.nan)
    everywhere = np.nanmedian(middle)
    return np.where(np.isnan(middle), everywhere, 0.5 * (middle + everywhere))


def _chained(candidates: np.ndarray, spacing: float) -> np.ndarray:
    """Keep the tree with the most volume, and other pieces that are part of the same column."""
    labels, count = ndimage.label(candidates, structure=np.ones((3, 3, 3)))
    if count == 0:
        return candidates
    volumes = np.bincount(labels.ravel(), minlength=count + 1) * spacing**3 / 1000.0
    volumes[0] = 0.0
    boxes = ndimage.find_objects(labels)
    heights = np.array([0] + [box[0].stop - box[0].start for box in boxes])
    tall = heights * spacing > min(12.0, 0.3 * candidates.shape[0] * spacing)
    good = np.flatnonzero((volumes > MIN_SEED_ML) & tall)
    if good.size == 0:
        return np.zeros_like(candidates)
    # gas in stomach and colon is also enclosed: it lies below, the tree above
    main = max(good, key=lambda c: volumes[c] + 0.1 * boxes[c - 1][0].stop * spacing)
    bottom = boxes[main - 1][0].start - round(40 / spacing)
    centres = {c: _centre(labels, int(c), boxes[c - 1]) for c in good}
    kept = [main]
    for c in good:
        near = np.abs(centres[c] - centres[main])[1:].max() * spacing < 45.0
        if c != main and boxes[c - 1][0].start >= bottom and near:
            kept.append(c)
    chosen = np.zeros(count + 1, dtype=bool)
    chosen[kept] = True
    return chosen[labels]


def _centre(labels: np.ndarray, label: int, box: tuple[slice, ...]) -> np.ndarray:
    """Return the centre (k, j, i) of what has ``label`` and lies in ``box``."""
    return np.argwhere(labels[box] == label).mean(axis=0) + [side.start for side in box]


def _grow(hu: np.ndarray, seeds: np.ndarray, spacing: float) -> np.ndarray:
    tree = seeds
    for threshold in (-960.0, -940.0, -920.0, -900.0):
        labels, count = ndimage.label((hu < threshold) | seeds)
        hit = np.zeros(count + 1, dtype=bool)
        hit[labels[seeds]] = True
        grown = hit[labels]
        volume = grown.sum() * spacing**3 / 1000.0
        if volume > MAX_AIRWAYS_ML or grown.sum() > LEAK_FACTOR * tree.sum():
            break
        tree = grown
    return ndimage.binary_closing(tree, iterations=1) | tree
