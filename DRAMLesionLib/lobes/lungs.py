"""Lungs and airways from a CT by threshold and connectivity, without a network.

The way: body → air inside it → trachea and bronchi taken out → lung told from gas of the gut
(:mod:`DRAMLesionLib.lobes.gas`) → left and right parted → the costal surface closed, so that
consolidation which touches the chest wall stays inside (:mod:`DRAMLesionLib.lobes.costal`) → the
border moved out to the pleura.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from skimage.segmentation import watershed

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.images.boxes import bounding_box
from DRAMLesionLib.images.geometry import AIR_HU, array, image_like, resample, working_grid
from DRAMLesionLib.lobes.airways import find_airways
from DRAMLesionLib.lobes.costal import close_lungs
from DRAMLesionLib.lobes.gas import MIN_LUNG_ML, sort_air
from DRAMLesionLib.lobes.morphology import dilate, distance_to, doubled, erode, halved
from DRAMLesionLib.lobes.plausibility import judge, lung_facts

GRID_MM = 1.5
LEFT, RIGHT = 1, 2
AERATED_HU = -400.0
"""Below it a voxel inside the body holds more air than tissue: lung with ground glass, or gas."""
BORDER_HU = -250.0
"""Where experts draw the border of lung against soft tissue: partial volume counts as lung."""
BORDER_STEPS = 2
COARSE_MM = 3.0
"""With larger voxels partial volume reaches so far that the border stays where half is lung."""
ROOM_AIR_HU = -950.0
CUT_LENGTH = 1.5
"""A side of the image meets no more of a lung than this times the root of its area."""
MIN_REGION_MM2 = 150.0
IN_PLANE = np.zeros((3, 3, 3), dtype=bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class Lungs:
    """Lungs and airways on the working grid.

    Attributes:
        ct: float32 HU on the isotropic LPS working grid of ``GRID_MM``.
        lungs: uint8 on the same grid: 0 outside, 1 left, 2 right lung; vessels and consolidation
            inside a lung belong to it, the airways outside the lungs do not.
        airways: uint8 on the same grid, 1 in the lumen of trachea and large bronchi.
        warnings: What a reader of the report has to know.
    """

    ct: sitk.Image
    lungs: sitk.Image
    airways: sitk.Image
    warnings: list[ScanWarning]


def segment_lungs(ct: sitk.Image) -> Lungs:
    """Segment the lungs and the large airways.

    Args:
        ct: CT in HU, any orientation and field of view, whole chest or slab.

    Returns:
        Lungs and airways on the working grid.

    Raises:
        InputError: If nothing in the field of view looks like a lung.
    """
    grid = working_grid(ct, GRID_MM)
    image = resample(ct, grid, fill=AIR_HU, antialias=True)
    hu = array(image)
    steps = BORDER_STEPS if sorted(ct.GetSpacing())[1] <= COARSE_MM else 0
    labels, airways, warnings = _label_lungs(hu, steps)
    return Lungs(image, image_like(labels, grid), image_like(airways, grid), warnings)


def _label_lungs(hu: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, list[ScanWarning]]:
    """Return lungs (uint8), airways (bool) and warnings of ``hu``, (k, j, i) at ``GRID_MM``.

    The lungs' border is moved out by ``steps`` voxels where there is partial volume.
    """
    inside = body_interior(hu)
    air = inside & (hu < AERATED_HU)
    if air.sum() * GRID_MM**3 / 1000.0 < MIN_LUNG_ML:
        message = "No lung found: the CT has no air-filled space inside the body."
        raise InputError(message)
    box = bounding_box(air, margin=round(12 / GRID_MM))
    labels = np.zeros(hu.shape, dtype=np.uint8)
    airways = np.zeros(hu.shape, dtype=bool)
    part, air, inside = hu[box], air[box], inside[box]
    tubes = find_airways(part, air, GRID_MM)
    smooth = ndimage.uniform_filter(part, 3)
    aerated, gas = sort_air(part, smooth, air & ~dilate(tubes), tubes, GRID_MM)
    sides, warnings = part_left_right(part, aerated, tubes)
    closed = _closed(part, sides, tubes)
    free = inside & (part < BORDER_HU) & ~dilate(tubes, 2) & ~dilate(gas, 2)
    labels[box] = _to_the_pleura(closed, free, steps)
    airways[box] = tubes
    facts = lung_facts(part, smooth, labels[box], tubes, gas, GRID_MM)
    return labels, airways, warnings + judge(facts)


def _closed(hu: np.ndarray, sides: np.ndarray, airways: np.ndarray) -> np.ndarray:
    """Close the lungs on a grid of half the resolution; what is aerated stays as it is."""
    coarse = np.zeros([(n + 1) // 2 for n in sides.shape], dtype=np.uint8)
    for side in (LEFT, RIGHT):
        coarse[halved(sides == side) >= 0.5] = side
    closed = close_lungs(halved(hu), coarse, halved(airways) >= 0.5, 2.0 * GRID_MM)
    result = np.zeros_like(sides)
    for side in (LEFT, RIGHT):
        result[doubled(closed == side, sides.shape) & ~airways] = side
    own = sides > 0
    result[own] = sides[own]
    return result


def _to_the_pleura(labels: np.ndarray, free: np.ndarray, steps: int) -> np.ndarray:
    """Grow each lung by ``steps`` voxels where the voxels are ``free``."""
    labels = labels.copy()
    for _ in range(steps):
        for side in (LEFT, RIGHT):
            labels[dilate(labels == side) & free & (labels == 0)] = side
    return labels


def body_interior(hu: np.ndarray) -> np.ndarray:
    """Return the body with its air-filled spaces; couch, clothes and room air are outside.

    Args:
        hu: HU, (k, j, i).

    Returns:
        Boolean array of the same shape. Holes are filled slice by slice, since lungs may be cut by
        the first and last slice of a scan. Where an image is cropped to the chest, lung that
        touches a side of it is inside, too.
    """
    tissue = dilate(erode(hu > AERATED_HU, 2), 2)
    components, count = ndimage.label(tissue)
    if count == 0:
        message = "No body found: the CT has nothing denser than air. Are the values HU?"
        raise InputError(message)
    body = components == np.argmax(np.bincount(components.ravel())[1:]) + 1
    # the opening has to be undone, or thin walls between lung and room air would be leaks
    body |= dilate(body, 3) & (hu > AERATED_HU)
    regions, count = ndimage.label(~body, structure=IN_PLANE)
    return ~_room_air(hu, regions, count)[regions]


def _room_air(hu: np.ndarray, regions: np.ndarray, count: int) -> np.ndarray:
    """Tell which regions of the slices are room air: those at the sides, but for cut lung.

    Lung that a side of a cropped image cuts holds tissue, leaves the corners of the slice and one
    of its sides alone, and meets the side along a part of its outline only.
    """
    sides = (np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1])
    met = np.array([np.bincount(regions[side].ravel(), minlength=count + 1) for side in sides])
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    dark = np.bincount(regions[hu < ROOM_AIR_HU], minlength=count + 1)
    outside = (dark > 0.5 * sizes) | (sizes * GRID_MM**2 < MIN_REGION_MM2)
    outside |= met.sum(axis=0) > CUT_LENGTH * np.sqrt(sizes)
    outside |= (met[2] > 0) & (met[3] > 0)
    outside[regions[:, [0, 0, -1, -1], [0, -1, 0, -1]]] = True
    outside &= met.any(axis=0)
    outside[0] = False
    return outside


def part_left_right(
    hu: np.ndarray, aerated: np.ndarray, airways: np.ndarray
) -> tuple[np.ndarray, list[ScanWarning]]:
    """Tell the left from the right lung, even where they touch.

    Where both hang together they are eroded until they fall apart, and a watershed on the density
    finds the way back: it meets on the bright, thin junction line.

    Args:
        hu: HU, (k, j, i), LPS.
        aerated: Air-filled lung.
        airways: Lumen of the large airways; tells where the middle is.

    Returns:
        uint8 labels (0, 1 left, 2 right), and a warning if one lung is missing.
    """
    middle = _middle(aerated, airways)
    markers = _side_markers(aerated, middle)
    columns = np.arange(aerated.shape[2])
    if markers is None:
        side = LEFT if np.average(columns, weights=aerated.sum(axis=(0, 1))) > middle else RIGHT
        name = "left" if side == LEFT else "right"
        warning = ScanWarning("one-lung", f"Only one air-filled lung was found, the {name} one.")
        return aerated.astype(np.uint8) * np.uint8(side), [warning]
    sides = np.where(aerated, np.where(columns > middle, np.uint8(LEFT), np.uint8(RIGHT)), 0)
    # beyond the last marker of the other side there is nothing to be parted
    left = np.flatnonzero((markers == LEFT).any(axis=(0, 1)))[0]
    right = np.flatnonzero((markers == RIGHT).any(axis=(0, 1)))[-1]
    window = np.s_[:, :, max(min(left, right) - 5, 0) : max(left, right) + 6]
    smooth = ndimage.gaussian_filter(np.clip(hu[window], -1000, 0), 0.7)
    parted = watershed(smooth, markers[window], mask=aerated[window])
    sides[:, :, : window[2].start][aerated[:, :, : window[2].start]] = RIGHT
    sides[:, :, window[2].stop :][aerated[:, :, window[2].stop :]] = LEFT
    sides[window] = np.where(parted > 0, parted, sides[window])
    return sides.astype(np.uint8), []


def _middle(aerated: np.ndarray, airways: np.ndarray) -> float:
    """Return the column index of the body's middle plane."""
    columns = np.arange(aerated.shape[2])
    if airways.sum() * GRID_MM**3 / 1000.0 > 2.0:
        return float(np.average(columns, weights=airways.sum(axis=(0, 1))))
    occupied = np.flatnonzero(aerated.any(axis=(0, 1)))
    return float(occupied[0] + occupied[-1]) / 2.0


