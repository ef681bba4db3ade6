"""Everything around the lungs: skin, fat, muscle, bone, mediastinum, heart, upper abdomen."""

from __future__ import annotations

import itertools

import numpy as np

from DRAMLesionLib.phantom.fields import Grid, lattice, noise_nodes, occupancy, to_grid
from DRAMLesionLib.phantom.lungs import Shapes, ellipsoid
from DRAMLesionLib.phantom.patient import Patient, Tube
from DRAMLesionLib.phantom.tubes import distance_to_tube

AIR_HU = -1000.0
FAT_HU = -95.0
MUSCLE_HU = 50.0
_SLAB = 16


def paint_body(
    patient: Patient,
    shapes: Shapes,
    tubes: dict[str, Tube],
    grid: Grid,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the HU of the patient on his couch with nothing in the lungs' place but fat.

    Returns:
        float32 array of ``grid.shape``.
    """
    nodes = lattice(grid, 6.0)
    grain = noise_nodes(rng, nodes)
    hu = np.full(grid.shape, AIR_HU, dtype=np.float32)
    # a few slices at a time stay in the processor's cache
    count = grid.shape[0]
    bounds = np.linspace(0, count, max(1, count // _SLAB) + 1).astype(int)
    for first, last in itertools.pairwise(bounds):
        slab = grid.part((slice(first, last), slice(None), slice(None)))
        _paint_slab(hu[first:last], patient, shapes, to_grid(grain, nodes, slab), slab)
    _spine(hu, patient, grid)
    _sternum(hu, patient, grid)
    _vessels(hu, patient, tubes, grid)
    return hu


def _paint_slab(
    hu: np.ndarray, patient: Patient, shapes: Shapes, grain: np.ndarray, grid: Grid
) -> None:
    edge = float(grid.steps.mean())
    body = to_grid(shapes.body, shapes.nodes, grid)
    cavity = to_grid(shapes.cavity, shapes.nodes, grid)
    muscle = to_grid(shapes.muscle, shapes.nodes, grid)
    _mix(hu, occupancy(body, edge), np.float32(45.0))
    _mix(hu, occupancy(body + 2.0, edge), np.float32(FAT_HU) + 12.0 * np.maximum(grain, 0.0))
    # strands of fat part the muscles
    muscle_hu = np.where(grain > 2.1, np.float32(-40.0), np.float32(MUSCLE_HU) + 6.0 * grain)
    _mix(hu, occupancy(np.maximum(muscle, body + 4.0), edge), muscle_hu)
    if patient.female:
        _glands(hu, patient, body, cavity, grain, grid)
    _ribs(hu, patient, cavity, grid)
    _mix(hu, occupancy(cavity, edge), np.float32(FAT_HU) + 10.0 * grain)
    _abdomen(hu, patient, shapes, cavity, grain, grid)
    _heart(hu, patient, shapes, grain, grid)
    _shoulder_blades(hu, patient, cavity, grid)
    _couch(hu, patient, body, grid)


def _mix(hu: np.ndarray, share: np.ndarray, value: np.ndarray | np.float32) -> None:
    """Replace ``share`` of each voxel by ``value`` in place."""
    hu += share * (value - hu)


def _glands(
    hu: np.ndarray,
    patient: Patient,
    body: np.ndarray,
    cavity: np.ndarray,
    grain: np.ndarray,
    grid: Grid,
) -> None:
    z, y, _ = grid.mesh()
    u = patient.height(z)
    here = (cavity > 26) & (body < -6) & (y < -60 * patient.scale[1]) & (u > 0.2) & (u < 0.62)
    share = np.where(here, np.clip(grain - 0.2, 0.0, 1.0), 0.0).astype(np.float32)
    _mix(hu, share, np.float32(30.0))


def _ribs(hu: np.ndarray, patient: Patient, cavity: np.ndarray, grid: Grid) -> None:
    shell = np.flatnonzero((cavity > 0.5) & (cavity < 13.5))
    k, j, i = np.unravel_index(shell, cavity.shape)
    z, y, x = grid.z[k], grid.y[j], grid.x[i]
    pitch = 25.0 * patient.scale[2]
    slope = patient.shift["rib_slope"]
    front, back = patient.anterior_y(grid.z)[k], patient.posterior_y(grid.z)[k]
    height = z + slope * (y - back) * -1.0 + 0.06 * np.abs(x)
    phase = (height / pitch + patient.shift["rib_phase"]) % 1.0 - 0.5
    depth = cavity.ravel()[shell] - 7.0
    inside = np.sqrt((phase * pitch / 6.5) ** 2 + (depth / 4.6) ** 2)
    edge = float(grid.steps.mean())
    share = np.clip(0.5 - (inside - 1.0) * 5.0 / edge, 0.0, 1.0)
    bone = np.where(inside > 0.62, 620.0, 190.0)
    # towards the breastbone ribs are cartilage
    cartilage = (y < front + 34.0) & (np.abs(x) < 75.0)
    bone = np.where(cartilage, 105.0, bone)
    share[(patient.height(z) > 1.12) | (np.abs(x) < 12.0)] = 0.0
    flat = hu.reshape(-1)
    flat[shell] += (share * (bone - flat[shell])).astype(np.float32)


def _abdomen(
    hu: np.ndarray,
    patient: Patient,
    shapes: Shapes,
    cavity: np.ndarray,
    grain: np.ndarray,
    grid: Grid,
) -> None:
    sx, sy, sz = patient.scale
    below = grid.box((-400, -400, -400), (400, 400, sz * -60.0))
    if below[0].start >= below[0].stop:
        return
    part = grid.part(below)
    z, y, x = part.mesh()
    edge = float(grid.steps.mean())
    depth = to_grid(shapes.diaphragm, shapes.nodes, part)
    inner = np.maximum(depth + 3.0, cavity[below] + 3.0)
    view, texture = hu[below], grain[below]
    _mix(view, occupancy(np.maximum(depth, cavity[below] + 1.0), edge), np.float32(50.0))
    _mix(view, occupancy(inner, edge), np.float32(FAT_HU) + 12.0 * texture)
    tilt = x - sx * (16.0 - 0.35 * (y + 20.0)) - 0.5 * (z + sz * 130.0)
    liver = np.maximum(inner, tilt)
    liver = np.maximum(liver, -z + patient.bottom - 60.0)
    _mix(view, occupancy(liver, edge), np.float32(patient.organ_hu) + 4.0 * texture)
    dome = sz * (-100.0 + patient.shift["left_dome"] + patient.shift["breath"])
    spleen = _ball(part, (sx * 88.0, sy * 42.0, dome - 38.0), (30.0, 38.0, 44.0))
    _mix(view, occupancy(np.maximum(inner, spleen), edge), np.float32(patient.organ_hu - 4.0))
    stomach = _ball(part, (sx * 62.0, sy * -22.0, dome - 34.0), (42.0, 44.0, 32.0))
    _mix(view, occupancy(np.maximum(inner, stomach), edge), np.float32(45.0))
    contents = np.maximum(inner + 3.0, stomach + 4.0)
    _mix(view, occupancy(contents, edge), np.float32(18.0))
    gas = np.maximum(contents, y - sy * (-62.0 + 40.0 * patient.shift["stomach_gas"]))
    _mix(view, occupancy(gas, edge), np.float32(-980.0))
    hu[below] = view


def _ball(
    grid: Grid, centre: tuple[float, float, float], axes: tuple[float, float, float]
) -> np.ndarray:
    z, y, x = grid.mesh()
    norm = np.sqrt(
        ((x - centre[0]) / axes[0]) ** 2
        + ((y - centre[1]) / axes[1]) ** 2
        + ((z - centre[2]) / axes[2]) ** 2
    )
    return ((norm - 1.0) * min(axes)).astype(np.float32)


def _heart(hu: np.ndarray, patient: Patient, shapes: Shapes, grain: np.ndarray, grid: Grid) -> None:
    sx, sy, sz = patient.scale
    box = grid.box((-90 * sx, -110 * sy, -160 * sz), (130 * sx, 60 * sy, 40 * sz))
    if box[0].start >= box[0].stop:
        return
    part = grid.part(box)
    edge = float(grid.steps.mean())
    pericardium = to_grid(shapes.heart, shapes.nodes, part)
    view, texture = hu[box], grain[box]
    contrast = patient.blood_hu - 40.0
    _mix(view, occupancy(pericardium, edge), np.float32(48.0 + 0.35 * contrast))
    # fat in the furrows under the pericardium
    furrow = np.clip((texture - 0.9) * 2.0, 0.0, 0.8) * ((pericardium > -9) & (pericardium < -1))
    _mix(view, furrow.astype(np.float32), np.float32(-70.0))
    turn = patient.shift["heart_turn"]
    chambers = (
        ((46, -26, -76), (28, 24, 30), 0.6, patient.blood_hu),
        ((16, -52, -74), (27, 16, 30), 0.4, patient.artery_hu),
        ((-14, -22, -66), (28, 29, 38), 0.0, patient.artery_hu),
        ((6, 10, -42), (34, 16, 22), 0.0, patient.blood_hu),
    )
    for centre, axes, angle, value in chambers:
        chamber = ellipsoid(patient, part, centre, axes, angle + turn).astype(np.float32)
        _mix(view, occupancy(np.maximum(chamber, pericardium + 2.0), edge), np.float32(value))
    hu[box] = view


def _spine(hu: np.ndarray, patient: Patient, grid: Grid) -> None:
    sx, sy, sz = patient.scale
    box = grid.box((-60 * sx, 20 * sy, -500), (60 * sx, 150 * sy, 500))
    part = grid.part(box)
    z, y, x = part.mesh()
    edge = float(grid.steps.mean())
    y = y - patient.spine_y(part.z)[:, None, None]
    x = x / sx
    y = y / sy
    pitch = 24.0 * sz
    phase = (z / pitch) % 1.0
    view = hu[box]
    muscle = np.sqrt((x / 46.0) ** 2 + ((y - 26.0) / 22.0) ** 2)
    _mix(view, occupancy((muscle - 1.0) * 22.0, edge).astype(np.float32), np.float32(45.0))
    # the waist of a vertebral body is narrower than its end plates
    waist = 1.0 + 0.10 * np.cos(2 * np.pi * (phase - 0.1))
    body = (np.sqrt((x / 17.0) ** 2 + (y / 14.5) ** 2) / waist - 1.0) * 15.0
    disc = phase < 0.2
    rim = (body > -2.2) | (np.abs(phase - 0.1) < 0.14)
    value = np.where(disc, 85.0, np.where(rim, 480.0, 170.0)).astype(np.float32)
    _mix(view, occupancy(body, edge).astype(np.float32), value)
    arch = (np.sqrt((x / 14.0) ** 2 + ((y - 23.0) / 12.0) ** 2) - 1.0) * 12.0
    arch = np.minimum(arch, np.maximum(np.abs(x) - 4.0, np.abs(y - 42.0) - 14.0))
    wings = np.maximum(np.abs(x) - 31.0, np.abs(y - 18.0 - 0.25 * np.abs(x)) - 5.0)
    arch = np.minimum(arch, np.where(np.abs(phase - 0.55) < 0.28, wings, 9.0))
    _mix(view, occupancy(arch, edge).astype(np.float32), np.float32(430.0))
    canal = (np.sqrt((x / 9.0) ** 2 + ((y - 22.0) / 8.0) ** 2) - 1.0) * 8.0
    _mix(view, occupancy(canal, edge).astype(np.float32), np.float32(25.0))
    hu[box] = view


def _sternum(hu: np.ndarray, patient: Patient, grid: Grid) -> None:
    height = patient.top - patient.bottom
    low, high = patient.bottom + 0.36 * height, patient.bottom + 0.84 * height
    box = grid.box((-40, -140, low), (40, 20, high))
    part = grid.part(box)
    z, y, x = part.mesh()
    edge = float(grid.steps.mean())
    front = patient.anterior_y(part.z)[:, None, None]
    half = 15.0 + 9.0 * np.clip((z - low) / (high - low) * 2.5 - 1.5, 0.0, 1.0)
    shape = np.maximum(np.abs(x) - half, np.abs(y - front + 7.0) - 5.5)
    value = np.where(shape > -1.6, 450.0, 130.0).astype(np.float32)
    view = hu[box]
    _mix(view, occupancy(shape, edge).astype(np.float32), value)
    hu[box] = view


def _shoulder_blades(hu: np.ndarray, patient: Patient, cavity: np.ndarray, grid: Grid) -> None:
    height = patient.top - patient.bottom
    low, high = patient.bottom + 0.52 * height, patient.top + 30.0
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * 52.0 * patient.scale[0], side * 140.0 * patient.scale[0]))
        box = grid.box((x0, 10.0, low), (x1, 160.0, high))
        if box[0].start >= box[0].stop:
            continue
        part = grid.part(box)
        z, y, x = part.mesh()
        edge = float(grid.steps.mean())
        tip = np.abs(x) - (66.0 + 0.6 * (z - low)) * patient.scale[0]
        thick = 2.2 + 4.0 * np.clip((np.abs(x) - 105.0) / 30.0, 0.0, 1.0)
        plate = np.abs(cavity[box] - 21.0 - 0.05 * (z - low)) - thick
        plate = np.maximum(plate, np.maximum(tip, low - z)) + 0.0 * y
        view = hu[box]
        _mix(view, occupancy(plate, edge).astype(np.float32), np.float32(520.0))
        hu[box] = view


def _vessels(hu: np.ndarray, patient: Patient, tubes: dict[str, Tube], grid: Grid) -> None:
    edge = float(grid.steps.mean())
    for name, tube in tubes.items():
        if name == "gullet":
            value = 35.0
        elif name.startswith(("artery", "trunk", "cava", "innominate", "azygos")):
            value = patient.artery_hu
        else:
            value = patient.blood_hu
        margin = tube.radii.max() + 4.0
        box = grid.box(tube.points.min(0) - margin, tube.points.max(0) + margin)
        if any(part.start >= part.stop for part in box):
            continue
        distance = distance_to_tube(tube, grid.part(box), 3.0)
        view = hu[box]
        if name == "aorta":
            _mix(view, occupancy(distance, edge), np.float32(45.0))
            distance = distance + 1.5
        _mix(view, occupancy(distance, edge), np.float32(value))
        hu[box] = view


def _couch(hu: np.ndarray, patient: Patient, body: np.ndarray, grid: Grid) -> None:
    _, y, x = grid.mesh()
    level = 124.0 * patient.scale[1] + 0.5 * patient.fat
    # a bowl-shaped shell with a foam core, and the mattress on it
    edge = float(grid.steps.mean())
    depth = (y - level - 3.0 + 0.0011 * x * x)[0]
    profile = np.zeros(depth.shape)
    for top, bottom, value in ((0, 12, 60), (12, 15, 720), (15, 34, 40), (34, 37, 720)):
        inside = np.maximum(top - depth, depth - bottom)
        profile += value * np.clip(0.5 - inside / edge, 0.0, 1.0)
    hu += np.where(body > 1.5, profile[None].astype(np.float32), np.float32(0.0))
