"""Train the regression network on lobe scores (paper, sections III-A 1, 2 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from DRAMLesionLib.lesions import chunks
from DRAMLesionLib.lesions.crf import DenseCRF
from DRAMLesionLib.lesions.levels import steepen
from DRAMLesionLib.networks.regression import RegressionNetwork
from Training.config import Config
from Training.dataset.augmentation import warp_inside
from Training.dataset.cache import CachedCase, for_lesions
from Training.dataset.sampling import LobeChunks
from Training.learning import losses
from Training.learning.engine import Experiment, read_checkpoint
from Training.learning.pictures import row_of_slices
from Training.learning.shortcuts import freeze_norms, hold_deep_levels_at_zero

NAME = "regression"


class RegressionExperiment(Experiment):
    """Interval regression, and whichever of the other terms have a weight.

    Args:
        cases: Prepared cases; those for validation are kept apart.
        config: All settings.
        previous: Folder of a run whose network goes on; an untrained one begins if left out.
    """

    name = NAME

    def __init__(
        self, cases: Sequence[CachedCase], config: Config, previous: Path | None = None
    ) -> None:
        self.config = self.settings = config.regression
        self._seed, self._previous = config.seed, previous
        self._crf = DenseCRF(self.config.crf)
        cases = for_lesions(cases, config.vessels.alone)
        self._training = [case for case in cases if not case.validation]
        self._validation = [case for case in cases if case.validation]

    def build_network(self) -> nn.Module:
        """Return the network before its first step."""
        network = RegressionNetwork(
            self.config.base_channels, self.config.attention, self.config.prior
        )
        if self._previous is not None:
            network.load_state_dict(read_checkpoint(self._previous)["network"])
        if self.config.local:
            hold_deep_levels_at_zero(network.unet)
        return network

    def samples(self) -> Dataset:
        """Return augmented lobe chunks."""
        return LobeChunks(self._training, self.config, self._seed, augment=True)

    def losses(self, network: nn.Module, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the terms of the total loss and what tells whether a map is trivial."""
        if step >= self.config.freeze_norm * self.loop.steps:
            freeze_norms(network)
        if self.config.sizes:
            batch = self._resized(batch, step)
        image, mask = batch["image"], batch["mask"]
        dram, attended = network(image)
        probability = torch.sigmoid(dram)
        fraction = losses.masked_mean(probability, mask)
        weights = asdict(self.config.weights)
        terms = {
            "regression": losses.interval_regression_loss(
                fraction,
                batch["lower"].float(),
                batch["upper"].float(),
                batch["weight"].float(),
                self.config.loss_scale,
            ),
            "entropy": losses.entropy(dram, mask),
        }
        if weights["equivariance"] > 0:
            terms["equivariance"] = self._equivariance(network, batch, probability)
        if weights["refinement"] > 0 and step >= self.config.refine_after:
            target = self._target(self._source(dram, attended), fraction, batch)
            terms["refinement"] = losses.bootstrapping_loss(
                losses.two_class_logits(attended), target, mask[:, 0], self.config.beta
            )
        terms["total"] = losses.weighted_average(terms, weights)
        terms["vessel_share"] = _vessel_share(probability, batch)
        terms["inside_interval"] = _inside_interval(fraction, batch)
        return terms

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Return how many validation lobes fall into their score's interval."""
        if not self._validation:
            return {}
        loader: DataLoader = DataLoader(
            LobeChunks(self._validation, self.config, self._seed, augment=False),
            batch_size=self.loop.batch,
        )
        hits, distances = [], []
        with torch.no_grad():
            for batch in loader:
                mask = batch["mask"].to(device)
                dram = torch.sigmoid(network(batch["image"].to(device)).dram)
                fraction = losses.masked_mean(dram, mask).cpu()
                hits.append(_inside_interval(fraction, batch))
                middle = (batch["lower"] + batch["upper"]).float() / 2
                distances.append((fraction - middle).abs().mean())
        return {
            "inside_interval": float(torch.stack(hits).mean()),
            "distance_to_middle": float(torch.stack(distances).mean()),
        }

    def pictures(self, network: nn.Module, device: torch.device) -> dict[str, Tensor]:
        """Return a slice of the most diseased lobe: image, dRAM, refined map, target."""
        cases = self._validation or self._training
        chunks_of_all = LobeChunks(cases, self.config, self._seed, augment=False)
        worst = max(range(len(chunks_of_all)), key=lambda n: chunks_of_all.items[n][3])
        sample = chunks_of_all[worst]
        batch = {name: torch.as_tensor(part)[None].to(device) for name, part in sample.items()}
        with torch.no_grad():
            dram, attended = network(batch["image"])
            fraction = losses.masked_mean(torch.sigmoid(dram), batch["mask"])
            target = self._target(self._source(dram, attended), fraction, batch)
        mask = batch["mask"][0, 0]
        maps = (torch.sigmoid(logit[0, 0].float()) * mask for logit in (dram, attended))
        row = row_of_slices(batch["image"][0, 0], *maps, target[0])
        return {"image, dRAM, refined, target": row}

    def _resized(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Bring the chunks of a step to the size that the step draws."""
        size = int(np.random.default_rng([self._seed, step]).choice(self.config.sizes))
        cube = (size, size, size)
        share = chunks.resize(batch["mask"].float(), cube)
        mask = share > 0.5
        image = chunks.resize(batch["image"], cube) / share.clamp_min(0.5) * mask
        vessels = chunks.resize(batch["vessels"], cube)
        return {**batch, "image": image, "mask": mask, "vessels": vessels}

    def _equivariance(
        self, network: nn.Module, batch: dict[str, Tensor], probability: Tensor
    ) -> Tensor:
        """Compare the map of the transformed image with the transformed map (equation 2)."""
        image, inside = warp_inside(batch["image"], batch["mask"], batch["affine"])
        reference, known = warp_inside(probability, batch["mask"], batch["affine"])
        transformed = torch.sigmoid(network(image).dram)
        return losses.equivariance(transformed, reference, inside & known)

    def _source(self, dram: Tensor, attended: Tensor) -> Tensor:
        return dram if self.config.target == "raw" else attended

    @torch.no_grad()
    def _target(self, logits: Tensor, fraction: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the refinement's target (figure 3): (batch, k, j, i), 1 where lesion."""
        foreground = torch.sigmoid(logits.detach().float())
        if self.config.gain > 0:
            foreground = self._at_the_score(foreground, fraction, batch)
        foreground = foreground * batch["mask"]
        if self.config.suppress_vessels:
            foreground = foreground * (1.0 - batch["vessels"])
        both = torch.cat((1.0 - foreground, foreground), dim=1)
        refined = self._crf(both, batch["image"])[:, 1] > 0.5
        diseased = (batch["score"] > 0).reshape(-1, 1, 1, 1)
        return (refined & batch["mask"][:, 0] & diseased).long()

    def _at_the_score(
        self, foreground: Tensor, fraction: Tensor, batch: dict[str, Tensor]
    ) -> Tensor:
        """Steepen maps about the level above which as much lies as fraction and score say."""
        shares = fraction.clamp(batch["lower"].to(fraction), batch["upper"].to(fraction)).tolist()
        gain, highest = self.config.gain, self.config.highest_level
        maps = [
            steepen(one, mask, share, gain, highest) if mask.any() else one
            for one, mask, share in zip(foreground, batch["mask"], shares, strict=True)
        ]
        return torch.stack(maps)


def _vessel_share(probability: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return how much of a map lies on vessels; a map of all bright voxels has much there."""
    return losses.masked_mean(batch["vessels"], probability.detach() * batch["mask"]).mean()


def _inside_interval(fraction: Tensor, batch: dict[str, Tensor]) -> Tensor:
    slack = 0.01
    above = fraction >= batch["lower"].to(fraction) - slack
    below = fraction <= batch["upper"].to(fraction) + slack
    return (above & below).float().mean()
