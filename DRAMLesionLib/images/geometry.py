"""Grids and the one resampling routine.

SimpleITK images carry their geometry in LPS millimetres with (x, y, z) index order; numpy and torch
see the same data as (k, j, i). Inside the library every stage works on a *working grid*: isotropic,
its axes parallel to L, P and S. So the way an input was stored (axis order, flips, oblique
directions) is dealt with here and nowhere else.
"""

from __future__ import annotations

import itertools
import math
import zlib
from typing import Literal

import numpy as np
import SimpleITK as sitk

AIR_HU = -1024.0
"""What a CT is filled with outside its field of view."""

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

SAMPLES = 1_500_000
"""So many voxels of a CT are enough where a share or a centre is asked for."""

Interpolation = Literal["linear", "nearest", "labels"]


def same_grid(a: sitk.Image, b: sitk.Image, tolerance: float = 1e-3) -> bool:
    """Tell whether two images have the same size and, within ``tolerance`` of a voxel, place."""
    if a.GetSize() != b.GetSize():
        return False
    limit = tolerance * min(a.GetSpacing())
    return all(
        max(abs(p - q) for p, q in zip(pa, pb, strict=True)) <= limit
        for pa, pb in zip(_corners(a), _corners(b), strict=True)
    )


def working_grid(image: sitk.Image, spacing: float, margin: float = 0.0) -> sitk.Image:
    """Return an empty image on the isotropic, axis-parallel LPS grid that covers ``image``.

    Args:
        image: 3D image of any orientation.
        spacing: Edge of a voxel in mm.
        margin: Millimetres to add on every side.

    Returns:
        A uint8 image of zeros; only its geometry matters. Voxel edges, not voxel centres, meet the
        edges of the input's field of view, so that down- and up-sampling do not shift the content.
    """
    corners = np.array(_corners(image, edges=True))
    lower = corners.min(axis=0) - margin
    extent = corners.max(axis=0) + margin - lower
    size = [max(1, int(np.ceil(e / spacing - 1e-3))) for e in extent]
    start = lower + extent / 2.0 - (np.array(size) - 1) * spacing / 2.0
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing((spacing,) * 3)
    grid.SetOrigin(start.tolist())
    grid.SetDirection(IDENTITY)
    return grid


def resample(
    image: sitk.Image,
    grid: sitk.Image,
    interpolation: Interpolation = "linear",
    fill: float = 0.0,
    antialias: bool = False,
) -> sitk.Image:
    """Resample ``image`` to the geometry of ``grid``.

    Args:
        image: 3D scalar image.
        grid: Image whose size, spacing, origin and direction the result gets.
        interpolation: ``"linear"`` (result float32), ``"nearest"`` (pixel type kept), or
            ``"labels"``: each voxel gets the label with the largest linearly interpolated share, so
            that outlines stay smooth when a coarse label map is brought to a fine grid.
        fill: Value outside the field of view of ``image``.
        antialias: Smooth along axes whose spacing grows, so that the noise of a finer grid does
            not fold into a coarser one. Only for ``"linear"``.

    Returns:
        Image on ``grid``.
    """
    if same_grid(image, grid):
        return sitk.Cast(image, sitk.sitkFloat32) if interpolation == "linear" else image
    if interpolation == "labels":
        return _resample_labels(image, grid, int(fill))
    if interpolation == "nearest":
        return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkNearestNeighbor, fill)
    source = _smooth_for(image, grid) if antialias else image
    return sitk.Resample(source, grid, sitk.Transform(), sitk.sitkLinear, fill, sitk.sitkFloat32)


def array(image: sitk.Image) -> np.ndarray:
    """Return the voxels of ``image`` as a new array in (k, j, i) order."""
    return sitk.GetArrayFromImage(image)


def image_like(values: np.ndarray, grid: sitk.Image) -> sitk.Image:
    """Return ``values`` (k, j, i) as an image with the geometry of ``grid``."""
    if values.dtype == bool:
        values = values.astype(np.uint8)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values))
    image.CopyInformation(grid)
    return image


