"""Train the final segmentation network on pseudo-labels (paper, section III-A 5)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.typed import read_json
from DRAMLesionLib.writing import write_text
from Training.config import Config
from Training.dataset.cache import LABELS, LESION, CachedCase, for_lesions
from Training.dataset.sampling import ZERO_PADDED_EDGE, ScanPatches
from Training.learning import losses
from Training.learning.engine import Experiment, checkpoint_sum, read_checkpoint
from Training.learning.pictures import row_of_slices
from Training.learning.shortcuts import freeze_norms, hold_deep_levels_at_zero

NAME = "segmentation"
CLASSES = 3
_LABELS_NOTE, _REGRESSION_NOTE = "labels.json", "regression.sha256"


class SegmentationExperiment(Experiment):
    """Bootstrapping loss with three classes on patches of whole scans.

    Args:
        cases: Prepared cases; those without a pseudo-label are left out.
        config: All settings.
        regression: Folder of the regression's run, for ``start: regression``.
        previous: Folder of the round before, whose network goes on.
        seed: Other rounds see other patches.
    """

    name = NAME

    def __init__(
        self,
        cases: Sequence[CachedCase],
        config: Config,
        regression: Path,
        previous: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.config = self.settings = config.segmentation
        self._seed = config.seed + seed
        self._regression, self._previous = regression, previous
        cases = for_lesions(cases, config.vessels.alone)
        self._cases = [c for c in cases if not c.validation and c.has(LABELS)]

    def build_network(self) -> nn.Module:
        """Return the network before its first step."""
        network = UNet3D(
            out_channels=CLASSES,
            base_channels=self.config.base_channels,
            padding=self.config.padding,
            prior=self.config.prior,
        )
        if self._previous is not None:
            network.load_state_dict(read_checkpoint(self._previous)["network"])
        elif self.config.start == "regression":
            trained = read_checkpoint(self._regression)["network"]
            body = {
                key.removeprefix("unet."): value
                for key, value in trained.items()
                if key.startswith("unet.") and not key.startswith("unet.head")
            }
            network.load_state_dict(body, strict=False)
        if self.config.local:
            hold_deep_levels_at_zero(network)
        return network

    def samples(self) -> Dataset:
        """Return augmented patches."""
        return ScanPatches(self._cases, self.config, self._seed, augment=True)

    def losses(self, network: nn.Module, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the bootstrapping loss and the overlap with the pseudo-label."""
        if step >= self.config.freeze_norm * self.loop.steps:
            freeze_norms(network)
        image, labels, region = batch["image"], batch["labels"], batch["region"]
        logits = self._logits(network, image)
        labels, region = self._counted(labels), self._counted(region)
        total = losses.bootstrapping_loss(logits, labels, region, self.config.beta)
        found = (logits.detach().argmax(dim=1) == LESION) & region
        wanted = (labels == LESION) & region
        union = (found | wanted).flatten(1).sum(1)
        both = (found & wanted).flatten(1).sum(1)
        overlap = torch.where(union > 0, both / union.clamp_min(1), 1.0).mean()
        return {"total": total, "lesion_iou": overlap, "lesion_share": wanted.float().mean()}

    def pictures(self, network: nn.Module, device: torch.device) -> dict[str, Tensor]:
        """Return a slice of a patch: image, pseudo-label, prediction; vessels are grey."""
        sample = ScanPatches(self._cases, self.config, self._seed, augment=False)[0]
        with torch.no_grad():
            found = self._logits(network, sample["image"][None].to(device))[0].argmax(dim=0)
        labels = self._counted(sample["labels"])
        image = _inner(sample["image"][0], (sample["image"].shape[-1] - labels.shape[-1]) // 2)
        row = row_of_slices(image, labels / LESION, found.cpu() / LESION)
        return {"image, pseudo-label, prediction": row}

    def _logits(self, network: nn.Module, image: Tensor) -> Tensor:
        logits = network(image).logits
        if self.config.padding == "valid":
            return logits
        # the zeros beyond the cube reach the outermost voxels: they do not count
        return _inner(logits, ZERO_PADDED_EDGE + self.config.border)

    def _counted(self, x: Tensor) -> Tensor:
        return x if self.config.padding == "valid" else _inner(x, self.config.border)


def check_labels(cases: Sequence[CachedCase], run: Path) -> None:
    """Refuse to go on with a run, or to take it for done, whose labels are not the same any more.

    Args:
        cases: Prepared cases with their pseudo-labels.
        run: Folder of the network's run; which labels a new run has is written into it.

    Raises:
        InputError: If a person or the stage before has changed a label since the run began.
    """
    labels = {c.name: c.checksum(LABELS) for c in cases if not c.validation and c.has(LABELS)}
    note = run / _LABELS_NOTE
    if not note.is_file():
        if os.environ.get("RANK", "0") == "0":
            run.mkdir(parents=True, exist_ok=True)
            write_text(json.dumps(labels, indent=1) + "\n", note)
        return
    before = read_json(note, dict[str, str])
    names = sorted(n for n in before.keys() | labels.keys() if before.get(n) != labels.get(n))
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        message = (
            f"the pseudo-labels of {shown} have changed since {run} was trained: remove that "
            "folder to train on the new ones, or choose another --output"
        )
        raise InputError(message)


def check_regression(run: Path, regression: Path) -> None:
    """Refuse a run whose regression is not the same any more.

    Args:
        run: Folder of the network's run; which regression a new run has is written into it.
        regression: Folder of the regression's run.

    Raises:
        InputError: If the regression was trained again since the run began.
    """
    now, note = checkpoint_sum(regression), run / _REGRESSION_NOTE
    if not note.is_file():
        if os.environ.get("RANK", "0") == "0":
            write_text(now, note)
        return
    if note.read_text(encoding="utf-8", errors="replace") != now:
        message = (
            f"{regression} has been trained again since {run} was trained: remove {run} to train "
            "it on the new one, or choose another --output"
        )
        raise InputError(message)


def _inner(x: Tensor, edge: int) -> Tensor:
    """Return a tensor without the outer voxels of its last three axes."""
    return x if edge == 0 else x[..., edge:-edge, edge:-edge, edge:-edge]
