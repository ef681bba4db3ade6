"""The shapes of the two lungs, the diaphragm and the fissures, as distances on a lattice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom.fields import (
    Grid,
    as_distance,
    lattice,
    smooth_max,
    smooth_step,
    to_grid,
)
from DRAMLesionLib.phantom.patient import Patient, Tube
from DRAMLesionLib.phantom.tubes import distance_to_tube

LATTICE_MM = 4.0


@dataclass(frozen=True)
class Shapes:
    """Distances in mm on the nodes of a lattice, negative inside.

    Attributes:
        nodes: The lattice.
        cavity: The inside of the rib cage.
        body: The skin.
        muscle: The outer surface of the muscles.
        diaphragm: Positive above the diaphragm.
        heart: The pericardium.
        lungs: The left and the right lung.
        fissures: Above a fissure positive: ``major_left``, ``major_right``, ``minor``.
    """

    nodes: Grid
    cavity: np.ndarray
    body: np.ndarray
    muscle: np.ndarray
    diaphragm: np.ndarray
    heart: np.ndarray
    lungs: dict[str, np.ndarray]
    fissures: dict[str, np.ndarray]


def build_shapes(
    patient: Patient, tubes: dict[str, Tube], grid: Grid, rng: np.random.Generator
) -> Shapes:
    """Return the surfaces of a patient on the lattice under ``grid``."""
    nodes = lattice(grid, LATTICE_MM)
    wobble = _Wobble(rng)
    cavity = _cavity(patient, nodes) + wobble.field(nodes, 60.0, 1.5)
    diaphragm = _diaphragm(patient, nodes, wobble)
    heart = _heart(patient, nodes) + wobble.field(nodes, 45.0, 1.5)
    lungs = _lungs(patient, nodes, tubes, cavity, diaphragm, heart, wobble)
    return Shapes(
        nodes=nodes,
        cavity=cavity,
        body=_body(patient, nodes, wobble),
        muscle=_muscle(patient, nodes, cavity, wobble),
        diaphragm=diaphragm,
        heart=heart,
        lungs=lungs,
        fissures=_fissures(patient, nodes, wobble),
    )


def lobe_labels(
    lungs: dict[str, np.ndarray], fissures: dict[str, np.ndarray], level: float = 0.0
) -> np.ndarray:
    """Return the lobes (uint8, :class:`Lobe` values) where a lung's distance is below ``level``.

    All arrays have the same shape, voxels or lattice nodes alike.
    """
    left, right = lungs["left"] < level, lungs["right"] < level
    right &= ~left
    labels = np.zeros(left.shape, dtype=np.uint8)
    above = fissures["major_left"] >= 0
    labels[left & above] = Lobe.LUL
    labels[left & ~above] = Lobe.LLL
    above = fissures["major_right"] >= 0
    upper = fissures["minor"] >= 0
    labels[right & above & upper] = Lobe.RUL
    labels[right & above & ~upper] = Lobe.RML
    labels[right & ~above] = Lobe.RLL
    return labels


class _Wobble:
    """Smooth irregularity: a handful of waves with random directions and phases."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def field(self, nodes: Grid, length: float, amplitude: float, flat: str = "") -> np.ndarray:
        """Return waves of about ``length`` mm, constant along the axes named in ``flat``."""
        total = np.zeros(nodes.shape)
        waves = 6
        for _ in range(waves):
            direction = self._rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            k = 2.0 * np.pi / (length * self._rng.uniform(0.7, 1.6)) * direction
            phase = self._rng.uniform(0.0, 2.0 * np.pi)
            # a plane wave is the product of one complex factor for each axis
            turns = [
                np.exp(1j * (0.0 if name in flat else k[n]) * axis)
                for n, (name, axis) in enumerate((("x", nodes.x), ("y", nodes.y), ("z", nodes.z)))
            ]
            plane = turns[1][:, None] * (turns[0] * np.exp(1j * phase))
            total += turns[2].imag[:, None, None] * plane.real
            total += turns[2].real[:, None, None] * plane.imag
        return amplitude * total * np.sqrt(2.0 / waves)


