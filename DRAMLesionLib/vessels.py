"""Pulmonary vessels: the Frangi reference and the tiled inference of a vessel network.

METHOD section 3. The reference is Otsu's threshold on Frangi's vesselness inside the lungs. It
needs no training, so it also serves as the vessel mask where no weights of the vessel network are
loaded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.frangi import TRUNCATE, FrangiConfig, vesselness
from DRAMLesionLib.geometry import array, image_like, same_grid
from DRAMLesionLib.intensity import HU_MAX, HU_MIN, window

__all__ = ["FrangiConfig", "ReferenceConfig", "predict_vessels", "reference_vessels", "vesselness"]

Progress = Callable[[float], None]
Block = tuple[slice, slice, slice]


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
        box = _bounding_box(
            inside, margin=math.ceil(TRUNCATE * max(config.frangi.sigmas) / spacing)
        )
        crop = inside[box]
        scaled = window(array(ct)[box])
        response = vesselness(scaled, spacing, config.frangi, crop, progress)
        found = response > _otsu(response[crop])
        found &= _contrast(scaled, crop, config, spacing) >= config.contrast_hu
        vessels[box] = _without_small_parts(found, config.min_volume_ml * 1000.0 / spacing**3)
    if progress is not None:
        progress(1.0)
    return image_like(vessels, ct)


@torch.inference_mode()
def predict_vessels(
    network: Callable[[torch.Tensor], torch.Tensor],
    ct: sitk.Image,
    lungs: sitk.Image,
    threshold: float = 0.7,
    tile: int = 128,
    margin: int = 16,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[sitk.Image, sitk.Image]:
    """Return the vessel network's probability and its vessels inside the lungs (METHOD 3).

    Tiles overlap by twice ``margin``, of which each tile keeps only its own side, so that what the
    network's zero padding does to the border of a tile is thrown away. Tiles without lung are left
    out. Tiles start at multiples of 8 voxels: the pooling grid is that of a single pass over the
    whole volume, and the result does not depend on how it was tiled.

    Args:
        network: Zero-padding network in evaluation mode that takes (1, 1, k, j, i), the windowed
            CT in [0, 1], to logits of the same shape.
        ct: HU on the working grid that the network was trained for.
        lungs: Lung mask on the same grid, not 0 inside.
        threshold: Vessel is where the probability lies above it.
        tile: Edge of a tile in voxels, a multiple of 8 above twice ``margin``.
        margin: Voxels to drop on each inner side of a tile, a multiple of 8.
        device: Where the network lives.
        progress: Called with the finished share, 0 to 1; may raise to stop.

    Returns:
        The probability (float32, 0 outside the lungs) and the vessels (uint8).

    Raises:
        InputError: The grids differ, or tile and margin do not fit each other.
    """
    if tile % 8 or margin % 8 or margin < 0 or tile <= 2 * margin:
        msg = f"tile {tile} and margin {margin} must be multiples of 8, tile above twice margin"
        raise InputError(msg)
    _isotropic_spacing(ct, lungs)
    inside = array(lungs) > 0
    scaled = window(array(ct))
    probability = np.zeros(inside.shape, dtype=np.float32)
    cores = list(_cores_with_lung(inside, tile - 2 * margin))
    for done, core in enumerate(cores, start=1):
        outer = tuple(slice(max(c.start - margin, 0), c.stop + margin) for c in core)
        x = torch.from_numpy(_zero_padded(scaled[outer], 8))[None, None].to(device)
        inner = tuple(
            slice(c.start - o.start, c.stop - o.start) for c, o in zip(core, outer, strict=True)
        )
        probability[core] = network(x)[0, 0][inner].float().sigmoid().cpu().numpy()
        if progress is not None:
            progress(done / len(cores))
    probability[~inside] = 0.0
    return image_like(probability, ct), image_like(probability > threshold, ct)


# -- masks and tiles ------------------------------------------------------------------------------


def _isotropic_spacing(ct: sitk.Image, lungs: sitk.Image) -> float:
    spacing = ct.GetSpacing()
    if ct.GetDimension() != 3 or max(spacing) - min(spacing) > 1e-3 * min(spacing):
        msg = f"vessels are found on an isotropic working grid, not at spacing {spacing} mm"
        raise InputError(msg)
    if not same_grid(ct, lungs):
        msg = "the lung mask lies on another grid than the CT; resample it to the working grid"
        raise InputError(msg)
    return float(spacing[0])


def _bounding_box(inside: np.ndarray, margin: int) -> Block:
    """Return the box around a mask that is not empty, grown by ``margin`` voxels."""
    box = ndimage.find_objects(inside.view(np.uint8))[0]
    grown = (
        slice(max(s.start - margin, 0), min(s.stop + margin, n))
        for s, n in zip(box, inside.shape, strict=True)
    )
    return tuple(grown)  # type: ignore[return-value]


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


def _cores_with_lung(inside: np.ndarray, size: int) -> Iterator[Block]:
    """Yield the tiles without their margins that hold lung, cut to the box around the lungs."""
    if not inside.any():
        return
    box = _bounding_box(inside, margin=0)
    ranges = [
        [slice(a, min(a + size, s.stop)) for a in range(s.start // 8 * 8, s.stop, size)]
        for s in box
    ]
    for core in itertools.product(*ranges):
        if inside[core].any():
            yield core  # type: ignore[misc]


def _zero_padded(tile: np.ndarray, multiple: int) -> np.ndarray:
    """Return the tile with air behind it up to whole multiples, contiguous."""
    return np.ascontiguousarray(np.pad(tile, [(0, -n % multiple) for n in tile.shape]))
