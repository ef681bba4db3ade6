"""The one check of a CT, used by library, module and training alike.

Whatever would make a result wrong without anybody noticing is an error; what a reader of the report
has to know, though the result stands, is a warning. Errors carry the name of the input, as the
caller gave it. Warnings end up in a report that must hold nothing of a patient, so they say 'the
CT' and never a file name.
"""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.images import geometry
from DRAMLesionLib.reading.headers import check_geometry

LUNG_ML_PER_MM = 1.0
MAX_LUNG_ML = 100.0
"""Lung tissue that a CT has to show for its height, up to the second number: a slab through
consolidated lungs shows five times as much, an abdomen without the lung bases a tenth."""

_LUNG_GRID_MM = 4.0
_LUNG_HU = (-970.0, -450.0)
DENSE_HU = -300.0


def check_ct(image: sitk.Image, name: str = "the CT") -> list[ScanWarning]:
    """Check that an image is a chest CT in HU that the method can work on.

    Args:
        image: Any image; it is not changed. About a second for 512 x 512 x 300 voxels.
        name: What to call the input in an error.

    Returns:
        Warnings for the report.

    Raises:
        InputError: With one sentence: which input, what is wrong, what to do about it.
    """
    warnings = check_geometry(image, name)
    _check_values(image, name)
    _check_lung(image, name)
    return warnings


def _check_values(image: sitk.Image, name: str) -> None:
    """Check that the voxels are HU."""
    values = sitk.GetArrayViewFromImage(image)
    # NaN survives min and max, infinities show up in one of them
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        message = (
            f"{name} has voxels that are not a number or infinite; replace them, for air by "
            f"{geometry.AIR_HU:.0f} HU"
        )
        raise InputError(message)
    if low == high:
        message = f"{name} is empty: every voxel is {low:g}; is the file complete?"
        raise InputError(message)
    finding = _not_hu(low, high, values)
    if finding:
        message = (
            f"{name} is not in Hounsfield units: {finding}; air has to be near -1000 and water "
            "near 0: convert it again from DICOM with the rescale slope and intercept applied"
        )
        raise InputError(message)
    _check_slices(values, name)


def _not_hu(low: float, high: float, values: np.ndarray) -> str:
    """Say what the values look like if they are not HU, or nothing."""
    span = f"its values go from {low:g} to {high:g}"
    if -1.01 <= low and high <= 1.01:
        return f"{span}, as if normalised"
    if low >= 0 and high <= 255:
        return f"{span}, like 8-bit greys"
    if low >= 0:
        return f"{span} without any negative one, as if the rescale intercept (-1024) is missing"
    if low > -500 and high > 1500:
        return f"{span}, as if the rescale intercept (-1000 or -1024) is missing"
    if low > -500:
        return f"{span} without any air, as if a window was applied or the modality is not CT"
    step = geometry.sample_step(values.size)
    sample = np.asarray(values[::step, ::step, ::step], dtype=np.float32).ravel()
    inside = sample[(sample > -1020.0) | (sample > low + 1.0)]
    if not inside.size:
        return f"{span}, with nothing between"
    tissue = np.mean(np.abs(inside) <= 300.0)
    # air, lung and soft tissue 1024 too high, though padding hides it from the minimum
    shifted = np.mean((inside >= 724.0) & (inside <= 1324.0))
    if shifted > 0.1 and np.mean(inside < -400.0) < 0.02:
        return f"{span}, but most tissue is near 1024, as if the rescale intercept is missing"
    if tissue < 0.02:
        return f"{span}, but hardly any is near water or soft tissue"
    return ""


def _check_slices(values: np.ndarray, name: str) -> None:
    """Find planes that hold one value only though they are not padding, as damaged files have."""
    step = max(1, min(values.shape[1:]) // 64)
    coarse = np.asarray(values[:, ::step, ::step], dtype=np.float32)
    flat = (np.ptp(coarse, axis=(1, 2)) == 0) & (coarse[:, 0, 0] > -900.0)
    if flat.any():
        message = (
            f"{name} is damaged: {int(flat.sum())} of its {len(flat)} slices hold nothing but one "
            "value; copy or convert it again"
        )
        raise InputError(message)


def _check_lung(image: sitk.Image, name: str) -> None:
    """Check that there is tissue of the density of lung with body around it."""
    volume = _lung_tissue_ml(image)
    axis = geometry.height_axis(image)
    height = image.GetSize()[axis] * image.GetSpacing()[axis]
    needed = min(height * LUNG_ML_PER_MM, MAX_LUNG_ML)
    if volume < needed:
        message = (
            f"no lung is to be seen in {name}: {volume:.0f} ml of lung-like tissue inside the "
            f"body, at least {needed:.0f} ml are needed; give a CT of the chest"
        )
        raise InputError(message)


def _lung_tissue_ml(image: sitk.Image) -> float:
    """Return the volume that has the density of aerated lung and lies inside the body.

    Inside means that rays to the front, back, left and right meet dense tissue, at least three of
    the four: a mattress, or air between the arm and the chest, has two. A lung at the edge of a
    narrow field of view has three.
    """
    steps = [max(1, round(_LUNG_GRID_MM / s)) for s in image.GetSpacing()]
    x, y, z = steps
    values = sitk.GetArrayViewFromImage(image)[::z, ::y, ::x].astype(np.float32)
    # the mean over a few samples takes noise and vessels away, the erosion the rims of the body
    smooth = ndimage.uniform_filter(np.clip(values, -1024.0, 300.0), 3, mode="nearest")
    lung = (smooth > _LUNG_HU[0]) & (smooth < _LUNG_HU[1])
    dense = smooth > DENSE_HU
    rays = np.zeros(dense.shape, dtype=np.uint8)
    for axis in {0, 1, 2} - {2 - geometry.height_axis(image)}:
        rays += np.logical_or.accumulate(dense, axis=axis)
        rays += np.flip(np.logical_or.accumulate(np.flip(dense, axis), axis=axis), axis)
    inside = ndimage.binary_erosion(lung & (rays >= 3), border_value=1)
    return float(inside.sum()) * x * y * z * geometry.voxel_ml(image)
