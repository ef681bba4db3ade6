"""Decomposition: a slice is a normal slice and its lesions, told by a GAN (paper 001).

x ≈ G1(E(x)) + G2(E(x)). A critic, which knows slices of healthy lungs, judges G1(E(x)); G2 has to
explain what G1 leaves out. Label: whether a slice is diseased.

In every step the critic learns from this step's normal slices and all decomposed ones (equation 3),
and encoder and decoders from equations 1, 2 and 4; the paper alternates. Neither sends a gradient
into the other's tensors, so both can take their step together, by one optimiser with two groups,
each with Adam's moments of its own, in one state that a killed run goes on from.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.by_slice import SliceConfig, map_slices
from DRAMLesionLib.networks.decomposition import DecompositionNetwork, to_input
from Training import metrics
from Training.config import Config, DecompositionConfig, SliceSetConfig
from Training.dataset.cache import LABELS, LESION, CachedCase
from Training.dataset.slices import IMAGE, LOBES, LabelledSlice, SlicePictures
from Training.learning.engine import (
    Experiment,
    begin_from,
    logged,
    make_fabric,
    read_checkpoint,
    train,
)
from Training.learning.pictures import row_of_slices
from Training.learning.slice_losses import distance, gradient_penalty, mean_of
from Training.methods.base import Method, Predictor, Workplace
from Training.methods.slice_methods import (
    SlicePredictor,
    export_network,
    given_words,
    load_tensors,
    slices_of,
    with_truth,
)

NAME, ROW = "decomposition", "Decomposition"
RUN, BEST = "segmentation", "best"
_SLOPE = 0.2
_GENERATOR = "generator."


class Critic(nn.Module):
    """D: a CNN of seven layers, to the paper's text; kernels, widths and LeakyReLU are ours.

    Six convolutions, each second of which halves the slice; what these three give is pooled over
    the slice, concatenated, and one linear layer makes a number of it. No BatchNorm: the penalty is
    on the gradient of each slice alone.

    Args:
        channels: Width c: c, c, 2c, 2c, 4c and 4c channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (1, channels, 2 * channels, 4 * channels)
        self.same = nn.ModuleList(
            nn.Conv2d(a, b, kernel_size=3, padding=1) for a, b in itertools.pairwise(widths)
        )
        self.halving = nn.ModuleList(
            nn.Conv2d(b, b, kernel_size=4, stride=2, padding=1) for b in widths[1:]
        )
        self.last = nn.Linear(sum(widths[1:]), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return how much slices (batch, 1, j, i) in [-1, 1] look like healthy ones, (batch,)."""
        pooled = []
        for same, halving in zip(self.same, self.halving, strict=True):
            x = F.leaky_relu(halving(F.leaky_relu(same(x), _SLOPE)), _SLOPE)
            pooled.append(x.mean(dim=(2, 3)))
        judged: Tensor = self.last(torch.cat(pooled, dim=1))
        return judged[:, 0]


def frozen(critic: nn.Module, x: Tensor) -> Tensor:
    """Return what a critic says, with a gradient to the slices and none to the critic's tensors."""
    tensors = {name: tensor.detach() for name, tensor in critic.named_parameters()}
    judged: Tensor = torch.func.functional_call(critic, tensors, (x,))
    return judged


class Adversaries(nn.Module):
    """The two networks with the terms of their losses."""

    def __init__(self, generator: DecompositionNetwork, critic: Critic) -> None:
        super().__init__()
        self.generator, self.critic = generator, critic

    def forward(self, batch: dict[str, Tensor], penalty: bool, judged: bool) -> dict[str, Tensor]:
        """Return the terms, unweighted, as numbers.

        Args:
            batch: Of :class:`Training.dataset.slices.SlicePictures`.
            penalty: Whether the gradient penalty is wanted.
            judged: Whether the adversarial loss is wanted.

        Returns:
            ``reconstruction`` (equation 1), ``fidelity`` (2), ``critic`` (3 without its penalty),
            ``adversarial`` (4), and ours: ``no_lesion``, the mean of |G2| over the lungs of normal
            slices, and ``no_negative``, that of what is negative in G2 of all.
        """
        lungs, healthy = batch["lungs"], ~batch["diseased"]
        x = to_input(batch["image"], lungs)
        normal, lesion = self.generator(x, lungs)
        nothing = torch.zeros_like(lesion)
        terms = {
            "reconstruction": distance(x, normal + lesion, lungs).mean(),
            "fidelity": mean_of(distance(x, normal, lungs), healthy),
            "no_lesion": mean_of(distance(lesion, nothing, lungs), healthy),
            "no_negative": distance(lesion.clamp_max(0.0), nothing, lungs).mean(),
        }
        fake = normal.detach()
        terms["critic"] = self.critic(fake).mean() - mean_of(self.critic(x), healthy)
        if penalty and bool(healthy.any()):
            real = x[healthy]
            terms["penalty"] = gradient_penalty(
                self.critic, real, _partners(fake, healthy), batch["place"][: len(real)]
            )
        if judged:
            terms["adversarial"] = -frozen(self.critic, normal).mean()
        return terms


def _partners(fake: Tensor, healthy: Tensor) -> Tensor:
    """Return for each normal slice a decomposed one, of diseased slices first."""
    order = torch.argsort(healthy.int(), stable=True)
    return fake[order][: int(healthy.sum())]


@dataclass(frozen=True)
class DecompositionSettings(DecompositionConfig):
    """All that a run depends on."""

    spacing: float = 1.5
    slices: SliceSetConfig = field(default_factory=SliceSetConfig)


class DecompositionExperiment(Experiment):
    """Encoder, decoders and critic.

    Args:
        items: The slices.
        config: All settings.
        steps: Optimiser steps.
        folder: Of the run.
        judges: Cases with true lesions that nothing is learned from; by them the best step is
            found, since the losses of a GAN do not tell.

    Raises:
        InputError: If a batch cannot be half normal and half diseased.
    """

    name = NAME

    def __init__(
        self,
        items: Sequence[LabelledSlice],
        config: Config,
        steps: int,
        folder: Path,
        judges: Sequence[CachedCase] = (),
    ) -> None:
        chosen = config.decomposition
        if chosen.loop.batch % 2:
            given = chosen.loop.batch
            message = f"decomposition.loop.batch is even, half of it normal slices, not {given}"
            raise InputError(message)
        fields = {name: getattr(chosen, name) for name in chosen.__dataclass_fields__}
        fields["loop"] = replace(chosen.loop, steps=steps)
        self.config = self.settings = DecompositionSettings(
            **fields, spacing=config.segmentation.spacing, slices=config.slices
        )
        self._items, self._seed, self._folder, self._judges = items, config.seed, folder, judges

    def build_network(self) -> nn.Module:
        """Return the untrained networks."""
        return Adversaries(build(self.config), Critic(self.config.critic_channels))

    def parameters(self, network: nn.Module) -> list[dict[str, Any]]:
        """Return the tensors of the generator and those of the critic, with Adam's betas."""
        assert isinstance(network, Adversaries)  # noqa: S101
        critic: dict[str, Any] = {"params": list(network.critic.parameters())}
        if self.config.optimiser.name == "adam":
            critic["betas"] = self.config.critic_betas
        return [{"params": list(network.generator.parameters())}, critic]

    def samples(self) -> Dataset:
        """Return augmented slices, every second one normal."""
        return SlicePictures(self._items, self.config.slices, self._seed, augment=True)

    def losses(self, network: nn.Module, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the sum of the critic's loss (3) and that of the others (5), and all terms."""
        c = self.config
        every = c.penalty_every
        terms = network(batch, step % every == 0, step >= c.critic_first)
        weights = {
            "reconstruction": c.reconstruction,
            "fidelity": c.fidelity,
            "no_lesion": c.no_lesion,
            "no_negative": c.no_negative,
            "critic": 1.0,
            "penalty": c.penalty * every,
            "adversarial": c.adversarial,
        }
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return {**terms, "total": total}

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the average precision on the judges, and keep the network where it is the best."""
        if not self._judges or not isinstance(network, Adversaries):
            return {}
        precision = average_precision(
            network.generator, self._judges, self.config.slices.size, device
        )
        best = max((e["average_precision"] for e in logged(self._folder, "validation")), default=-1)
        if precision > best:
            begin_from(network.generator, self._folder / BEST)
        return {"average_precision": precision}

    def pictures(self, network: nn.Module, device: torch.device) -> dict[str, Tensor]:
        """Return a diseased slice: as it is, its normal part, its lesions."""
        assert isinstance(network, Adversaries)  # noqa: S101
        ill = [item for item in self._items if item.diseased]
        sample = SlicePictures(ill, self.config.slices, 0, augment=False)[len(ill) // 2]
        image, lungs = (sample[name][None].to(device) for name in ("image", "lungs"))
        with torch.no_grad():
            normal, lesion = network.generator(to_input(image, lungs), lungs)
        row = [image, (normal + 1.0) / 2.0, lesion.clamp(0.0, 1.0)]
        return {"slice, normal, lesion": row_of_slices(*(x[0].cpu() for x in row))}


def average_precision(
    network: DecompositionNetwork, cases: Sequence[CachedCase], size: int, device: torch.device
) -> float:
    """Return the area under precision and recall over the lungs of cases with true lesions."""
    values, truths = [], []
    for case in cases:
        lungs = np.asarray(case.load(LOBES)) > 0
        with torch.no_grad():
            found = map_slices(
                network.lesion_map,
                np.asarray(case.load(IMAGE)).astype(np.float32),
                lungs,
                size,
                network.stride,
                device=device,
            )
        values.append(found[lungs])
        truths.append(np.asarray(case.load(LABELS))[lungs] == LESION)
    return metrics.average_precision(np.concatenate(values), np.concatenate(truths))


def arguments_of(config: DecompositionConfig) -> dict[str, Any]:
    """Return what builds the network of some settings."""
    names = ("base_channels", "levels", "normal_skip")
    return {name: getattr(config, name) for name in names}


def build(config: DecompositionConfig) -> DecompositionNetwork:
    """Return the untrained encoder and decoders."""
    return DecompositionNetwork(**arguments_of(config))


class DecompositionMethod(Method):
    """The GAN; its lesion part is the map."""

    name = NAME
    rows = (ROW,)

    def train(self, work: Workplace) -> Path:
        """Train the networks; see the base class."""
        config, folder = work.config, work.output / NAME
        chosen, run = config.decomposition, folder / RUN
        items = slices_of(work, folder, 2**chosen.levels)
        judges = _judges(work, folder)
        experiment = DecompositionExperiment(items, config, work.steps, run, judges)
        train(experiment, run, config, make_fabric(config))
        network = build(chosen)
        if (run / BEST).is_dir():
            load_tensors(network, read_checkpoint(run / BEST)["network"])
        else:
            load_tensors(network, read_checkpoint(run)["network"], _GENERATOR)
        settings = SliceConfig(
            NAME,
            config.segmentation.spacing,
            config.slices.size,
            chosen.threshold,
            chosen.suppress_vessels,
        )
        given = given_words(items, config)
        return export_network(network, arguments_of(chosen), settings, run, work, given)

    def load(self, folder: Path, device: str = "cpu") -> Predictor:
        """Return the trained network; see the base class."""
        return SlicePredictor(NAME, ROW, folder, device)


def _judges(work: Workplace, folder: Path) -> list[CachedCase]:
    """Return the validation cases where all cases have a truth, as phantoms do; else none."""
    if not work.config.decomposition.loop.validate_every:
        return []
    if not any(case.validation for case in work.cases):
        return []
    try:
        cases = with_truth(work, folder)
    except InputError:
        work.report("no truth to choose the best step by: the last one is taken")
        return []
    return [case for case in cases if case.validation]
