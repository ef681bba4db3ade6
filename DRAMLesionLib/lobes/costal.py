"""Closing of the lungs' surface: what is dense but belongs to a lung is kept in it.

Three steps, each for a kind of opacity that a threshold leaves out:

* vessels, nodules and small consolidation: a closing with a ball;
* consolidation within the lung: dense voxels with aerated lung above and below, before and behind,
  and to both sides; heart, hilum and the dome of the diaphragm lack one of these;
* consolidation or fluid at the chest wall: the outline of the lung, seen from its axis as a radius
  over angle and height, is closed over dents, and filled out to ribs and extrapleural fat. Along
  the ribs the outline of the other lung, mirrored, tells how far it would reach.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

from DRAMLesionLib.lobes.morphology import dilate, distance_to, erode

LEFT, RIGHT = 1, 2
CLOSING_MM = 7.0
CHORD_MM = 70.0
AERATED_HU = -400.0
DENSE_HU = -250.0
HILUM_MM = 25.0
"""No vessel is thick and close to the mediastinum further from the bronchi."""
FAT_HU = (-130.0, -40.0)
BONE_HU = 200.0
ANGLES = 120
NARROW = (24.0, 21.0)
WIDE = (90.0, 75.0)
"""Height in mm and angle in degrees of a dent that is closed, where the heart or the mediastinum
may be the reason for it, and along the ribs where only lung can be."""
RIBS = {LEFT: (-20.0, 120.0), RIGHT: (-60.0, 125.0)}
"""Angles that face the ribs alone: 0 lateral, 90 posterior."""
BESIDE_SPINE = 100.0
"""Beyond this angle the two sides differ too much, by heart, aorta and a bend of the spine."""
MIRRORED = 0.95
"""What the mirrored outline of the other lung counts for: no two sides are quite alike."""
DENT_MM = 7.0
CONTACT = 0.02
SMOOTH_BELOW_MM = 2.5
"""Larger voxels hold little noise."""
BULGE = 1.1
CORE = 0.6
"""Where a ray meets no lung at all, only what lies further out than this share is filled in."""
WALL_FROM = 0.75
"""Ribs are sought from the lung outwards; where there is none, beyond this share of the closed
outline,"""
FAT_FROM = 0.9
"""and fat beyond this: ground glass in consolidation may be as dense."""
SPINE_MM = 30.0
"""Half the width of the strip in the middle that holds the spine."""
RIB_GAP_MM = 36.0
BELOW_MM = 60.0


def close_lungs(
    hu: np.ndarray,
    sides: np.ndarray,
    airways: np.ndarray,
    spacing: float,
    *,
    without_hila: bool = True,
) -> np.ndarray:
    """Return ``sides`` with vessels, nodules and consolidation filled in.

    Args:
        hu: HU, (k, j, i), LPS.
        sides: uint8, 1 in the aerated left, 2 in the aerated right lung.
        airways: Lumen of the large airways, left out of the result.
        spacing: Edge of a voxel in mm.
        without_hila: Whether thick vessels and tissue around the bronchi stay out.

    Returns:
        uint8 labels of the whole lungs.
    """
    whole = {}
    for side in (LEFT, RIGHT):
        own = sides == side
        if own.any():
            closed = _close(own, CLOSING_MM / spacing) & (sides != 3 - side)
            whole[side] = closed | _between(own, hu, spacing)
    axes = _axes(whole)
    hila = np.zeros_like(airways)
    if without_hila:
        hila = _hila(hu, np.any([*whole.values()], axis=0), airways, spacing)
    smooth = ndimage.uniform_filter(hu, 3) if spacing < SMOOTH_BELOW_MM else hu
    bone = (smooth > BONE_HU) & ~_between_lungs(whole, spacing)
    inner = bone & ~_inside_thorax(whole, spacing)
    outlines = {side: Outline(m, side, axes[side], spacing) for side, m in whole.items()}
    result = np.zeros_like(sides)
    for side, mask in whole.items():
        dents = outlines[side].dents(smooth, bone, inner, outlines.get(3 - side))
        dents = _clinging(dents & (sides == 0), mask)
        filled = _closing(mask | dents, _steps(3.0, spacing)) | mask
        # what lung encloses on all sides; the dome of the liver is enclosed in slices only
        filled = ndimage.binary_fill_holes(filled) & (sides != 3 - side)
        result[filled & (result == 0) & ~airways & ~hila] = side
    keep = sides > 0
    result[keep] = sides[keep]
    return result


def _close(mask: np.ndarray, radius: float) -> np.ndarray:
    """Close ``mask`` with a ball; the first and last slice go on beyond the scan."""
    pad = int(np.ceil(radius)) + 1
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    part = np.pad(mask[box], ((pad, pad), (pad, pad), (pad, pad)))
    if box[0].start == 0:
        part[:pad] = part[pad]
    if box[0].stop == mask.shape[0]:
        part[-pad:] = part[-pad - 1]
    closed = -distance_to(distance_to(part) <= radius) > radius
    result = mask.copy()
    result[box] |= closed[pad:-pad, pad:-pad, pad:-pad]
    return result


def _steps(mm: float, spacing: float) -> int:
    return max(1, round(mm / spacing))


def _closing(mask: np.ndarray, steps: int) -> np.ndarray:
    """Close ``mask`` as if the first and last slice went on beyond the scan."""
    padded = np.pad(mask, ((steps, steps), (0, 0), (0, 0)), mode="edge")
    return erode(dilate(padded, steps), steps)[steps:-steps]


def _opening(mask: np.ndarray, steps: int) -> np.ndarray:
    """Open ``mask`` as if the first and last slice went on beyond the scan."""
    padded = np.pad(mask, ((steps, steps), (0, 0), (0, 0)), mode="edge")
    return dilate(erode(padded, steps), steps)[steps:-steps]


def _clinging(parts: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Keep those components of ``parts`` that share enough of their surface with ``mask``.

    Pieces of liver, spleen and heart that the rays cut out hang on the lung by an edge at most.
    """
    parts = parts & ~mask
    labels, count = ndimage.label(parts)
    shell = ndimage.grey_dilation(labels, footprint=ndimage.generate_binary_structure(3, 1))
    shell[parts] = 0
    around = np.bincount(shell.ravel(), minlength=count + 1)
    touching = np.bincount(shell[mask], minlength=count + 1)
    keep = touching > CONTACT * around
    keep[0] = False
    return keep[labels]


