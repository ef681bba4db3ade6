"""The one check of a CT and its lobe mask, used by library, module and training alike.

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

from DRAMLesionLib import geometry
from DRAMLesionLib.errors import InputError, LobeError, ScanWarning
from DRAMLesionLib.headers import MIN_COVERAGE_MM, by, check_geometry, check_volume
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.lobes.schemes import anatomy_problems

LUNG_ML_PER_MM = 1.0
MAX_LUNG_ML = 100.0
"""Lung tissue that a CT has to show for its height, up to the second number: a slab through
consolidated lungs shows five times as much, an abdomen without the lung bases a tenth."""

MIN_LOBE_ML = 5.0
"""A lobe of which less is seen is not assessable."""

_SAMPLES = 1_500_000
_LUNG_GRID_MM = 4.0
_LUNG_HU = (-970.0, -450.0)
_DENSE_HU = -300.0
_CUT_AREA_MM2 = 300.0


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


def check_lung_extent(lobes: sitk.Image, ct: sitk.Image, name: str = "the CT") -> list[ScanWarning]:
    """Check that the lobes, given or estimated, are enough lung and lie as lobes lie in a CT.

    Args:
        lobes: Image with the values of :class:`Lobe`, on the grid of ``ct``.
        ct: The CT.
        name: What to call the CT in an error.

    Returns:
        Warnings for the report.

    Raises:
        InputError: If there is no lung, or less than about 20 mm from foot to head.
    """
    volume = float(_counts(lobes)[1:].sum()) * geometry.voxel_ml(lobes)
    if volume < MIN_COVERAGE_MM * LUNG_ML_PER_MM:
        message = f"no lung was found in {name}: is it a chest CT, and is the lung in its view?"
        raise InputError(message)
    height = _height(lobes)
    if height < MIN_COVERAGE_MM - 0.5:
        message = (
            f"{name} shows only {height:.0f} mm of lung from foot to head; at least "
            f"{MIN_COVERAGE_MM:.0f} mm are needed: give the whole scan"
        )
        raise InputError(message)
    return _placement(lobes, ct) + _cut_off(lobes)


def fit_lobes(
    lobes: sitk.Image, ct: sitk.Image, name: str = "the lobe mask"
) -> tuple[sitk.Image, dict[Lobe, str], list[ScanWarning]]:
    """Bring a lobe mask to the grid of its CT and say which lobes can be assessed.

    Args:
        lobes: Image with the values of :class:`Lobe`, on any grid.
        ct: The CT.
        name: What to call the mask in an error.

    Returns:
        The lobes as uint8 on the grid of ``ct``, the reason for each lobe that is not assessable
        (its label is taken out), and warnings for the report.

    Raises:
        LobeError: If mask and CT do not overlap, or no lobe can be assessed.
    """
    try:
        check_volume(lobes, name)
    except InputError as error:
        raise LobeError(str(error)) from error
    fitted, warnings = _to_grid(sitk.Cast(lobes, sitk.sitkUInt8), ct, name)
    counts = _counts(fitted)
    reasons = {}
    for lobe in Lobe:
        volume = counts[lobe] * geometry.voxel_ml(fitted)
        if volume == 0.0:
            reasons[lobe] = "not in the lobe mask"
        elif volume < MIN_LOBE_ML:
            reasons[lobe] = f"only {volume:.1f} ml of it in the lobe mask"
            fitted = sitk.ChangeLabel(fitted, changeMap={int(lobe): 0})
    if len(reasons) == len(Lobe):
        message = f"{name} has no lobe of at least {MIN_LOBE_ML:.0f} ml within the CT: check it"
        raise LobeError(message)
    if reasons:
        text = "; ".join(f"{lobe.full_name}: {reason}" for lobe, reason in reasons.items())
        warnings.append(ScanWarning("lobes-missing", f"Not assessable: {text}."))
    return fitted, reasons, warnings


def _step(count: int) -> int:
    return max(1, math.ceil((count / _SAMPLES) ** (1 / 3)))


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
    step = _step(values.size)
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
    axis = _height_axis(image)
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
    dense = smooth > _DENSE_HU
    rays = np.zeros(dense.shape, dtype=np.uint8)
    for axis in {0, 1, 2} - {2 - _height_axis(image)}:
        rays += np.logical_or.accumulate(dense, axis=axis)
        rays += np.flip(np.logical_or.accumulate(np.flip(dense, axis), axis=axis), axis)
    inside = ndimage.binary_erosion(lung & (rays >= 3), border_value=1)
    return float(inside.sum()) * x * y * z * geometry.voxel_ml(image)


def _height_axis(image: sitk.Image) -> int:
    """Return the index axis (0 x, 1 y, 2 z) that runs most from foot to head."""
    return int(np.abs(np.array(image.GetDirection()).reshape(3, 3)[2]).argmax())


def _height(lobes: sitk.Image) -> float:
    """Return how far the lobes reach from foot to head in mm, specks left out."""
    values = sitk.GetArrayViewFromImage(lobes)
    steps = [max(1, math.ceil((values.size / _SAMPLES) ** 0.5))] * 3
    steps[2 - _height_axis(lobes)] = 1
    indices = np.argwhere(values[:: steps[0], :: steps[1], :: steps[2]]) * steps
    rise = np.array(lobes.GetDirection()).reshape(3, 3)[2] * lobes.GetSpacing()
    z = indices[:, ::-1] @ rise
    thickness = float(np.abs(rise).max())
    bins = np.bincount(((z - z.min()) / thickness + 0.5).astype(int))
    real = np.flatnonzero(bins > 0.02 * bins.max())
    return float(real[-1] - real[0] + 1) * thickness


def _counts(lobes: sitk.Image) -> np.ndarray:
    counts = np.zeros(256, dtype=np.int64)
    for plane in sitk.GetArrayViewFromImage(lobes):
        counts += np.bincount(plane.ravel(), minlength=256)
    return counts


def _to_grid(lobes: sitk.Image, ct: sitk.Image, name: str) -> tuple[sitk.Image, list[ScanWarning]]:
    if geometry.same_grid(lobes, ct):
        aligned = sitk.Image(lobes)
        aligned.CopyInformation(ct)
        return aligned, []
    total = float(_counts(lobes)[1:].sum()) * geometry.voxel_ml(lobes)
    if total == 0.0:
        message = f"{name} is empty: it has no lobe in it; give another file or none"
        raise LobeError(message)
    whole_voxels = _is_part_of(lobes, ct)
    fitted = geometry.resample(lobes, ct, "nearest" if whole_voxels else "labels")
    inside = float(_counts(fitted)[1:].sum()) * geometry.voxel_ml(fitted)
    if inside == 0.0:
        message = (
            f"{name} and the CT do not overlap in space: it belongs to another scan, or one of "
            "the two lost its origin or orientation; give the mask that was made on this CT"
        )
        raise LobeError(message)
    warnings = []
    if not whole_voxels:
        text = (
            f"The lobe mask has another grid than the CT ({by(lobes.GetSize())} voxels of "
            f"{by(lobes.GetSpacing())} mm) and was resampled to it."
        )
        warnings.append(ScanWarning("lobes-resampled", text))
    if inside < 0.95 * total:
        text = (
            f"{100.0 * (1.0 - inside / total):.0f} % of the lobe mask lie outside the CT's field "
            "of view: figures are for the part within."
        )
        warnings.append(ScanWarning("lobes-outside", text))
    return fitted, warnings


def _is_part_of(part: sitk.Image, whole: sitk.Image) -> bool:
    """Tell whether the voxels of two images coincide, as in a file cropped to its segments."""
    close = np.allclose(part.GetSpacing(), whole.GetSpacing(), rtol=1e-4) and np.allclose(
        part.GetDirection(), whole.GetDirection(), atol=1e-4
    )
    offset = np.array(whole.TransformPhysicalPointToContinuousIndex(part.GetOrigin()))
    return bool(close and np.abs(offset - np.round(offset)).max() < 0.01)


def _placement(lobes: sitk.Image, ct: sitk.Image) -> list[ScanWarning]:
    """Warn about lobes that lie strangely among each other or not on lung."""
    warnings = []
    problems = anatomy_problems(lobes)
    if problems:
        text = (
            f"The lobes do not lie as expected: {'; '.join(problems)}. Check scheme and "
            "orientation of the lobe mask: the figures may belong to other lobes."
        )
        warnings.append(ScanWarning("lobes-misplaced", text))
    hu = sitk.GetArrayViewFromImage(ct)
    every = (slice(None, None, _step(hu.size)),) * 3
    within = hu[every][sitk.GetArrayViewFromImage(lobes)[every] > 0]
    aerated = float(np.mean(within < _DENSE_HU)) if within.size else 1.0
    if aerated < 0.3:
        text = (
            f"Only {100.0 * aerated:.0f} % of the lobes lie on aerated lung: unless the lungs are "
            "consolidated, the lobe mask belongs to another scan or is flipped."
        )
        warnings.append(ScanWarning("lobes-off-lung", text))
    return warnings


def _cut_off(lobes: sitk.Image) -> list[ScanWarning]:
    """Warn about lobes that end at the edge of the image."""
    values = sitk.GetArrayViewFromImage(lobes)
    cut = set()
    for axis, spacing in enumerate(lobes.GetSpacing()[::-1]):
        pixel_mm2 = 1000.0 * geometry.voxel_ml(lobes) / spacing
        for end in (0, -1):
            face = np.bincount(values.take(end, axis).ravel(), minlength=256) * pixel_mm2
            cut |= {lobe for lobe in Lobe if face[lobe] > _CUT_AREA_MM2}
    if not cut:
        return []
    who = ", ".join(lobe.full_name for lobe in sorted(cut))
    text = f"Cut off by the edge of the CT: {who}. The figures are for the part that is seen."
    return [ScanWarning("cut-off", text)]