def _power(values: np.ndarray, exponent: float) -> np.ndarray:
    return np.abs(values) ** exponent


def _cavity(patient: Patient, nodes: Grid) -> np.ndarray:
    z, y, x = nodes.mesh()
    front, back = patient.anterior_y(z), patient.posterior_y(z)
    depth, middle = (back - front) / 2.0, (back + front) / 2.0
    p = patient.shift["roundness"]
    ratio = (_power(x / patient.half_width(z), p) + _power((y - middle) / depth, p)) ** (1 / p)
    return as_distance((ratio - 1.0) * depth, nodes)


def _body(patient: Patient, nodes: Grid, wobble: _Wobble) -> np.ndarray:
    z, y, x = nodes.mesh()
    sx, sy = patient.scale[0], patient.scale[1]
    heights = [-0.2, 0.0, 0.4, 0.75, 0.92, 1.1]
    width = sx * patient.curve(heights, [146, 149, 153, 164, 168, 160], z) + patient.fat
    front = sy * patient.curve(heights, [-104, -106, -104, -86, -60, -42], z)
    front = front - patient.fat * (0.7 if patient.female else 0.9)
    back = sy * patient.curve(heights, [112, 116, 121, 121, 116, 104], z) + 0.5 * patient.fat
    depth, middle = (back - front) / 2.0, (back + front) / 2.0
    ratio = (_power(x / width, 2.7) + _power((y - middle) / depth, 2.7)) ** (1 / 2.7)
    distance = as_distance((ratio - 1.0) * depth, nodes) + wobble.field(nodes, 110.0, 2.0)
    if patient.female:
        distance = np.minimum(distance, _breasts(patient, nodes))
    return distance


def _breasts(patient: Patient, nodes: Grid) -> np.ndarray:
    z, y, x = nodes.mesh()
    size = 34.0 + 0.9 * patient.fat
    height = patient.bottom + 0.42 * (patient.top - patient.bottom)
    result = np.full(nodes.shape, 1e3)
    for side in (-1.0, 1.0):
        cx, cy = side * 78.0 * patient.scale[0], -88.0 * patient.scale[1]
        r = np.sqrt(((x - cx) / 1.5) ** 2 + ((y - cy) / 0.75) ** 2 + ((z - height) / 1.35) ** 2)
        result = np.minimum(result, r - size * 0.75)
    return result


def _muscle(patient: Patient, nodes: Grid, cavity: np.ndarray, wobble: _Wobble) -> np.ndarray:
    z, y, x = nodes.mesh()
    u = patient.height(z)
    upper = smooth_step(u, 0.35, 0.75)
    front = smooth_step(-y, 20.0, 60.0) * smooth_step(np.abs(x), 12.0, 40.0)
    back = smooth_step(y, 0.0, 60.0) * smooth_step(np.abs(x), 30.0, 70.0)
    beside_spine = smooth_step(y, 55.0, 80.0) * (1.0 - smooth_step(np.abs(x), 45.0, 70.0))
    side = smooth_step(np.abs(x), 70.0, 115.0)
    thick = 5.0 + 13.0 * front * upper + 20.0 * back * upper + 12.0 * side * upper
    thick = thick + 26.0 * beside_spine
    return cavity - 11.0 - thick * patient.scale[0] + wobble.field(nodes, 50.0, 1.5)


def _diaphragm(patient: Patient, nodes: Grid, wobble: _Wobble) -> np.ndarray:
    z, y, x = nodes.mesh()
    sx, sy, sz = patient.scale
    breath = patient.shift["breath"]
    domes = []
    for side, peak in ((-1.0, -88.0 + patient.shift["right_dome"]), (1.0, -100.0)):
        if side > 0:
            peak += patient.shift["left_dome"]
        rho = np.sqrt(((x / sx - side * 64.0) / 70.0) ** 2 + ((y / sy + 10.0) / 84.0) ** 2)
        domes.append(sz * (peak + breath - 54.0 * rho**2.4))
    surface = smooth_max(domes[0], domes[1], 20.0)
    centre = -112.0 + breath - 0.012 * (x / sx) ** 2 - 0.012 * (y / sy + 30.0) ** 2
    surface = smooth_max(surface, sz * centre, 16.0)
    surface = surface + wobble.field(nodes, 70.0, 3.0, flat="z")
    return as_distance(z - surface, nodes)


