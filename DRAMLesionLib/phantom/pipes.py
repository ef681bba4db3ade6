"""The lung's own pipes: bronchi, arteries along them, veins between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom.config import PhantomConfig
from DRAMLesionLib.phantom.fields import Grid
from DRAMLesionLib.phantom.lungs import Shapes, lobe_labels
from DRAMLesionLib.phantom.patient import Patient, Tube
from DRAMLesionLib.phantom.tree import MURRAY, Tree, grow, join
from DRAMLesionLib.phantom.tubes import draw_segments, smooth_path, splat_segments

_THIN_SHARE = 0.25
"""A pipe thinner than a voxel counts where it fills at least this share of the voxel."""

_TIP_TO_SPACING = 0.040
"""Radius of the last branches as a share of the distance between them."""

_BRONCHUS_TO_ARTERY = 0.75
_SMALLEST_BRONCHUS_MM = 1.0

# (x, y, z) in mm and radius of the lumen of the average adult
_TRACHEA = [(3, 4, 130, 8.5), (2, 10, 65, 8.5), (-1, 16, 4, 8.8)]
_RIGHT_MAIN = [(-1, 16, 4, 8.0), (-16, 18, -10, 7.0), (-28, 18, -19, 6.5)]
_LEFT_MAIN = [(-1, 16, 4, 7.5), (20, 20, -16, 6.2), (40, 23, -30, 5.8)]
_INTERMEDIATE = [(-28, 18, -19, 6.0), (-36, 18, -40, 5.2)]

# bronchus from (x, y, z) to (x, y, z), start of the artery, start of the vein
_ROOTS: dict[Lobe, tuple[tuple[float, ...], ...]] = {
    Lobe.RUL: ((-28, 18, -19), (-46, 16, -10), (-32, 4, -18), (-44, -12, -26)),
    Lobe.RML: ((-36, 18, -40), (-54, -12, -52), (-36, 8, -34), (-44, -12, -28)),
    Lobe.RLL: ((-36, 18, -40), (-46, 30, -64), (-38, 12, -36), (-44, 28, -60)),
    Lobe.LUL: ((40, 23, -30), (56, 8, -22), (42, 14, -12), (50, -12, -22)),
    Lobe.LLL: ((40, 23, -30), (48, 34, -60), (44, 24, -26), (47, 32, -58)),
}


@dataclass(frozen=True)
class PipeTrees:
    """The trees before they are drawn.

    Attributes:
        airways: Large airways as tubes (lumen) and the bronchi in the lobes.
        arteries: Pulmonary arteries in the lobes.
        veins: Pulmonary veins in the lobes.
        tip: Radius in mm of the last branch.
    """

    large_airways: list[Tube]
    bronchi: Tree
    arteries: Tree
    veins: Tree
    tip: float


@dataclass(frozen=True)
class Pipes:
    """Shares of voxels that pipes take up, float32 (k, j, i); ``thin`` from volume alone.

    Attributes:
        large_airways: Whether a voxel belongs to an airway outside the lobes.
    """

    arteries: np.ndarray
    thin_arteries: np.ndarray
    veins: np.ndarray
    thin_veins: np.ndarray
    airway_outer: np.ndarray
    airway_lumen: np.ndarray
    large_airways: np.ndarray

    @staticmethod
    def is_vessel(thick: np.ndarray, thin: np.ndarray) -> np.ndarray:
        """Return where a vessel can be seen."""
        return (thick >= 0.5) | (thin >= _THIN_SHARE)


def grow_pipes(
    patient: Patient, shapes: Shapes, config: PhantomConfig, rng: np.random.Generator
) -> PipeTrees:
    """Grow the trees of all lobes."""
    nodes = shapes.nodes
    labels = lobe_labels(shapes.lungs, shapes.fissures)
    tip = _TIP_TO_SPACING * float(patient.scale.mean()) * config.vessel_spacing_mm
    deep = lobe_labels(shapes.lungs, shapes.fissures, level=-1.5)
    arteries, veins, bronchi = [], [], []
    for lobe, stream in zip(Lobe, rng.spawn(len(Lobe)), strict=True):
        mask = labels == lobe
        if not mask.any():
            continue

        def inside(places: np.ndarray, mask: np.ndarray = mask) -> np.ndarray:
            return _look_up(mask, nodes, places)

        begin, end, artery, vein = (np.asarray(p) * patient.scale for p in _ROOTS[lobe])
        streams = stream.spawn(4)
        points = _ends(streams[0], deep == lobe, nodes, config.vessel_spacing_mm)
        tree = _with_root(grow(streams[1], end, end - begin, points, inside), begin)
        bronchi.append(tree)
        arteries.append(_beside(tree, artery, tip))
        points = _ends(streams[2], deep == lobe, nodes, config.vessel_spacing_mm)
        middle = points.mean(axis=0)
        veins.append(grow(streams[3], vein, middle - vein, points, inside, reach=0.2))
    return PipeTrees(
        large_airways=[
            _tube(path, patient) for path in (_TRACHEA, _RIGHT_MAIN, _LEFT_MAIN, _INTERMEDIATE)
        ],
        bronchi=join(bronchi),
        arteries=join(arteries),
        veins=join(veins),
        tip=tip,
    )


def draw_pipes(trees: PipeTrees, grid: Grid) -> Pipes:
    """Draw the trees on voxels."""
    arteries, thin_arteries = _draw_vessels(trees.arteries, trees.tip, grid)
    veins, thin_veins = _draw_vessels(trees.veins, trees.tip, grid)
    outer = np.zeros(grid.shape, dtype=np.float32)
    lumen = np.zeros(grid.shape, dtype=np.float32)
    for tube in trees.large_airways:
        start, end = tube.points[:-1], tube.points[1:]
        wall = 1.3
        draw_segments(outer, grid, start, end, tube.radii[:-1] + wall, tube.radii[1:] + wall)
        draw_segments(lumen, grid, start, end, tube.radii[:-1], tube.radii[1:])
    large = outer > 0.5
    begin, finish = trees.bronchi.radii(trees.tip * _BRONCHUS_TO_ARTERY)
    seen = finish > _SMALLEST_BRONCHUS_MM
    tree, begin, finish = trees.bronchi.select(seen), begin[seen], finish[seen]
    points, first, last = _pieces(tree, begin, finish)
    for share, widen in ((outer, True), (lumen, False)):
        radii = [r + _wall(r) if widen else r for r in (first, last)]
        draw_segments(share, grid, points[0], points[1], radii[0], radii[1])
    return Pipes(arteries, thin_arteries, veins, thin_veins, outer, lumen, large)


def _wall(radius: np.ndarray) -> np.ndarray:
    return 0.3 + 0.13 * radius


def _draw_vessels(tree: Tree, tip: float, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    begin, finish = tree.radii(tip)
    thick = finish > 0.7 * float(grid.steps.mean())
    drawn = np.zeros(grid.shape, dtype=np.float32)
    large = tree.select(thick)
    points, first, last = _pieces(large, begin[thick], finish[thick])
    draw_segments(drawn, grid, points[0], points[1], first, last)
    small = tree.select(~thick)
    thin = splat_segments(grid, small.start, small.bend, small.end, begin[~thick], finish[~thick])
    return drawn, thin


def _pieces(
    tree: Tree, begin: np.ndarray, finish: np.ndarray, count: int = 3
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Cut bent branches into straight pieces: ((starts, ends), first radii, last radii)."""
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    first: list[np.ndarray] = []
    last: list[np.ndarray] = []
    for n in range(count):
        for t, points, radii in ((n / count, starts, first), ((n + 1) / count, ends, last)):
            curve = (1 - t) ** 2 * tree.start + 2 * t * (1 - t) * tree.bend + t * t * tree.end
            points.append(curve)
            radii.append(begin + t * (finish - begin))
    return (
        (np.concatenate(starts), np.concatenate(ends)),
        np.concatenate(first),
        np.concatenate(last),
    )


