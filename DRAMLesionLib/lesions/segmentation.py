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
from DRAMLesionLib.lesions.gravity import dependent_density
from DRAMLesionLib.lesions.uncertainty import IntervalConfig, intervals
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.local import LOCAL_HALO
from DRAMLesionLib.networks.tiles import Slices, run_over_lungs
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.typed import Between

Progress = Callable[[float], None]

_END_SLICES = 2
"""So many slices of the working grid may lie beyond the middle of a scan's last slice."""

_SURE_VOXELS, _SURE_REACH, _RIM_VOXELS = 3, 4, 2

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
        sure: Lesion counts where a cube of three voxels' edge is near whose mean probability of
            lesion, what is no lesion left out, is above this. Walls of vessels and bronchi at the
            hilum, and what moves with heart and diaphragm, are thin or half sure.
        rim_share: Components of which a larger share lies within two voxels of the lungs' border
            are that border, and no lesion.
        level: Lesion is where its probability lies above this; 0 takes the most probable class, as
            in the paper. A network that learnt with the bootstrapping loss flips a voxel only where
            more than ``1 / (2 beta)`` of the labels say so, so that a level below one half makes
            good what it is too careful about.
        cut_margin: Near an end of the scan that cuts the lungs, lesion has to lead by so much.
            Chosen on two slabs of 5 cm, one with COVID-19 and one without.
        interval: How sure a lobe's fraction is; None where it was not measured for these weights.
    """

    spacing: Annotated[float, Between(0.1, 20)] = 1.5
    tile: Annotated[int, Between(8, step=8)] = 320
    slab: Annotated[int, Between(1)] = 16
    least_ml: Annotated[float, Between(0)] = 0.03
    sure: Annotated[float, Between(0, 1)] = 0.65
    rim_share: Annotated[float, Between(0, 1)] = 0.9
    cut_margin: Annotated[float, Between(0, 1)] = 0.5
    level: Annotated[float, Between(0, 1)] = 0.0
    interval: IntervalConfig | None = None


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
        dependent_ml: Volume that the network called lesion and that was taken for the effect of
            gravity in expiration.
    """

    mask: sitk.Image
    share: sitk.Image
    dependent_ml: float


def find_lesions(
    network: UNet3D,
    ct: sitk.Image,
    lungs: sitk.Image,
    config: SegmentationConfig,
    device: torch.device | None = None,
    progress: Progress | None = None,
    expiration: float = 0.0,
) -> Lesions:
    """Find the lesions of a scan.

    Args:
        network: As for :func:`segment`.
        ct: HU, any orientation.
        lungs: uint8 mask on the same grid; lesions end where it ends.
        config: Settings.
        device: Where the network is.
        progress: Called with the share done, 0 to 1.
        expiration: See :class:`DRAMLesionLib.lesions.density.LungLevel`.
    """
    grid = geometry.working_grid(ct, config.spacing)
    coarse_ct = geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True)
    coarse_lungs = geometry.resample(lungs, grid, "nearest")
    probabilities = segment(network, coarse_ct, coarse_lungs, config, device, progress)
    return decide(probabilities, ct, lungs, coarse_ct, coarse_lungs, config, expiration)


def decide(
    probabilities: np.ndarray,
    ct: sitk.Image,
    lungs: sitk.Image,
    coarse_ct: sitk.Image,
    coarse_lungs: sitk.Image,
    config: SegmentationConfig,
    expiration: float = 0.0,
) -> Lesions:
    """Decide what is lesion by what the network says.

    Args:
        probabilities: (3, k, j, i) from :func:`segment`.
        ct: HU, any orientation.
        lungs: uint8 mask on the same grid; lesions end where it ends.
        coarse_ct: HU on the working grid.
        coarse_lungs: Mask on the working grid.
        config: Settings.
        expiration: See :class:`DRAMLesionLib.lesions.density.LungLevel`.
    """
    inside, hu = geometry.array(coarse_lungs) > 0, geometry.array(coarse_ct)
    margin, found, dependent = lesions_on_grid(probabilities, hu, inside, config, expiration)
    grid = coarse_ct
    margin = limited_to(margin, found, inside)
    lesion = geometry.resample(geometry.image_like(margin, grid), ct, fill=-1.0) > 0
    mask = sitk.Mask(sitk.Cast(lesion, sitk.sitkUInt8), lungs)
    dependent_ml = np.count_nonzero(dependent) * config.spacing**3 / 1000.0
    return Lesions(mask, geometry.image_like(probabilities[LESION], grid), dependent_ml)