def _between(mask: np.ndarray, hu: np.ndarray, spacing: float) -> np.ndarray:
    """Return dense voxels with ``mask`` not far away along each axis in both directions."""
    result = (hu > AERATED_HU) & ~mask
    for axis in range(3):
        result &= _chord(mask, axis) <= CHORD_MM / spacing
    share = ndimage.uniform_filter((result | mask).astype(np.float32), 2 * round(4.5 / spacing) + 1)
    return _opening(result & (share > 0.5), _steps(1.5, spacing))


def _chord(mask: np.ndarray, axis: int) -> np.ndarray:
    """Return the length of the gap in ``mask`` along ``axis`` at each voxel; large at the ends."""
    n = mask.shape[axis]
    index = np.arange(n, dtype=np.int32).reshape([-1 if a == axis else 1 for a in range(3)])
    before = np.maximum.accumulate(np.where(mask, index, -9999), axis=axis)
    after = np.flip(
        np.minimum.accumulate(np.flip(np.where(mask, index, 9999), axis), axis=axis), axis
    )
    return after - before


def _hila(hu: np.ndarray, lungs: np.ndarray, airways: np.ndarray, spacing: float) -> np.ndarray:
    """Return the thick vessels and the tissue around the bronchi that hang on the mediastinum."""
    if not airways.any():
        return np.zeros_like(airways)
    dense = (hu > DENSE_HU) & (distance_to(airways) < HILUM_MM / spacing)
    thick, count = ndimage.label(_opening(dense, _steps(3.0, spacing)))
    rooted = np.zeros(count + 1, dtype=bool)
    rooted[thick[~lungs]] = True
    rooted[0] = False
    return rooted[thick]


