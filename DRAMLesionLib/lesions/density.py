"""Every patient's lung at one level of density, whatever breath the CT was taken in.

In expiration a healthy lung is as dense as faint ground glass in inspiration, by gravity more so at
the back than in front. The networks learn from lungs in inspiration, so they see the others brought
to that level: HU below 0 are scaled along the patient's front-to-back axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DRAMLesionLib.images import geometry

COMMON_HU = -905.0
"""The level of lungs in inspiration: LIDC-IDRI-0001 and 0002, which the weights have seen, lie at
-915 and -905."""

PERCENTILE = 15.0
"""What is called the level: healthy lung between vessels, also where half of a lung is diseased."""

DISEASED_HU = (-760.0, -740.0)
"""From the first level on a scan is scaled less, from the second on it is left as it is: no breath
makes a whole healthy lung as dense."""

_LEAST = (1.02, 1.05)
"""A scan whose factor is below the first is at the common level as far as anybody can tell; from
the second on it is scaled in full. In between the strength rises, so that two files of nearly the
same scan do not part here."""

_LARGEST = 1.35
_SLOPE = 2.2
"""How much more than the scan as a whole its densest part may be scaled: a lung that is dense at
the back only is diseased there, since one in inspiration differs little from front to back."""

_SLAB_MM = 12.0
_LEAST_VOXELS = 400
_SAMPLE_MM = 2.0


@dataclass(frozen=True)
class LungLevel:
    """How dense the lungs of a scan are, and what brings them to the common level.

    Attributes:
        hu: 15th percentile of the HU of both lungs.
        positions: Places along the patient's front-to-back axis (P of LPS) in mm, rising; empty
            where nothing is to be scaled.
        factors: What HU below 0 are multiplied with there.
        expiration: How sure it is that the scan was taken in expiration, 0 to 1.
    """

    hu: float
    positions: np.ndarray
    factors: np.ndarray
    expiration: float = 0.0

    @property
    def is_common(self) -> bool:
        """Whether the scan stays as it is."""
        return len(self.positions) == 0

    def summary(self) -> dict[str, float]:
        """Return what the report says about it: the level, and the range of the factors."""
        factors = [1.0] if self.is_common else self.factors
        return {
            "level_hu": round(self.hu, 1),
            "least_factor": round(float(np.min(factors)), 3),
            "largest_factor": round(float(np.max(factors)), 3),
        }


def find_level(ct: sitk.Image, lungs: sitk.Image) -> LungLevel:
    """Measure the level of the lungs of a CT.

    Args:
        ct: HU, any orientation.
        lungs: Mask on the same grid, at least one voxel.
    """
    steps = [max(1, round(_SAMPLE_MM / spacing)) for spacing in ct.GetSpacing()]
    x, y, z = steps
    every = (slice(None, None, z), slice(None, None, y), slice(None, None, x))
    inside = sitk.GetArrayViewFromImage(lungs)[every] > 0
    hu = np.asarray(sitk.GetArrayViewFromImage(ct)[every][inside], dtype=np.float32)
    level = float(np.percentile(hu, PERCENTILE))
    whole = COMMON_HU / min(level, DISEASED_HU[1])
    strength = np.interp(whole, _LEAST, (0.0, 1.0)) * np.interp(level, DISEASED_HU, (1.0, 0.0))
    if strength == 0.0:
        return LungLevel(level, np.zeros(0), np.zeros(0))
    across = _across(ct)[every][inside]
    slab = np.floor((across - across.min()) / _SLAB_MM).astype(int)
    middles, factors = [], []
    most = min(_LARGEST, 1.0 + _SLOPE * (whole - 1.0))
    for number in range(slab.max() + 1):
        values = hu[slab == number]
        if len(values) >= _LEAST_VOXELS:
            own = min(float(np.percentile(values, PERCENTILE)), COMMON_HU / _LARGEST)
            middles.append(across.min() + (number + 0.5) * _SLAB_MM)
            factors.append(np.clip(COMMON_HU / own, 1.0, most))
    if not middles:
        middles, factors = [0.0], [min(whole, most)]
    scaled = 1.0 + strength * (ndimage.gaussian_filter1d(factors, 1.0) - 1.0)
    return LungLevel(level, np.array(middles), scaled, float(strength))


def at_common_level(ct: sitk.Image, level: LungLevel) -> sitk.Image:
    """Bring a CT to the common level.

    Args:
        ct: HU, any orientation.
        level: From :func:`find_level`.

    Returns:
        The CT itself if it is there already; else HU of the same pixel type, at least -1024, and
        unchanged from 0 on.
    """
    if level.is_common:
        return ct
    across = _across(ct)
    values = sitk.GetArrayFromImage(ct)
    for plane, place in zip(values, across, strict=True):
        scaled = plane * np.interp(place, level.positions, level.factors)
        scaled = np.maximum(scaled, geometry.AIR_HU)
        if plane.dtype.kind != "f":
            scaled = np.rint(scaled)
        np.copyto(plane, scaled.astype(plane.dtype), where=plane < 0)
    return geometry.image_like(values, ct)


def _across(ct: sitk.Image) -> np.ndarray:
    """Return the place of each voxel (k, j, i) along P in mm, as a view that takes no memory."""
    along = np.array(ct.GetDirection()).reshape(3, 3)[1] * ct.GetSpacing()
    x, y, z = (step * np.arange(n) for step, n in zip(along, ct.GetSize(), strict=True))
    if along[0] == along[2] == 0.0:
        line = (ct.GetOrigin()[1] + y)[None, :, None]
        return np.broadcast_to(line, ct.GetSize()[::-1])
    return (ct.GetOrigin()[1] + x[None, None, :] + y[None, :, None] + z[:, None, None]).astype(
        np.float32
    )
