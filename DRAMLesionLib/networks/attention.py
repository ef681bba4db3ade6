"""Local attention that revises a dRAM by its neighbourhood (equation 5 of the paper)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

OFFSETS: tuple[tuple[int, int, int], ...] = tuple(
    (k, j, i)
    for k in (-1, 0, 1)
    for j in (-1, 0, 1)
    for i in (-1, 0, 1)
    if abs(k) + abs(j) + abs(i) <= 2
)
"""The 19 positions of a 3x3x3 window with connectivity 2, the centre included, as (k, j, i)."""

_BLOCK_VOXELS = {"cpu": 1 << 15, "cuda": 1 << 22}
# on a CPU for each thread, whose intermediate results then stay in its cache

_BARRED = -1e30
# the score of a neighbour outside; unlike -inf it breeds no NaN

_LEAST = -40.0
# exp() of less is nothing beside 1, and takes ten times as long where it is denormal


class LocalAttention(nn.Module):
    """Revise a map by the affinities of its voxels' low-level features.

    ``y_i + r(sum_j a_ij g(y_j))``, a_ij the softmax over the 19 neighbours j of
    ``(W_theta x_i)^T (W_phi x_j)``, x the features reduced to a few channels. Only neighbours
    inside the volume count. The map is a logit, so that the revised one stays a probability after
    the sigmoid. r starts at 0: the untrained module changes nothing, and r is the first to learn.

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
        theta, phi = self._embed(features.detach()).chunk(2, dim=1)
        # g and r are linear and pointwise: between them they are one factor
        factor = self.r.weight.flatten() @ self.g.weight.flatten()
        return torch.addcmul(y, factor, local_attention(theta, phi, y))

    def _embed(self, features: Tensor) -> Tensor:
        """Return theta and phi of the reduced features, one after the other, by one product."""
        both = torch.cat((self.theta.weight, self.phi.weight)).flatten(1)
        bias = both @ cast(Tensor, self.reduce.bias)
        flat = (both @ self.reduce.weight.flatten(1)) @ features.flatten(2)
        return (flat + bias[:, None]).unflatten(2, features.shape[2:])


def local_attention(theta: Tensor, phi: Tensor, value: Tensor) -> Tensor:
    """Return ``sum_j softmax_j(theta_i . phi_j) value_j`` over each voxel's 19 neighbours.

    Walks over the volume in blocks and over the neighbours one by one instead of gathering them.
    Nothing larger than the arguments is made, save the 19 affinities of each voxel where a gradient
    will want them.

    Args:
        theta: (batch, embedding, k, j, i).
        phi: Same shape.
        value: (batch, channels, k, j, i).

    Returns:
        Like ``value``, in the widest of the three dtypes, at least float32.
    """
    dtype = torch.float32
    for x in (theta, phi, value):
        dtype = torch.promote_types(dtype, x.dtype)
    arguments = theta.to(dtype), phi.to(dtype), value.to(dtype)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in arguments)
    return _LocalAttention.apply(*arguments, keep)


