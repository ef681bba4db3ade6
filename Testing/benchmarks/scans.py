"""The CT that the benchmarks work on: a real one where the data lie beside the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib import writing
from DRAMLesionLib.images import geometry
from DRAMLesionLib.phantom import make_phantom
from Testing.library.realdata import DATA


def whole_ct() -> sitk.Image:
    """Return a chest CT in HU: LIDC-IDRI-0002, or a phantom at 1 mm."""
    file = Path(DATA) / "ct" / "lidc-idri-0002.nii.gz"
    return sitk.ReadImage(str(file)) if file.is_file() else make_phantom(0, 1.0).ct


def of_size(ct: sitk.Image, size: tuple[int, int, int]) -> sitk.Image:
    """Return the same chest in ``size`` voxels (i, j, k): its field of view, sampled anew."""
    extent = [n * s for n, s in zip(ct.GetSize(), ct.GetSpacing(), strict=True)]
    grid = sitk.Image(size, sitk.sitkUInt8)
    spacing = [e / n for e, n in zip(extent, size, strict=True)]
    grid.SetSpacing(spacing)
    grid.SetDirection(ct.GetDirection())
    # the first voxel's outer corner stays where it is
    corner = ct.TransformContinuousIndexToPhysicalPoint([-0.5] * 3)
    half = np.reshape(ct.GetDirection(), (3, 3)) @ (np.array(spacing) / 2.0)
    grid.SetOrigin([float(c + h) for c, h in zip(corner, half, strict=True)])
    values = geometry.array(geometry.resample(ct, grid, "linear"))
    # interpolation smooths the noise away, and a file without noise is small and quick to read
    noise = np.random.default_rng(0).normal(0.0, 15.0, values.shape)
    return geometry.image_like(np.round(values + noise).astype(np.int16), grid)


def write(ct: sitk.Image, file: Path) -> None:
    """Write a CT as the library writes it."""
    writing.write_image(ct, file)
