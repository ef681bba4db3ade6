"""Fields in patient space that do not depend on the voxel size.

A field is known on a lattice of fixed millimetre steps and brought to the voxels by cubic
B-splines. So the same seed gives the same patient on every grid. The interpolation uses
elementwise products and sums alone, in a fixed order: no matrix product whose rounding depends on
the machine decides on which side of a surface a voxel lies. Values that went through sines, roots
or powers are rounded to 1/1024 mm first, for the same reason.

Coordinates are patient millimetres, x to the Left, y to Posterior, z to Superior; arrays are
(k, j, i) = (z, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ROUND = 1024.0
_SPLINE_SD = (151.0 / 315.0) ** 1.5
"""Standard deviation of white unit noise after cubic B-spline interpolation in three directions."""

_HASH = tuple(np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))
_MIX = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
"""Constants of the SplitMix64 generator's output function."""


@dataclass(frozen=True)
class Grid:
    """Voxel centres of an axis-parallel grid.

    Attributes:
        z: Coordinates of the slices in mm, ascending.
        y: Coordinates of the rows in mm, ascending.
        x: Coordinates of the columns in mm, ascending.
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (k, j, i)."""
        return len(self.z), len(self.y), len(self.x)

    @property
    def steps(self) -> np.ndarray:
        """Voxel edges (z, y, x) in mm."""
        return np.array([self._step(a) for a in (self.z, self.y, self.x)])

    @staticmethod
    def _step(axis: np.ndarray) -> float:
        return float(axis[1] - axis[0]) if len(axis) > 1 else 1.0

    def box(
        self, lower: Sequence[float] | np.ndarray, upper: Sequence[float] | np.ndarray
    ) -> tuple[slice, slice, slice]:
        """Return the index ranges of the voxels between two corners (x, y, z) in mm."""
        ranges = []
        for axis, low, high in zip((self.z, self.y, self.x), lower[::-1], upper[::-1], strict=True):
            step = self._step(axis)
            first = int(np.ceil((low - axis[0]) / step))
            last = int(np.floor((high - axis[0]) / step)) + 1
            ranges.append(slice(min(max(first, 0), len(axis)), min(max(last, 0), len(axis))))
        return ranges[0], ranges[1], ranges[2]

    def part(self, box: tuple[slice, slice, slice]) -> Grid:
        """Return the grid of the voxels in ``box``."""
        return Grid(self.z[box[0]], self.y[box[1]], self.x[box[2]])

    def mesh(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (z, y, x) as three arrays that broadcast to :attr:`shape`."""
        return self.z[:, None, None], self.y[None, :, None], self.x[None, None, :]


def centred_grid(lower: Sequence[float], upper: Sequence[float], spacing: Sequence[float]) -> Grid:
    """Return the grid of voxels of edge ``spacing`` (x, y, z) between two corners (x, y, z)."""
    axes = []
    for low, high, step in zip(lower, upper, spacing, strict=True):
        count = max(1, round((high - low) / step))
        axes.append((low + high) / 2.0 + (np.arange(count) - (count - 1) / 2.0) * step)
    return Grid(axes[2], axes[1], axes[0])


def lattice(grid: Grid, step: float) -> Grid:
    """Return the nodes at whole multiples of ``step`` mm that splines over ``grid`` need."""
    axes = []
    for axis in (grid.z, grid.y, grid.x):
        first = int(np.floor(axis[0] / step)) - 2
        last = int(np.floor(axis[-1] / step)) + 4
        axes.append(np.arange(first, last) * step)
    return Grid(*axes)


def to_grid(values: np.ndarray, nodes: Grid, grid: Grid) -> np.ndarray:
    """Interpolate lattice values to voxels with cubic B-splines.

    Args:
        values: Values on ``nodes``, (k, j, i).
        nodes: The lattice; it must reach two nodes beyond ``grid``.
        grid: Where the values are wanted.

    Returns:
        float32 array of ``grid.shape``.
    """
    needed = (
        _needed(nodes.z, grid.z),
        _needed(nodes.y, grid.y),
        _needed(nodes.x, grid.x),
    )
    nodes = nodes.part(needed)
    exact = np.asarray(values[needed], dtype=np.float64)
    result = (np.round(exact * _ROUND) / _ROUND).astype(np.float32)
    # columns first, slices last: so the largest pass runs over whole slices that fit into the cache
    for axis, source, target in ((2, nodes.x, grid.x), (1, nodes.y, grid.y), (0, nodes.z, grid.z)):
        result = _interpolate_axis(result, axis, source, target)
    return result


def noise_nodes(rng: np.random.Generator, nodes: Grid) -> np.ndarray:
    """Return lattice values that :func:`to_grid` makes noise of standard deviation 1 from."""
    # every node's value follows from its own place, so that the extent of the grid, which depends
    # on the spacing, changes nothing
    place = np.array(rng.integers(0, 2**63), dtype=np.uint64)
    for axis, (values, factor) in enumerate(zip((nodes.z, nodes.y, nodes.x), _HASH, strict=True)):
        number = np.rint(values / (values[1] - values[0])).astype(np.int64).astype(np.uint64)
        shape = [1, 1, 1]
        shape[axis] = -1
        place = place + (number * factor).reshape(shape)
    for shift, factor in _MIX:
        place = (place ^ (place >> shift)) * factor
    place ^= place >> np.uint64(31)
    # the sum of four uniform numbers is close enough to normal
    total = np.zeros(place.shape, dtype=np.float32)
    for n in range(4):
        total += (place >> np.uint64(16 * n)) & np.uint64(0xFFFF)
    sd = 65536.0 * np.sqrt(4.0 / 12.0)
    return (total - np.float32(2.0 * 65535.0)) * np.float32(1.0 / (sd * _SPLINE_SD))


def noise(rng: np.random.Generator, nodes: Grid, grid: Grid) -> np.ndarray:
    """Return smooth noise (mean 0, standard deviation about 1) with the grain of ``nodes``."""
    return to_grid(noise_nodes(rng, nodes), nodes, grid)


def as_distance(values: np.ndarray, nodes: Grid) -> np.ndarray:
    """Return an implicit function divided by its slope: near its zero set, a distance in mm."""
    slopes = np.gradient(values, *nodes.steps)
    length = np.sqrt(sum(s * s for s in slopes))
    return values / np.maximum(length, 1e-6)


def smooth_max(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Return the maximum of two distances, rounded off where they differ by less than ``width``."""
    overlap = np.maximum(width - np.abs(a - b), 0.0) / width
    return np.maximum(a, b) + overlap * overlap * (width / 4.0)


def smooth_step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 below ``low``, 1 above ``high`` and a smooth rise between."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def occupancy(distance: np.ndarray, edge: float) -> np.ndarray:
    """Return the share of a voxel of ``edge`` mm inside a surface (distance < 0 is inside)."""
    share = distance * np.float32(-1.0 / edge)
    share += np.float32(0.5)
    return np.clip(share, 0.0, 1.0, out=share)


def _needed(source: np.ndarray, target: np.ndarray) -> slice:
    """Return which nodes along an axis the splines at ``target`` use."""
    ends = (target[[0, -1]] - source[0]) / (source[1] - source[0])
    return slice(int(np.floor(ends[0])) - 1, int(np.floor(ends[1])) + 3)


def _interpolate_axis(
    values: np.ndarray, axis: int, source: np.ndarray, target: np.ndarray
) -> np.ndarray:
    position = (target - source[0]) / (source[1] - source[0])
    first = np.floor(position).astype(int)
    weights = [w.astype(np.float32) for w in _spline_weights(position - first)]
    moved = np.moveaxis(values, axis, 0)
    result = np.empty((len(target), *moved.shape[1:]), dtype=np.float32)
    scratch = np.empty(moved.shape[1:], dtype=np.float32)
    for n, base in enumerate(first):
        np.multiply(moved[base - 1], weights[0][n], out=result[n])
        for tap in (1, 2, 3):
            np.multiply(moved[base - 1 + tap], weights[tap][n], out=scratch)
            result[n] += scratch
    return np.ascontiguousarray(np.moveaxis(result, 0, axis))


def _spline_weights(u: np.ndarray) -> tuple[np.ndarray, ...]:
    v = 1.0 - u
    return (
        v * v * v / 6.0,
        (4.0 - 6.0 * u * u + 3.0 * u * u * u) / 6.0,
        (4.0 - 6.0 * v * v + 3.0 * v * v * v) / 6.0,
        u * u * u / 6.0,
    )
