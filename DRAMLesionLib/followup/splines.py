"""A smooth displacement by cubic B-splines that makes one image like another.

SimpleITK's B-spline transform carries the derivative by every knot for every voxel and knows no
penalty for bending. Here the displacement is three small sparse products, one for each axis, and so
is its derivative, which is quick, and bending costs. Knots are refined from level to level by
halving their distance, which keeps the displacement as it is. Sums run in one fixed order, not in
that of a BLAS with threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage, optimize, sparse

from DRAMLesionLib.images import geometry


@dataclass(frozen=True)
class Level:
    """One level, from coarse to fine.

    Attributes:
        knots_mm: Distance of the knots; half of that of the level before.
        step: Every so many voxels of the grid are compared, along each axis.
        blur_mm: Standard deviation of the smoothing of both images.
        iterations: Of the optimiser, at most.
    """

    knots_mm: float
    step: int
    blur_mm: float
    iterations: int


LEVELS = (Level(64.0, 2, 6.0, 30), Level(32.0, 2, 3.0, 40), Level(16.0, 1, 1.5, 30))

Bases = Sequence[sparse.csr_array]
"""For each axis the weight of each knot at each voxel."""

BENDING = 2e-3
"""Cost of bending: weight of the mean squared second difference of the knots in mm."""

_NEAR_MM = 9.0
"""So far around the lungs the images are compared."""


def fit(
    fixed: sitk.Image,
    moving: sitk.Image,
    lung: sitk.Image,
    affine: sitk.Transform,
    progress: Callable[[float], None],
    levels: Sequence[Level] = LEVELS,
) -> sitk.Image:
    """Return the displacement before ``affine`` that makes ``moving`` most like ``fixed``.

    Args:
        fixed: float32 on an isotropic, axis-parallel grid.
        moving: float32 on another such grid.
        lung: Share of lung of each voxel of ``fixed``, 0..1; around it the images are compared.
        affine: Takes points of ``fixed`` to points of ``moving``.
        progress: Called with the share done, 0 to 1; may raise to stop.
        levels: From coarse to fine.

    Returns:
        Vectors in mm on the grid of ``fixed``.
    """
    spacing = fixed.GetSpacing()[0]
    near = ndimage.binary_dilation(geometry.array(lung) > 0.5, iterations=round(_NEAR_MM / spacing))
    costs = [level.iterations * (2 / level.step) ** 3 for level in levels]
    knots, done = np.zeros((0, 0, 0, 3)), 0.0
    for level, cost in zip(levels, costs, strict=True):
        bases = _bases(near.shape, spacing, level.step, level.knots_mm)
        counts = [basis.shape[1] for basis in bases]
        knots = _refined(knots, counts) if knots.size else np.zeros((*counts, 3))
        problem = _Problem(fixed, moving, near, affine, bases, level)
        share = cost / sum(costs)
        knots = problem.solve(knots, _part(progress, done, share))
        done += share
    whole = _bases(near.shape, spacing, 1, levels[-1].knots_mm)
    field = sitk.GetImageFromArray(_spread(np.round(knots, 2), whole), isVector=True)
    field.CopyInformation(fixed)
    return field


def _part(progress: Callable[[float], None], start: float, share: float) -> Callable[[float], None]:
    """Return what tells the progress of a part that begins at ``start``."""
    return lambda fraction: progress(start + share * fraction)


def _bases(
    shape: tuple[int, ...], spacing: float, step: int, knots_mm: float
) -> list[sparse.csr_array]:
    """Return the weight of each knot at every so many voxels of each axis."""
    return [_basis(np.arange(0, n, step) * spacing, n * spacing, knots_mm) for n in shape]


class _Problem:
    """Mean squared difference and bending, and their derivative by the knots, at one level."""

    def __init__(
        self,
        fixed: sitk.Image,
        moving: sitk.Image,
        near: np.ndarray,
        affine: sitk.Transform,
        bases: Bases,
        level: Level,
    ) -> None:
        spacing, step = fixed.GetSpacing()[0], level.step
        sigma = level.blur_mm / spacing
        self._bases, self._level = bases, level
        target = ndimage.gaussian_filter(geometry.array(fixed), sigma)[::step, ::step, ::step]
        self._source = ndimage.gaussian_filter(geometry.array(moving), sigma)
        self._slopes = np.stack(np.gradient(self._source), axis=0).astype(np.float32)
        self._where = np.nonzero(near[::step, ::step, ::step])
        self._target = target[self._where]
        self._shape = target.shape
        # points of the fixed grid as indices of the moving one: a linear map of both
        matrix, offset = _linear(affine)
        places = np.stack(self._where, axis=1)[:, ::-1] * (spacing * step)
        start = (places + fixed.GetOrigin()) @ matrix.T + offset - moving.GetOrigin()
        self._start = (start / moving.GetSpacing()[0])[:, ::-1].T
        self._turn = (matrix / moving.GetSpacing()[0])[::-1]

    def solve(self, knots: np.ndarray, progress: Callable[[float], None]) -> np.ndarray:
        shape, seen = knots.shape, 0

        def count(_: object) -> None:
            nonlocal seen
            seen += 1
            progress(min(1.0, seen / self._level.iterations))

        found = optimize.minimize(
            lambda values: self._cost(values.reshape(shape)),
            knots.ravel(),
            jac=True,
            method="L-BFGS-B",
            callback=count,
            options={"maxiter": self._level.iterations, "maxcor": 8, "ftol": 1e-6, "gtol": 1e-9},
        )
        return found.x.reshape(shape)

    def _cost(self, knots: np.ndarray) -> tuple[float, np.ndarray]:
        moved = _spread(knots, self._bases)[self._where]
        index = self._start + np.einsum("ab,nb->an", self._turn, moved)
        off = _sampled(self._source, index) - self._target
        slopes = np.stack([_sampled(s, index) for s in self._slopes], axis=1)
        count = len(off)
        by_place = np.zeros((*self._shape, 3))
        by_place[self._where] = (2.0 / count) * np.einsum("n,na,ab->nb", off, slopes, self._turn)
        bent, by_knot = _bending(knots)
        # for the optimiser's own limits the cost is of the order of one
        scale = 100.0
        cost = float((off**2).sum()) / count + BENDING * bent
        slope = _gathered(by_place, self._bases) + BENDING * by_knot
        return scale * cost, scale * slope.ravel()


def _sampled(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(values, index, order=1, mode="nearest", output=np.float64)


def _basis(places: np.ndarray, extent: float, step: float) -> sparse.csr_array:
    """Return the weight of each knot, from one before the first place on, at each place."""
    count = int(np.ceil(extent / step)) + 3
    t = np.abs(places[:, None] / step - (np.arange(count) - 1.0))
    inner = 2.0 / 3.0 - t**2 + t**3 / 2.0
    outer = np.clip(2.0 - t, 0.0, None) ** 3 / 6.0
    return sparse.csr_array(np.where(t < 1.0, inner, outer))


def _along(matrix: sparse.csr_array, values: np.ndarray, axis: int) -> np.ndarray:
    """Return the product of a matrix with one axis of an array."""
    moved = np.moveaxis(values, axis, 0)
    result = matrix @ moved.reshape(len(moved), -1)
    return np.moveaxis(result.reshape(-1, *moved.shape[1:]), 0, axis)


def _spread(knots: np.ndarray, bases: Bases) -> np.ndarray:
    """Return the displacement (k, j, i, 3) that knots (z, y, x, 3) make."""
    for axis, basis in enumerate(bases):
        knots = _along(basis, knots, axis)
    return knots


def _gathered(values: np.ndarray, bases: Bases) -> np.ndarray:
    """Return the derivative by the knots from that by the displacement."""
    for axis, basis in enumerate(bases):
        values = _along(basis.T.tocsr(), values, axis)
    return values


def _refined(knots: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Return knots of half the distance that make the same displacement.

    Args:
        knots: (z, y, x, 3); the second one of an axis lies on its first voxel.
        counts: How many knots each axis gets.
    """
    for axis, count in enumerate(counts):
        away = np.abs(np.arange(count)[:, None] - (2 * np.arange(knots.shape[axis]) - 1))
        weights = np.array([6.0, 4.0, 1.0]) / 8.0
        matrix = np.where(away < 3, weights[np.minimum(away, 2)], 0.0)
        knots = _along(sparse.csr_array(matrix), knots, axis)
    return knots


def _bending(knots: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean of the squared second differences, and its derivative by the knots."""
    total, slope = 0.0, np.zeros_like(knots)
    for axis in range(3):
        bent = np.diff(knots, 2, axis=axis)
        total += float((bent**2).sum())
        edge = [(0, 0)] * 4
        edge[axis] = (2, 2)
        slope += 2.0 * np.diff(np.pad(bent, edge), 2, axis=axis)
    count = knots.size / 3
    return total / count, slope / count


def _linear(affine: sitk.Transform) -> tuple[np.ndarray, np.ndarray]:
    """Return matrix and offset of a linear transform."""
    offset = np.array(affine.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(affine.TransformPoint(tuple(p))) - offset for p in np.eye(3)]
    return np.stack(columns, axis=1), offset
