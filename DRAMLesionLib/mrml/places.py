"""Where in a CT to look: the slice of a lobe with most lesion."""

from __future__ import annotations

import numpy as np

from DRAMLesionLib.images import boxes
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.mrml import segments, volumes
from DRAMLesionLib.mrml.result import PSEUDOLABEL, Result

Place = tuple[float, float, float]

_LOBES = {
    "left lung": (Lobe.LUL, Lobe.LLL),
    "right lung": (Lobe.RUL, Lobe.RML, Lobe.RLL),
    "total": tuple(Lobe),
}


def worst_place(result: Result, row: str) -> Place | None:
    """Return where most lesion is in a lobe, a lung or both, as the table counts it now.

    Args:
        result: A complete result.
        row: Name of a row of the table: a lobe, ``left lung``, ``right lung`` or ``total``.

    Returns:
        World RAS mm of a voxel of the lesion in the middle of the slice (along the CT's third axis)
        with most lesion, of the lobe itself where it has none; None if the lobe is not there.

    Raises:
        InputError: If a transform above the CT cannot be included.
    """
    wanted = _LOBES[row] if row in _LOBES else (Lobe[row],)
    lobes = result.lobes()
    inside = np.isin(lobes, [int(lobe) for lobe in wanted])
    if not inside.any():
        return None
    box = boxes.bounding_box(inside)
    inside = inside[box]
    lesion = _lesion(result)[box] & inside
    middle = _middle(lesion if lesion.any() else inside)
    k, j, i = (index + part.start for index, part in zip(middle, box, strict=True))
    x, y, z = (volumes.ijk_to_world(result.ct) @ (i, j, k, 1))[:3]
    return float(x), float(y), float(z)


def _lesion(result: Result) -> np.ndarray:
    if result.source == PSEUDOLABEL:
        return segments.mask_of(result.get("pseudolabel"), "lesion", result.ct)
    labels = result.lesions_and_vessels()
    return (labels > 0) & (labels != segments.LESION_SEGMENTS[3].label)


def _middle(mask: np.ndarray) -> tuple[int, int, int]:
    """Return the voxel of a mask nearest to the middle of its fullest slice."""
    k = int(mask.sum(axis=(1, 2)).argmax())
    points = np.argwhere(mask[k])
    nearest = np.linalg.norm(points - points.mean(axis=0), axis=1).argmin()
    j, i = points[nearest]
    return k, int(j), int(i)
