"""What the scanner adds: blur, kernel, noise with its spectrum, streaks, motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from DRAMLesionLib.phantom.config import PhantomConfig
from DRAMLesionLib.phantom.fields import Grid

_DETECTOR_PIXEL_MM = 0.7
_WATER_PER_MM = 0.019
"""Linear attenuation of water at CT energies."""


@dataclass(frozen=True)
class Scan:
    """How a phantom was scanned.

    Attributes:
        noise_hu: Standard deviation in 0.7 mm pixels in the middle of the chest.
        sharpness: 0 soft to 1 sharp kernel.
        slice_mm: Slice thickness.
        motion: Blur of heart and diaphragm in mm, 0 for none.
        circle: Whether nothing is recorded outside the scanner's round field.
    """

    noise_hu: float
    sharpness: float
    slice_mm: float
    motion: float
    circle: bool


def draw_scan(rng: np.random.Generator, config: PhantomConfig) -> Scan:
    """Draw the settings of a scan."""
    sharpness = rng.uniform(*config.kernel_sharpness)
    low, high = config.noise_hu
    # sharp kernels are noisier at the same dose
    dose = rng.random()
    noise_hu = low + (high - low) * (0.55 * sharpness + 0.45 * dose)
    return Scan(
        noise_hu=noise_hu,
        sharpness=sharpness,
        slice_mm=rng.uniform(*config.slice_thickness_mm),
        motion=rng.uniform(0.6, 1.6) if rng.random() < config.motion_probability else 0.0,
        circle=bool(rng.random() < config.circle_probability),
    )


def scan_phantom(
    hu: np.ndarray, moving: np.ndarray, grid: Grid, scan: Scan, rng: np.random.Generator
) -> np.ndarray:
    """Return what a scanner would make of a noise-free patient.

    Args:
        hu: HU without noise, float32 (k, j, i).
        moving: How much each voxel moves with heart and diaphragm, 0..1.
        grid: The voxels.
        scan: The settings.
        rng: Source of the noise.

    Returns:
        HU, float32.
    """
    if scan.motion > 0:
        blurred = ndimage.gaussian_filter(hu, scan.motion / grid.steps, truncate=3.0)
        hu = hu + moving * (blurred - hu)
    hu = _point_spread(hu, grid, scan)
    hu += _noise(hu, grid, scan, rng)
    if scan.circle:
        radius = (grid.x[-1] - grid.x[0]) / 2.0
        outside = grid.x[None, :] ** 2 + grid.y[:, None] ** 2 > radius**2
        hu[:, outside] = -1024.0
    return hu


def _point_spread(hu: np.ndarray, grid: Grid, scan: Scan) -> np.ndarray:
    # the voxel's own averaging is in the picture already; only what is missing is added
    in_plane = 0.75 - 0.35 * scan.sharpness
    wanted = np.array([scan.slice_mm / np.sqrt(12.0), in_plane, in_plane])
    missing = np.sqrt(np.maximum(wanted**2 - grid.steps**2 / 12.0, 0.0)) / grid.steps
    for axis, sigma in enumerate(missing):
        if sigma > 0.2:
            hu = ndimage.gaussian_filter1d(hu, sigma, axis=axis, truncate=3.0)
    gain = 0.9 * max(scan.sharpness - 0.4, 0.0)
    if gain > 0:
        wide = ndimage.gaussian_filter(hu, (0.0, *(0.9 / grid.steps[1:])), truncate=3.0)
        hu = hu + np.float32(gain) * (hu - wide)
    return hu


def _noise(hu: np.ndarray, grid: Grid, scan: Scan, rng: np.random.Generator) -> np.ndarray:
    count, rows, columns = grid.shape
    size = (fft.next_fast_len(rows, real=True), fft.next_fast_len(columns, real=True))
    gain = _spectrum(size, grid.steps[1:], scan.sharpness)
    result = np.empty(grid.shape, dtype=np.float32)
    for k in range(count):
        white = rng.standard_normal(size)
        coloured = fft.irfft2(fft.rfft2(white) * gain, s=size)
        result[k] = coloured[:rows, :columns]
    if grid.steps[0] < scan.slice_mm:
        result = _correlate_slices(result, grid.steps[0], scan.slice_mm)
    result *= np.float32(scan.noise_hu) * _noise_map(hu, grid)
    # the last bits of a Fourier transform differ between machines, 1/64 HU does not
    return np.round(result * 64.0) / 64.0


def _spectrum(size: tuple[int, int], steps: np.ndarray, sharpness: float) -> np.ndarray:
    """Return the amplitude of the noise for each frequency of a slice, for unit white noise.

    The noise power of filtered back-projection grows with the frequency and is cut by the kernel.
    The variance is 1 over all frequencies that the scanner's own pixels can carry; a coarser grid
    keeps the lower ones.
    """
    cut = 0.35 + 0.45 * sharpness

    def power(frequency: np.ndarray) -> np.ndarray:
        return (frequency + 0.02) * np.exp(-((frequency / cut) ** 2))

    fine = np.fft.fftfreq(512, _DETECTOR_PIXEL_MM)
    total = power(np.hypot(fine[:, None], fine[None, :])).mean() / _DETECTOR_PIXEL_MM**2
    fy, fx = np.fft.fftfreq(size[0], steps[0]), np.fft.rfftfreq(size[1], steps[1])
    frequency = np.hypot(fy[:, None], fx[None, :])
    averaging = (np.sinc(fy * steps[0])[:, None] * np.sinc(fx * steps[1])[None, :]) ** 2
    return np.sqrt(power(frequency) * averaging / (total * steps[0] * steps[1]))


def _correlate_slices(noise: np.ndarray, step: float, thickness: float) -> np.ndarray:
    sigma = 0.4 * thickness / step
    if sigma < 0.3:
        return noise
    smooth = ndimage.gaussian_filter1d(noise, sigma, axis=0, mode="wrap", truncate=3.0)
    taps = np.exp(-0.5 * (np.arange(-8, 9) / sigma) ** 2)
    taps /= taps.sum()
    return smooth / np.float32(np.sqrt((taps**2).sum()))


def _noise_map(hu: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the noise's relative standard deviation from the water that the rays pass."""
    water = np.clip(hu / 1000.0 + 1.0, 0.0, 2.5)
    across = water.sum(axis=2) * grid.steps[2]
    along = water.sum(axis=1) * grid.steps[1]
    power_across = np.exp(0.5 * _WATER_PER_MM * (across - 230.0))
    power_along = np.exp(0.5 * _WATER_PER_MM * (along - 150.0))
    power_across = ndimage.gaussian_filter(power_across, 4.0 / grid.steps[[0, 1]])
    power_along = ndimage.gaussian_filter(power_along, 4.0 / grid.steps[[0, 2]])
    variance = 0.5 * power_across[:, :, None] + 0.5 * power_along[:, None, :]
    return np.sqrt(np.clip(variance, 0.15, 6.0)).astype(np.float32)
