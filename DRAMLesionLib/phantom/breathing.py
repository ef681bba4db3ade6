"""A phantom that breathes: the same patient in another breath, with the way of every point known.

A smooth displacement, written down as a formula, lifts the diaphragm and narrows the chest. Voxels
are drawn where the formula says, so the place of an anatomical point in both breaths is exact. The
air that leaves makes the lung denser: its mass stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions.severity import fraction_to_score
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom.make import Phantom

_TOP_MM, _BOTTOM_MM = 90.0, -150.0
"""Heights over the carina between which the lift grows from nothing to all of it."""

_ITERATIONS = 30
"""Of the inversion: its error shrinks to a third at least with each."""

_AIR_ONLY_HU, _NO_AIR_HU = -500.0, -100.0
"""What is darker than the first is pressed together as air is, what is denser than the second not
at all."""

_WAVE_MM = 130.0


@dataclass(frozen=True)
class Breath:
    """How another breath moves the body; points are LPS mm of the phantom's space.

    Attributes:
        lift_mm: By how much the diaphragm rises; negative for a deeper breath.
        narrowing: Share by which the chest gets narrower from front to back.
        wave_mm: Largest of the displacements that follow no rule, in each direction.
        seed: What those are drawn from.
    """

    lift_mm: float = 20.0
    narrowing: float = 0.05
    wave_mm: float = 2.0
    seed: int = 0

    def before(self, points: np.ndarray) -> np.ndarray:
        """Return where points (n, 3) of the new breath were in the phantom."""
        x, y, z = np.asarray(points, dtype=np.float64).T
        depth = np.clip((_TOP_MM - z) / (_TOP_MM - _BOTTOM_MM), 0.0, 1.0)
        share = depth**2 * (3.0 - 2.0 * depth)
        # the back of the diaphragm moves more than its front
        down = self.lift_mm * share * (0.9 + 0.1 * np.tanh(y / 60.0))
        waves = self._waves(np.stack([x, y, z]))
        return np.stack(
            [
                x * (1.0 + 0.3 * self.narrowing * share) + waves[0],
                y + self.narrowing * share * (y - 40.0) + waves[1],
                z - down + waves[2],
            ],
            axis=1,
        )

    def after(self, points: np.ndarray) -> np.ndarray:
        """Return where points (n, 3) of the phantom are in the new breath."""
        wanted = np.asarray(points, dtype=np.float64)
        found = wanted.copy()
        for _ in range(_ITERATIONS):
            found += wanted - self.before(found)
        return found

    def _waves(self, places: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        phases = rng.uniform(0.0, 2.0 * np.pi, (3, 3))
        angles = 2.0 * np.pi * places / _WAVE_MM
        return np.stack([self.wave_mm * np.prod(np.sin(angles.T + row), axis=1) for row in phases])


def breathe(phantom: Phantom, breath: Breath, noise_hu: float = 0.0, seed: int = 0) -> Phantom:
    """Return a phantom's CT and truth in another breath, on the same grid.

    Args:
        phantom: What :func:`~DRAMLesionLib.phantom.make.make_phantom` gave.
        breath: The other breath.
        noise_hu: Standard deviation of noise that is added, since interpolation takes noise away.
        seed: What that noise is drawn from.
    """
    field = _field(phantom.ct, breath)
    squeeze = geometry.array(sitk.DisplacementFieldJacobianDeterminant(field))
    transform = sitk.DisplacementFieldTransform(field)

    def moved(image: sitk.Image, interpolator: int) -> sitk.Image:
        kind = sitk.sitkFloat32 if interpolator == sitk.sitkLinear else image.GetPixelID()
        return sitk.Resample(image, phantom.ct, transform, interpolator, 0.0, kind, True)

    lobes, vessels, airways, lesions = (
        moved(image, sitk.sitkLabelLinear)
        for image in (phantom.lobes, phantom.vessels, phantom.airways, phantom.lesions)
    )
    where, lesion = geometry.array(lobes), geometry.array(lesions)
    hu = geometry.array(moved(phantom.ct, sitk.sitkLinear))
    airy = np.clip((_NO_AIR_HU - hu) / (_NO_AIR_HU - _AIR_ONLY_HU), 0.0, 1.0) * (where > 0)
    hu = (hu + 1000.0) * (1.0 + airy * (squeeze - 1.0)) - 1000.0
    if noise_hu:
        noise = np.random.default_rng(seed).normal(0.0, 1.0, hu.shape)
        noise = ndimage.gaussian_filter(noise, 0.6)
        hu += noise * (noise_hu / noise.std())
    ct = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    fractions = {
        label: float(np.count_nonzero(lesion[where == label])) / max(1, int((where == label).sum()))
        for label in Lobe
    }
    return replace(
        phantom,
        ct=geometry.image_like(ct, phantom.ct),
        lobes=lobes,
        vessels=vessels,
        airways=airways,
        lesions=lesions,
        fractions=fractions,
        scores={label: fraction_to_score(share) for label, share in fractions.items()},
    )


def landmarks(phantom: Phantom, count: int = 100) -> np.ndarray:
    """Return points (n, 3) in LPS mm on vessels of all lobes, far from each other.

    They are voxel centres of vessels inside the lobes, each the farthest from those before it.
    """
    inside = (geometry.array(phantom.vessels) > 0) & (geometry.array(phantom.lobes) > 0)
    k, j, i = np.nonzero(inside)
    if len(k) == 0:
        return np.zeros((0, 3))
    places = np.stack([i, j, k], axis=1) * np.array(phantom.spacing) + phantom.ct.GetOrigin()
    chosen = [0]
    distance = np.full(len(places), np.inf)
    while len(chosen) < min(count, len(places)):
        distance = np.minimum(distance, np.linalg.norm(places - places[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(distance)))
    return places[chosen]


def _field(grid: sitk.Image, breath: Breath) -> sitk.Image:
    """Return the displacements from each voxel to where it was, as vectors in mm."""
    axes = [
        np.array(grid.GetOrigin())[n] + np.arange(grid.GetSize()[n]) * grid.GetSpacing()[n]
        for n in range(3)
    ]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    moved = (breath.before(points) - points).reshape(*z.shape, 3)
    field = sitk.GetImageFromArray(moved, isVector=True)
    field.CopyInformation(grid)
    return field
