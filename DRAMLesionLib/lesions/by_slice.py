"""Networks for slices over a whole scan, axial slice by axial slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import SimpleITK as sitk
import torch

from DRAMLesionLib.images import geometry, intensity
from DRAMLesionLib.images.windows import lung_window
from DRAMLesionLib.lesions.segmentation import Lesions
from DRAMLesionLib.networks.slices import SliceNetwork
from DRAMLesionLib.typed import Between

Progress = Callable[[float], None]


@dataclass(frozen=True)
class SliceConfig:
    """Settings of a network for slices, as its card has them.

    Attributes:
        method: What it was trained by, such as ``decomposition``.
        spacing: Isotropic voxel size in mm.
        size: Least edge of what the network sees of a slice, in voxels.
        threshold: Lesion is where the map lies above it.
        suppress_vessels: Whether the map is 0 on vessels.
        batch: Slices at a time; decides about speed and memory alone.
    """

    method: str = ""
    spacing: Annotated[float, Between(0.1, 20)] = 1.5
    size: Annotated[int, Between(8, 1024)] = 160
    threshold: Annotated[float, Between(0, 1)] = 0.5
    suppress_vessels: bool = False
    batch: Annotated[int, Between(1)] = 8


SliceFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From slices (n, 1, j, i) in [0, 1] and their lungs, bool, to maps of the same shape."""


def map_slices(
    found: SliceFunction,
    image: np.ndarray,
    lungs: np.ndarray,
    size: int,
    stride: int,
    batch: int = 8,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Map the axial slices of a scan one by one.

    Args:
        found: What maps slices, on ``device``.
        image: (k, j, i) windowed to [0, 1], on an axis-parallel LPS grid.
        lungs: (k, j, i) bool.
        size: See :class:`SliceConfig`.
        stride: Edges of what is seen are a multiple of this.
        batch: See :class:`SliceConfig`.
        device: Where to compute.
        progress: Called with the share done, 0 to 1.

    Returns:
        (k, j, i) float32, 0 outside the lungs.
    """
    device = device or torch.device("cpu")
    result = np.zeros(image.shape, dtype=np.float32)
    planes = np.flatnonzero(lungs.any(axis=(1, 2)))
    if not planes.size:
        return result
    window = lung_window(lungs, size, stride)
    for first in range(0, len(planes), batch):
        chosen = planes[first : first + batch]
        seen, inside = (
            torch.from_numpy(window.cut(volume[chosen]))[:, None].to(device)
            for volume in (image.astype(np.float32, copy=False), lungs)
        )
        values = found(seen, inside).float().cpu().numpy()[:, 0]
        part = np.zeros((len(chosen), *image.shape[1:]), dtype=np.float32)
        window.paste(values, part)
        result[chosen] = part * lungs[chosen]
        if progress is not None:
            progress(min(1.0, (first + batch) / len(planes)))
    return result


@torch.no_grad()
def lesion_map(
    network: SliceNetwork,
    ct: sitk.Image,
    lungs: sitk.Image,
    config: SliceConfig,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the map of lesion of a scan, (k, j, i) float32 in [0, 1], 0 outside the lungs.

    Args:
        network: In evaluation mode, on ``device``.
        ct: HU on a working grid of ``config.spacing``.
        lungs: Mask on the same grid.
        config: Settings.
        device: Where the network is.
        progress: Called with the share done, 0 to 1.
    """
    image = intensity.window(geometry.array(ct))
    inside = geometry.array(lungs) > 0
    return map_slices(
        network.lesion_map,
        image,
        inside,
        config.size,
        network.stride,
        config.batch,
        device,
        progress,
    )


def find_lesions(
    network: SliceNetwork,
    ct: sitk.Image,
    lungs: sitk.Image,
    config: SliceConfig,
    device: torch.device | None = None,
    progress: Progress | None = None,
    vessels: sitk.Image | None = None,
) -> Lesions:
    """Find the lesions of a scan.

    Args:
        network: As for :func:`lesion_map`.
        ct: HU, any orientation.
        lungs: uint8 mask on the same grid; lesions end where it ends.
        config: Settings.
        device: Where the network is.
        progress: Called with the share done, 0 to 1.
        vessels: Mask on any grid; needed for ``config.suppress_vessels`` alone.
    """
    grid = geometry.working_grid(ct, config.spacing)
    coarse_ct = geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True)
    coarse_lungs = geometry.resample(lungs, grid, "nearest")
    values = lesion_map(network, coarse_ct, coarse_lungs, config, device, progress)
    if config.suppress_vessels and vessels is not None:
        values[geometry.array(geometry.resample(vessels, grid, "labels")) > 0] = 0.0
    share = geometry.image_like(values, grid)
    found = sitk.Cast(geometry.resample(share, ct) > config.threshold, sitk.sitkUInt8)
    return Lesions(sitk.Mask(found, lungs), share, 0.0)
