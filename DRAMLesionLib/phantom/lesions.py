"""COVID-19 lesions set into a lung: the phantom's, or a real one.

A lesion is where a smooth field is high. The field falls with the distance from the pleura, grows
to the back and to the base, rises around a few foci and is broken up by noise of several grains.
The level above which it is lesion is chosen lobe by lobe so that exactly the wanted share of the
lobe lies above it; so a score's fraction holds on any grid and in any lung.

Lesions fill air with fluid: ground glass raises lung of -870 HU much and a vessel of 40 HU not at
all, so vessels shine through; consolidation fills everything but the larger airways.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy import ndimage

from DRAMLesionLib.images.boxes import bounding_box
from DRAMLesionLib.lesions.severity import SCORE_COUNTS_TRAINING, score_to_interval
from DRAMLesionLib.lesions.types import LesionType
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom.fields import Grid, lattice, noise, smooth_step, to_grid

SCORE_CORRELATION = 0.6
"""Correlation of the scores of two lobes of one patient, on the normal scale."""

_PLEURA_STEP_MM = 4.0
_FLUID_HU = 40.0
_TYPE_BLEND_MM = 7.0
_EDGE_MM = 1.8
"""How far a scanner's blur mixes lung into the voxels around it."""


@dataclass(frozen=True)
class LesionStyle:
    """How the lesions of one patient look.

    Attributes:
        peripheral: How much the pleura's neighbourhood is preferred, 0..2.
        posterior: How much the back is preferred.
        basal: How much the base is preferred.
        patchy: Weight of the irregular part; low values give large smooth lesions.
        foci_per_litre: Density of the foci.
        focus_mm: Range of the foci's radius.
        consolidation: Share of the foci that are consolidation or mixed.
        paving: Strength of the reticular pattern in ground glass, 0..1.
        border_mm: Width of the soft border.
        ground_glass: Range of the share of the air that fluid replaces in ground glass.
    """

    peripheral: float
    posterior: float
    basal: float
    patchy: float
    foci_per_litre: float
    focus_mm: tuple[float, float]
    consolidation: float
    paving: float
    border_mm: float
    ground_glass: tuple[float, float]


def draw_scores(rng: np.random.Generator) -> dict[Lobe, int]:
    """Draw correlated severity scores of the five lobes of a patient.

    Each lobe alone has the distribution of the paper's training set (Table I b).
    """
    shares = np.cumsum(SCORE_COUNTS_TRAINING) / np.sum(SCORE_COUNTS_TRAINING)
    common = rng.standard_normal()
    normal = NormalDist()
    scores = {}
    for lobe in Lobe:
        own = rng.standard_normal()
        value = np.sqrt(SCORE_CORRELATION) * common + np.sqrt(1.0 - SCORE_CORRELATION) * own
        scores[lobe] = int(np.searchsorted(shares[:-1], normal.cdf(value), side="right"))
    return scores


def draw_fraction(rng: np.random.Generator, score: int) -> float:
    """Draw a lesion fraction inside a score's interval, clear of its bounds."""
    lower, upper = score_to_interval(score)
    if score == 0:
        return 0.0
    margin = 0.06 * (upper - lower)
    # few lobes are filled completely
    share = rng.random() ** (1.5 if score == len(SCORE_COUNTS_TRAINING) - 1 else 1.2)
    return lower + margin + share * (upper - lower - 2.0 * margin)


def draw_style(
    rng: np.random.Generator, consolidation: tuple[float, float] = (0.05, 0.55)
) -> LesionStyle:
    """Draw how the lesions of a patient look."""
    ground_glass = rng.uniform(0.18, 0.38)
    small = rng.uniform(5.0, 14.0)
    return LesionStyle(
        peripheral=rng.uniform(0.3, 1.6),
        posterior=rng.uniform(0.2, 1.0),
        basal=rng.uniform(0.05, 0.55),
        patchy=rng.uniform(0.35, 1.1),
        foci_per_litre=rng.uniform(3.0, 14.0),
        focus_mm=(small, small + rng.uniform(6.0, 26.0)),
        consolidation=rng.uniform(*consolidation),
        paving=rng.uniform(0.0, 1.0) if rng.random() < 0.5 else 0.0,
        border_mm=rng.uniform(1.0, 6.0),
        ground_glass=(ground_glass, ground_glass + rng.uniform(0.05, 0.22)),
    )


