"""Pipes on a grid: large ones by their distance, thin ones by the volume they take up."""

from __future__ import annotations

import numpy as np

from DRAMLesionLib.phantom.fields import Grid
from DRAMLesionLib.phantom.patient import Tube

_SAMPLE_STEP = 0.5
"""Distance of the samples along a thin pipe, in voxels."""


def smooth_path(tube: Tube, pieces: int = 4) -> Tube:
    """Return the same pipe as a finer polyline bent smoothly through its points (Catmull-Rom)."""
    points = np.concatenate(
        [
            2 * tube.points[:1] - tube.points[1:2],
            tube.points,
            2 * tube.points[-1:] - tube.points[-2:-1],
        ]
    )
    t = (np.arange(pieces) / pieces)[:, None]
    fine = []
    for p0, p1, p2, p3 in zip(points, points[1:], points[2:], points[3:], strict=False):
        bend = 2 * p0 - 5 * p1 + 4 * p2 - p3
        twist = 3 * p1 - p0 - 3 * p2 + p3
        fine.append(p1 + 0.5 * t * ((p2 - p0) + t * (bend + t * twist)))
    fine.append(tube.points[-1:])
    count = len(tube.points)
    places = np.arange((count - 1) * pieces + 1) / pieces
    radii = np.interp(places, np.arange(count), tube.radii)
    return Tube(np.round(np.concatenate(fine) * 1024.0) / 1024.0, radii)


def distance_to_tube(tube: Tube, grid: Grid, reach: float, far: float = 1e3) -> np.ndarray:
    """Return the distance in mm to a pipe's wall (negative inside) within ``reach``, else ``far``.

    Returns:
        float32 array of ``grid.shape``.
    """
    result = np.full(grid.shape, far, dtype=np.float32)
    ends = zip(tube.points, tube.points[1:], tube.radii, tube.radii[1:], strict=False)
    for a, b, ra, rb in ends:
        box, distance = _segment_distance(grid, a, b, ra, rb, reach)
        if box is not None:
            np.minimum(result[box], distance, out=result[box])
    return result


def draw_segments(
    occupied: np.ndarray,
    grid: Grid,
    starts: np.ndarray,
    ends: np.ndarray,
    start_radii: np.ndarray,
    end_radii: np.ndarray,
) -> None:
    """Draw tapered segments into ``occupied``, keeping the larger share where they overlap.

    Args:
        occupied: float32 array of ``grid.shape``: share of each voxel inside, changed in place.
        grid: The voxels.
        starts: First ends of the segments, (n, 3) as (x, y, z) in mm.
        ends: Second ends.
        start_radii: Radius at the first ends in mm.
        end_radii: Radius at the second ends in mm.
    """
    edge = float(grid.steps.mean())
    for a, b, ra, rb in zip(starts, ends, start_radii, end_radii, strict=True):
        box, distance = _segment_distance(grid, a, b, ra, rb, edge)
        if box is not None:
            share = np.clip(0.5 - distance / edge, 0.0, 1.0)
            np.maximum(occupied[box], share, out=occupied[box])


def splat_segments(
    grid: Grid,
    starts: np.ndarray,
    bends: np.ndarray,
    ends: np.ndarray,
    start_radii: np.ndarray,
    end_radii: np.ndarray,
) -> np.ndarray:
    """Return the share of each voxel that pipes thinner than a voxel take up.

    A pipe is sampled along its bent axis (quadratic Bezier curve) and the volume of each sample is
    shared among the eight nearest voxels, so a pipe of any width keeps its volume on any grid.

    Args:
        grid: The voxels.
        starts: First ends, (n, 3) as (x, y, z) in mm.
        bends: Control points of the curves.
        ends: Second ends.
        start_radii: Radius at the first ends in mm.
        end_radii: Radius at the second ends in mm.

    Returns:
        float32 array of ``grid.shape``, in [0, 1].
    """
    steps = grid.steps[::-1]
    length = np.sqrt(((bends - starts) ** 2).sum(1)) + np.sqrt(((ends - bends) ** 2).sum(1))
    counts = np.maximum(np.ceil(length / (_SAMPLE_STEP * steps.min())), 1).astype(int)
    which = np.repeat(np.arange(len(starts)), counts)
    order = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    t = ((order + 0.5) / counts[which])[:, None]
    points = (1 - t) ** 2 * starts[which] + 2 * t * (1 - t) * bends[which] + t * t * ends[which]
    radii = start_radii[which] + t[:, 0] * (end_radii - start_radii)[which]
    volume = np.pi * radii**2 * (length / counts)[which] / float(np.prod(steps))
    origin = np.array([grid.x[0], grid.y[0], grid.z[0]])
    return _share_out((points - origin) / steps, volume, grid.shape)


def _share_out(position: np.ndarray, volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    size = np.array(shape[::-1])
    inside = np.all((position >= 0) & (position < size - 1), axis=1)
    position, volume = position[inside], volume[inside]
    base = np.floor(position).astype(np.int64)
    rest = position - base
    flat = (base[:, 2] * shape[1] + base[:, 1]) * shape[2] + base[:, 0]
    places, weights = [], []
    for corner in range(8):
        offset = np.array([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
        weights.append(np.prod(np.where(offset == 1, rest, 1.0 - rest), axis=1) * volume)
        places.append(flat + (offset[2] * shape[1] + offset[1]) * shape[2] + offset[0])
    total = np.bincount(
        np.concatenate(places), weights=np.concatenate(weights), minlength=int(np.prod(shape))
    )
    return np.minimum(total, 1.0).astype(np.float32).reshape(shape)


def _segment_distance(
    grid: Grid, a: np.ndarray, b: np.ndarray, ra: float, rb: float, reach: float
) -> tuple[tuple[slice, slice, slice] | None, np.ndarray]:
    margin = max(ra, rb) + reach
    box = grid.box(np.minimum(a, b) - margin, np.maximum(a, b) + margin)
    if any(part.start >= part.stop for part in box):
        return None, np.empty(0)
    z, y, x = grid.part(box).mesh()
    axis = b - a
    squared = max(float(axis @ axis), 1e-9)
    px, py, pz = x - a[0], y - a[1], z - a[2]
    t = np.clip((px * axis[0] + py * axis[1] + pz * axis[2]) / squared, 0.0, 1.0)
    dx, dy, dz = px - t * axis[0], py - t * axis[1], pz - t * axis[2]
    return box, np.sqrt(dx * dx + dy * dy + dz * dz) - (ra + t * (rb - ra))