class _LocalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, phi: Tensor, value: Tensor, keep: bool) -> Tensor:
        queries, keys, values = _flat(theta), _flat(phi), _flat(value)
        bar = _bar(value)
        shifts = _shifts(value)
        kept = values.new_empty((len(shifts), values.shape[1] if keep else 0))
        result = torch.zeros_like(values)

        for start, stop in _blocks(value):
            affinity = kept[:, start:stop] if keep else kept.new_empty((len(kept), stop - start))
            _affinities(queries, keys, bar, shifts, start, out=affinity)
            block = result[:, start:stop]
            for weight, shift in zip(affinity, shifts, strict=True):
                block.addcmul_(weight, values[:, start + shift : stop + shift])
        ctx.save_for_backward(queries, keys, values, kept)
        return _volume(result, value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, values, affinities = ctx.saved_tensors
        gradients = _flat(gradient)
        by_query, by_key = torch.zeros_like(queries), torch.zeros_like(keys)
        by_value = torch.zeros_like(values)
        shifts = _shifts(gradient)

        for start, stop in _blocks(gradient):
            affinity, received = affinities[:, start:stop], gradients[:, start:stop]
            by_affinity = received.new_empty(affinity.shape)
            for n, shift in enumerate(shifts):
                there = slice(start + shift, stop + shift)
                _inner_product(received, values[:, there], out=by_affinity[n])
                by_value[:, there].addcmul_(affinity[n], received)
            mean = (affinity * by_affinity).sum(0)
            by_score = by_affinity.sub_(mean).mul_(affinity)
            query, query_gradient = queries[:, start:stop], by_query[:, start:stop]
            for score, shift in zip(by_score, shifts, strict=True):
                there = slice(start + shift, stop + shift)
                query_gradient.addcmul_(score, keys[:, there])
                by_key[:, there].addcmul_(score, query)

        volumes = [_volume(x, gradient) for x in (by_query, by_key, by_value)]
        return volumes[0], volumes[1], volumes[2], None


def _affinities(
    queries: Tensor, keys: Tensor, bar: Tensor, shifts: list[int], start: int, *, out: Tensor
) -> None:
    """Write the affinities of a block, (19, voxels); over the neighbours they add up to 1."""
    stop = start + out.shape[1]
    query = queries[:, start:stop]
    for score, shift in zip(out, shifts, strict=True):
        there = slice(start + shift, stop + shift)
        _inner_product(query, keys[:, there], out=score).add_(bar[there])
    # torch.softmax over the first of two dimensions takes three times as long
    out.sub_(out.amax(0)).clamp_min_(_LEAST).exp_()
    out.div_(out.sum(0))


def _inner_product(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    """Write the sum of ``a * b`` over the first axis; the products themselves are never kept."""
    torch.mul(a[0], b[0], out=out)
    for x, y in zip(a[1:], b[1:], strict=True):
        out.addcmul_(x, y)
    return out


def _bar(x: Tensor) -> Tensor:
    """Return what is added to the score of a neighbour, in the flat form: 0 inside the volume."""
    bar = x.new_full((1, math.prod((x.shape[0], *(n + 2 for n in x.shape[2:])))), _BARRED)
    _inside(bar, x).zero_()
    return bar[0]


def _flat(x: Tensor) -> Tensor:
    """Return (batch, channels, k, j, i) with a border of zeros as (channels, all voxels).

    With the border in place each neighbour is one constant distance away for every voxel, so that
    all work is on contiguous runs.
    """
    batch, channels, *size = x.shape
    flat = x.new_zeros((channels, batch * math.prod(n + 2 for n in size)))
    _inside(flat, x).copy_(x.movedim(1, 0))
    return flat


def _volume(flat: Tensor, like: Tensor) -> Tensor:
    """Undo :func:`_flat`."""
    return _inside(flat, like).movedim(0, 1).contiguous()


def _inside(flat: Tensor, like: Tensor) -> Tensor:
    """View the flat form as (channels, batch, k, j, i), without the border."""
    batch, _, *size = like.shape
    return flat.view(-1, batch, *(n + 2 for n in size))[:, :, 1:-1, 1:-1, 1:-1]


def _shifts(x: Tensor) -> list[int]:
    """Return the distances to the neighbours in the flat form."""
    row = x.shape[4] + 2
    plane = row * (x.shape[3] + 2)
    return [k * plane + j * row + i for k, j, i in OFFSETS]


def _blocks(x: Tensor) -> list[tuple[int, int]]:
    """Return (start, stop) in the flat form; together they cover every voxel inside the border."""
    reach = max(_shifts(x))
    voxels = x.shape[0] * math.prod(n + 2 for n in x.shape[2:]) - 2 * reach
    threads = torch.get_num_threads() if x.device.type == "cpu" else 1
    count = -(-voxels // (threads * _BLOCK_VOXELS.get(x.device.type, 1 << 18)))
    edges = [reach + voxels * n // count for n in range(count + 1)]
    return list(pairwise(edges))
