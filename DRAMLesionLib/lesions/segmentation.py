"""The final segmentation network over a whole scan (paper, section III-A 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage

from DRAMLesionLib.images import geometry, intensity
from DRAMLesionLib.networks.local import LOCAL_HALO
from DRAMLesionLib.networks.tiles import Slices, run_over_lungs
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.typed import Between

Progress = Callable[[float], None]

_END_SLICES = 2
"""So many slices of the working grid may lie beyond the middle of a scan's last slice."""

BACKGROUND, VESSEL, LESION = 0, 1, 2
CLASSES = 3
"""Channels of the segmentation network and of the pseudo-labels it learns from."""


@dataclass(frozen=True)
class SegmentationConfig:
    """Settings of the final segmentation.

    Attributes:
        spacing: Isotropic voxel size in mm.
        tile: Largest edge of a tile's output in voxels, above what most lungs need. Tiles fit
            each other exactly, so this decides about speed and memory and not about the result.
        slab: Thickness in voxels of what is worked on at a time within a tile; the same holds.
        least_ml: Components of lesion below this volume are specks.
        vessel_share: Components of which a larger share lies on vessels, or one voxel beside them,
            are vessels: those of the hilum are as wide and as dense as a consolidation.
        cut_margin: Near an end of the scan that cuts the lungs, lesion has to lead by so much.
            Chosen on two slabs of 5 cm, one with COVID-19 and one without.
    """

    spacing: Annotated[float, Between(0.1, 20)] = 1.5
    tile: Annotated[int, Between(8, step=8)] = 320
    slab: Annotated[int, Between(1)] = 16
    least_ml: Annotated[float, Between(0)] = 0.03
    vessel_share: Annotated[float, Between(0, 1)] = 0.6
    cut_margin: Annotated[float, Between(0, 1)] = 0.5


@torch.no_grad()
def segment(
    network: UNet3D,
    ct: sitk.Image,
    lungs: sitk.Image,
    config: SegmentationConfig,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Compute the class probabilities of a scan.

    Args:
        network: Valid-padding U-Net with three classes, in evaluation mode, on ``device``.
        ct: HU on a working grid of ``config.spacing``.
        lungs: Mask on the same grid; tiles that do not touch it are skipped.
        config: Settings.
        device: Where the network is.
        progress: Called with the share done, 0 to 1.

    Returns:
        (3, k, j, i) float32 softmax probabilities of background, vessel and lesion; outside the
        bounding box of the lungs, and in tiles without lung, all of it is background.
    """
    device = device or torch.device("cpu")
    inside = geometry.array(lungs) > 0
    image = intensity.window(geometry.array(ct))
    probabilities = np.zeros((CLASSES, *inside.shape), dtype=np.float32)
    probabilities[BACKGROUND] = 1.0

    def take(part: Slices, logits: torch.Tensor) -> None:
        softmax = torch.softmax(logits[0].float(), dim=0).cpu().numpy()
        probabilities[(slice(None), *part)] = softmax

    run_over_lungs(network, image, inside, take, config.tile, config.slab, device, progress)
    return probabilities


@dataclass(frozen=True)
class Lesions:
    """What the final network finds in a scan.

    Attributes:
        mask: uint8 on the grid of the CT, inside the lungs.
        share: Softmax probability of lesion, float32 on the working grid.
    """

    mask: sitk.Image
    share: sitk.Image


def find_lesions(
    network: UNet3D,
    ct: sitk.Image,
    lungs: sitk.Image,
    vessels: sitk.Image,
    config: SegmentationConfig,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Lesions:
    """Find the lesions of a scan.

    Args:
        network: As for :func:`segment`.
        ct: HU, any orientation.
        lungs: uint8 mask on the same grid; lesions end where it ends.
        vessels: Mask of the vessel stage on any grid.
        config: Settings.
        device: Where the network is.
        progress: Called with the share done, 0 to 1.
    """
    grid = geometry.working_grid(ct, config.spacing)
    coarse_ct = geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True)
    coarse_lungs = geometry.resample(lungs, grid, "nearest")
    probabilities = segment(network, coarse_ct, coarse_lungs, config, device, progress)
    known = geometry.array(geometry.resample(vessels, grid, "labels")) > 0
    margin = lesion_margin(probabilities)
    margin = surer_at_cut_ends(margin, geometry.array(coarse_lungs) > 0, config)
    margin = drop_false_components(margin, known, config)
    lesion = geometry.resample(geometry.image_like(margin, grid), ct, fill=-1.0) > 0
    mask = sitk.Mask(sitk.Cast(lesion, sitk.sitkUInt8), lungs)
    return Lesions(mask, geometry.image_like(probabilities[LESION], grid))


def lesion_margin(probabilities: np.ndarray) -> np.ndarray:
    """Return by how much lesion is the most probable class, (k, j, i) in [-1, 1].

    A voxel is lesion where this is positive. The margin, unlike the label, can be brought to
    another grid by linear interpolation.

    Args:
        probabilities: (3, k, j, i) from :func:`segment`.
    """
    return probabilities[LESION] - np.maximum(probabilities[BACKGROUND], probabilities[VESSEL])


def surer_at_cut_ends(
    margin: np.ndarray, lungs: np.ndarray, config: SegmentationConfig
) -> np.ndarray:
    """Demand more where the scan cuts the lungs, so that half of what the network sees is a guess.

    What lies beyond the first and the last slice is their mirror image to the network: there it
    sees diffuse disease as well as elsewhere, and takes vessels and walls for lesion more often.

    Args:
        margin: (k, j, i) from :func:`lesion_margin`.
        lungs: (k, j, i) bool.
        config: Settings.

    Returns:
        The margin, less ``cut_margin`` in the slices whose surroundings reach beyond such an end.
    """
    near = np.zeros(len(margin), dtype=bool)
    if lungs[:_END_SLICES].any():
        near[:LOCAL_HALO] = True
    if lungs[-_END_SLICES:].any():
        near[-LOCAL_HALO:] = True
    return margin - np.float32(config.cut_margin) * near[:, None, None]


def drop_false_components(
    margin: np.ndarray, vessels: np.ndarray, config: SegmentationConfig
) -> np.ndarray:
    """Take specks and vessels out of what the network calls lesion.

    Args:
        margin: (k, j, i) from :func:`lesion_margin`.
        vessels: (k, j, i) bool, the vessels that the vessel stage has found.
        config: Settings.

    Returns:
        The margin, -1 in the components that are dropped.
    """
    components, count = ndimage.label(margin > 0)
    if count == 0:
        return margin
    near = ndimage.binary_dilation(vessels)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    on_vessels = np.bincount(components[near], minlength=count + 1)
    least = 1000.0 * config.least_ml / config.spacing**3
    false = (sizes < least) | (on_vessels > config.vessel_share * sizes)
    false[0] = False
    return np.where(false[components], np.float32(-1.0), margin)
