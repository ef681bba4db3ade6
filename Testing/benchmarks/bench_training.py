"""A training step of the regression with all terms on, beside the same written plainly.

Plainly means: neighbours of the attention gathered, CRF by pydensecrf, PyTorch's usual memory
format. Networks start from the same tensors and see the same batch, so that the losses agree.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from DRAMLesionLib.lesions.crf import dense_crf
from DRAMLesionLib.networks.attention import LocalAttention
from DRAMLesionLib.networks.regression import RegressionNetwork
from Testing.benchmarks.bench_attention import gathered
from Testing.benchmarks.bench_crf import lung_chunk
from Testing.benchmarks.measuring import operations, peak_mb, product_rate, timings
from Training.config import ChunkConfig, Config, LossWeights, RegressionConfig
from Training.stages.regression import RegressionExperiment

SIZE, BATCH = 64, 2
TARGET = 1.5


def run(rounds: int = 3) -> list[dict[str, Any]]:
    """Return the row of the benchmark table."""
    ours, plain = _step(plain=False), _step(plain=True)
    difference = abs(ours() - plain()) / abs(plain())
    memory, plain_memory = peak_mb(_step, False), peak_mb(_step, True)
    row = {
        "name": f"training step, {BATCH} chunks of {SIZE}^3",
        **timings(ours, plain, "plain PyTorch, pydensecrf", rounds, TARGET),
        "agreement": difference,
        "peak_mb": round(memory),
        "peer_peak_mb": round(plain_memory),
    }
    row["limit_share"] = round(operations(ours) / product_rate() / row["ours_s"], 3)
    return [row]


def _step(plain: bool) -> Callable[[], float]:
    """Return a forward and backward pass with all terms; it gives the total loss."""
    config = Config(
        regression=RegressionConfig(
            chunk=ChunkConfig(size=SIZE),
            attention=True,
            weights=LossWeights(),
        )
    )
    experiment = RegressionExperiment([], config)
    torch.manual_seed(0)
    network = experiment.build_network()
    batch = _batch()
    if plain:
        experiment._crf = partial(dense_crf, config=config.regression.crf, backend="pydensecrf")  # type: ignore[assignment]
        network = _plain(network)
    else:
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        batch = {
            name: x.to(memory_format=torch.channels_last_3d) if x.dim() == 5 else x
            for name, x in batch.items()
        }

    def step() -> float:
        network.zero_grad()
        terms = experiment.losses(network, batch, step=0)
        terms["total"].backward()
        return float(terms["total"].detach())

    return step


def _plain(network: nn.Module) -> nn.Module:
    assert isinstance(network, RegressionNetwork)
    network = copy.deepcopy(network)
    assert isinstance(network.attention, LocalAttention)
    network.attention.forward = partial(gathered, network.attention)  # type: ignore[method-assign]
    return network


def _batch() -> dict[str, Tensor]:
    _, image = lung_chunk(SIZE)
    mask = image > 0.05
    angle = torch.tensor(0.5)
    affine = torch.eye(3)
    affine[1:, 1:] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    return {
        "image": (image * mask).repeat(BATCH, 1, 1, 1, 1),
        "mask": mask.repeat(BATCH, 1, 1, 1, 1),
        "vessels": (image > 0.8).float().repeat(BATCH, 1, 1, 1, 1),
        "affine": affine.repeat(BATCH, 1, 1, 1),
        "present": torch.ones(BATCH, 1, dtype=torch.bool),
        "clear": torch.zeros(BATCH, 1, dtype=torch.bool),
        "own": torch.zeros(BATCH, 1, dtype=torch.int64),
        "whole": torch.ones(BATCH, 1, 1),
        "lower": torch.full((BATCH, 1), 0.05),
        "upper": torch.full((BATCH, 1), 0.25),
        "weight": torch.ones(BATCH, 1),
    }
