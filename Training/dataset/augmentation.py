"""Random changes of training data, and the affine maps of the equivariance term.

Everything is drawn from a numpy generator that the caller seeds with the number of the sample:
a sample looks the same whenever, and in whichever process, it is made.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

AXES = ("k", "j", "i")


def draw_flips(rng: np.random.Generator, axes: tuple[str, ...]) -> list[int]:
    """Draw which of the last three axes of a tensor to flip, each with probability 1/2.

    Args:
        rng: Source of randomness.
        axes: Axes that may be flipped: any of ``k``, ``j``, ``i``.

    Returns:
        Dimensions counted from the end, for :func:`torch.flip`.
    """
    drawn = rng.random(3) < 0.5
    return [n - 3 for n, axis in enumerate(AXES) if axis in axes and drawn[n]]


def draw_factor(rng: np.random.Generator, jitter: float) -> float:
    """Draw a factor between ``1 / (1 + jitter)`` and ``1 + jitter``, even in its logarithm."""
    return float((1.0 + jitter) ** rng.uniform(-1.0, 1.0))


def stretch_contrast(image: Tensor, rng: np.random.Generator, largest: float) -> Tensor:
    """Move both ends of the intensity window by up to ``largest`` of its width.

    Args:
        image: Any shape, in [0, 1].
        rng: Source of randomness.
        largest: Largest shift of an end.

    Returns:
        Same shape, clamped to [0, 1].
    """
    low, high = rng.uniform(-largest, largest, size=2)
    return ((image - low) / (1.0 + high - low)).clamp(0.0, 1.0)


def thicken(image: Tensor, rng: np.random.Generator, share: float) -> Tensor:
    """Bring some volumes to slices of two to four voxels and back, as of a CT with thick slices.

    Args:
        image: (k, j, i).
        rng: Source of randomness; asked for nothing where ``share`` is 0.
        share: Probability that slices are thick.

    Returns:
        Same shape: means over so many slices, interpolated along k.
    """
    if share == 0 or rng.random() >= share:
        return image
    thickness = min(int(rng.integers(2, 5)), image.shape[0])
    columns = image.flatten(1).T[None]
    means = F.avg_pool1d(columns, thickness, ceil_mode=True)
    fine = F.interpolate(means, scale_factor=float(thickness), mode="linear")
    return fine[0].T[: image.shape[0]].reshape(image.shape)


def draw_affine(
    rng: np.random.Generator, rotation: float, scale: tuple[float, float]
) -> np.ndarray:
    """Draw a rotation about a random axis and a scale.

    Args:
        rng: Source of randomness.
        rotation: Largest angle in degrees.
        scale: Smallest and largest magnification.

    Returns:
        (3, 3) float32 matrix that takes an output position to the input position it is read from,
        in the (x, y, z) = (i, j, k) order of :func:`torch.nn.functional.affine_grid`.
    """
    axis = rng.normal(size=3)
    axis /= max(float(np.linalg.norm(axis)), 1e-12)
    angle = np.deg2rad(rng.uniform(-rotation, rotation))
    # Rodrigues' formula
    cross = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)
    magnification = np.exp(rng.uniform(*np.log(scale)))
    return (turn / magnification).astype(np.float32)


def warp(x: Tensor, matrices: Tensor) -> Tensor:
    """Resample cubes by affine maps about their centres; 0 beyond the edges. Differentiable.

    Args:
        x: (batch, channels, n, n, n).
        matrices: (batch, 3, 3) from :func:`draw_affine`.
    """
    theta = torch.cat((matrices, torch.zeros_like(matrices[:, :, :1])), dim=2)
    grid = F.affine_grid(theta.to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def warp_inside(values: Tensor, mask: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Warp what lies inside a mask without mixing it with the outside.

    Args:
        values: (batch, channels, n, n, n).
        mask: (batch, 1, n, n, n) bool.
        matrices: (batch, 3, 3).

    Returns:
        Warped values, 0 outside of the warped mask, and the warped mask (bool).
    """
    share = warp(mask.to(values.dtype), matrices)
    inside = share > 0.5
    warped = warp(values * mask, matrices) / share.clamp_min(0.5) * inside
    return warped, inside
