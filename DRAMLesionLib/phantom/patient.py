"""The numbers of one patient: sizes, densities and the course of the great vessels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from DRAMLesionLib.phantom.config import PhantomConfig


@dataclass(frozen=True)
class Tube:
    """A bent pipe: ``points`` (n, 3) as (x, y, z) in mm with the radius at each point in mm."""

    points: np.ndarray
    radii: np.ndarray


@dataclass(frozen=True)
class Patient:
    """Sizes in mm in patient space, whose origin lies at the carina of an average adult.

    Attributes:
        scale: Factors (x, y, z) against the average adult.
        shift: Random offsets of single structures by name.
        fat: Thickness of the fat under the skin.
        female: Whether there are breasts.
        blood_hu: Density of blood in veins and left heart; arteries differ by ``artery_hu``.
        artery_hu: Density of blood in the pulmonary arteries.
        organ_hu: Density of liver and spleen.
        top: Height of the lung apex.
        bottom: Height of the deepest recess.
    """

    scale: np.ndarray
    shift: dict[str, float]
    fat: float
    female: bool
    blood_hu: float
    artery_hu: float
    organ_hu: float
    top: float
    bottom: float

    def height(self, z: np.ndarray) -> np.ndarray:
        """Return 0 at the bottom and 1 at the top of the lungs."""
        return (z - self.bottom) / (self.top - self.bottom)

    def curve(self, heights: list[float], values: list[float], z: np.ndarray) -> np.ndarray:
        """Return a monotone curve through ``values`` at relative ``heights``."""
        t = np.clip(self.height(z), heights[0], heights[-1])
        return PchipInterpolator(heights, values)(t)

    def place(self, points: list[tuple[float, float, float]]) -> np.ndarray:
        """Return points of the average adult in this patient."""
        return np.asarray(points, dtype=np.float64) * self.scale

    def spine_y(self, z: np.ndarray) -> np.ndarray:
        """Return the y of the middle of the vertebral bodies."""
        return self.posterior_y(z) - 36.0 * self.scale[1]

    def posterior_y(self, z: np.ndarray) -> np.ndarray:
        """Return the y of the back of the chest's cavity."""
        bend = self.shift["kyphosis"]
        t = self.height(z) - 0.45
        return self.scale[1] * (87.0 - bend * t * t / 0.3)

    def anterior_y(self, z: np.ndarray) -> np.ndarray:
        """Return the y of the front of the chest's cavity."""
        heights = [-0.1, 0.0, 0.25, 0.5, 0.72, 0.88, 1.0, 1.1]
        values = [-84.0, -87.0, -90.0, -80.0, -58.0, -26.0, 5.0, 20.0]
        return self.scale[1] * self.curve(heights, values, z)

    def half_width(self, z: np.ndarray) -> np.ndarray:
        """Return half the width of the chest's cavity."""
        heights = [-0.1, 0.0, 0.25, 0.5, 0.72, 0.88, 1.0, 1.1]
        values = [127.0, 129.0, 131.0, 126.0, 114.0, 98.0, 80.0, 70.0]
        return self.scale[0] * self.curve(heights, values, z)