def lobe_intervals(
    lesions: Lesions, lobes: sitk.Image, config: IntervalConfig | None
) -> dict[Lobe, tuple[float, float]]:
    """Return the interval of each lobe's lesion fraction.

    Args:
        lesions: From :func:`find_lesions`.
        lobes: Labels of :class:`Lobe`, any grid.
        config: How intervals are made; None for weights that it was not measured for, which have
            none.
    """
    if config is None:
        return {}
    found, labels = (
        geometry.array(geometry.resample(image, lesions.share, "nearest"))
        for image in (lesions.mask, lobes)
    )
    return intervals(found > 0, geometry.array(lesions.share), labels, config)


def lesions_on_grid(
    probabilities: np.ndarray,
    hu: np.ndarray,
    lungs: np.ndarray,
    config: SegmentationConfig,
    expiration: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the margin of lesion on the working grid, what of it is found, and what is gravity's.

    Args:
        probabilities: (3, k, j, i) from :func:`segment`.
        hu: (k, j, i).
        lungs: (k, j, i) bool.
        config: Settings.
        expiration: See :class:`DRAMLesionLib.lesions.density.LungLevel`.

    Returns:
        (k, j, i) margin, see :func:`lesion_margin`; (k, j, i) bool, the lesions; and
        (k, j, i) bool, what the network called lesion and
        :func:`DRAMLesionLib.lesions.gravity.dependent_density` did not.
    """
    margin = surer_at_cut_ends(lesion_margin(probabilities, config.level), lungs, config)
    found = (margin > 0) & lungs
    dependent = dependent_density(hu, lungs, found, config.spacing, expiration)
    found = near_sure(found & ~dependent, probabilities[LESION], config)
    return margin, drop_false_components(found, lungs, config), dependent


def lesion_margin(probabilities: np.ndarray, level: float = 0.0) -> np.ndarray:
    """Return by how much lesion is the most probable class, (k, j, i) in [-2, 2].

    A voxel is lesion where this is positive. The margin, unlike the label, can be brought to
    another grid by linear interpolation.

    Args:
        probabilities: (3, k, j, i) from :func:`segment`.
        level: Instead, by how much it lies above this level, doubled: at 0.5 as much as among two
            classes.
    """
    if level > 0:
        return 2.0 * (probabilities[LESION] - np.float32(level))
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


def near_sure(found: np.ndarray, share: np.ndarray, config: SegmentationConfig) -> np.ndarray:
    """Return what is found, but for what lies nowhere near a place that the network is sure of.

    Args:
        found: (k, j, i) bool, what is lesion by :func:`lesion_margin` in the lungs.
        share: (k, j, i) probability of lesion.
        config: Settings.
    """
    mean = ndimage.uniform_filter(np.where(found, share, np.float32(0.0)), _SURE_VOXELS)
    sure = (mean > config.sure).view(np.uint8)
    return found & (ndimage.maximum_filter(sure, 2 * _SURE_REACH + 1) > 0)


def drop_false_components(
    found: np.ndarray, lungs: np.ndarray, config: SegmentationConfig
) -> np.ndarray:
    """Return what is found, but for specks and what is no more than the border of the lungs.

    Args:
        found: (k, j, i) bool, in the lungs.
        lungs: (k, j, i) bool.
        config: Settings.
    """
    components, count = ndimage.label(found)
    if count == 0:
        return found
    # the end of a scan is no border
    inner = ndimage.minimum_filter(lungs.view(np.uint8), 2 * _RIM_VOXELS + 1, mode="nearest") > 0
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    deep = np.bincount(components[inner], minlength=count + 1)
    least = 1000.0 * config.least_ml / config.spacing**3
    false = (sizes < least) | (sizes - deep > config.rim_share * sizes)
    return found & ~false[components]


def limited_to(margin: np.ndarray, found: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """Return the margin with another sign where it is positive and nothing is found.

    Beyond the lungs it stays positive beside what is found, or interpolation would shrink that.
    """
    beside = ndimage.maximum_filter(found.view(np.uint8), 3) > 0
    return np.where((margin > 0) & ~found & (lungs | ~beside), -margin, margin)
