"""The local attention, forward and backward, beside the equation with its neighbours gathered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from DRAMLesionLib.networks.attention import OFFSETS, LocalAttention
from Testing.benchmarks.measuring import peak_mb, product_rate, timings

FEATURES = 25  # image and the encoder stages of a network of width 4
TARGET = 5.0
MEMORY_TARGET = 0.25


def run(rounds: int = 5, sizes: tuple[int, ...] = (64, 80)) -> list[dict[str, Any]]:
    """Return the rows of the benchmark table."""
    rate = product_rate()
    rows = []
    for size in sizes:
        ours, plain = _step(size, gather=False), _step(size, gather=True)
        difference = max((a - b).abs().max().item() for a, b in zip(ours(), plain(), strict=True))
        memory, plain_memory = (peak_mb(_step, size, gather) for gather in (False, True))
        row = {
            "name": f"local attention, forward and backward, {size}^3",
            **timings(ours, plain, "gathered neighbours", rounds, TARGET),
            "agreement": difference,
            "peak_mb": round(memory),
            "peer_peak_mb": round(plain_memory),
        }
        row["limit_share"] = round(_operations(size**3) / rate / row["ours_s"], 4)
        row["met"] = row["met"] and memory <= MEMORY_TARGET * plain_memory
        rows.append(row)
    return rows


def _step(size: int, gather: bool) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return one forward and backward pass; it gives the revised map and the map's gradient."""
    torch.manual_seed(0)
    module = LocalAttention(FEATURES)
    torch.nn.init.normal_(module.r.weight)
    y = torch.randn((1, 1, *(size,) * 3), requires_grad=True)
    features = torch.randn((1, FEATURES, *(size,) * 3))

    def step() -> tuple[Tensor, Tensor]:
        y.grad = None
        out = gathered(module, y, features) if gather else module(y, features)
        out.square().mean().backward()
        assert y.grad is not None
        return out.detach(), y.grad * out.numel()

    return step


def gathered(module: LocalAttention, y: Tensor, features: Tensor) -> Tensor:
    """Equation 5 as it is written."""
    x = module.reduce(features)
    theta, phi, value = module.theta(x), module.phi(x), module.g(y)
    inside = _neighbours(torch.ones_like(y))[:, 0] > 0
    scores = (theta.unsqueeze(2) * _neighbours(phi)).sum(1)
    affinity = scores.masked_fill(~inside, -torch.inf).softmax(1)
    return module.r((affinity.unsqueeze(1) * _neighbours(value)).sum(2)) + y


def _neighbours(x: Tensor) -> Tensor:
    """Return (batch, channels, 19, k, j, i)."""
    size = x.shape[2:]
    padded = F.pad(x, (1,) * 6)
    return torch.stack(
        [
            padded[..., 1 + k :, 1 + j :, 1 + i :][..., : size[0], : size[1], : size[2]]
            for k, j, i in OFFSETS
        ],
        dim=2,
    )


def _operations(voxels: int) -> float:
    """Count multiplications and additions: scores, sum, and three gradients."""
    embedding, neighbours = 8, len(OFFSETS)
    return 2.0 * voxels * neighbours * (embedding + 1 + 2 * embedding + 2)


if __name__ == "__main__":
    import json

    print(json.dumps(run(), indent=1))