def voxel_ml(image: sitk.Image) -> float:
    """Return the volume of one voxel in millilitres."""
    return float(np.prod(image.GetSpacing())) / 1000.0


def voxel_sum(image: sitk.Image) -> str:
    """Return a checksum of an image's values, rounded, whatever file they came from.

    It tells whether a CT is the one that results were made from: no type and no compression counts.
    """
    values = sitk.GetArrayViewFromImage(image)
    total = 0
    for plane in values:
        total = zlib.crc32(np.rint(plane).astype("<i4").tobytes(), total)
    return f"{total:08x}"


def _corners(image: sitk.Image, edges: bool = False) -> list[tuple[float, ...]]:
    """Return the eight corner points in LPS mm: of voxel centres, or of the outer voxel edges."""
    offset = 0.5 if edges else 0.0
    ranges = [(-offset, n - 1 + offset) for n in image.GetSize()]
    return [
        image.TransformContinuousIndexToPhysicalPoint(index) for index in itertools.product(*ranges)
    ]


def _smooth_for(image: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Blur each axis of ``image`` so that its resolution is that of ``grid``."""
    target = max(grid.GetSpacing())
    # a box of width w has standard deviation w / sqrt(12): take the difference of the two boxes
    sigmas = [np.sqrt(max(target**2 - s**2, 0.0) / 12.0) for s in image.GetSpacing()]
    if all(sigma < 0.25 * s for sigma, s in zip(sigmas, image.GetSpacing(), strict=True)):
        return image
    variances = [float(sigma) ** 2 for sigma in sigmas]
    return sitk.DiscreteGaussian(sitk.Cast(image, sitk.sitkFloat32), variances, 16, 0.02, True)


def _resample_labels(image: sitk.Image, grid: sitk.Image, fill: int) -> sitk.Image:
    """Resample by the largest linear share, computed only where labels can end up.

    A background voxel needs no shares, and most of a CT is background: the box around all labels
    is resampled and pasted into a grid of ``fill``.
    """
    result = sitk.Image(grid.GetSize(), image.GetPixelID())
    result.CopyInformation(grid)
    if fill:
        result += fill
    box = _box_on_grid(image, grid, fill)
    if box is None:
        return result
    start, size = box
    part = sitk.Resample(
        image,
        sitk.RegionOfInterest(result, size, start),
        sitk.Transform(),
        sitk.sitkLabelLinear,
        float(fill),
        image.GetPixelID(),
    )
    return sitk.Paste(result, part, size, destinationIndex=start)


def _box_on_grid(
    image: sitk.Image, grid: sitk.Image, fill: int
) -> tuple[list[int], list[int]] | None:
    """Return start and size (i, j, k) on ``grid`` of all that is not ``fill``; None if nothing."""
    occupied = sitk.LabelShapeStatisticsImageFilter()
    occupied.ComputePerimeterOff()
    occupied.Execute(image != fill)
    if not occupied.HasLabel(1):
        return None
    box = occupied.GetBoundingBox(1)
    # half a voxel to the edge, and half a voxel more where the linear share falls to one half
    ranges = [(s - 1.0, s + n) for s, n in zip(box[:3], box[3:], strict=True)]
    corners = np.array(
        [
            grid.TransformPhysicalPointToContinuousIndex(
                image.TransformContinuousIndexToPhysicalPoint(corner)
            )
            for corner in itertools.product(*ranges)
        ]
    )
    start = np.clip(np.floor(corners.min(axis=0)), 0, grid.GetSize()).astype(int)
    stop = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, grid.GetSize()).astype(int)
    if np.any(stop <= start):
        return None
    return start.tolist(), (stop - start).tolist()


def sample_step(count: int) -> int:
    """Return the step along each axis that leaves about 1.5 million of ``count`` voxels."""
    return max(1, math.ceil((count / SAMPLES) ** (1 / 3)))


def height_axis(image: sitk.Image) -> int:
    """Return the index axis (0 x, 1 y, 2 z) that runs most from foot to head."""
    return int(np.abs(np.array(image.GetDirection()).reshape(3, 3)[2]).argmax())
