"""Fissures: the surface of least cost through what can be seen, held by the mean where nothing is.

A fissure is sought as a height map over a plane that follows its mean course. The cost of a place
combines three signs: a thin plate slightly denser than lung (eigenvalues of the Hessian, normals
that agree with their neighbourhood), few vessels nearby, and no vessel or bronchus cut. First the
mean surface is moved and tilted as a whole; then dynamic programming along eight directions
(semi-global matching) finds the height of each cell; last a thin plate is fitted, stiff where
the evidence is weak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from DRAMLesionLib.images.geometry import array, resample
from DRAMLesionLib.lobes.surfaces import STEP_MM, Surface

HALF_HEIGHT_MM = 60.0
HEIGHT_STEP_MM = 1.0
PLATE_SIGMA_MM = 1.2
VESSEL_EXCESS_HU = 250.0
"""A vessel or bronchial wall is denser than the lung around it by this or more."""
VESSEL_REACH_MM = 6.0
RIGID_STIFFNESS = 0.05
BAND_MM = 20.0
BAND_STIFFNESS = 0.15
STEP_PENALTIES = (0.05, 0.2, 0.5)
PULL, STRETCHING, BENDING = 0.002, 0.02, 0.5


@dataclass(frozen=True)
class Fissure:
    """A fissure that was found.

    Attributes:
        surface: Its height map.
        visible: Share of its area inside the lung, 0..1, where it could be seen.
    """

    surface: Surface
    visible: float


def find_fissure(fine: sitk.Image, lung: sitk.Image, start: Surface, reach_mm: float) -> Fissure:
    """Find the fissure near ``start``.

    Args:
        fine: HU at about 1 mm.
        lung: 1 inside the region that the fissure divides; any grid.
        start: Mean surface.
        reach_mm: How far the surface as a whole may be from ``start``.

    Returns:
        The fissure; ``start`` as it is with ``visible`` 0 where the region does not meet it.
    """
    grid = start.grid(HALF_HEIGHT_MM, HEIGHT_STEP_MM)
    hu = array(resample(fine, grid, fill=-1000.0))
    inside = array(resample(lung, grid)) > 0.5
    # on these arrays the axes are (height, along, x)
    plate, vessels = fissure_signs(hu, inside)
    cost = np.where(inside, 0.6 * vessels - plate, 0.15).astype(np.float32)
    moved = _fit_rigid(cost, inside, start, reach_mm)
    return _settle(plate, inside, moved, _match(cost, moved.heights))


def fissure_signs(hu: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what speaks for and what against a fissure at each place.

    Args:
        hu: HU, (height, along, x), spacings ``HEIGHT_STEP_MM``, ``STEP_MM``, ``STEP_MM``.
        inside: Lung.

    Returns:
        ``plate`` (0 to 1, thin bright plates that lie within about 45 degrees of the map's plane)
        and ``vessels`` (0 to 1, density of vessels and bronchi).
    """
    spacing = np.array([HEIGHT_STEP_MM, STEP_MM, STEP_MM])
    air = ndimage.binary_erosion(inside, iterations=2)
    weight = np.where(air & (hu < -500.0), np.float32(1), np.float32(0))
    ground = _blur(np.clip(hu, -1000, -500) * weight, 5.0 / spacing)
    ground = np.where(weight.any(), ground / (_blur(weight, 5.0 / spacing) + 1e-3), -850.0)
    excess = np.where(air, hu - ground, 0.0).astype(np.float32)
    vessel = (excess > VESSEL_EXCESS_HU).astype(np.float32)
    density = _blur(vessel, VESSEL_REACH_MM / 2.0 / spacing)
    vessels = np.clip(density / 0.08, 0.0, 1.0) * 0.5 + 0.5 * _blur(vessel, 0.7 / spacing)
    plate = _plateness(np.clip(excess, -150.0, 150.0), spacing) * air
    # what is common in this lung is noise: a fissure stands out of it
    scale = 2.5 * np.sqrt(np.mean(plate[air] ** 2)) if air.any() else 1.0
    return np.clip(plate / max(float(scale), 1e-3), 0.0, 1.0), vessels


