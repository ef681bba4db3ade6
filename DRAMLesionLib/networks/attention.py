"""Local attention that revises a dRAM by its neighbourhood (equation 5 of the paper)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

OFFSETS: tuple[tuple[int, int, int], ...] = tuple(
    (k, j, i)
    for k in (-1, 0, 1)
    for j in (-1, 0, 1)
    for i in (-1, 0, 1)
    if abs(k) + abs(j) + abs(i) <= 2
)
"""The 19 positions of a 3x3x3 window with connectivity 2, the centre included, as (k, j, i)."""


class LocalAttention(nn.Module):
    """Revise a map by the affinities of its voxels' low-level features.

    ``y_i + r(sum_j a_ij g(y_j))``, a_ij the softmax over the 19 neighbours j of
    ``(W_theta x_i)^T (W_phi x_j)``, x the features reduced to a few channels. Only neighbours
    inside the volume count. The map is a logit, so that the revised one stays a probability after
    the sigmoid. r starts at 0: the untrained module changes nothing.

    Args:
        feature_channels: Channels of the features, the image included.
        embedding: Channels of x; the paper: 8.
    """

    def __init__(self, feature_channels: int, embedding: int = 8) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(feature_channels, embedding, kernel_size=1)
        self.theta = nn.Conv3d(embedding, embedding, kernel_size=1, bias=False)
        self.phi = nn.Conv3d(embedding, embedding, kernel_size=1, bias=False)
        self.g = nn.Conv3d(1, embedding, kernel_size=1, bias=False)
        self.r = nn.Conv3d(embedding, 1, kernel_size=1, bias=False)
        nn.init.zeros_(self.r.weight)

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        """Revise a map.

        Args:
            y: (batch, 1, k, j, i) logit of the dRAM.
            features: (batch, feature_channels, k, j, i), detached here.

        Returns:
            Revised logit like ``y``.
        """
        x = self.reduce(features.detach())
        return y + self.r(local_attention(self.theta(x), self.phi(x), self.g(y)))


def local_attention(theta: Tensor, phi: Tensor, value: Tensor) -> Tensor:
    """Return ``sum_j softmax_j(theta_i . phi_j) value_j`` over each voxel's 19 neighbours.

    Walks over the neighbours one by one, forwards and backwards, instead of gathering them: the
    largest intermediate has one channel for each neighbour.

    Args:
        theta: (batch, embedding, k, j, i).
        phi: Same shape.
        value: (batch, channels, k, j, i).

    Returns:
        Like ``value``.
    """
    return _LocalAttention.apply(theta, phi, value)


class _LocalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, phi: Tensor, value: Tensor) -> Tensor:
        affinity = _affinities(theta, phi)
        ctx.save_for_backward(theta, phi, value, affinity)
        result = torch.zeros_like(value)
        for n, (here, there) in enumerate(_shifts(theta)):
            result[here] += affinity[:, n : n + 1][here] * value[there]
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        theta, phi, value, affinity = ctx.saved_tensors
        shifts = _shifts(theta)
        by_affinity = torch.zeros_like(affinity)
        by_value = torch.zeros_like(value)
        for n, (here, there) in enumerate(shifts):
            by_affinity[:, n][_spatial(here)] = (gradient[here] * value[there]).sum(dim=1)
            by_value[there] += affinity[:, n : n + 1][here] * gradient[here]
        mean = (affinity * by_affinity).sum(dim=1, keepdim=True)
        by_score = affinity * (by_affinity - mean)
        by_theta, by_phi = torch.zeros_like(theta), torch.zeros_like(phi)
        for n, (here, there) in enumerate(shifts):
            score = by_score[:, n : n + 1][here]
            by_theta[here] += score * phi[there]
            by_phi[there] += score * theta[here]
        return by_theta, by_phi, by_value


def _affinities(theta: Tensor, phi: Tensor) -> Tensor:
    """Return (batch, 19, k, j, i) affinities that add up to 1; 0 for neighbours outside."""
    batch, _, *size = theta.shape
    scores = theta.new_full((batch, len(OFFSETS), *size), -torch.inf)
    for n, (here, there) in enumerate(_shifts(theta)):
        scores[:, n][_spatial(here)] = (theta[here] * phi[there]).sum(dim=1)
    return torch.softmax(scores, dim=1)


def _shifts(x: Tensor) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Return for each offset the voxels that have that neighbour, and the neighbours."""
    pairs = []
    for offset in OFFSETS:
        spans = list(zip(offset, x.shape[2:], strict=True))
        here = [slice(max(0, -o), n - max(0, o)) for o, n in spans]
        there = [slice(max(0, o), n - max(0, -o)) for o, n in spans]
        whole = (slice(None), slice(None))
        pairs.append(((*whole, *here), (*whole, *there)))
    return pairs


def _spatial(index: tuple[slice, ...]) -> tuple[slice, ...]:
    """Drop the channel from an index, for a tensor (batch, k, j, i)."""
    return (index[0], *index[2:])
