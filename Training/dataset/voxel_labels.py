"""Voxels that a person has labelled: points, scribbles, masks; and the slices of a scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.reading.files import read_labels
from DRAMLesionLib.reading.markups import Point
from Training.dataset.cache import LESION, UNKNOWN
from Training.dataset.folder import Case
from Training.dataset.labels import read_pseudolabel

_MASK_VALUES = (0, 1, UNKNOWN)
_MOST_TILT = 0.985
"""Least cosine between the normal of axial slices and the patient's axis (10 degrees)."""


def read_outlined(case: Case) -> tuple[sitk.Image | None, str]:
    """Read what a person has outlined in a scan.

    Returns:
        uint8: 0 background, 1 lesion, 255 unknown, on the grid of its file, and what to call it;
        None where there is nothing.

    Raises:
        InputError: If the file cannot be read or has other values.
    """
    if case.outlined is None:
        return None, ""
    if case.mask is None:
        name = f"the pseudo-label {case.outlined.name}"
        return sitk.Cast(read_pseudolabel(case.outlined) == LESION, sitk.sitkUInt8), name
    name = f"the mask {case.mask.name}"
    mask = read_labels(case.mask)
    values = np.unique(sitk.GetArrayViewFromImage(mask))
    if strange := [int(value) for value in values if value not in _MASK_VALUES]:
        message = (
            f"{name} has the values {', '.join(map(str, strange[:5]))}; a mask has 0 for "
            f"background, 1 for lesion and {UNKNOWN} where nobody looked"
        )
        raise InputError(message)
    return sitk.Cast(mask, sitk.sitkUInt8), name


def voxels_on(grid: sitk.Image, mask: sitk.Image | None, points: Sequence[Point]) -> np.ndarray:
    """Bring labelled voxels to a grid; points go before the mask.

    Args:
        grid: Of any geometry.
        mask: From :func:`read_outlined`.
        points: Of a reader; those outside of the grid are passed over.

    Returns:
        (k, j, i) uint8: 0 background, 1 lesion, 255 unknown.
    """
    if mask is None:
        values = np.full(grid.GetSize()[::-1], UNKNOWN, dtype=np.uint8)
    else:
        values = geometry.array(geometry.resample(mask, grid, "nearest", fill=UNKNOWN))
    for point in points:
        index = grid.TransformPhysicalPointToIndex(point.place)
        if all(0 <= n < size for n, size in zip(index, grid.GetSize(), strict=True)):
            values[index[::-1]] = int(point.lesion)
    return values


def is_axial(ct: sitk.Image) -> bool:
    """Tell whether the slices of a CT, its own k, lie across the patient's axis."""
    return abs(ct.GetDirection()[8]) >= _MOST_TILT


def planes_of_slice(ct: sitk.Image, number: int, grid: sitk.Image) -> tuple[int, int]:
    """Return first and last + 1 plane k of a working grid that a slice of a CT takes.

    Args:
        ct: With axial slices.
        number: Of the slice, its k in the CT.
        grid: A working grid, with axes parallel to the patient's.

    Returns:
        At least one plane: the nearest, where the slice is thinner than the planes are apart. It
        may lie outside of the grid.
    """
    middle = [(n - 1) / 2.0 for n in ct.GetSize()[:2]]
    edges = [
        grid.TransformPhysicalPointToContinuousIndex(
            ct.TransformContinuousIndexToPhysicalPoint((*middle, number + side))
        )[2]
        for side in (-0.5, 0.5)
    ]
    first, stop = (int(np.ceil(edge - 1e-6)) for edge in sorted(edges))
    if stop > first:
        return first, stop
    nearest = round(sum(edges) / 2.0)
    return nearest, nearest + 1
