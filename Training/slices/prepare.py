"""A single axial slice with 8-bit greys, made fit for networks that read volumes in HU.

Nothing but the picture is known: no HU, no spacing, no neighbours. So these are estimates, chosen
on slices of COVID-19 patients (whose lesions no network that ships was trained on):

* *HU*: two anchors, linear between and beyond them. The darkest ``DARK_SHARE`` of the pixels
  (airways, darkest lung) mean ``DARK_HU``; the brightest main peak of the histogram's bright part
  (muscle, heart, blood) means ``SOFT_HU``. One mapping for all slices does not do: pictures from
  different sources differ by 200 HU and more.
* *spacing*: both lungs together are ``LUNGS_MM`` wide.
* *lung region*: what holds some air, airways apart, closed along the chest wall by the library's
  own :func:`DRAMLesionLib.lobes.costal.close_lungs`, so that consolidation stays inside.
* *neighbours*: the slice itself, again and again (:mod:`Training.slices.flat`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.transform import resize

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes.costal import close_lungs
from DRAMLesionLib.lobes.lungs import part_left_right

DARK_SHARE, DARK_HU = 0.01, -950.0
SOFT_HU = 40.0
GUESS = (-1250.0, 1500.0 / 255.0)
"""HU of grey 0 and HU a grey level, a first guess that tells soft tissue from lung."""

LUNGS_MM = 270.0
AERATED_HU = -200.0
"""Below it there is some air: lung, and most of the consolidation with its air-filled bronchi."""

CHEST_WALL_HU = 40.0
"""What lies beyond the border of a slice that is cropped to the lungs."""

_FAT_TO_MUSCLE = (40.0, 160.0)
_STACK = 6
_PAD = 24


@dataclass(frozen=True)
class PreparedSlice:
    """A slice on the grid of a network.

    Attributes:
        hu: (j, i) float32, isotropic.
        lungs: (j, i) uint8, 0 outside, 1 left, 2 right lung.
        spacing: Edge of a pixel of ``hu`` in mm.
        pixel_mm: Estimated edge of a pixel of the picture in mm.
    """

    hu: np.ndarray
    lungs: np.ndarray
    spacing: float
    pixel_mm: float


def prepare_slice(grey: np.ndarray, spacing: float, lungs_mm: float = LUNGS_MM) -> PreparedSlice:
    """Estimate HU, spacing and lungs of a slice, and bring it to a network's grid.

    Args:
        grey: (j, i) uint8, patient's right at the left, front at the top.
        spacing: Edge of a pixel of the grid in mm.
        lungs_mm: Width of both lungs together.

    Raises:
        InputError: If nothing in the slice looks like lung.
    """
    hu = to_hu(grey)
    columns = np.flatnonzero(ndimage.binary_opening(hu < AERATED_HU, iterations=2).any(axis=0))
    if columns.size == 0:
        message = "nothing in it is as dark as lung"
        raise InputError(message)
    pixel_mm = lungs_mm / float(columns[-1] - columns[0] + 1)
    shape = [max(8, round(n * pixel_mm / spacing)) for n in grey.shape]
    coarse = resize(hu, shape, order=1, anti_aliasing=True).astype(np.float32)
    return PreparedSlice(coarse, find_lungs(coarse, spacing), spacing, pixel_mm)


def to_hu(grey: np.ndarray) -> np.ndarray:
    """Return HU, float32, by two anchors; see the module."""
    guess = GUESS[0] + GUESS[1] * grey.astype(np.float32)
    dark = float(np.quantile(guess, DARK_SHARE))
    soft = _soft_tissue(guess)
    if soft - dark < 200.0:
        message = "its greys are too close to each other for a CT of the chest"
        raise InputError(message)
    return ((guess - dark) / (soft - dark) * (SOFT_HU - DARK_HU) + DARK_HU).astype(np.float32)


def _soft_tissue(guess: np.ndarray) -> float:
    """Return the guessed HU of muscle: the main peak, or one a little brighter if that is fat."""
    counts, edges = np.histogram(guess, np.arange(-400.0, 270.0, 10.0))
    smooth = ndimage.gaussian_filter1d(counts.astype(float), 1.5)
    main = int(np.argmax(smooth))
    peaks = np.flatnonzero(
        (smooth == ndimage.maximum_filter1d(smooth, 7)) & (smooth >= 0.5 * smooth[main])
    )
    low, high = _FAT_TO_MUSCLE
    brighter = [p for p in peaks if low <= edges[p] - edges[main] <= high]
    return float(edges[max(brighter, default=main)] + 5.0)


def find_lungs(hu: np.ndarray, spacing: float) -> np.ndarray:
    """Return the lungs of a slice, consolidation at the chest wall included.

    Args:
        hu: (j, i) HU, patient's right at the left.
        spacing: Edge of a pixel in mm.

    Returns:
        uint8: 0 outside, 1 left, 2 right lung; empty if nothing looks like lung.
    """
    # pictures are cropped to the lungs: the chest wall goes on beyond their border
    padded = np.pad(hu, _PAD, constant_values=CHEST_WALL_HU)
    air = padded < AERATED_HU
    aerated = _aerated_lung(padded, air, spacing)
    if not aerated.any():
        return np.zeros(hu.shape, dtype=np.uint8)
    volume, lungs, other = (
        np.repeat(plane[None], _STACK, axis=0) for plane in (padded, aerated, air & ~aerated)
    )
    sides, _ = part_left_right(volume, lungs, np.zeros_like(lungs))
    # in one slice a hilum cannot be told from consolidation beside a bronchus
    closed = close_lungs(volume, sides, other, spacing, without_hila=False)[_STACK // 2]
    return closed[_PAD:-_PAD, _PAD:-_PAD]


def _aerated_lung(hu: np.ndarray, air: np.ndarray, spacing: float) -> np.ndarray:
    """Return the air-filled parts that are lung: neither airway nor beyond the body."""
    core, count = ndimage.label(ndimage.binary_opening(air, iterations=2))
    numbers = np.setdiff1d(np.arange(1, count + 1), core[_corners(hu.shape)])
    if numbers.size == 0:
        return np.zeros_like(air)
    sizes = ndimage.sum_labels(core > 0, core, numbers) * spacing**2
    medians = ndimage.median(hu, core, numbers)
    centres = np.array(ndimage.center_of_mass(core > 0, core, numbers))[:, 1]
    columns = np.flatnonzero(np.isin(core, numbers).any(axis=0))
    middle, width = (columns[0] + columns[-1]) / 2.0, columns[-1] - columns[0]
    airway = (
        (sizes < 900.0)
        & (np.abs(centres - middle) < 0.18 * width)
        & (medians < medians[np.argmax(sizes)] - 60.0)
    )
    kept = np.isin(core, numbers[~airway])
    others = ndimage.binary_dilation((core > 0) & ~kept, iterations=3)
    return ndimage.binary_propagation(kept, mask=air & ~others)


def _corners(shape: tuple[int, ...]) -> np.ndarray:
    """Return the corners of the picture, which round lungs never reach, (j, i) bool."""
    result = np.zeros(shape, dtype=bool)
    edge = max(3, round(0.04 * (min(shape) - 2 * _PAD)))
    near = [slice(_PAD, _PAD + edge), slice(-_PAD - edge, -_PAD)]
    for j in near:
        for i in near:
            result[j, i] = True
    return result
