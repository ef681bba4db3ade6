"""Which of the air inside the body is lung, and which is gas in stomach, bowel or gullet.

Lung holds tissue everywhere: even where it is emphysematous its mean over a few millimetres stays
above that of gas. Gas lies low, is walled in by soft tissue, and forms a space of its own at 1.5 mm
but for thin walls, which a watershed on the density finds again.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images.geometry import AIR_HU
from DRAMLesionLib.lobes.morphology import dilate, distance_to, erode, halved

LUNG_MEDIAN_HU = (-965.0, -450.0)
"""Range of the median of the air-filled part of a lung; a space full of gas lies below."""
MIN_LUNG_ML = 8.0
ISLAND_REACH_MM = 25.0
GAS_HU = -925.0
"""No mean over 4.5 mm below it outside of emphysema and airways,"""
DARKER_THAN_LUNG = 60.0
"""nor so much darker than the lung's own median."""
GAS_SHARE = 0.005
LOW = 0.4
"""Gas of stomach and colon lies below this share of the lungs' height."""
ISLAND_SHARE = 0.25
"""What has this share of the larger lung's volume is a lung of its own."""
LEAK_ML = 2.0
WALLED_IN = 0.45
"""Share of the surroundings of a space that are soft tissue: gut has more, a bulla less."""
DENSE_HU = -300.0


def sort_air(
    hu: np.ndarray, smooth: np.ndarray, air: np.ndarray, airways: np.ndarray, spacing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Part the air inside the body into lung and gas.

    Args:
        hu: HU, (k, j, i), LPS.
        smooth: Its mean over 3 x 3 x 3 voxels.
        air: What is filled with air inside the body, without the airways.
        airways: Lumen of trachea and bronchi.
        spacing: Edge of a voxel in mm.

    Returns:
        Aerated lung, and gas outside the lungs; what is too small to be told is in neither.

    Raises:
        InputError: If nothing has the density of lung.
    """
    ml = spacing**3 / 1000.0
    components, count = ndimage.label(air)
    sizes = np.bincount(components.ravel(), minlength=count + 1) * ml
    sizes[0] = 0.0
    boxes = ndimage.find_objects(components)
    large = [int(c) for c in np.flatnonzero(sizes > 1.0)]
    core = erode(air, 2)
    medians = {c: _median(hu, components, core, c, boxes[c - 1]) for c in large}
    likely = [c for c in large if LUNG_MEDIAN_HU[0] < medians[c] < LUNG_MEDIAN_HU[1]]
    main = max(likely, key=lambda c: sizes[c], default=0)
    if sizes[main] < MIN_LUNG_ML:
        message = "No lung found: no space in the field of view has the density of lung."
        raise InputError(message)
    level = min(GAS_HU, medians[main] - DARKER_THAN_LUNG)
    height = boxes[main - 1][0]
    lowest = height.start + LOW * (height.stop - height.start)
    kept = []
    for c in likely:
        box = boxes[c - 1]
        gassy = np.mean(smooth[box][components[box] == c] < level) > GAS_SHARE
        low = (box[0].start + box[0].stop) / 2.0 < lowest
        alike = abs(medians[c] - medians[main]) < 250.0
        if c == main or (alike and not (gassy and low and sizes[c] < ISLAND_SHARE * sizes[main])):
            kept.append(c)
    chosen = np.zeros(count + 1, dtype=bool)
    chosen[[c for c in kept if sizes[c] > 0.1 * sizes[main]]] = True
    lungs = chosen[components]
    chosen[_islands(components, kept, boxes, lungs, spacing)] = True
    lungs = chosen[components]
    gas = np.zeros(count + 1, dtype=bool)
    gas[[c for c in large if not chosen[c]]] = True
    leaks = _leaks(hu, smooth, lungs, airways, level, spacing)
    return lungs & ~leaks, gas[components] | leaks


def _median(
    hu: np.ndarray, components: np.ndarray, core: np.ndarray, c: int, box: tuple[slice, ...]
) -> float:
    values = hu[box][core[box] & (components[box] == c)]
    return float(np.median(values)) if values.size else AIR_HU


def _islands(
    components: np.ndarray,
    kept: list[int],
    boxes: list[tuple[slice, ...]],
    lungs: np.ndarray,
    spacing: float,
) -> list[int]:
    """Return the components of ``kept`` that have lung close by and do not lie below it."""
    distance = distance_to(halved(lungs) >= 0.5)
    near = np.repeat(distance < ISLAND_REACH_MM / spacing / 2.0, 2, axis=0)
    near = near.repeat(2, axis=1).repeat(2, axis=2)[tuple(slice(n) for n in lungs.shape)]
    lowest = np.flatnonzero(lungs.any(axis=(1, 2)))[0]
    return [
        c
        for c in kept
        if boxes[c - 1][0].start >= lowest
        and near[boxes[c - 1]][components[boxes[c - 1]] == c].any()
    ]


def _leaks(
    hu: np.ndarray,
    smooth: np.ndarray,
    lungs: np.ndarray,
    airways: np.ndarray,
    level: float,
    spacing: float,
) -> np.ndarray:
    """Return gas of the gut that hangs together with the lung through a wall too thin to see."""
    leaks = np.zeros_like(lungs)
    used = np.flatnonzero(lungs.any(axis=(1, 2)))
    below = slice(0, int(used[0] + LOW * (used[-1] - used[0])))
    spaces, count = ndimage.label(lungs[below] & (smooth[below] < level))
    sizes = np.bincount(spaces.ravel(), minlength=count + 1) * spacing**3 / 1000.0
    sizes[0] = 0.0
    boxes = ndimage.find_objects(spaces)
    for c in np.flatnonzero(sizes > LEAK_ML):
        box = tuple(slice(max(side.start - 8, 0), side.stop + 8) for side in boxes[c - 1])
        gas = np.pad(spaces == c, ((0, len(lungs) - below.stop), (0, 0), (0, 0)))[box]
        near = dilate(gas, 3)
        around = dilate(near, 2) & ~near
        if (airways[box] & near).any() or np.mean(hu[box][around] > DENSE_HU) < WALLED_IN:
            continue
        markers = gas.astype(np.int8)
        markers[erode(lungs[box], 2) & (smooth[box] > level + DARKER_THAN_LUNG / 2.0) & ~near] = 2
        leaks[box] |= watershed(smooth[box], markers, mask=lungs[box]) == 1
    return leaks
