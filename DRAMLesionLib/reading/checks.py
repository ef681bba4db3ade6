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
from DRAMLesionLib.reading.headers import MAX_SLICE_MM, check_geometry

LUNG_ML_PER_MM = 1.0
MAX_LUNG_ML = 100.0
"""Lung tissue that a CT has to show for its height, up to the second number: a slab through
consolidated lungs shows five times as much, an abdomen without the lung bases a tenth."""

_LUNG_GRID_MM = 4.0
_LUNG_HU = (-970.0, -450.0)
DENSE_HU = -300.0

_AIR_ENDS_HU, _LUNG_ENDS_HU = -950.0, -800.0
"""Values of air, and of air and healthy lung, lie below these; padding is taken for air."""

_CUT_TISSUE_HU, _CUT_TOP_HU = 150.0, 1000.0
"""Cut off below the first, soft tissue and contrast are no more to be told apart; below the second,
bone is lost."""

_PILE, _PILE_TOLD = 0.02, 0.0005
"""Shares of voxels at an end of the values that show that they were cut off; the second where it
is only to be told."""

_MIN_VALUES, _MIN_SLICE_VALUES = 150, 100
"""So many different values only an image, and a slice, with noise has; without it, all voxels of a
tissue are equal."""


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
    warnings += _check_values(image, name)
    warnings += _check_slices(image, name)
    _check_lung(image, name)
    return warnings


def _check_values(image: sitk.Image, name: str) -> list[ScanWarning]:
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
    sample = _sample(values)
    finding = _not_hu(low, high, sample) or _cut(sample)
    if finding:
        message = (
            f"{name} is not in Hounsfield units: {finding}; air has to be near -1000 and water "
            "near 0: convert it again from DICOM with the rescale slope and intercept applied"
        )
        raise InputError(message)
    top = float(np.mean(sample >= high - 0.5))
    if high >= _CUT_TOP_HU or top < _PILE_TOLD or not _has_noise(sample, _MIN_VALUES):
        return []
    text = (
        f"The CT's values end at {high:.0f} HU, where {100.0 * top:.2g} % of its voxels are: what "
        "was above, such as bone, was cut off."
    )
    return [ScanWarning("clipped", text)]


def _sample(values: np.ndarray) -> np.ndarray:
    """Return about 1.5 million voxels, from every n-th along each axis."""
    step = geometry.sample_step(values.size)
    return np.asarray(values[::step, ::step, ::step], dtype=np.float32).ravel()


def _not_hu(low: float, high: float, sample: np.ndarray) -> str:
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


def _cut(sample: np.ndarray) -> str:
    """Say where the values were cut off, told by voxels piled up at an end, or nothing.

    What a scanner cuts off itself, below -1000 and above 3000 HU, does no harm; nor does padding,
    which is set aside here.
    """
    inside = sample[sample > _AIR_ENDS_HU]
    if not _has_noise(inside, _MIN_VALUES):
        return ""
    bottom, top = float(inside.min()), float(inside.max())
    padded = inside.size < sample.size
    ends = []
    if bottom > (_LUNG_ENDS_HU if padded else _AIR_ENDS_HU + 5.0):
        ends.append((bottom, float(np.mean(inside <= bottom + 0.5))))
    if top < _CUT_TISSUE_HU:
        ends.append((top, float(np.mean(inside >= top - 0.5))))
    for value, share in ends:
        if share > _PILE:
            return f"{100.0 * share:.0f} % of its values are exactly {value:g}, as if cut off there"
    return ""


def _has_noise(sample: np.ndarray, values: int) -> bool:
    """Tell scanned values from drawn ones, among which equal voxels prove nothing."""
    return len(np.unique(sample.round())) >= values


def _check_slices(image: sitk.Image, name: str) -> list[ScanWarning]:
    """Find slices that were lost or repeated on the way, as damaged files have.

    Raises:
        InputError: If slices hold one value only though they are not padding at an end, or many
            neighbours are the same.
    """
    axis = 2 - geometry.height_axis(image)
    values = sitk.GetArrayViewFromImage(image)
    for along in {0, axis}:
        flat = _flat(_coarse(np.moveaxis(values, along, 0)))
        if (lost := flat > -900.0).any():
            _refuse_slices(name, int(lost.sum()), len(flat), "hold nothing but one value")
    # the last axis looked at may not be that from foot to head
    slices = np.moveaxis(values, axis, 0)
    coarse = _coarse(slices)
    filled = np.flatnonzero(np.isnan(_flat(coarse)))
    empty = int(filled[-1] - filled[0] + 1 - len(filled)) if len(filled) else 0
    if empty:
        _refuse_slices(name, empty, len(coarse), "hold nothing, between others that do")
    return _repeated(slices, coarse, image.GetSpacing()[2 - axis], name)


def _refuse_slices(name: str, count: int, total: int, finding: str) -> None:
    message = (
        f"{name} is damaged: {count} of its {total} slices {finding}; copy or convert it again"
    )
    raise InputError(message)


def _coarse(slices: np.ndarray) -> np.ndarray:
    """Return slices (n, rows, columns) with about 64 of their rows and columns, as float32."""
    step = max(1, min(slices.shape[1:]) // 64)
    return np.asarray(slices[:, ::step, ::step], dtype=np.float32)


def _flat(coarse: np.ndarray) -> np.ndarray:
    """Return the one value that a slice holds, NaN if it holds several."""
    one = np.ptp(coarse, axis=(1, 2)) == 0
    return np.where(one, coarse[:, 0, 0], np.nan)


def _repeated(
    slices: np.ndarray, coarse: np.ndarray, spacing: float, name: str
) -> list[ScanWarning]:
    """Find slices of the lungs that are copies of the one before."""
    same = (coarse[1:] == coarse[:-1]).all(axis=(1, 2))
    aerated = np.mean((coarse > _LUNG_HU[0]) & (coarse < _LUNG_HU[1]), axis=(1, 2))
    copies = [
        k
        for k in np.flatnonzero(same & (aerated[1:] > 0.01))
        if _has_noise(coarse[k], _MIN_SLICE_VALUES) and np.array_equal(slices[k], slices[k + 1])
    ]
    if not copies:
        return []
    runs = np.split(copies, np.flatnonzero(np.diff(copies) > 1) + 1)
    if max(map(len, runs)) * spacing > MAX_SLICE_MM:
        _refuse_slices(name, len(copies), len(slices), "are copies of the one beside them")
    text = (
        f"{len(copies)} of the CT's {len(slices)} slices are copies of the one beside them: it was "
        "made of thicker slices, or slices are missing. Small lesions can be missed, and volumes "
        "are less exact."
    )
    return [ScanWarning("repeated-slices", text)]


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