def _axes(whole: dict[int, np.ndarray]) -> dict[int, tuple[float, float]]:
    """Return (j, i) of the axis of each lung: both mirror each other about the middle.

    So the axis is in the middle of the lung, too, where half of it is opaque.
    """
    footprints = {side: mask.any(axis=0) for side, mask in whole.items()}
    rows = {side: np.nonzero(f)[0].mean() for side, f in footprints.items()}
    columns = {side: np.nonzero(f)[1].mean() for side, f in footprints.items()}
    if len(whole) < 2:
        return {side: (float(rows[side]), float(columns[side])) for side in whole}
    used = np.flatnonzero((footprints[LEFT] | footprints[RIGHT]).any(axis=0))
    middle = (used[0] + used[-1]) / 2.0
    areas = {side: f.sum() for side, f in footprints.items()}
    # the larger lung is the one to trust
    ratio = areas[LEFT] / (areas[LEFT] + areas[RIGHT])
    weight = float(np.clip(2.0 * ratio - 0.5, 0.0, 1.0))
    row = float(weight * rows[LEFT] + (1.0 - weight) * rows[RIGHT])
    aside = weight * (columns[LEFT] - middle) + (1.0 - weight) * (middle - columns[RIGHT])
    return {LEFT: (row, float(middle + aside)), RIGHT: (row, float(middle - aside))}


def _between_lungs(whole: dict[int, np.ndarray], spacing: float) -> np.ndarray:
    """Return where dense voxels are contrast in heart and vessels: in the hull of both lungs.

    The spine bulges into that region and is left out.
    """
    lungs = np.any(list(whole.values()), axis=0)
    return _hulls(lungs, 6.0 / spacing) & _beside_spine(lungs, spacing)


def _inside_thorax(whole: dict[int, np.ndarray], spacing: float) -> np.ndarray:
    """Return the same, seen from the middle: a side full of consolidation has its share, too."""
    lungs = np.any(list(whole.values()), axis=0)
    used = np.flatnonzero(lungs.any(axis=(0, 1)))
    columns = used[0] + used[-1] - np.arange(lungs.shape[2])
    mirrored = lungs[:, :, np.clip(columns, 0, lungs.shape[2] - 1)]
    return _hulls(lungs | mirrored, 15.0 / spacing) & _beside_spine(lungs, spacing)


def _beside_spine(lungs: np.ndarray, spacing: float) -> np.ndarray:
    used = np.flatnonzero(lungs.any(axis=(0, 1)))
    columns = np.arange(lungs.shape[2])
    return np.abs(2 * columns - used[0] - used[-1]) * spacing > 2.0 * SPINE_MM


def _hulls(mask: np.ndarray, margin: float) -> np.ndarray:
    """Return the convex hull of each slice of ``mask``, less a margin in voxels."""
    coarse = mask[:, ::2, ::2]
    hulls = np.zeros_like(coarse)
    for k in np.flatnonzero(coarse.any(axis=(1, 2))):
        hulls[k] = convex_hull_image(coarse[k])
    in_plane = ndimage.generate_binary_structure(2, 1)[None]
    hulls = ndimage.binary_erosion(hulls, in_plane, iterations=round(margin / 2.0))
    rows, columns = mask.shape[1:]
    return hulls.repeat(2, axis=1).repeat(2, axis=2)[:, :rows, :columns]


