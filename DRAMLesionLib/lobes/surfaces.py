"""Fissures as height maps: where they lie in a lung, on average, and how they part it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

STEP_MM = 1.5
"""Edge of a cell of a height map."""


@dataclass(frozen=True)
class LungBox:
    """Extent of a whole lung in LPS mm; for a slab, where the whole lung is thought to be.

    Attributes:
        medial: x of the side next to the mediastinum.
        lateral: x of the side next to the ribs.
        front: y of the anterior end.
        back: y of the posterior end.
        bottom: z of the lowest recess.
        top: z of the apex.
    """

    medial: float
    lateral: float
    front: float
    back: float
    bottom: float
    top: float

    def y(self, share: Any) -> Any:
        """Return y in mm for a share of the way from front (0) to back (1)."""
        return self.front + share * (self.back - self.front)

    def z(self, share: Any) -> Any:
        """Return z in mm for a share of the way from bottom (0) to top (1)."""
        return self.bottom + share * (self.top - self.bottom)


@dataclass(frozen=True)
class Profile:
    """Mean course of a fissure in a lung box: height share over depth share, and its dome.

    Attributes:
        y: Shares of the way from front to back.
        z: Height of the fissure there, share of the way from bottom to top, in mid-lung.
        lateral: What is added to ``z`` at the lateral wall (and taken away at the medial one).
    """

    y: tuple[float, ...]
    z: tuple[float, ...]
    lateral: float


# Read off fissures on sagittal reformats and atlas figures; the search below moves and tilts them.
LEFT_OBLIQUE = Profile(
    (-0.2, 0.1, 0.3, 0.5, 0.7, 0.95, 1.2), (-0.21, 0.05, 0.23, 0.41, 0.58, 0.78, 0.98), 0.0
)
RIGHT_OBLIQUE = Profile(
    (-0.2, 0.1, 0.3, 0.5, 0.7, 0.95, 1.2), (-0.15, 0.12, 0.29, 0.45, 0.57, 0.69, 0.81), 0.0
)
RIGHT_MINOR = Profile((-0.2, 0.1, 0.3, 0.5, 0.7, 1.2), (0.55, 0.57, 0.58, 0.58, 0.56, 0.54), 0.02)


@dataclass
class Surface:
    """A height map over a tilted plane.

    Attributes:
        origin: LPS mm of cell (0, 0) at height 0.
        along: Unit vector of the second map axis (front to back); the first map axis is x.
        normal: Unit vector of the heights, upwards.
        heights: (n_along, n_x) in mm.
    """

    origin: np.ndarray
    along: np.ndarray
    normal: np.ndarray
    heights: np.ndarray

    def above(self, points: np.ndarray) -> np.ndarray:
        """Return how far in mm each of ``points`` (n, 3; x, y, z in LPS mm) lies above."""
        offset = points - self.origin
        cells = np.stack([offset @ self.along, offset[:, 0]]) / STEP_MM
        ground = ndimage.map_coordinates(self.heights, cells, order=1, mode="nearest")
        return offset @ self.normal - ground

    def grid(self, half_height: float, step: float) -> sitk.Image:
        """Return the empty image (x, along, height) that covers the map and its surroundings."""
        n_along, n_x = self.heights.shape
        image = sitk.Image([n_x, n_along, 2 * round(half_height / step) + 1], sitk.sitkUInt8)
        image.SetSpacing((STEP_MM, STEP_MM, step))
        image.SetOrigin((self.origin - half_height * self.normal).tolist())
        axes = np.stack([np.array([1.0, 0.0, 0.0]), self.along, self.normal], axis=1)
        image.SetDirection(axes.ravel().tolist())
        return image


def prior_surface(profile: Profile, box: LungBox) -> Surface:
    """Return the mean fissure of ``profile`` in a lung of extent ``box``."""
    ends = np.array([0.15, 0.95])
    y, z = box.y(ends), box.z(np.interp(ends, profile.y, profile.z))
    along = np.array([0.0, y[1] - y[0], z[1] - z[0]])
    along /= np.linalg.norm(along)
    normal = np.array([0.0, -along[2], along[1]])
    low, high = sorted((box.medial, box.lateral))
    start = np.array([low - 9.0, y[0], z[0]]) - 0.3 * np.hypot(y[1] - y[0], z[1] - z[0]) * along
    length = 1.6 * np.hypot(y[1] - y[0], z[1] - z[0])
    columns = start[0] + STEP_MM * np.arange(int((high - low + 18.0) / STEP_MM) + 1)
    side = 2.0 * (columns - box.medial) / (box.lateral - box.medial) - 1.0
    path_y = box.y(np.linspace(-0.2, 1.2, 141))
    path_z = box.z(np.interp(np.linspace(-0.2, 1.2, 141), profile.y, profile.z))
    path = np.stack([np.zeros(141), path_y, path_z], axis=1) - np.array([0.0, start[1], start[2]])
    cells = STEP_MM * np.arange(int(length / STEP_MM) + 1)
    middle = np.interp(cells, path @ along, path @ normal)
    lift = profile.lateral * (box.top - box.bottom) * np.clip(side, -1.2, 1.2)
    return Surface(start, along, normal, middle[:, None] + lift[None, :] * normal[2])
