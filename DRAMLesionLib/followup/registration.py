"""The lungs of the later CT laid over those of the earlier one: affine, then B-splines.

Only the lungs count. What lies around them slides along the pleura with every breath, and lesions
are what may have changed: both are painted out before the images are compared, so that no lesion is
shrunk to fit an earlier one. Everything is done on a coarse grid, with every voxel near the lungs:
nothing is drawn at random, and SimpleITK always cuts its work into the same pieces, so that the
number of threads changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DRAMLesionLib.followup import splines
from DRAMLesionLib.images import geometry
from DRAMLesionLib.images.boxes import bounding_box

Progress = Callable[[float], None]

GRID_MM = 3.0
"""Voxels of the images that are compared."""

_MARGIN_MM = 18.0
_LEVEL_MM = 18.0  # what is wider is the lung's density, which changes with each breath
_CONTRAST_HU = 350.0
_OUTSIDE = 1.0  # of the chest wall, in units of the contrast: as dense as a vessel
_WORK_UNITS = 4
_AFFINE_ITERATIONS = 60
_AFFINE_BLUR_MM = 4.0


@dataclass(frozen=True)
class Lungs:
    """What the registration sees of a scan; there is lung in it.

    Attributes:
        ct: HU, any orientation.
        lobes: Labels of :class:`~DRAMLesionLib.lobes.Lobe`, on the CT's grid.
        lesions: Lesion labels, 0 none, on the CT's grid.
    """

    ct: sitk.Image
    lobes: sitk.Image
    lesions: sitk.Image


@dataclass(frozen=True)
class Registration:
    """How the later lungs lie to the earlier ones.

    Attributes:
        transform: Takes points of the earlier CT to the same place of the body in the later one.
        affine: Its linear part.
        dice: Overlap of the lungs after it, 0 to 1.
        likeness: Correlation of vessels and fissures within the lungs after it, -1 to 1.
        folded: Share of the lungs where the transform turns space inside out, 0 to 1.
        expansion: Local volume in the later CT over that in the earlier one, on a coarse grid of
            the earlier CT's space that reaches beyond the lungs.
    """

    transform: sitk.Transform
    affine: sitk.Transform
    dice: float
    likeness: float
    folded: float
    expansion: sitk.Image


@dataclass(frozen=True)
class _View:
    """A scan on the coarse grid: structure inside the lungs, share of lung, where it is healthy."""

    structure: sitk.Image
    lung: sitk.Image
    healthy: sitk.Image


def register(
    earlier: Lungs,
    later: Lungs,
    progress: Progress | None = None,
    levels: tuple[splines.Level, ...] = splines.LEVELS,
) -> Registration:
    """Find each place of the earlier lungs in the later ones.

    Args:
        earlier: The first scan.
        later: The second one.
        progress: Called with the share done, 0 to 1; may raise to stop.
        levels: Of the B-splines.
    """
    tell = progress or (lambda _: None)
    fixed, moving = _view(earlier), _view(later)
    tell(0.15)
    affine = _affine(fixed.lung, moving.lung)
    tell(0.25)
    field = splines.fit(
        fixed.structure,
        moving.structure,
        fixed.lung,
        affine,
        lambda fraction: tell(0.25 + 0.7 * fraction),
        levels,
    )
    bent = sitk.DisplacementFieldTransform(sitk.Image(field))
    found = _judged(fixed, moving, affine, sitk.CompositeTransform([affine, bent]))
    tell(1.0)
    return found


def _view(scan: Lungs) -> _View:
    lungs = sitk.Cast(scan.lobes > 0, sitk.sitkUInt8)
    box = bounding_box(geometry.array(lungs) > 0)
    k, j, i = box
    grid = geometry.working_grid(lungs[i, j, k], GRID_MM, _MARGIN_MM)
    hu = geometry.array(_coarse(scan.ct, grid, geometry.AIR_HU))
    lung = geometry.array(_coarse(lungs, grid))
    lesion = geometry.array(_coarse(sitk.Cast(scan.lesions > 0, sitk.sitkUInt8), grid))
    lesion = ndimage.maximum_filter(lesion, 3) * (lung > 0)
    healthy = (lung > 0.99) & (lesion < 0.05)
    return _View(
        geometry.image_like(_structure(hu, lung, healthy, lesion), grid),
        geometry.image_like(lung.astype(np.float32), grid),
        geometry.image_like(healthy, grid),
    )


def _structure(
    hu: np.ndarray, lung: np.ndarray, healthy: np.ndarray, lesion: np.ndarray
) -> np.ndarray:
    """Return vessels and fissures over the lung's own density, the chest wall of one density."""
    sigma = _LEVEL_MM / GRID_MM
    weight = ndimage.gaussian_filter(healthy.astype(np.float32), sigma)
    level = ndimage.gaussian_filter(np.where(healthy, hu, 0.0).astype(np.float32), sigma)
    level /= np.maximum(weight, 1e-4)
    over = np.clip((hu - level) / _CONTRAST_HU, -0.5, 1.0) * (weight > 1e-3)
    over *= np.clip(1.0 - 2.0 * lesion, 0.0, 1.0)
    return (lung * over + (1.0 - lung) * _OUTSIDE).astype(np.float32)