class Outline:
    """The outer surface of one lung: its radius about the lung's axis, over height and angle."""

    def __init__(
        self, mask: np.ndarray, side: int, axis: tuple[float, float], spacing: float
    ) -> None:
        """Measure the outline of ``mask`` (k, j, i) about the vertical ``axis`` (j, i)."""
        self._side, self._spacing = side, spacing
        j, i = axis
        rows, columns = np.indices(mask.shape[1:])
        # the right lung is mirrored, so that angles mean the same on both sides
        lateral = (columns - i) * (1.0 if side == LEFT else -1.0)
        self._radius = np.hypot(rows - j, lateral).astype(np.float32)
        turn = np.degrees(np.arctan2(rows - j, lateral))
        self._bin = np.floor((turn + 180.0) / 360.0 * ANGLES).astype(np.intp) % ANGLES
        self.reach = self._extreme(mask, np.maximum, 0.0)

    def dents(
        self, smooth: np.ndarray, bone: np.ndarray, inner: np.ndarray, other: Outline | None
    ) -> np.ndarray:
        """Return what lies between the lung and its closed outline.

        Args:
            smooth: HU, (k, j, i), without most of the noise.
            bone: Ribs and spine, and contrast in vessels outside the hull of the lungs.
            inner: The same without what may be contrast, for rays that do not face the ribs.
            other: Outline of the other lung, if there is one.
        """
        closed = self._closed(other)
        ribs, fat = self._walls(smooth, bone, inner, closed)
        # between pleura and rib lies a little tissue, between pleura and fat there is none
        wall = np.minimum(ribs - 1.5 / self._spacing, fat)
        grown = np.minimum(wall, closed) > self.reach + DENT_MM / self._spacing
        # between the flanks of a dent the wall bulges out a little more than they do
        limit = np.minimum(wall, BULGE * closed)
        limit = np.where(grown, ndimage.median_filter(limit, 3, mode="nearest"), 0.0)
        inner = np.where(self.reach > 0, self.reach, CORE * limit)
        outside = self._radius > inner[:, self._bin]
        return _opening(outside & (self._radius <= limit[:, self._bin]), _steps(3.0, self._spacing))

    def _extreme(self, mask: np.ndarray, choose: np.ufunc, empty: float) -> np.ndarray:
        """Return the least or greatest radius of ``mask`` in each slice and angle."""
        k, j, i = np.nonzero(mask)
        result = np.full((mask.shape[0], ANGLES), empty, dtype=np.float32)
        choose.at(result, (k, self._bin[j, i]), self._radius[j, i])
        return result

    def _closed(self, other: Outline | None) -> np.ndarray:
        ribs = self._facing_ribs(RIBS[self._side][1])
        closed = np.where(
            ribs, self._close_dents(self.reach, WIDE), self._close_dents(self.reach, NARROW)
        )
        if other is None:
            return closed
        alike = self._facing_ribs(BESIDE_SPINE)
        mirrored = MIRRORED * other.reach * (alike & self._lung_below())
        return np.maximum(closed, mirrored)

    def _facing_ribs(self, end: float) -> np.ndarray:
        """Tell which of the angles, up to ``end``, face nothing but ribs."""
        turn = (np.arange(ANGLES) + 0.5) * 360.0 / ANGLES - 180.0
        return (turn > RIBS[self._side][0]) & (turn < end)

    def _lung_below(self) -> np.ndarray:
        """Tell where lung follows further down: there it is not diaphragm that fills the ray."""
        has = ndimage.maximum_filter(self.reach > 0, (1, 13), mode=("nearest", "wrap"))
        depth = round(BELOW_MM / self._spacing)
        if has[0].any():
            has[0] = True
        below = np.pad(has, ((depth, 0), (0, 0)))
        return np.max([below[depth - d : len(below) - d] for d in range(1, depth + 1)], axis=0)

    def _close_dents(self, reach: np.ndarray, size: tuple[float, float]) -> np.ndarray:
        """Close dents that have lung on both sides at their height, or above and below.

        Where no ray of a dent meets any lung, both must hold: liver and spleen are bordered by
        lung on two sides, but never from below.
        """
        height = round(size[0] / self._spacing / 2.0)
        angle = 2 * round(size[1] / 360.0 * ANGLES / 2.0) + 1
        around = ndimage.grey_closing(reach, (1, angle), mode=("nearest", "wrap"))
        stacked = np.pad(reach, ((2 * height, 2 * height), (0, 0)))
        # beyond a cut of the scan nothing is known: what is closed in the last slice counts
        if reach[0].any():
            stacked[: 2 * height] = around[0]
        if reach[-1].any():
            stacked[-2 * height :] = around[-1]
        above = ndimage.grey_closing(stacked, (2 * height + 1, 1))[2 * height : -2 * height]
        return np.where(reach > 0, np.maximum(around, above), np.minimum(around, above))

    def _walls(
        self, smooth: np.ndarray, bone: np.ndarray, inner: np.ndarray, closed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the radius of the inner side of the ribs, and of fat outside the lung."""
        start = np.where(self.reach > 0, self.reach + 1.5 / self._spacing, WALL_FROM * closed)
        gap = 2 * round(RIB_GAP_MM / self._spacing / 2.0) + 1
        facing = self._facing_ribs(RIBS[self._side][1])
        wall = np.where(facing[self._bin], bone, inner)
        ribs = ndimage.minimum_filter(
            self._extreme(wall & (self._radius > start[:, self._bin]), np.minimum, np.inf),
            (gap, 5),
            mode=("nearest", "wrap"),
        )
        # partial volume at the lung's own border looks like fat
        start = np.maximum(self.reach + 6.0 / self._spacing, FAT_FROM * closed)
        fat = (smooth > FAT_HU[0]) & (smooth < FAT_HU[1]) & (self._radius > start[:, self._bin])
        depth = self._extreme(fat, np.minimum, 999.0)
        return ribs, ndimage.median_filter(depth, 5, mode="nearest")
