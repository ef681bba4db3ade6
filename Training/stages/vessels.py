"""Train the vessel network on lungs without lesions (paper, section III-A 3).

Its references are those that ``prepare`` made with Frangi's filter and Otsu's threshold. Trained,
it is asked for the vessels of every scan, which then take the place of the references where
``regression.vessels`` says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.networks.tiles import vessel_probability
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.writing import write_text
from Training.config import Config
from Training.dataset.cache import VESSELS_BY_NETWORK, CachedCase, for_lesions
from Training.dataset.sampling import VesselPatches
from Training.learning import losses
from Training.learning.engine import Experiment, checkpoint_sum, read_checkpoint
from Training.learning.pictures import row_of_slices
from Training.learning.shortcuts import freeze_norms, hold_deep_levels_at_zero
from Training.learning.workers import in_workers

NAME = "vessels"
_VALIDATION_CUBES = 24
_STAMP = "regression/vessels_network.txt"

Report = Callable[[str], None]


class VesselExperiment(Experiment):
    """Cross-entropy against the reference on cubes of lesion-free lobes.

    Args:
        cases: Prepared cases; those for validation are kept apart.
        config: All settings.
    """

    name = NAME

    def __init__(self, cases: Sequence[CachedCase], config: Config) -> None:
        self.config = config.vessels
        # what happens after the training does not change it
        self.settings = replace(self.config, enabled=True, threshold=0.7, workers=1)
        self._seed = config.seed
        self._training = [case for case in cases if not case.validation]
        self._validation = [case for case in cases if case.validation]

    def build_network(self) -> nn.Module:
        """Return the untrained network."""
        network = UNet3D(base_channels=self.config.base_channels, prior=self.config.prior)
        if self.config.local:
            hold_deep_levels_at_zero(network)
        return network

    def samples(self) -> Dataset:
        """Return augmented cubes."""
        return VesselPatches(self._training, self.config, self._seed, augment=True)

    def losses(self, network: nn.Module, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the loss and the overlap with the reference."""
        if step >= self.config.freeze_norm * self.loop.steps:
            freeze_norms(network)
        logits = self._logits(network, batch["image"])
        total = losses.bootstrapping_loss(
            losses.two_class_logits(logits), batch["labels"], batch["region"], self.config.beta
        )
        return {"total": total, **self._overlap(logits, batch)}

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the overlap with the reference on cubes of the validation cases."""
        try:
            cubes = VesselPatches(self._validation, self.config, self._seed, augment=False)
        except InputError:
            return {}
        found: list[Tensor] = []
        with torch.no_grad():
            for n in range(_VALIDATION_CUBES):
                batch = {name: part[None].to(device) for name, part in cubes[n].items()}
                overlap = self._overlap(self._logits(network, batch["image"]), batch)
                found.append(torch.stack(list(overlap.values())))
        means = torch.stack(found).mean(dim=0).tolist()
        return dict(zip(overlap, means, strict=True))

    def pictures(self, network: nn.Module, device: torch.device) -> dict[str, Tensor]:
        """Return the middle slice of a cube, its reference and the network's probability."""
        cases = self._validation or self._training
        try:
            sample = VesselPatches(cases, self.config, self._seed, augment=False)[0]
        except InputError:
            return {}
        with torch.no_grad():
            logits = self._logits(network, sample["image"][None].to(device))[0, 0]
        border = self.config.border
        inner = (slice(border, self.config.patch - border),) * 3
        return {
            "image, reference, network": row_of_slices(
                sample["image"][0][inner], sample["labels"], torch.sigmoid(logits.float().cpu())
            )
        }

    def _logits(self, network: nn.Module, image: Tensor) -> Tensor:
        edge = self.config.border
        logits = network(image).logits
        return logits[..., edge:-edge, edge:-edge, edge:-edge] if edge else logits

    def _overlap(self, logits: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return Dice with the reference and the share of vessel, at the threshold."""
        found = torch.sigmoid(logits.detach()[:, 0]) > self.config.threshold
        found, wanted = found & batch["region"], (batch["labels"] > 0) & batch["region"]
        both, overlap = (x.flatten(1).sum(1) for x in (found.int() + wanted, found & wanted))
        dice = torch.where(both > 0, 2.0 * overlap / both.clamp_min(1), 1.0).mean()
        share = losses.masked_mean(found.float(), batch["region"]).mean()
        return {"dice": dice, "vessel_share": share}


@dataclass(frozen=True)
class VesselTask:
    """What a worker needs to find the vessels of one scan.

    Attributes:
        case: The prepared case.
        run: Folder of the network's run.
        base_channels: Its width.
        threshold: Vessel is above it.
        computed_from: Checksum of the network and the threshold.
    """

    case: CachedCase
    run: Path
    base_channels: int
    threshold: float
    computed_from: str

    @property
    def stamp(self) -> Path:
        """Where is written what the cached mask was computed from."""
        return self.case.folder / _STAMP


def find_vessels(
    cases: Sequence[CachedCase],
    output: Path,
    config: Config,
    report: Report = lambda _: None,
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Let the trained network find the vessels of each case; those that are there are kept.

    Args:
        cases: Prepared cases.
        output: Folder of the training.
        config: All settings.
        report: Called with a line of text for each case.
        progress: Called after each case with the share that is done.

    Raises:
        InputError: If the network was not trained.
    """
    run, settings = output / NAME, config.vessels
    words = (checkpoint_sum(run), settings.base_channels, settings.threshold)
    digest = hashlib.sha256(repr(words).encode()).hexdigest()
    tasks = [
        VesselTask(case, run, settings.base_channels, settings.threshold, digest)
        for case in for_lesions(cases, settings.alone)
    ]
    todo = [task for task in tasks if not _is_current(task)]
    report(f"{len(tasks) - len(todo)} of {len(tasks)} cases have the network's vessels already")
    work = in_workers(
        _find,
        todo,
        settings.workers,
        case=lambda task: task.case.name,
        setting="vessels.workers",
    )
    for number, (task, share) in enumerate(work, start=1):
        report(f"{number}/{len(todo)} {task.case.name}: {100 * share:.1f} % vessel")
        progress(number / len(todo))


def trained_network(run: Path, base_channels: int) -> UNet3D:
    """Return the network of a run as inference wants it: the same layers without padding.

    Raises:
        InputError: If there is no such run.
    """
    network = UNet3D(base_channels=base_channels, padding="valid")
    network.load_state_dict(read_checkpoint(run)["network"])
    return network.eval()


def _is_current(task: VesselTask) -> bool:
    if not task.stamp.is_file() or not task.case.is_sound(VESSELS_BY_NETWORK):
        return False
    return task.stamp.read_text(encoding="utf-8", errors="replace") == _stamp(task)


def _stamp(task: VesselTask) -> str:
    """Return what is written beside a mask: what it was computed from, and its own checksum."""
    return f"{task.computed_from} {task.case.checksum(VESSELS_BY_NETWORK)}"


def _find(task: VesselTask) -> float:
    """Write the mask of one case and return the share of vessel in its lungs."""
    network = trained_network(task.run, task.base_channels)
    image = task.case.load("regression/image").astype(np.float32)
    inside = task.case.load("regression/lobes") > 0
    found = vessel_probability(network, image, inside) > task.threshold
    task.case.save(VESSELS_BY_NETWORK, found.astype(np.uint8))
    write_text(_stamp(task), task.stamp)
    return float(found.sum() / max(inside.sum(), 1))
