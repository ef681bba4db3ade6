"""What is measured on a real CT."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import LEFT_LOBES
from Testing.library.overlap import dice

GRID_MM = 1.5
GAS_HU, GAS_ML = -930.0, 0.5
SOFT_HU, WALLED_IN = -300.0, 0.45
LOW = 0.4
NEGATIVE_ML = 0.05


def lung_dice(lobes: sitk.Image, contours: sitk.Image) -> dict[str, float]:
    """Return the Dice coefficients of both lungs together and of each with the contours.

    Args:
        lobes: Values of :class:`DRAMLesionLib.lobes.Lobe`.
        contours: 1 right, 2 left, on the same grid.
    """
    found, true = geometry.array(lobes), geometry.array(contours)
    left = np.isin(found, LEFT_LOBES)
    return {
        "dice": dice(found > 0, true > 0),
        "right": dice((found > 0) & ~left, true == 1),
        "left": dice(left, true == 2),
    }


def lung_ml(lobes: sitk.Image) -> dict[str, float]:
    """Return the volume of each lung."""
    found = geometry.array(lobes)
    left = np.isin(found, LEFT_LOBES)
    ml = geometry.voxel_ml(lobes)
    return {"left": ml * np.sum(left), "right": ml * np.sum((found > 0) & ~left)}


def gut_gas_ml(ct: sitk.Image, lobes: sitk.Image) -> float:
    """Return how many ml of gas in stomach and bowel lie in a lobe.

    Such gas is a space of at least ``GAS_ML`` whose HU, averaged over 4.5 mm, are below
    ``GAS_HU``; whose surroundings, 4.5 to 7.5 mm away, are to ``WALLED_IN`` or more soft tissue
    that is in no lobe; and whose middle lies in the lowest ``LOW`` of the lungs' height or
    beneath. Emphysema and cavities have lung around them, trachea and bronchi lie higher.
    """
    grid = geometry.working_grid(ct, GRID_MM)
    hu = geometry.array(geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True))
    inside = geometry.array(geometry.resample(lobes, grid, "nearest")) > 0
    used = np.flatnonzero(inside.any(axis=(1, 2)))
    low = used[0] + LOW * (used[-1] - used[0])
    spaces, _ = ndimage.label(ndimage.uniform_filter(hu, 3) < GAS_HU)
    total = 0.0
    for number, box in enumerate(ndimage.find_objects(spaces), start=1):
        middle = (box[0].start + box[0].stop) / 2.0
        wide = tuple(slice(max(side.start - 8, 0), side.stop + 8) for side in box)
        space = spaces[wide] == number
        held = int(np.count_nonzero(space & inside[wide]))
        if not held or middle > low or space.sum() * GRID_MM**3 / 1000.0 < GAS_ML:
            continue
        near = ndimage.binary_dilation(space, iterations=3)
        around = ndimage.binary_dilation(near, iterations=2) & ~near
        if np.mean((hu[wide] > SOFT_HU)[around] & ~inside[wide][around]) >= WALLED_IN:
            # the rim, where gas and wall share a voxel, belongs to it
            total += np.count_nonzero(near & inside[wide] & (hu[wide] < SOFT_HU))
    return float(total * GRID_MM**3 / 1000.0)


def lesion_percent(lesions: sitk.Image, lobes: sitk.Image) -> float:
    """Return the share of the lungs that is called lesion."""
    lung = geometry.array(lobes) > 0
    return 100.0 * float(np.mean(geometry.array(lesions)[lung] > 0))


def by_slice(lesions: sitk.Image, infected: Mapping[int, bool]) -> dict[str, float]:
    """Compare the lesions with a reader's yes or no by slice.

    Returns:
        ``auc``: how well the volume in a slice tells infected from other slices; ``negatives``:
        the percentage of the others that hold more than ``NEGATIVE_ML``.
    """
    ml = (geometry.array(lesions) > 0).sum(axis=(1, 2)) * geometry.voxel_ml(lesions)
    yes = np.array([ml[k] for k, answer in infected.items() if answer])
    no = np.array([ml[k] for k, answer in infected.items() if not answer])
    return {"auc": auc(yes, no), "negatives": 100.0 * float(np.mean(no > NEGATIVE_ML))}


def auc(yes: np.ndarray, no: np.ndarray) -> float:
    """Return the share of pairs in which ``yes`` is the larger; a tie counts half."""
    difference = yes[:, None] - no[None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))
