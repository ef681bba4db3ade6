"""What fills the lungs: air and tissue, fissures, vessels, bronchi, and small findings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from DRAMLesionLib.phantom.config import PhantomConfig
from DRAMLesionLib.phantom.fields import Grid, lattice, noise, occupancy, smooth_step
from DRAMLesionLib.phantom.patient import Patient
from DRAMLesionLib.phantom.pipes import Pipes

_AIRWAY_AIR_HU = -990.0
_WALL_HU = 20.0


@dataclass(frozen=True)
class _Breath:
    """What expiration adds, in HU: everywhere, from front to back, and at the back wall.

    Attributes:
        level: Everywhere.
        gradient: More at the back than in front, over 160 mm.
        dependent: At the wall of the back, where the lung is pressed together.
        reach_mm: How deep from the wall.
    """

    level: float = 0.0
    gradient: float = 0.0
    dependent: float = 0.0
    reach_mm: float = 9.0


def paint_lungs(
    hu: np.ndarray,
    patient: Patient,
    lungs: dict[str, np.ndarray],
    fissures: dict[str, np.ndarray],
    pipes: Pipes,
    grid: Grid,
    config: PhantomConfig,
    rng: np.random.Generator,
) -> None:
    """Paint both lungs, their pipes and the large airways into ``hu``.

    Args:
        hu: HU of the body, float32, changed in place.
        patient: The patient.
        lungs: Distances to the lungs on the voxels.
        fissures: Distances to the fissures on the voxels.
        pipes: Vessels and airways on the voxels.
        grid: The voxels.
        config: Ranges to draw from.
        rng: Source of everything random.
    """
    edge = float(grid.steps.mean())
    streams = rng.spawn(6)
    lung = np.minimum(lungs["left"], lungs["right"])
    share = occupancy(lung, edge)
    breath = _draw_breath(config, streams[4])
    tissue = _tissue(lung, grid, config, breath, streams[0])
    _emphysema(tissue, patient, grid, config, streams[1])
    _fissures(tissue, lungs, fissures, grid, config, streams[2])
    hu += share * (tissue - hu)
    inside = share > 0
    for thick, thin, blood in (
        (pipes.arteries, pipes.thin_arteries, patient.artery_hu),
        (pipes.veins, pipes.thin_veins, patient.blood_hu),
    ):
        taken = np.maximum(thick, thin) * inside
        hu += taken * np.maximum(np.float32(blood) - hu, 0.0)
    _nodules(hu, lung, grid, config, streams[3])
    hu += pipes.airway_outer * (np.float32(_WALL_HU) - hu)
    hu += pipes.airway_lumen * (np.float32(_AIRWAY_AIR_HU) - hu)


def _draw_breath(config: PhantomConfig, rng: np.random.Generator) -> _Breath:
    if rng.random() >= config.expiration_probability:
        return _Breath()
    return _Breath(
        rng.uniform(20.0, 130.0),
        rng.uniform(10.0, 90.0),
        rng.uniform(0.0, 220.0),
        rng.uniform(9.0, 32.0),
    )


def _tissue(
    lung: np.ndarray,
    grid: Grid,
    config: PhantomConfig,
    breath: _Breath,
    rng: np.random.Generator,
) -> np.ndarray:
    _, y, _ = grid.mesh()
    level = rng.uniform(*config.lung_hu) + breath.level
    gradient = rng.uniform(*config.gradient_hu) + breath.gradient
    dependent = rng.random() < config.atelectasis_probability
    strength = (rng.uniform(40.0, 160.0) if dependent else 0.0) + breath.dependent
    tissue = np.float32(level) + np.float32(gradient / 160.0) * y.astype(np.float32)
    tissue = np.broadcast_to(tissue, grid.shape).copy()
    # regions ventilate differently, lobules too, and vessels too small to draw add grain
    for step, amplitude in ((30.0, 8.0), (9.0, 6.0), (4.0, 7.0), (2.5, 9.0)):
        tissue += np.float32(amplitude) * noise(rng, lattice(grid, step), grid)
    if strength > 0:
        behind = smooth_step(y, 45.0, 85.0).astype(np.float32)
        rim = np.clip((lung + breath.reach_mm) / breath.reach_mm, 0.0, 1.0)
        tissue += np.float32(strength) * behind * rim
    # the pleura and the squeezed lung under it
    tissue += np.float32(25.0) * np.clip((lung + 4.0) / 4.0, 0.0, 1.0)
    return tissue


def _emphysema(
    tissue: np.ndarray,
    patient: Patient,
    grid: Grid,
    config: PhantomConfig,
    rng: np.random.Generator,
) -> None:
    present = rng.random() < config.emphysema_probability
    strength = rng.uniform(0.4, 1.0)
    if not present:
        return
    z = grid.mesh()[0]
    upper = smooth_step(patient.height(z), 0.1, 0.9).astype(np.float32)
    holes = noise(rng, lattice(grid, rng.uniform(4.0, 8.0)), grid)
    share = np.clip((holes - 1.3 + 0.8 * upper) * 1.5, 0.0, 1.0) * np.float32(strength)
    tissue += share * (np.float32(-965.0) - tissue)


def _fissures(
    tissue: np.ndarray,
    lungs: dict[str, np.ndarray],
    fissures: dict[str, np.ndarray],
    grid: Grid,
    config: PhantomConfig,
    rng: np.random.Generator,
) -> None:
    edge = float(grid.steps.mean())
    present = noise(rng, lattice(grid, 26.0), grid)
    for name, side in (("major_left", "left"), ("major_right", "right"), ("minor", "right")):
        thickness = rng.uniform(*config.fissure_mm)
        missing = rng.uniform(-2.6, -0.6)
        sheet = np.clip(1.0 - np.abs(fissures[name]) / np.float32(edge), 0.0, 1.0)
        sheet *= np.float32(min(thickness / edge, 1.0))
        sheet *= np.clip((present - np.float32(missing)) * 2.0, 0.0, 1.0)
        sheet *= lungs[side] < 0
        if name == "minor":
            sheet *= fissures["major_right"] >= 0
        tissue += sheet * (np.float32(20.0) - tissue)


def _nodules(
    hu: np.ndarray,
    lung: np.ndarray,
    grid: Grid,
    config: PhantomConfig,
    rng: np.random.Generator,
) -> None:
    count = int(rng.integers(1, 5)) if rng.random() < config.nodule_probability else 0
    edge = float(grid.steps.mean())
    for stream in rng.spawn(count):
        # the places do not depend on the grid: draw until one lies inside a lung
        for _ in range(50):
            place = stream.uniform((-130.0, -90.0, -140.0), (130.0, 90.0, 90.0))
            here = grid.box(place - edge / 2, place + edge / 2)
            if lung[here].size and lung[here].max() < -3.0:
                break
        else:
            continue
        radius = stream.uniform(1.2, 4.0)
        value = 400.0 if stream.random() < 0.25 else 20.0
        box = grid.box(place - radius - 3.0, place + radius + 3.0)
        z, y, x = grid.part(box).mesh()
        distance = np.sqrt((x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2)
        share = np.clip(0.5 - (distance - radius) / edge, 0.0, 1.0).astype(np.float32)
        hu[box] += share * (np.float32(value) - hu[box])
