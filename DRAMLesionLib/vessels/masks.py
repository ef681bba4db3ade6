"""Pulmonary vessels: the Frangi reference and the inference of a vessel network.

METHOD section 3. The reference is Otsu's threshold on Frangi's vesselness inside the lungs. It
needs no training, so it also serves as the vessel mask where no weights of the vessel network are
loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images.boxes import bounding_box
from DRAMLesionLib.images.geometry import array, image_like, same_grid
from DRAMLesionLib.images.intensity import HU_MAX, HU_MIN, window
from DRAMLesionLib.networks.tiles import vessel_probability
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.typed import Between
from DRAMLesionLib.vessels.frangi import TRUNCATE, FrangiConfig, vesselness

__all__ = [
    "FrangiConfig",
    "ReferenceConfig",
    "VesselSettings",
    "predict_vessels",
    "reference_vessels",
    "vesselness",
]

Progress = Callable[[float], None]


@dataclass(frozen=True)
class ReferenceConfig:
    """Parameters of the reference mask.

    Attributes:
        frangi: Scales and sensitivities of the vesselness.
        contrast_hu: A vessel is brighter than its background by at least this. It keeps the mask
            from growing into the partial-volume rim, which Otsu's threshold alone lets in, and
            out of dense lesions. Minus infinity for Otsu's threshold alone.
        background_mm: Edge of the cube whose mean over the lung is the background.
        blob_mm: Where a cube of this edge fits into something bright, that is the background: a
            consolidation, not a vessel.
        min_volume_ml: Connected parts of the mask below this volume are noise.
    """

    frangi: FrangiConfig = field(default_factory=FrangiConfig)
    contrast_hu: float = 150.0
    background_mm: float = 15.0
    blob_mm: float = 8.0
    min_volume_ml: float = 0.02

    @classmethod
    def unguarded(cls) -> ReferenceConfig:
        """Return Otsu's threshold on Frangi's filter and nothing else, as in the paper."""
        return cls(contrast_hu=-math.inf, min_volume_ml=0.0)


@dataclass(frozen=True)
class VesselSettings:
    """What the card of a vessel network says of its use.

    Attributes:
        spacing: Isotropic voxel size in mm.
        threshold: Vessel is where the probability lies above it.
    """

    spacing: Annotated[float, Between(0.1, 20)]
    threshold: Annotated[float, Between(0, 1)]


def reference_vessels(
    ct: sitk.Image,
    lungs: sitk.Image,
    config: ReferenceConfig | None = None,
    progress: Progress | None = None,
) -> sitk.Image:
    """Return the vessels inside the lungs by Frangi's filter and Otsu's threshold (METHOD 3).

    Args:
        ct: HU on an isotropic working grid.
        lungs: Lung mask on the same grid, not 0 inside.
        config: Scales, sensitivities and the guards against noise.
        progress: Called with the finished share, 0 to 1; may raise to stop.

    Returns:
        uint8 image on the same grid, 1 where there is a vessel.

    Raises:
        InputError: The two grids differ or are not isotropic.
    """
    config = config or ReferenceConfig()
    spacing = _isotropic_spacing(ct, lungs)
    inside = array(lungs) > 0
    vessels = np.zeros(inside.shape, dtype=bool)
    if inside.any():
        box = bounding_box(inside, math.ceil(TRUNCATE * max(config.frangi.sigmas) / spacing))
        crop = inside[box]
        scaled = window(array(ct)[box])
        response = vesselness(scaled, spacing, config.frangi, crop, progress)
        found = response > _otsu(response[crop])
        found &= _contrast(scaled, crop, config, spacing) >= config.contrast_hu
        vessels[box] = _without_small_parts(found, config.min_volume_ml * 1000.0 / spacing**3)
    if progress is not None:
        progress(1.0)
    return image_like(vessels, ct)


def predict_vessels(
    network: UNet3D,
    ct: sitk.Image,
    lungs: sitk.Image,
    threshold: float = 0.7,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> tuple[sitk.Image, sitk.Image]:
    """Return the vessel network's probability and its vessels inside the lungs (METHOD 3).

    Args:
        network: Valid-padding U-Net with one channel, in evaluation mode, on ``device``.
        ct: HU on the working grid that the network was trained for.
        lungs: Lung mask on the same grid, not 0 inside.
        threshold: Vessel is where the probability lies above it.
        device: Where the network is.
        progress: Called with the finished share, 0 to 1; may raise to stop.

    Returns:
        The probability (float32, 0 outside the lungs) and the vessels (uint8).

    Raises:
        InputError: The grids differ.
    """
    _isotropic_spacing(ct, lungs)
    probability = vessel_probability(
        network, window(array(ct)), array(lungs) > 0, device=device, progress=progress
    )
    return image_like(probability, ct), image_like(probability > threshold, ct)


# -- masks ----------------------------------------------------------------------------------------


def _isotropic_spacing(ct: sitk.Image, lungs: sitk.Image) -> float:
    spacing = ct.GetSpacing()
    if ct.GetDimension() != 3 or max(spacing) - min(spacing) > 1e-3 * min(spacing):
        msg = f"vessels are found on an isotropic working grid, not at spacing {spacing} mm"
        raise InputError(msg)
    if not same_grid(ct, lungs):
        msg = "the lung mask lies on another grid than the CT; resample it to the working grid"
        raise InputError(msg)
    return float(spacing[0])


def _otsu(values: np.ndarray) -> float:
    return float(threshold_otsu(values)) if values.min() < values.max() else math.inf


def _contrast(
    scaled: np.ndarray, inside: np.ndarray, config: ReferenceConfig, spacing: float
) -> np.ndarray:
    """Return how many HU each voxel lies above the lung, or the lesion, around it."""
    edge = _odd(config.background_mm / spacing)
    weight = inside.astype(np.float32)
    background = ndimage.uniform_filter(scaled * weight, edge, mode="constant")
    weight = ndimage.uniform_filter(weight, edge, mode="constant")
    # a running mean leaves rounding where there is no lung at all
    background /= np.maximum(weight, 0.5 / edge**3, out=weight)
    edge = _odd(config.blob_mm / spacing)
    smooth = ndimage.uniform_filter(scaled, 3)  # an opening follows the darkest noise
    opened = ndimage.maximum_filter(ndimage.minimum_filter(smooth, edge), edge)
    np.maximum(background, opened, out=background)
    return (scaled - background) * (HU_MAX - HU_MIN)


def _odd(size: float) -> int:
    return 2 * round(size / 2.0) + 1


def _without_small_parts(found: np.ndarray, min_voxels: float) -> np.ndarray:
    labels, _ = ndimage.label(found, structure=np.ones((3, 3, 3)))
    large = np.bincount(labels.ravel()) >= min_voxels
    large[0] = False
    return large[labels]