def insert_lesions(
    ct: np.ndarray,
    lobes: np.ndarray,
    vessels: np.ndarray | None,
    airways: np.ndarray | None,
    spacing: tuple[float, float, float],
    rng: np.random.Generator,
    scores: Mapping[Lobe, int],
    style: LesionStyle | None = None,
    keep_noise: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Set lesions into a lung without lesions.

    Args:
        ct: HU, (k, j, i), k to Superior, j to Posterior, i to the Left.
        lobes: :class:`Lobe` values on the same voxels, 0 elsewhere.
        vessels: Non-zero in vessels; these fade in consolidation. None where unknown.
        airways: 1 in the lumen of bronchi, which stays full of air. None where unknown.
        spacing: Voxel edges (x, y, z) in mm.
        rng: Source of everything random.
        scores: Severity score of each lobe; a lobe that is not named gets 0.
        style: How the lesions look; drawn when None.
        keep_noise: Give consolidation the fine noise of the lung that it replaces. For CTs that
            have noise already.

    Returns:
        The CT as float32 and the lesion types as uint8 (:class:`LesionType`, 0 none). The share of
        a lobe's voxels with a type lies inside the interval of its score.

    Raises:
        ValueError: If shapes differ or a score is not one of 0..5.
    """
    for name, other in (("lobes", lobes), ("vessels", vessels), ("airways", airways)):
        if other is not None and other.shape != ct.shape:
            message = f"{name} have the shape {other.shape}, the CT has {ct.shape}"
            raise ValueError(message)
    streams = rng.spawn(6)
    style = style or draw_style(streams[0])
    fractions = {lobe: draw_fraction(streams[1], scores.get(lobe, 0)) for lobe in Lobe}
    result = ct.astype(np.float32)
    types = np.zeros(ct.shape, dtype=np.uint8)
    if not lobes.any() or not any(fractions.values()):
        return result, types
    box = bounding_box(lobes > 0, margin=3)
    lumen = None if airways is None else airways[box] == 1
    part = _Insertion(lobes[box], lumen, spacing, style, streams[2:])
    excess, types[box] = part.place(fractions)
    rings = max(1, round(_EDGE_MM / float(np.mean(spacing))))
    fill = _over_the_edge(part.fill(excess, types[box]), lobes[box], lumen, rings)
    vessel_part = None if vessels is None else vessels[box] > 0
    result[box] = _fill_with_fluid(result[box], fill, vessel_part, streams[5], keep_noise)
    return result, types


class _Insertion:
    """Lesions within the box around the lungs."""

    def __init__(
        self,
        lobes: np.ndarray,
        lumen: np.ndarray | None,
        spacing: tuple[float, float, float],
        style: LesionStyle,
        streams: list[np.random.Generator],
    ) -> None:
        self._lobes = lobes
        self._lumen = lumen
        self._style = style
        self._shape_rng, self._type_rng, self._texture_rng = streams[:3]
        axes = [
            (np.arange(n) - (n - 1) / 2.0) * step
            for n, step in zip(lobes.shape, spacing[::-1], strict=True)
        ]
        self._grid = Grid(*axes)

    def place(self, fractions: Mapping[Lobe, float]) -> tuple[np.ndarray, np.ndarray]:
        """Return how far each voxel lies above the lesion level (in border widths), and types."""
        field, foci, nodes = self._field()
        excess = np.full(field.shape, -9.0, dtype=np.float32)
        free = self._lobes > 0 if self._lumen is None else (self._lobes > 0) & ~self._lumen
        for lobe, fraction in fractions.items():
            here = self._lobes == lobe
            wanted = round(fraction * np.count_nonzero(here))
            here &= free
            values = field[here]
            wanted = min(wanted, values.size)
            if wanted == 0:
                continue
            level = np.partition(values, values.size - wanted)[values.size - wanted]
            excess[here] = values - level
        types = np.zeros(field.shape, dtype=np.uint8)
        lesion = np.nonzero(excess >= 0)
        types[lesion] = self._types(foci, nodes, lesion)
        return excess / np.float32(0.04 * self._style.border_mm), types

    def fill(self, excess: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Return the share of the air in each voxel that fluid replaces, 0..1."""
        rng, style = self._texture_rng, self._style
        low, high = style.ground_glass
        coarse = noise(rng, lattice(self._grid, 9.0), self._grid)
        fine = noise(rng, lattice(self._grid, 3.5), self._grid)
        level = np.float32((low + high) / 2) + np.float32((high - low) / 2) * coarse
        ground_glass = np.clip(level, 0.12, 0.62) * (1.0 + np.float32(0.16) * fine)
        if style.paving > 0:
            ground_glass += np.float32(0.22 * style.paving) * self._reticulum(rng)
        # consolidation has a mottled border of its own inside the lesion
        dense = np.clip(0.94 + 0.03 * coarse + 0.025 * fine, 0.0, 1.0)
        mottled = coarse * 0.55 + fine * 0.6
        core = smooth_step(0.3 * excess + 0.6 * mottled, -0.1, 1.1).astype(np.float32)
        part = smooth_step(0.08 * excess + mottled, 0.2, 1.2).astype(np.float32)
        share = self._blend(types, LesionType.CONSOLIDATION) * core
        share += self._blend(types, LesionType.MIXED) * part
        fill = ground_glass + share * (dense - ground_glass)
        border = smooth_step(excess, -1.0, 1.6).astype(np.float32)
        fill *= border
        if self._lumen is not None:
            fill[self._lumen] = 0.0
        fill[self._lobes == 0] = 0.0
        return np.clip(fill, 0.0, 1.0)

    def _blend(self, types: np.ndarray, kind: LesionType) -> np.ndarray:
        """Return where a type is, 0..1, passing softly into the types beside it."""
        here = (types == kind).astype(np.float32)
        if not here.any():
            return here
        size = [max(1, round(_TYPE_BLEND_MM / step)) for step in self._grid.steps]
        every = ndimage.uniform_filter((types > 0).astype(np.float32), size)
        return ndimage.uniform_filter(here, size) / np.maximum(every, 1e-3)

    def _field(self) -> tuple[np.ndarray, np.ndarray, Grid]:
        """Return the field whose high values become lesion, and the nearest focus of each node."""
        rng, style, grid = self._shape_rng, self._style, self._grid
        depth, nodes, inside = self._depth()
        z, y, x = nodes.mesh()
        tall, deep = float(np.ptp(grid.z)), float(np.ptp(grid.y))
        trend = style.peripheral * np.exp(-depth / 14.0) + style.posterior * y / max(deep, 1.0)
        trend = trend - style.basal * z / max(tall, 1.0)
        centres, radii, numbers = self._foci(rng.spawn(1)[0], nodes, inside, trend)
        bump = np.full(nodes.shape, -4.0)
        owner = np.zeros(nodes.shape, dtype=np.int64)
        for (cx, cy, cz), radius, n in zip(centres, radii, numbers, strict=True):
            near = 1.0 - ((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2.0 * radius) ** 2
            better = near > bump
            bump[better] = near[better]
            owner[better] = n
        smooth = to_grid(0.55 * trend + 1.1 * np.maximum(bump, -0.8), nodes, grid)
        for step, weight in ((24.0, 0.30), (11.0, 0.24), (6.0, 0.15), (3.5, 0.07)):
            smooth += np.float32(weight * style.patchy) * noise(rng, lattice(grid, step), grid)
        return smooth, owner, nodes

    def _depth(self) -> tuple[np.ndarray, Grid, np.ndarray]:
        """Return the distance from the pleura in mm on a coarse lattice, and where lung is."""
        nodes = lattice(self._grid, _PLEURA_STEP_MM)
        inside = self._pick(self._lobes > 0, nodes)
        return ndimage.distance_transform_edt(inside, sampling=_PLEURA_STEP_MM), nodes, inside

    def _pick(self, values: np.ndarray, nodes: Grid) -> np.ndarray:
        """Return the values of the voxels nearest to the nodes, 0 outside the grid."""
        result = values
        for axis, (own, wanted) in enumerate(
            ((self._grid.z, nodes.z), (self._grid.y, nodes.y), (self._grid.x, nodes.x))
        ):
            step = own[1] - own[0] if len(own) > 1 else 1.0
            index = np.rint((wanted - own[0]) / step).astype(int)
            result = np.take(result, np.clip(index, 0, len(own) - 1), axis=axis)
            outside = (index < 0) | (index >= len(own))
            result[(slice(None),) * axis + (outside,)] = 0
        return result

    def _foci(
        self, rng: np.random.Generator, nodes: Grid, inside: np.ndarray, trend: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return places (n, 3), radii and numbers of the foci.

        Candidates from all over the box are taken where the trend is high. A candidate keeps its
        number whatever happens to the others: so a lung on other voxels has the same foci.
        """
        style = self._style
        litres = np.count_nonzero(inside) * _PLEURA_STEP_MM**3 / 1e6
        wanted = max(5, round(style.foci_per_litre * litres))
        draws = rng.random((60 * wanted, 5))
        low = np.array([axis[0] for axis in (self._grid.x, self._grid.y, self._grid.z)])
        high = np.array([axis[-1] for axis in (self._grid.x, self._grid.y, self._grid.z)])
        places = low + draws[:, :3] * (high - low)
        index = [
            np.rint((places[:, n] - axis[0]) / _PLEURA_STEP_MM).astype(int)
            for n, axis in ((2, nodes.z), (1, nodes.y), (0, nodes.x))
        ]
        weight = np.exp(2.0 * (trend - trend[inside].max())) * inside
        chosen = np.flatnonzero(draws[:, 3] < weight[tuple(index)])[:wanted]
        small, large = style.focus_mm
        return places[chosen], small + draws[chosen, 4] * (large - small), chosen

    def _types(self, foci: np.ndarray, nodes: Grid, voxels: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return the type of each of ``voxels``: that of its focus, with an irregular border."""
        count = int(foci.max()) + 1
        draw = self._type_rng.spawn(1)[0].random(count)
        dense = self._style.consolidation
        kinds = np.where(
            draw < 0.4 * dense,
            LesionType.CONSOLIDATION,
            np.where(draw < dense, LesionType.MIXED, LesionType.GROUND_GLASS),
        )
        index = []
        for axis, own, near in zip(
            (self._grid.z, self._grid.y, self._grid.x),
            voxels,
            (nodes.z, nodes.y, nodes.x),
            strict=True,
        ):
            moved = 5.0 * noise(self._type_rng, lattice(self._grid, 10.0), self._grid)[voxels]
            place = np.rint((axis[own] + moved - near[0]) / _PLEURA_STEP_MM).astype(int)
            index.append(np.clip(place, 0, len(near) - 1))
        return kinds[foci[tuple(index)]]

    def _reticulum(self, rng: np.random.Generator) -> np.ndarray:
        """Return lines that look like thickened septa: where smooth noise passes zero."""
        wide = noise(rng, lattice(self._grid, 7.0), self._grid)
        narrow = noise(rng, lattice(self._grid, 5.0), self._grid)
        lines = np.maximum(1.0 - np.abs(wide) / 0.25, 0.8 - np.abs(narrow) / 0.25)
        return np.maximum(lines, 0.0)


def _over_the_edge(
    fill: np.ndarray, lobes: np.ndarray, lumen: np.ndarray | None, rings: int
) -> np.ndarray:
    """Continue the filling into ``rings`` voxels around the lobes, which hold some lung as well."""
    inside = lobes > 0
    for _ in range(rings):
        grown = ndimage.binary_dilation(inside)
        edge = grown & ~inside
        if lumen is not None:
            edge &= ~lumen
        k, j, i = np.nonzero(edge)
        best = np.zeros(len(k), dtype=np.float32)
        for axis in range(3):
            for shift in (-1, 1):
                place = [k, j, i]
                place[axis] = np.clip(place[axis] + shift, 0, fill.shape[axis] - 1)
                np.maximum(best, fill[tuple(place)], out=best)
        fill[edge] = best
        inside = grown
    return fill


def _fill_with_fluid(
    hu: np.ndarray,
    fill: np.ndarray,
    vessels: np.ndarray | None,
    rng: np.random.Generator,
    keep_noise: bool,
) -> np.ndarray:
    fluid = np.float32(_FLUID_HU + rng.uniform(-25.0, 15.0))
    # what is denser than fluid stays: contrast in vessels shows through, bone does not change
    result = hu + fill * np.maximum(fluid - hu, 0.0)
    if vessels is not None:
        # blood without contrast is as dense as consolidation: the vessel disappears
        hidden = vessels & (fill > 0.75) & (hu < 150.0)
        result[hidden] = fluid
    if keep_noise:
        smooth = ndimage.gaussian_filter(hu, 1.0)
        # at vessels and at the pleura the difference is anatomy, not noise
        result += np.where(smooth < -700.0, fill * np.clip(hu - smooth, -60.0, 60.0), 0.0)
    return result