def _heart(patient: Patient, nodes: Grid) -> np.ndarray:
    # centre x, y, z and half axes of: ventricles, right atrium, left atrium, outflow tracts
    parts = (
        ((34, -38, -76), (54, 42, 42), 0.55),
        ((-14, -22, -66), (33, 34, 44), 0.0),
        ((6, 10, -42), (38, 20, 26), 0.0),
        ((6, -34, -30), (34, 28, 32), 0.2),
    )
    result = np.full(nodes.shape, 1e3)
    for centre, axes, turn in parts:
        inside = ellipsoid(patient, nodes, centre, axes, turn + patient.shift["heart_turn"])
        result = -smooth_max(-result, -inside, 14.0)
    return result


def ellipsoid(
    patient: Patient,
    grid: Grid,
    centre: tuple[float, float, float],
    axes: tuple[float, float, float],
    turn: float,
) -> np.ndarray:
    """Return about the distance to an ellipsoid of the heart, turned about the body's axis.

    Args:
        patient: Scales places and sizes.
        grid: Where.
        centre: (x, y, z) in mm of the average adult.
        axes: Half axes (x, y, z) in mm.
        turn: Angle in radians; positive brings the left end to the front.
    """
    z, y, x = grid.mesh()
    cx, cy, cz = np.asarray(centre) * patient.scale
    half = np.asarray(axes) * patient.shift["heart"] * patient.scale.mean()
    cosine, sine = np.cos(turn), np.sin(turn)
    u = cosine * (x - cx) - sine * (y - cy)
    v = sine * (x - cx) + cosine * (y - cy)
    w = z - cz - patient.shift["breath"] * 0.5
    norm = np.sqrt((u / half[0]) ** 2 + (v / half[1]) ** 2 + (w / half[2]) ** 2)
    slope = np.sqrt((u / half[0] ** 2) ** 2 + (v / half[1] ** 2) ** 2 + (w / half[2] ** 2) ** 2)
    return norm * (norm - 1.0) / np.maximum(slope, 1e-6)


def _lungs(
    patient: Patient,
    nodes: Grid,
    tubes: dict[str, Tube],
    cavity: np.ndarray,
    diaphragm: np.ndarray,
    heart: np.ndarray,
    wobble: _Wobble,
) -> dict[str, np.ndarray]:
    z, y, x = nodes.mesh()
    spine = np.sqrt((x / 1.15) ** 2 + (y - patient.spine_y(z)) ** 2) - 21.0 * patient.scale[0]
    # beside the spine the lungs' back is round: ribs' heads and muscles fill the corner
    behind = np.abs(x) - patient.scale[0] * (
        14.0 + 0.012 * np.maximum(y - patient.spine_y(z), 0) ** 2
    )
    behind = np.maximum(behind, patient.spine_y(z) - y)
    obstacle = np.minimum(heart - 3.0, np.minimum(spine, behind))
    for name, tube in tubes.items():
        if not name.startswith(("artery", "vein")):
            near = distance_to_tube(tube, nodes, 25.0).astype(np.float64)
            obstacle = -smooth_max(-obstacle, -(near - 2.5), 8.0)
    result = {}
    for name, side in (("left", 1.0), ("right", -1.0)):
        middle = side * (_mediastinum(patient, nodes, side) - side * x)
        middle = middle * side + wobble.field(nodes, 50.0, 1.5)
        lung = smooth_max(cavity + 2.5, middle, 10.0)
        lung = smooth_max(lung, -obstacle, 8.0)
        lung = smooth_max(lung, _apex(patient, nodes, side), 10.0)
        result[name] = smooth_max(lung, -diaphragm, 4.0)
    return result


