"""The sound volume that the fuzz changes: a small chest that the checks accept, and its lobes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.lobes import Lobe

SIZE, SPACING = (38, 28, 26), (4.5, 4.5, 5.0)


@lru_cache
def ct() -> sitk.Image:
    """Return the chest, int16 HU with noise, so that no two slices are alike."""
    x, y, z = _points()
    hu = np.full(x.shape, -1000.0)
    hu[(x / 76) ** 2 + (y / 56) ** 2 < 1] = 40.0
    hu[_lung(x, y, z)] = -840.0
    hu[(x / 9) ** 2 + ((y - 44) / 9) ** 2 < 1] = 400.0
    hu += np.random.default_rng(0).normal(0.0, 12.0, hu.shape)
    return _image(hu.round().astype(np.int16))


@lru_cache
def lobes() -> sitk.Image:
    """Return the lobes of the chest, uint8."""
    x, y, z = _points()
    lung = _lung(x, y, z)
    result = np.zeros(x.shape, dtype=np.uint8)
    result[lung & (x > 0)] = Lobe.LUL
    result[lung & (x > 0) & (z < y)] = Lobe.LLL
    result[lung & (x < 0)] = Lobe.RUL
    result[lung & (x < 0) & (z < 8)] = Lobe.RML
    result[lung & (x < 0) & (z < y)] = Lobe.RLL
    return _image(result)


def corners(image: sitk.Image) -> np.ndarray:
    """Return where the first and last voxels lie, in LPS mm."""
    ends = [(0, n - 1) for n in image.GetSize()]
    return np.array(
        [
            image.TransformIndexToPhysicalPoint((int(i), int(j), int(k)))
            for i in ends[0]
            for j in ends[1]
            for k in ends[2]
        ]
    )


def _lung(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return ((np.abs(x) - 36) / 26) ** 2 + (y / 40) ** 2 + (z / 50) ** 2 < 1


def _points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    k, j, i = np.indices(SIZE[::-1])
    middle = (np.array(SIZE) - 1) / 2
    x, y, z = ((index - c) * s for index, c, s in zip((i, j, k), middle, SPACING, strict=True))
    return x, y, z


def _image(values: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(SPACING)
    image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(SIZE, SPACING, strict=True)])
    return image
