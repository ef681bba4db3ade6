"""Whether lobes, given or estimated, fit their CT; the one check for library, module and training.

The rules are those of :mod:`DRAMLesionLib.reading.checks`: what would make a result wrong without
anybody noticing is an error, what a reader of the report has to know is a warning.
"""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, LobeError, ScanWarning
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.lobes.schemes import anatomy_problems
from DRAMLesionLib.reading.checks import DENSE_HU, LUNG_ML_PER_MM
from DRAMLesionLib.reading.headers import MIN_COVERAGE_MM, by, check_volume
from DRAMLesionLib.reading.notes import UNPLACED, notes

MIN_LOBE_ML = 5.0
"""A lobe of which less is seen is not assessable."""

_CUT_AREA_MM2 = 300.0


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
        LobeError: If mask and CT do not overlap, no lobe can be assessed, or the mask does not say
            where it lies and has not the size of the CT.
    """
    try:
        check_volume(lobes, name)
    except InputError as error:
        raise LobeError(str(error)) from error
    known = notes(lobes)
    lobes = sitk.Cast(lobes, sitk.sitkUInt8)
    lobes, told = _placed(lobes, ct, known, name)
    fitted, warnings = _to_grid(lobes, ct, name)
    warnings = told + warnings
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


def _height(lobes: sitk.Image) -> float:
    """Return how far the lobes reach from foot to head in mm, specks left out."""
    values = sitk.GetArrayViewFromImage(lobes)
    steps = [max(1, math.ceil((values.size / geometry.SAMPLES) ** 0.5))] * 3
    steps[2 - geometry.height_axis(lobes)] = 1
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


def _placed(
    lobes: sitk.Image, ct: sitk.Image, known: list[ScanWarning], name: str
) -> tuple[sitk.Image, list[ScanWarning]]:
    """Take a mask that does not say where it lies for one on the grid of the CT, if it can be."""
    unplaced = [note for note in known if note.code == UNPLACED]
    others = [note for note in known if note.code != UNPLACED]
    if not unplaced:
        return lobes, others
    reason = "; ".join(note.message.rstrip(".") for note in unplaced)
    if lobes.GetSize() != ct.GetSize():
        message = (
            f"{name} cannot be laid on the CT, whose size it has not ({by(lobes.GetSize())} and "
            f"{by(ct.GetSize())} voxels). {reason}: save it again on the grid of its CT"
        )
        raise LobeError(message)
    lobes.CopyInformation(ct)
    text = f"{reason}: since it has the size of the CT, it was laid on it voxel by voxel."
    return lobes, [*others, ScanWarning(UNPLACED, text)]


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
    every = (slice(None, None, geometry.sample_step(hu.size)),) * 3
    within = hu[every][sitk.GetArrayViewFromImage(lobes)[every] > 0]
    aerated = float(np.mean(within < DENSE_HU)) if within.size else 1.0
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
