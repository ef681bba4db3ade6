"""The embedded lobe estimate: lungs, then fissures, then lobes; no download, no network."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import ScanWarning
from DRAMLesionLib.images.geometry import AIR_HU, array, image_like, resample, working_grid
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.lobes.extent import Heights, whole_heights
from DRAMLesionLib.lobes.fissures import Fissure, find_fissure
from DRAMLesionLib.lobes.lungs import GRID_MM, LEFT, RIGHT, Lungs, segment_lungs
from DRAMLesionLib.lobes.surfaces import (
    LEFT_OBLIQUE,
    RIGHT_MINOR,
    RIGHT_OBLIQUE,
    LungBox,
    prior_surface,
)

FINE_MM = 1.0
REACH_MM = 26.0
MINOR_REACH_MM = 36.0
SURE_BELOW = 0.35
"""A lobe whose fissures are seen less than this gets a warning."""
CUT_CONFIDENCE = 0.5
"""Where a scan cuts the lungs, which fissure it is that is seen is a guess."""
CUT_MESSAGE = (
    "The scan shows only a part of the lungs: the lobes were placed by landmarks and may be wrong, "
    "and volumes hold for what is in the field of view."
)


@dataclass(frozen=True)
class LobeEstimate:
    """Lobes that were estimated from the CT alone.

    Attributes:
        lobes: uint8 on the CT's own grid, values of :class:`Lobe`, 0 elsewhere.
        confidence: For each lobe 0..1: the share of its fissures that was seen, not assumed.
        warnings: What a reader of the report has to know.
        airways: uint8 on the working grid, 1 in the lumen of the large airways.
    """

    lobes: sitk.Image
    confidence: dict[Lobe, float]
    warnings: list[ScanWarning]
    airways: sitk.Image


def estimate_lobes(ct: sitk.Image, progress: Callable[[float], None] | None = None) -> LobeEstimate:
    """Estimate the five lobes of a chest CT.

    Args:
        ct: CT in HU, any orientation and field of view, whole chest or slab.
        progress: Told the share of the work that is done.

    Returns:
        The estimate, on the CT's own grid.

    Raises:
        InputError: If no lung is found.
    """
    report = progress or (lambda _: None)
    found = segment_lungs(ct)
    report(0.4)
    sides = array(found.lungs)
    heights = whole_heights(sides, array(found.airways) > 0, GRID_MM)
    labels = np.zeros(sides.shape, dtype=np.uint8)
    confidence = dict.fromkeys(Lobe, 0.0)
    fine = _fine_ct(ct, found.lungs)
    report(0.5)
    # numpy and SimpleITK let go of the interpreter: the lungs share the processors
    with ThreadPoolExecutor(2) as pool:
        parts = [
            pool.submit(part, fine, found, heights, labels, confidence)
            for side, part in ((RIGHT, _part_right), (LEFT, _part_left))
            if (sides == side).any()
        ]
        for share, done in zip((0.7, 0.9), parts, strict=False):
            done.result()
            report(share)
    lobes = resample(image_like(labels, found.lungs), ct, "labels")
    report(1.0)
    warnings = [*found.warnings]
    if heights.cut:
        confidence = {lobe: CUT_CONFIDENCE * share for lobe, share in confidence.items()}
        warnings.append(ScanWarning("partial-lungs", CUT_MESSAGE))
    present = [lobe for lobe in Lobe if (labels == lobe).any()]
    return LobeEstimate(lobes, confidence, warnings + _doubts(confidence, present), found.airways)


def _fine_ct(ct: sitk.Image, lungs: sitk.Image) -> sitk.Image:
    """Return the CT around the lungs at ``FINE_MM``, where fissures can be seen."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(lungs > 0)
    start, size = np.split(np.array(statistics.GetBoundingBox(1)), 2)
    around = sitk.RegionOfInterest(lungs, size.tolist(), start.tolist())
    return resample(ct, working_grid(around, FINE_MM, 4.0), fill=AIR_HU, antialias=True)


def _part_left(
    fine: sitk.Image,
    found: Lungs,
    heights: Heights,
    labels: np.ndarray,
    confidence: dict[Lobe, float],
) -> None:
    where, points = _points(found.lungs, LEFT)
    box = _lung_box(points, LEFT, heights, found.lungs)
    oblique = find_fissure(fine, found.lungs == LEFT, prior_surface(LEFT_OBLIQUE, box), REACH_MM)
    labels[where] = np.where(oblique.surface.above(points) > 0, Lobe.LUL, Lobe.LLL)
    confidence[Lobe.LUL] = confidence[Lobe.LLL] = oblique.visible


def _part_right(
    fine: sitk.Image,
    found: Lungs,
    heights: Heights,
    labels: np.ndarray,
    confidence: dict[Lobe, float],
) -> None:
    where, points = _points(found.lungs, RIGHT)
    box = _lung_box(points, RIGHT, heights, found.lungs)
    lung = found.lungs == RIGHT
    oblique = find_fissure(fine, lung, prior_surface(RIGHT_OBLIQUE, box), REACH_MM)
    in_front = oblique.surface.above(points) > 0
    labels[where] = np.where(in_front, Lobe.RUL, Lobe.RLL)
    front = image_like(labels == Lobe.RUL, found.lungs)
    minor = find_fissure(fine, front, prior_surface(RIGHT_MINOR, box), MINOR_REACH_MM)
    below = in_front & (minor.surface.above(points) <= 0)
    labels[tuple(axis[below] for axis in where)] = Lobe.RML
    _rate_right(oblique, minor, confidence)


def _rate_right(oblique: Fissure, minor: Fissure, confidence: dict[Lobe, float]) -> None:
    confidence[Lobe.RLL] = oblique.visible
    confidence[Lobe.RUL] = confidence[Lobe.RML] = (oblique.visible + minor.visible) / 2.0


def _points(lungs: sitk.Image, side: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return the indices (k, j, i) of a lung's voxels and their places (n, 3) in LPS mm."""
    where = np.nonzero(sitk.GetArrayViewFromImage(lungs) == side)
    spacing, origin = lungs.GetSpacing()[0], np.array(lungs.GetOrigin())
    return where, np.stack(where[::-1], axis=1) * spacing + origin


def _lung_box(points: np.ndarray, side: int, heights: Heights, lungs: sitk.Image) -> LungBox:
    """Return the extent of a whole lung in mm from the places of its voxels and its heights."""
    low, high = np.percentile(points, (0.2, 99.8), axis=0)
    medial, lateral = (low[0], high[0]) if side == LEFT else (high[0], low[0])
    bottom, top = (lungs.GetOrigin()[2] + GRID_MM * h[side] for h in (heights.bottom, heights.top))
    return LungBox(medial, lateral, low[1], high[1], bottom, top)


def _doubts(confidence: dict[Lobe, float], present: list[Lobe]) -> list[ScanWarning]:
    unsure = [lobe.full_name for lobe in present if confidence[lobe] < SURE_BELOW]
    if not unsure:
        return []
    message = (
        f"Fissures hardly seen for the {', '.join(unsure)}: the borders there follow the average "
        "anatomy."
    )
    return [ScanWarning("lobes-uncertain", message)]
