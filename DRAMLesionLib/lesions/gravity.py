"""What gravity does to the back of a lung in expiration: dense, on both sides, and no lesion.

Where a patient lies, the lowest lung is pressed together by what lies on it, the more so the less
air it holds. It is as dense as ground glass; what tells it from ground glass is that both lungs
have it all along the wall, so that a network that sees a few centimetres cannot know.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DRAMLesionLib.errors import ScanWarning

REACH_MM = 30.0
"""How deep from the back of the lung such density goes at most."""

_PLATEAU_MM = 60.0
"""Up to here from ``REACH_MM`` on a lung is what it would be without gravity."""

_BIN_MM = 3.0
_MOST_HU = 250.0
_LEAST_HU = 40.0
_PERCENTILE = 60.0
_CONTRAST_HU = 150.0
"""A lesion is denser than what gravity explains by at least this."""

_HEIGHTS = 3
"""Parts of the lungs' height, each with layers of its own: more weighs on the lower ones."""

_EVERY = 2
_LEAST_TOLD_ML = 1.0
_LEAST_VOXELS = 100


def dependent_density(
    hu: np.ndarray, lungs: np.ndarray, lesion: np.ndarray, spacing: float, strength: float
) -> np.ndarray:
    """Return the voxels of lesion that are no denser than gravity makes the back of both lungs.

    Args:
        hu: HU, (k, j, i), j from the patient's front to the back, i from right to left.
        lungs: The lungs, bool.
        lesion: Where lesion was found in the lungs, bool.
        spacing: Voxel edge in mm.
        strength: How sure it is that the scan was taken in expiration, 0 to 1; 0 finds nothing.

    Returns:
        bool, a part of ``lesion``.
    """
    found = np.zeros(hu.shape, dtype=bool)
    if strength == 0.0 or not lesion.any():
        return found
    weight = ndimage.uniform_filter(lungs.astype(np.float32), 3)
    smooth = ndimage.uniform_filter(hu.astype(np.float32) * lungs, 3) / np.maximum(weight, 0.03)
    backs = hu.shape[1] - 1 - np.argmax(lungs[:, ::-1], axis=1)
    explained = _explained(smooth, lungs, backs, spacing, strength)
    k, j, i = np.nonzero(lesion)
    depth = (backs[k, i] - j) * spacing
    used = np.flatnonzero(lungs.any(axis=(1, 2)))
    height = (k - used[0]) * _HEIGHTS / (used[-1] + 1 - used[0]) - 0.5
    limit = ndimage.map_coordinates(
        explained, [height, depth / _BIN_MM - 0.5], order=1, mode="nearest"
    )
    within = (depth < REACH_MM) & (smooth[k, j, i] < limit)
    found[k[within], j[within], i[within]] = True
    return found


def dependent_warnings(volume_ml: float) -> list[ScanWarning]:
    """Say that so much of what the network called lesion is not counted; nothing below 1 ml."""
    if volume_ml < _LEAST_TOLD_ML:
        return []
    text = (
        f"About {volume_ml:.0f} ml at the back of both lungs look like ground glass and were not "
        "counted: in expiration gravity makes them dense. Lesions there may be missed; look at "
        "them, or repeat the CT in inspiration."
    )
    return [ScanWarning("dependent-density", text)]


def _explained(
    smooth: np.ndarray, lungs: np.ndarray, backs: np.ndarray, spacing: float, strength: float
) -> np.ndarray:
    """Return the HU below which nothing is a lesion, by height and by depth from the back.

    What the two sides of the chest do not share is not gravity's, so the less dense one counts.
    """
    sides = np.flatnonzero(lungs.any(axis=(0, 1)))
    middle = (sides[0] + sides[-1] + 1) // 2
    used = np.flatnonzero(lungs.any(axis=(1, 2)))
    rows = []
    for part in np.array_split(np.arange(used[0], used[-1] + 1), _HEIGHTS):
        slab = slice(part[0], part[-1] + 1, _EVERY)
        profiles = []
        for side in (slice(0, middle, _EVERY), slice(middle, None, _EVERY)):
            k, j, i = np.nonzero(lungs[slab, :, side])
            depth = (backs[slab, side][k, i] - j) * spacing
            profiles.append(_profile(smooth[slab, :, side][k, j, i], depth))
        plateaus = [plateau for plateau, _ in profiles]
        shared = np.min([excess for _, excess in profiles], axis=0).clip(0.0, _MOST_HU) * strength
        limit = max(plateaus) + shared + _CONTRAST_HU
        rows.append(np.where(shared >= _LEAST_HU, limit, -1024.0))
    return np.array(rows)


def _profile(values: np.ndarray, depth: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the HU deep inside one side, and by how much each layer at its back is denser."""
    starts = np.arange(0.0, REACH_MM, _BIN_MM)
    deep = values[(depth >= REACH_MM) & (depth < _PLATEAU_MM)]
    if len(deep) < _LEAST_VOXELS:
        return 0.0, np.zeros(len(starts))
    plateau = float(np.median(deep))
    excess = np.zeros(len(starts))
    for n, start in enumerate(starts):
        layer = values[(depth >= start) & (depth < start + _BIN_MM)]
        if len(layer) >= _LEAST_VOXELS:
            excess[n] = np.percentile(layer, _PERCENTILE) - plateau
    return plateau, excess