def _mediastinum(patient: Patient, nodes: Grid, side: float) -> np.ndarray:
    """Return the medial border of a lung as its distance from the middle, lateral positive."""
    z, y, _ = nodes.mesh()
    sx, sy = patient.scale[0], patient.scale[1]
    front = patient.shift["junction"] + 0.0 * z
    hilum = np.exp(-(((z / patient.scale[2] + 22.0) / 28.0) ** 2) - ((y / sy - 12.0) / 20.0) ** 2)
    wide = 16.0 + 12.0 * smooth_step(z, 30.0, 90.0)
    profile = smooth_step(y / sy, -50.0, -5.0) * (1.0 - 0.55 * smooth_step(y / sy, 24.0, 48.0))
    border = sx * (front * 0.6 + (wide - front) * profile + 14.0 * hilum)
    return border + side * 4.0 * (1.0 - smooth_step(y / sy, -50.0, -10.0))


def _apex(patient: Patient, nodes: Grid, side: float) -> np.ndarray:
    z, y, x = nodes.mesh()
    sx, sy, sz = patient.scale
    drop = ((x / sx - side * 47.0) / 62.0) ** 2 + ((y / sy - 24.0) / 66.0) ** 2
    top = patient.top - (3.0 if side > 0 else 0.0) - 36.0 * sz * drop
    return as_distance(z - top, nodes)


def _fissures(patient: Patient, nodes: Grid, wobble: _Wobble) -> dict[str, np.ndarray]:
    z, y, x = nodes.mesh()
    sx, sy, sz = patient.scale
    course_y = [-110.0, -72.0, -30.0, 14.0, 50.0, 84.0, 120.0]
    course_z = [-124.0, -97.0, -60.0, -24.0, 26.0, 74.0, 114.0]
    course = PchipInterpolator(course_y, course_z, extrapolate=True)
    result = {}
    for name, side, bow in (("left", 1.0, 0.10), ("right", -1.0, 0.0)):
        outward = side * x / sx - 50.0
        height = course(y / sy - bow * outward) + patient.shift[f"major_{name}"] * 0.6
        height = height + patient.shift[f"tilt_{name}"] * outward - 0.0012 * outward**2
        surface = sz * height + wobble.field(nodes, 80.0, 4.0, flat="z")
        result[f"major_{name}"] = as_distance(z - surface, nodes)
    outward = -x / sx - 50.0
    height = -16.0 + patient.shift["minor"] + 0.06 * y / sy - 0.0022 * outward**2
    height = height - 0.0016 * (y / sy + 35.0) ** 2
    surface = sz * height + wobble.field(nodes, 80.0, 3.5, flat="z")
    result["minor"] = as_distance(z - surface, nodes)
    return result


def bring_to_grid(
    shapes: Shapes, grid: Grid
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the distances to both lungs and to the fissures on the voxels of ``grid``."""
    lungs = {name: to_grid(values, shapes.nodes, grid) for name, values in shapes.lungs.items()}
    fissures = {name: to_grid(v, shapes.nodes, grid) for name, v in shapes.fissures.items()}
    return lungs, fissures


def lung_box(shapes: Shapes, grid: Grid) -> tuple[slice, slice, slice]:
    """Return the index ranges around both lungs and, up to the top, the windpipe."""
    nodes = shapes.nodes
    near = np.minimum(shapes.lungs["left"], shapes.lungs["right"]) < 2.0 * LATTICE_MM
    corners = []
    for axis, values in ((2, nodes.x), (1, nodes.y), (0, nodes.z)):
        used = np.flatnonzero(near.any(axis=tuple({0, 1, 2} - {axis})))
        corners.append((values[used[0]], values[used[-1]]))
    return grid.box([c[0] for c in corners], [corners[0][1], corners[1][1], grid.z[-1]])


def moving_share(shapes: Shapes, grid: Grid) -> np.ndarray:
    """Return how much each voxel moves with heart and diaphragm: 1 at both, 0 far away."""
    near = np.minimum(np.abs(shapes.heart), np.abs(shapes.diaphragm))
    return to_grid(np.clip(1.2 - near / 22.0, 0.0, 1.0), shapes.nodes, grid)