def _side_markers(aerated: np.ndarray, middle: float) -> np.ndarray | None:
    """Return markers (1 left, 2 right) of deep lung, or None if only one side has lung.

    Erodes step by step until each component of weight lies on one side of ``middle``.
    """
    left = np.arange(aerated.shape[2]) > middle
    depth = None
    for limit in (0.0, 1.5, 2.5, 3.5, 5.0, 7.0, 9.0, 12.0):
        if limit and depth is None:
            depth = -distance_to(aerated)
        deep = aerated if depth is None else depth > limit
        components, count = ndimage.label(deep)
        sizes = np.bincount(components.ravel(), minlength=count + 1)
        on_left = np.bincount(components[:, :, left].ravel(), minlength=count + 1)
        sizes[0] = 0
        share = on_left / np.maximum(sizes, 1)
        counted = sizes > 0.005 * sizes.sum()
        mixed = counted & (share > 0.12) & (share < 0.88)
        if sizes[mixed].sum() > 0.02 * sizes.sum():
            continue
        value = np.where(counted & ~mixed, np.where(share > 0.5, LEFT, RIGHT), 0).astype(np.uint8)
        weights = [sizes[value == side].sum() for side in (LEFT, RIGHT)]
        return value[components] if min(weights) > 0.03 * sum(weights) else None
    return None