def _tube(path: Sequence[tuple[float, float, float, float]], patient: Patient) -> Tube:
    numbers = np.asarray(path, dtype=np.float64)
    return smooth_path(Tube(numbers[:, :3] * patient.scale, numbers[:, 3] * patient.scale.mean()))


def _ends(rng: np.random.Generator, mask: np.ndarray, nodes: Grid, spacing: float) -> np.ndarray:
    """Return places (n, 3) all over a lobe, about ``spacing`` mm apart."""
    bounds = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    axes = [
        np.arange(axis[b[0]], axis[b[-1]], spacing)
        for axis, b in zip((nodes.z, nodes.y, nodes.x), bounds, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    places = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    places = places + rng.uniform(-0.5, 0.5, places.shape) * spacing
    return places[_look_up(mask, nodes, places)]


def _look_up(mask: np.ndarray, nodes: Grid, places: np.ndarray) -> np.ndarray:
    step = nodes.steps[0]
    index = []
    for axis, values in ((nodes.z, places[:, 2]), (nodes.y, places[:, 1]), (nodes.x, places[:, 0])):
        index.append(np.clip(np.rint((values - axis[0]) / step).astype(int), 0, len(axis) - 1))
    return mask[index[0], index[1], index[2]]


def _with_root(tree: Tree, begin: np.ndarray) -> Tree:
    """Return the tree with the lobar bronchus in front."""
    first = tree.start[:1]
    total = tree.parent_leaves[:1]
    root = Tree(begin[None], 0.5 * (begin[None] + first), first, total, total)
    return join([root, tree])


def _beside(bronchi: Tree, origin: np.ndarray, tip: float) -> Tree:
    """Return the arteries: the bronchi's branches moved aside by both radii.

    The wider the bronchus the farther away its artery runs; where the bronchus is thin they touch.
    """
    side = np.array([0.35, -0.55, 0.76])

    def reach(leaves: np.ndarray) -> np.ndarray:
        bronchus = tip * _BRONCHUS_TO_ARTERY * leaves ** (1.0 / MURRAY)
        return bronchus + _wall(bronchus) + tip * leaves ** (1.0 / MURRAY)

    def moved(points: np.ndarray, heading: np.ndarray, leaves: np.ndarray) -> np.ndarray:
        across = side - (heading @ side)[:, None] * heading
        across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 0.3)
        return points + across * reach(leaves)[:, None]

    heading = bronchi.end - bronchi.start
    heading = heading / np.maximum(np.linalg.norm(heading, axis=1, keepdims=True), 1e-6)
    end = moved(bronchi.end, heading, bronchi.leaves)
    # a branch begins where its parent ended
    ends = {tuple(point): n for n, point in enumerate(bronchi.end)}
    parent = np.array([ends.get(tuple(point), -1) for point in bronchi.start])
    start = np.where(parent[:, None] >= 0, end[parent], origin[None])
    bend = moved(bronchi.bend, heading, bronchi.leaves)
    return Tree(start, bend, end, bronchi.leaves, bronchi.parent_leaves)


def pipe_labels(drawn: Pipes, lobes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vessels (1 artery, 2 vein) in the lobes and airways (1 lumen, 2 wall)."""
    airways = np.zeros(lobes.shape, dtype=np.uint8)
    airways[drawn.airway_outer > 0.5] = 2
    airways[drawn.airway_lumen > 0.5] = 1
    vessels = np.zeros(lobes.shape, dtype=np.uint8)
    free = (lobes > 0) & (airways == 0)
    vessels[free & drawn.is_vessel(drawn.arteries, drawn.thin_arteries)] = 1
    vein = drawn.is_vessel(drawn.veins, drawn.thin_veins)
    stronger = np.maximum(drawn.veins, drawn.thin_veins) > np.maximum(
        drawn.arteries, drawn.thin_arteries
    )
    vessels[free & vein & (stronger | (vessels == 0))] = 2
    return vessels, airways