def draw_patient(rng: np.random.Generator, config: PhantomConfig) -> Patient:
    """Draw a patient."""
    size = rng.uniform(*config.body_scale)
    scale = size * rng.uniform(0.95, 1.05, 3)
    shift = {
        "kyphosis": rng.uniform(10.0, 26.0),
        "heart": rng.uniform(0.98, 1.22),
        "heart_turn": rng.uniform(-0.25, 0.25),
        "right_dome": rng.uniform(-10.0, 12.0),
        "left_dome": rng.uniform(-12.0, 8.0),
        "breath": rng.uniform(-14.0, 14.0),
        "major_right": rng.uniform(-12.0, 12.0),
        "major_left": rng.uniform(-12.0, 12.0),
        "minor": rng.uniform(-10.0, 10.0),
        "tilt_right": rng.uniform(-0.15, 0.15),
        "tilt_left": rng.uniform(-0.15, 0.15),
        "roundness": rng.uniform(2.1, 2.6),
        "rib_phase": rng.uniform(0.0, 1.0),
        "rib_slope": rng.uniform(0.4, 0.65),
        "junction": rng.uniform(2.0, 7.0),
        "scoliosis": rng.uniform(-5.0, 5.0),
        "stomach_gas": rng.uniform(0.0, 1.0),
    }
    contrast = 0.0
    if rng.random() < config.contrast_probability:
        contrast = rng.uniform(*config.contrast_hu)
    blood = rng.uniform(32.0, 50.0) + contrast
    top = scale[2] * (108.0 + rng.uniform(-6.0, 6.0))
    bottom = scale[2] * (-158.0 + shift["breath"])
    return Patient(
        scale=scale,
        shift=shift,
        fat=rng.uniform(*config.fat_mm),
        female=bool(rng.random() < 0.45),
        blood_hu=blood,
        artery_hu=40.0 + contrast * rng.uniform(0.6, 1.15),
        organ_hu=rng.uniform(45.0, 65.0) + 0.2 * contrast,
        top=top,
        bottom=bottom,
    )


def great_vessels(patient: Patient) -> dict[str, Tube]:
    """Return the great vessels, the gullet and the hilar roots of the lung's vessels.

    The names that begin with ``artery`` or ``vein`` end where a tree of the lung begins.
    """
    paths: dict[str, list[tuple[float, float, float, float]]] = {
        "aorta": [
            (2, -14, -38, 14),
            (-12, -26, -10, 15),
            (-15, -24, 22, 15),
            (-4, -10, 42, 14),
            (12, 14, 47, 13.5),
            (23, 36, 36, 13),
            (26, 43, 10, 12.5),
            (23, 44, -50, 12),
            (12, 42, -120, 11.5),
            (6, 40, -190, 11),
        ],
        "cava": [(-24, -10, 66, 8.5), (-26, -12, 10, 9.5), (-24, -14, -34, 10)],
        "cava_low": [(-20, -2, -85, 12), (-20, 8, -125, 12), (-16, 18, -190, 11)],
        "brachio_right": [(-8, -14, 46, 6.5), (-18, -8, 75, 6), (-32, 0, 125, 5)],
        "carotid_left": [(4, -2, 48, 4.5), (12, 0, 80, 4), (20, 2, 125, 4)],
        "subclavian_left": [(14, 14, 48, 5), (24, 22, 80, 5), (42, 22, 125, 4.5)],
        "innominate": [(-24, -16, 62, 7), (4, -22, 66, 6), (34, -8, 92, 6), (46, 0, 125, 5)],
        "gullet": [(4, 26, 125, 7), (3, 29, 30, 7), (6, 30, -40, 8), (12, 26, -125, 9)],
        "azygos": [(-10, 40, -180, 3), (-10, 38, 5, 4), (-16, 28, 16, 5), (-24, -2, 18, 5)],
        "trunk": [(16, -38, -36, 14), (20, -28, -8, 14), (22, -10, 3, 12.5)],
        "artery_right": [(18, -14, 0, 12), (-8, -2, -8, 11), (-32, 4, -18, 9.5)],
        "artery_left": [(22, -10, 3, 12), (31, 8, 2, 11), (40, 18, -10, 9.5)],
        "vein_right_upper": [(-12, 0, -36, 9), (-34, -8, -32, 7), (-44, -12, -26, 5.5)],
        "vein_right_lower": [(-12, 12, -42, 9), (-32, 22, -54, 7), (-44, 28, -60, 5.5)],
        "vein_left_upper": [(22, 0, -34, 9), (40, -6, -28, 7), (50, -12, -22, 5.5)],
        "vein_left_lower": [(20, 14, -42, 9), (36, 26, -52, 7), (47, 32, -58, 5.5)],
    }
    mean = float(patient.scale.mean())
    tubes = {}
    for name, path in paths.items():
        numbers = np.asarray(path, dtype=np.float64)
        tubes[name] = Tube(numbers[:, :3] * patient.scale, numbers[:, 3] * mean)
    return tubes