def _coarse(image: sitk.Image, grid: sitk.Image, fill: float = 0.0) -> sitk.Image:
    """Return an image on a coarser grid: whole voxels are averaged first, which is quick."""
    factors = [max(1, int(GRID_MM / s + 0.01)) for s in image.GetSpacing()]
    small = sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)
    return geometry.resample(small, grid, "linear", fill)


def _affine(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """Return the affine transform that lays one pair of lungs over the other."""
    start = sitk.CenteredTransformInitializer(
        fixed,
        moving,
        sitk.AffineTransform(3),
        sitk.CenteredTransformInitializerFilter.MOMENTS,
    )
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfWorkUnits(_WORK_UNITS)
    method.SetNumberOfThreads(1)  # sums of several threads come in any order
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-3, numberOfIterations=_AFFINE_ITERATIONS
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2])
    method.SetSmoothingSigmasPerLevel([_AFFINE_BLUR_MM])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, True)
    method.Execute(fixed, moving)
    return start


def _judged(
    fixed: _View, moving: _View, affine: sitk.Transform, transform: sitk.Transform
) -> Registration:
    grid = fixed.lung

    def warped(image: sitk.Image, fill: float) -> np.ndarray:
        moved = sitk.Resample(image, grid, transform, sitk.sitkLinear, fill, sitk.sitkFloat32)
        return geometry.array(moved)

    here, there = geometry.array(fixed.lung) > 0.5, warped(moving.lung, 0.0) > 0.5
    healthy = (geometry.array(fixed.healthy) > 0) & (warped(moving.healthy, 0.0) > 0.99)
    field = sitk.TransformToDisplacementField(
        transform,
        sitk.sitkVectorFloat64,
        grid.GetSize(),
        grid.GetOrigin(),
        grid.GetSpacing(),
        grid.GetDirection(),
    )
    expansion = sitk.DisplacementFieldJacobianDeterminant(field)
    return Registration(
        transform=transform,
        affine=affine,
        dice=2.0 * float((here & there).sum()) / max(1.0, float(here.sum() + there.sum())),
        likeness=_correlation(
            geometry.array(fixed.structure), warped(moving.structure, _OUTSIDE), healthy
        ),
        folded=float((geometry.array(expansion)[here] <= 0.0).mean()),
        expansion=sitk.Cast(expansion, sitk.sitkFloat32),
    )


def _correlation(a: np.ndarray, b: np.ndarray, healthy: np.ndarray) -> float:
    """Return the correlation inside the healthy lung, away from its border; 0 if there is none."""
    inside = ndimage.binary_erosion(healthy)
    p, q = a[inside], b[inside]
    if p.size < 2 or p.std() == 0.0 or q.std() == 0.0:
        return 0.0
    return float(np.corrcoef(p, q)[0, 1])