def _plateness(values: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return how plate-like and bright the neighbourhood is, in HU per squared scale."""
    sigma = PLATE_SIGMA_MM / spacing
    smooth = ndimage.gaussian_filter(values, sigma, truncate=3.0)
    gradients = np.gradient(smooth, *spacing)
    hh, hu, hx = np.gradient(gradients[0], *spacing)
    _, uu, ux = np.gradient(gradients[1], *spacing)
    xx = np.gradient(gradients[2], spacing[2], axis=2)
    low, middle, high = _eigenvalues(hh, uu, xx, hu, hx, ux)
    # share of the strongest curvature that lies along the height: cos^2 of the tilt
    upright = np.clip((hh - middle) / (low - middle - 1e-6), 0.0, 1.0)
    response = np.maximum(-low - np.maximum(np.abs(middle), np.abs(high)), 0.0)
    return (response * np.clip(2.0 * upright - 0.7, 0.0, 1.0)).astype(np.float32)


def _eigenvalues(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, ab: np.ndarray, ac: np.ndarray, bc: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the eigenvalues, ascending, of symmetric 3 by 3 matrices given by their entries."""
    mean = (a + b + c) / 3.0
    spread = np.sqrt(
        ((a - mean) ** 2 + (b - mean) ** 2 + (c - mean) ** 2 + 2 * (ab**2 + ac**2 + bc**2)) / 6.0
    )
    spread = np.maximum(spread, 1e-9)
    x, y, z = (a - mean) / spread, (b - mean) / spread, (c - mean) / spread
    xy, xz, yz = ab / spread, ac / spread, bc / spread
    half_det = (x * (y * z - yz**2) - xy * (xy * z - yz * xz) + xz * (xy * yz - y * xz)) / 2.0
    angle = np.arccos(np.clip(half_det, -1.0, 1.0)) / 3.0
    high = mean + 2.0 * spread * np.cos(angle)
    low = mean + 2.0 * spread * np.cos(angle + 2.0 * np.pi / 3.0)
    return low, 3.0 * mean - low - high, high


def _blur(values: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(values.astype(np.float32), sigma, truncate=3.0)


def _sample(volume: np.ndarray, heights: np.ndarray, offset: np.ndarray | float = 0) -> np.ndarray:
    """Return ``volume`` (height, along, x) at ``heights`` mm of each cell, nearest level."""
    level = (heights + offset + HALF_HEIGHT_MM) / HEIGHT_STEP_MM
    level = np.clip(np.rint(level), 0, volume.shape[0] - 1).astype(np.intp)
    rows, columns = np.indices(heights.shape[-2:])
    return volume[level, rows, columns]


def _fit_rigid(cost: np.ndarray, inside: np.ndarray, start: Surface, reach_mm: float) -> Surface:
    """Move and tilt ``start`` as a whole to where the mean cost is least."""
    blurred = ndimage.gaussian_filter1d(cost, 2.5 / HEIGHT_STEP_MM, axis=0)[:, ::3, ::3]
    lung = inside[:, ::3, ::3]
    heights = start.heights[::3, ::3]
    along, across = np.meshgrid(*(np.linspace(-1.0, 1.0, n) for n in heights.shape), indexing="ij")
    best, found = np.inf, (0.0, 0.0, 0.0)
    for tilt in np.linspace(-0.8, 0.8, 9) * reach_mm:
        for lean in np.linspace(-0.5, 0.5, 5) * reach_mm:
            tilted = heights + tilt * along + lean * across
            for shift in np.arange(-reach_mm, reach_mm + 1, 2.0):
                on = _sample(lung, tilted, shift)
                area = np.count_nonzero(on)
                if area < 22:
                    continue
                mean = float(_sample(blurred, tilted, shift)[on].sum()) / area
                effort = (shift**2 + 0.5 * tilt**2 + 0.5 * lean**2) / reach_mm**2
                score = mean + RIGID_STIFFNESS * effort
                if score < best:
                    best, found = score, (shift, tilt, lean)
    shift, tilt, lean = found
    along, across = np.meshgrid(
        *(np.linspace(-1.0, 1.0, n) for n in start.heights.shape), indexing="ij"
    )
    return replace(start, heights=start.heights + shift + tilt * along + lean * across)


def _match(cost: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return for each cell the height of least cost near ``heights`` (semi-global matching)."""
    offsets = np.arange(-BAND_MM, BAND_MM + 1, HEIGHT_STEP_MM)
    local = np.stack([_sample(cost, heights, o) for o in offsets], axis=-1)
    local = local + BAND_STIFFNESS * (offsets / BAND_MM) ** 2
    total = np.zeros_like(local)
    for view, out in ((local, total), (local.transpose(1, 0, 2), total.transpose(1, 0, 2))):
        _add_paths(view, out, 0)
    for skew in (-1, 1):
        _add_paths(local, total, skew)
    return heights + offsets[np.argmin(total, axis=-1)]


def _add_paths(local: np.ndarray, total: np.ndarray, skew: int) -> None:
    """Add to ``total`` the costs of the best paths down and up the first axis of ``local``.

    Each step of a path goes one row on and ``skew`` columns to the side.
    """
    for step in (1, -1):
        rows = range(len(local))[::step]
        previous = None
        for row in rows:
            costs = local[row].copy()
            if previous is not None:
                costs += _cheapest_step(_shifted(previous, skew * step))
                costs -= previous.min(axis=-1).mean()
            total[row] += costs
            previous = costs


def _shifted(costs: np.ndarray, by: int) -> np.ndarray:
    """Shift (cell, level) by ``by`` cells; the cells at the edge repeat."""
    if by == 0:
        return costs
    edge = costs[:1] if by > 0 else costs[-1:]
    return np.concatenate([edge, costs[:-1]] if by > 0 else [costs[1:], edge])


def _cheapest_step(costs: np.ndarray) -> np.ndarray:
    """Return the least cost to come to each level from any level of the previous cell."""
    best = costs.copy()
    for size, penalty in enumerate(STEP_PENALTIES, start=1):
        np.minimum(best[:, size:], costs[:, :-size] + penalty, out=best[:, size:])
        np.minimum(best[:, :-size], costs[:, size:] + penalty, out=best[:, :-size])
    return best


def _settle(plate: np.ndarray, inside: np.ndarray, moved: Surface, heights: np.ndarray) -> Fissure:
    """Fit a thin plate to ``heights``: close where a fissure was seen, stiff where not."""
    on = _sample(inside, heights)
    seen = _evidence(plate, inside, heights) * on
    residual = heights - moved.heights
    weights = seen
    for _ in range(4):
        fitted = _thin_plate(residual, weights)
        weights = seen / (1.0 + ((residual - fitted) / 3.0) ** 2)
    surface = replace(moved, heights=moved.heights + fitted)
    on = _sample(inside, surface.heights)
    visible = _evidence(plate, inside, surface.heights)[on] if on.any() else np.zeros(1)
    return Fissure(surface, float(visible.mean()))


def _evidence(plate: np.ndarray, inside: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return for each cell, 0 to 1, whether a plate is seen there and not all around."""

    def level(offset: float) -> np.ndarray:
        near = np.max([_sample(plate, heights, offset + d) for d in (-1.0, 0.0, 1.0)], axis=0)
        on = _sample(inside, heights, offset).astype(np.float32)
        weight = ndimage.gaussian_filter(on, 2.5)
        return ndimage.gaussian_filter(near * on, 2.5) / np.maximum(weight, 0.1)

    beside = np.array([level(o) for o in (-12.0, -9.0, -6.0, 6.0, 9.0, 12.0)])
    usual = float(np.mean(beside[beside > 0])) if (beside > 0).any() else 0.0
    return np.clip((level(0.0) - 1.3 * usual) / (2.0 * usual + 1e-3), 0.0, 1.0)


def _thin_plate(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the smooth surface that follows ``values`` as far as ``weights`` ask for it."""
    rows, columns = ((n + 1) // 2 for n in values.shape)
    pad = ((0, 2 * rows - values.shape[0]), (0, 2 * columns - values.shape[1]))

    def pooled(a: np.ndarray) -> np.ndarray:
        return np.pad(a, pad).reshape(rows, 2, columns, 2).mean(axis=(1, 3))

    weight = pooled(weights)
    target = pooled(weights * values)
    laplace = _laplacian(rows, columns)
    system = (
        sparse.diags((weight + PULL).ravel())
        + BENDING * (laplace.T @ laplace)
        - STRETCHING * laplace
    )
    coarse = spsolve(system.tocsc(), target.ravel()).reshape(rows, columns)
    places = np.meshgrid(*((np.arange(n) - 0.5) / 2.0 for n in values.shape), indexing="ij")
    return ndimage.map_coordinates(coarse, places, order=1, mode="nearest")


def _laplacian(rows: int, columns: int) -> sparse.csr_matrix:
    """Return the 5-point Laplacian with free edges."""

    def line(n: int) -> sparse.csr_matrix:
        difference = sparse.diags([-np.ones(n - 1), np.ones(n - 1)], [0, 1], shape=(n - 1, n))
        return -(difference.T @ difference)

    return sparse.kronsum(line(columns), line(rows), format="csr")
