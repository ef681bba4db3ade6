"""Train the regression network (paper, sections III-A 1, 2 and 4).

The paper has scores of lobes. Labels of every other kind (:mod:`Training.dataset.folder`) go the
same way: what is known of a region is an interval of its lesion share, which equation 1 takes as it
takes a score's; what is known of voxels is a cross-entropy on them.
"""

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
from Training.dataset.labelled import LabelledChunks
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
        """Return augmented lobe chunks with their labels."""
        return LabelledChunks(self._training, self.config, self._seed, augment=True)

    def losses(self, network: nn.Module, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the terms of the total loss and what tells whether a map is trivial."""
        if step >= self.config.freeze_norm * self.loop.steps:
            freeze_norms(network)
        batch = _chunks_of(batch)
        if self.config.sizes:
            batch = self._resized(batch, step)
        mask = batch["mask"]
        dram, attended = network(batch["image"])
        probability = torch.sigmoid(dram)
        fractions, shares = _shares(probability, batch)
        weights = asdict(self.config.weights)
        terms = {
            "regression": losses.region_loss(
                shares,
                batch["lower"],
                batch["upper"],
                batch["weight"],
                self.config.loss_scale,
            ),
            "entropy": losses.entropy(dram, mask),
        }
        if "lesion" in batch:
            terms["voxels"] = losses.voxel_cross_entropy(
                dram, batch["lesion"] * mask, batch["background"] * mask
            )
        if weights["equivariance"] > 0:
            terms["equivariance"] = self._equivariance(network, batch, probability)
        if weights["refinement"] > 0 and step >= self.config.refine_after:
            wanted = _wanted(fractions, shares, batch)
            target = self._target(self._source(dram, attended), wanted, batch)
            terms["refinement"] = losses.bootstrapping_loss(
                losses.two_class_logits(attended), target, mask[:, 0], self.config.beta
            )
        terms["total"] = losses.weighted_average(terms, weights)
        terms["vessel_share"] = _vessel_share(probability, batch)
        terms["inside_interval"] = _inside_interval(shares, batch)
        return terms

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Return how many labels of validation cases hold, and how well labelled voxels do."""
        if not self._validation:
            return {}
        loader: DataLoader = DataLoader(
            LabelledChunks(self._validation, self.config, self._seed, augment=False),
            batch_size=self.loop.batch,
        )
        figures: dict[str, list[Tensor]] = {}
        with torch.no_grad():
            for given in loader:
                batch = _chunks_of({name: part.to(device) for name, part in given.items()})
                dram = network(batch["image"]).dram
                for name, value in self._validated(dram, batch).items():
                    figures.setdefault(name, []).append(value)
        return {name: float(torch.stack(values).mean()) for name, values in figures.items()}

    def _validated(self, dram: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the figures of a batch of validation cases."""
        found = {}
        labelled = batch["weight"] > 0
        if labelled.any():
            _, shares = _shares(torch.sigmoid(dram), batch)
            found["inside_interval"] = _inside_interval(shares, batch)
            middle = (batch["lower"] + batch["upper"]) / 2
            found["distance_to_middle"] = (shares - middle).abs()[labelled].mean()
        if "lesion" in batch:
            known = (batch[name] * batch["mask"] for name in ("lesion", "background"))
            found["voxels"] = losses.voxel_cross_entropy(dram, *known)
        return found

    def pictures(self, network: nn.Module, device: torch.device) -> dict[str, Tensor]:
        """Return a slice of the most diseased lobe: image, dRAM, refined map, target."""
        cases = self._validation or self._training
        chunks_of_all = LabelledChunks(cases, self.config, self._seed, augment=False)
        worst = max(range(len(chunks_of_all)), key=lambda n: chunks_of_all.items[n].group)
        sample = chunks_of_all[worst]
        batch = _chunks_of({name: part[None].to(device) for name, part in sample.items()})
        with torch.no_grad():
            dram, attended = network(batch["image"])
            fractions, shares = _shares(torch.sigmoid(dram), batch)
            wanted = _wanted(fractions, shares, batch)
            target = self._target(self._source(dram, attended), wanted, batch)
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
        others: dict[str, Tensor] = {
            name: chunks.resize(batch[name], cube)
            for name in ("vessels", "lesion", "background")
            if name in batch
        }
        if "planes" in batch:
            columns = batch["planes"].flatten(0, 1)[..., None, None]
            resized = chunks.resize(columns, (size, 1, 1))[..., 0, 0]
            others["planes"] = resized.reshape(*batch["planes"].shape[:3], size)
        return {**batch, "image": image, "mask": mask, **others}

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
    def _target(self, logits: Tensor, wanted: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the refinement's target (figure 3): (chunks, k, j, i), 1 where lesion."""
        foreground = torch.sigmoid(logits.detach().float())
        if self.config.gain > 0:
            foreground = self._at_the_share(foreground, wanted, batch)
        foreground = foreground * batch["mask"]
        if self.config.suppress_vessels:
            foreground = foreground * (1.0 - batch["vessels"])
        both = torch.cat((1.0 - foreground, foreground), dim=1)
        refined = self._crf(both, batch["image"])[:, 1] > 0.5
        diseased = ~batch["clear"].reshape(-1, 1, 1, 1)
        return (refined & batch["mask"][:, 0] & diseased).long()

    def _at_the_share(self, foreground: Tensor, wanted: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Steepen maps about the level above which as much lies as map and labels say."""
        gain, highest = self.config.gain, self.config.highest_level
        maps = [
            steepen(one, mask, share, gain, highest) if mask.any() else one
            for one, mask, share in zip(foreground, batch["mask"], wanted.tolist(), strict=True)
        ]
        return torch.stack(maps)


def _chunks_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch with the chunks of all its samples one after another, empty ones left out.

    Volumes become (chunks, 1, n, n, n), maps (chunks, 3, 3), ``clear`` (chunks,); what is known of
    regions stays by sample.
    """
    present = batch["present"]
    volumes = ("image", "mask", "vessels", "lesion", "background")
    taken = {name: batch[name][present][:, None] for name in volumes if name in batch}
    taken |= {name: batch[name][present] for name in ("affine", "clear")}
    for name in ("image", "vessels"):
        taken[name] = taken[name].contiguous(memory_format=torch.channels_last_3d)
    return {**batch, **taken}


def _shares(probability: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the lesion shares of the chunks (chunks,), and of the regions (batch, r)."""
    return losses.region_shares(
        probability, batch["mask"], batch["present"], batch["whole"], batch.get("planes")
    )


def _wanted(fractions: Tensor, shares: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return the share (chunks,) that each lobe has once its region's lies in the interval.

    That of a lobe alone is brought into the interval; those of a larger region are scaled alike
    (ours); without a label of a whole lobe, the map is all that is known.
    """
    present, own = batch["present"], batch["own"]
    sample = torch.arange(len(present), device=own.device)[:, None].expand_as(own)[present]
    label = own[present].clamp_min(0)
    low, high, share = (x[sample, label] for x in (batch["lower"], batch["upper"], shares))
    inside = torch.minimum(torch.maximum(share, low), high)
    scaled = (fractions * inside / share.clamp_min(1e-6)).clamp_max(1.0)
    alone = (batch["whole"][sample, label] > 0).sum(-1) == 1
    return torch.where(own[present] < 0, fractions, torch.where(alone, inside, scaled))


def _vessel_share(probability: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return how much of a map lies on vessels; a map of all bright voxels has much there."""
    return losses.masked_mean(batch["vessels"], probability.detach() * batch["mask"]).mean()


def _inside_interval(shares: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return the share of labels that hold, a mean over the samples that have some."""
    slack, labelled = 0.01, batch["weight"] > 0
    above = shares >= batch["lower"] - slack
    below = shares <= batch["upper"] + slack
    count = labelled.sum(1)
    each = (above & below & labelled).sum(1) / count.clamp_min(1)
    return each.sum() / (count > 0).sum().clamp_min(1)
