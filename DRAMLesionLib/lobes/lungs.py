"""Lungs and airways from a CT by threshold and connectivity, without a network.

The way: body → air inside it → trachea and bronchi taken out → the components that look like lung
→ left and right parted → the costal surface closed, so that consolidation which touches the chest
wall stays inside (:mod:`DRAMLesionLib.lobes.costal`).
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
from DRAMLesionLib.lobes.costal import close_lungs, distance_to

GRID_MM = 1.5
LEFT, RIGHT = 1, 2
AERATED_HU = -400.0
"""Below it a voxel inside the body holds more air than tissue: lung with ground glass, or gas."""
LUNG_MEDIAN_HU = (-965.0, -450.0)
"""Range of the median of the air-filled part of a lung; gas in bowel or stomach lies below."""
MIN_LUNG_ML = 8.0
ISLAND_REACH_MM = 25.0
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
    labels, airways, warnings = _label_lungs(hu)
    return Lungs(image, image_like(labels, grid), image_like(airways, grid), warnings)


def _label_lungs(hu: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[ScanWarning]]:
    """Return lungs (uint8), airways (bool) and warnings of ``hu``, (k, j, i) at ``GRID_MM``."""
    inside = body_interior(hu)
    air = inside & (hu < AERATED_HU)
    if air.sum() * GRID_MM**3 / 1000.0 < MIN_LUNG_ML:
        message = "No lung found: the CT has no air-filled space inside the body."
        raise InputError(message)
    box = bounding_box(air, margin=round(12 / GRID_MM))
    labels = np.zeros(hu.shape, dtype=np.uint8)
    airways = np.zeros(hu.shape, dtype=bool)
    part = hu[box]
    airways[box] = find_airways(part, air[box], GRID_MM)
    aerated = _lung_components(part, air[box] & ~_dilate(airways[box], 1))
    sides, warnings = part_left_right(part, aerated, airways[box])
    labels[box] = close_lungs(part, sides, airways[box], GRID_MM)
    return labels, airways, warnings


def body_interior(hu: np.ndarray) -> np.ndarray:
    """Return the body with its air-filled spaces; couch, clothes and room air are outside.

    Args:
        hu: HU, (k, j, i).

    Returns:
        Boolean array of the same shape. Holes are filled slice by slice, since lungs may be cut by
        the first and last slice of a scan.
    """
    tissue = ndimage.binary_opening(hu > AERATED_HU, iterations=2)
    components, count = ndimage.label(tissue)
    if count == 0:
        message = "No body found: the CT has nothing denser than air. Are the values HU?"
        raise InputError(message)
    body = components == np.argmax(np.bincount(components.ravel())[1:]) + 1
    # the opening has to be undone, or thin walls between lung and room air would be leaks
    body |= ndimage.binary_dilation(body, iterations=3) & (hu > AERATED_HU)
    outside, _ = ndimage.label(~body, structure=IN_PLANE)
    border = np.zeros(outside.max() + 1, dtype=bool)
    for edge in (outside[:, 0], outside[:, -1], outside[:, :, 0], outside[:, :, -1]):
        border[np.unique(edge)] = True
    border[0] = False
    return ~border[outside]


def _lung_components(hu: np.ndarray, air: np.ndarray) -> np.ndarray:
    """Keep those components of ``air`` that look like lung and lie where lungs lie."""
    components, count = ndimage.label(air)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    sizes[0] = 0
    large = np.flatnonzero(sizes * GRID_MM**3 / 1000.0 > 1.0)
    core = ndimage.binary_erosion(air, iterations=2)
    medians = {}
    for c, where in zip(large, _slices(components, large), strict=True):
        values = hu[where][core[where] & (components[where] == c)]
        medians[c] = float(np.median(values)) if values.size else AIR_HU
    likely = [c for c in large if LUNG_MEDIAN_HU[0] < medians[c] < LUNG_MEDIAN_HU[1]]
    main = max(likely, key=lambda c: sizes[c], default=None)
    if main is None or sizes[main] * GRID_MM**3 / 1000.0 < MIN_LUNG_ML:
        message = "No lung found: no space in the field of view has the density of lung."
        raise InputError(message)
    kept = [c for c in likely if c == main or abs(medians[c] - medians[main]) < 250]
    lungs = np.isin(components, [c for c in kept if sizes[c] > 0.1 * sizes[main]])
    return lungs | _small_parts(components, [int(c) for c in kept], lungs)


def _small_parts(components: np.ndarray, kept: list[int], lungs: np.ndarray) -> np.ndarray:
    """Return small aerated islands that have lung above them and close by, unlike bowel gas."""
    near = distance_to(lungs) < (ISLAND_REACH_MM / GRID_MM)
    islands = np.zeros_like(lungs)
    lowest = np.flatnonzero(lungs.any(axis=(1, 2)))[0]
    for c, where in zip(kept, _slices(components, kept), strict=True):
        part = components[where] == c
        if near[where][part].any() and where[0].start >= lowest:
            islands[where] |= part
    return islands


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
    if markers is None:
        columns = np.arange(aerated.shape[2])
        side = LEFT if np.average(columns, weights=aerated.sum(axis=(0, 1))) > middle else RIGHT
        name = "left" if side == LEFT else "right"
        warning = ScanWarning("one-lung", f"Only one air-filled lung was found, the {name} one.")
        return aerated.astype(np.uint8) * np.uint8(side), [warning]
    smooth = ndimage.gaussian_filter(np.clip(hu, -1000, 0), 0.7)
    return watershed(smooth, markers, mask=aerated).astype(np.uint8), []


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
    depth = -distance_to(aerated)
    columns = np.arange(aerated.shape[2])
    for limit in (0.5, 1.5, 2.5, 3.5, 5, 7, 9, 12):
        components, count = ndimage.label(depth > limit)
        sizes = np.bincount(components.ravel(), minlength=count + 1)
        sizes[0] = 0
        markers = np.zeros(aerated.shape, dtype=np.uint8)
        weights = {LEFT: 0, RIGHT: 0}
        mixed = 0
        for c in np.flatnonzero(sizes > 0.005 * sizes.sum()):
            part = components == c
            profile = part.sum(axis=(0, 1))
            share_left = profile[columns > middle].sum() / profile.sum()
            if 0.12 < share_left < 0.88:
                mixed += int(sizes[c])
                continue
            side = LEFT if share_left > 0.5 else RIGHT
            markers[part] = side
            weights[side] += int(sizes[c])
        total = sum(weights.values())
        if mixed > 0.02 * sizes.sum():
            continue
        return markers if min(weights.values()) > 0.03 * total else None
    return None


def _dilate(mask: np.ndarray, iterations: int) -> np.ndarray:
    return ndimage.binary_dilation(mask, iterations=iterations) if mask.any() else mask


def _slices(components: np.ndarray, wanted: list[int] | np.ndarray) -> list[tuple[slice, ...]]:
    boxes = ndimage.find_objects(components)
    return [boxes[c - 1] for c in wanted]
