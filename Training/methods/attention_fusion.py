"""Attention fusion: maps of a classifier over its training teach a light network (paper 002).

1. A classifier of slices with spatial attention before the pooling. After each epoch, in a pass of
   its own without augmentation, its class activation maps of all diseased slices are kept as they
   are, so a killed training goes on as if nothing had been.
2. The maps of a slice in which the classifier told it right are fused: :func:`fuse`.
3. Foreground from the fused map, background from the CT (:func:`pseudo_label`) where the paper asks
   a saliency network for photographs: what is outside the lungs, and what is not dense (Otsu). The
   rest of a diseased slice is unknown; a normal slice is background.
4. The light network learns from what is known by -log(TI + ε) + λ FL.

The formulas of the paper are not to be had: constants are ours.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.by_slice import SliceConfig
from DRAMLesionLib.networks.light import LEVELS, LightUNet
from DRAMLesionLib.networks.slices import SliceNetwork, UNet2D
from DRAMLesionLib.writing import whole_file
from Training.config import Config, FusionConfig, SliceSetConfig
from Training.dataset.cache import LABELS, LESION
from Training.dataset.slices import UNKNOWN, LabelledSlice, SlicePictures
from Training.learning.engine import Experiment, make_fabric, read_checkpoint, train
from Training.learning.slice_losses import fusion_loss
from Training.methods.base import Method, Predictor, Workplace
from Training.methods.cam import otsu
from Training.methods.slice_classifier import ClassifierExperiment, SliceClassifier, cam, to_slices
from Training.methods.slice_methods import (
    SlicePredictor,
    export_network,
    given_words,
    in_order,
    load_tensors,
    needs_truth,
    slices_of,
)
from Training.settings import Fusion

NAME, ROW = "attention_fusion", "Attention fusion"
CLASSIFIER, LIGHT, MAPS = "classifier", "segmentation", "maps"


def fuse(maps: np.ndarray, right: np.ndarray, how: Fusion) -> np.ndarray:
    """Return one map for each slice from those of all epochs.

    ``mean``: M_t = ((t - 1) M_{t-1} + A_t) / t, the paper's choice; ``ema``: M_t = (M_{t-1} + A_t)
    / 2; ``max``: the larger of M_{t-1} and A_t. t counts the epochs in which the classifier told
    the slice right, M_1 = A_1; a slice that it never told right gets the map of the last epoch.

    Args:
        maps: (epochs, slices, j, i) in [0, 1].
        right: (epochs, slices) bool.
        how: ``mean``, ``ema`` or ``max``.

    Returns:
        (slices, j, i) float32.
    """
    fused = maps[-1].astype(np.float32)
    counts = np.zeros(maps.shape[1], dtype=np.int64)
    for epoch, told in zip(maps, right, strict=True):
        for n in np.flatnonzero(told):
            counts[n] += 1
            now, t = epoch[n].astype(np.float32), counts[n]
            if t == 1:
                fused[n] = now
            elif how == "mean":
                fused[n] = ((t - 1) * fused[n] + now) / t
            elif how == "ema":
                fused[n] = (fused[n] + now) / 2.0
            else:
                fused[n] = np.maximum(fused[n], now)
    return fused


def pseudo_label(
    fused: np.ndarray, image: np.ndarray, lungs: np.ndarray, dense: float, foreground: float
) -> np.ndarray:
    """Return the label of a diseased slice: 0 background, 1 lesion, 255 unknown, (j, i) uint8.

    Args:
        fused: (j, i) in [0, 1].
        image: (j, i) windowed to [0, 1].
        lungs: (j, i) bool.
        dense: Value of ``image`` above which lung is dense.
        foreground: Value of ``fused`` above which dense lung is lesion.
    """
    proposed = lungs & (image > dense)
    label = np.where(proposed, UNKNOWN, 0).astype(np.uint8)
    label[proposed & (fused > foreground)] = 1
    return label


class MapKeeper:
    """Keeps the maps of the diseased slices, a file an epoch: half precision, and who was right.

    Args:
        items: All slices, in their order.
        config: Of the set.
        folder: Of the files.
        batch: Slices at a time.
    """

    def __init__(
        self, items: Sequence[LabelledSlice], config: SliceSetConfig, folder: Path, batch: int
    ) -> None:
        self.ill = [item for item in items if item.diseased]
        self._config, self._folder, self._batch = config, folder, batch

    def __call__(self, network: SliceClassifier, device: torch.device, step: int) -> float:
        """Write the maps of a step; returns the share of diseased slices told right."""

        def one(batch: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
            maps, logits = cam(network, batch["image"].to(device), batch["lungs"].to(device))
            kept = maps[:, 0].float().cpu().numpy().astype(np.float16)
            return kept, (logits > 0).cpu().numpy()

        pictures = SlicePictures(self.ill, self._config, 0, augment=False)
        parts = in_order(pictures, self._batch, one)
        maps, right = (np.concatenate(part) for part in zip(*parts, strict=True))
        self._folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self._folder / f"{step:08d}.npz") as part, part.open("wb") as file:
            np.savez(file, maps=maps, right=right)
        return float(right.mean())

    def load(self, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the maps of all epochs up to a step, and who was right, see :func:`fuse`.

        Raises:
            InputError: If there are none, or they are damaged.
        """
        paths = [p for p in sorted(self._folder.glob("*.npz")) if int(p.stem) <= last]
        try:
            kept = [dict(np.load(path, allow_pickle=False)) for path in paths]
            maps, right = (np.stack([one[n] for one in kept]) for n in ("maps", "right"))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            message = (
                f"the maps in {self._folder} are missing or damaged ({error}): remove "
                f"{self._folder.parent} to train the classifier again"
            )
            raise InputError(message) from error
        return maps, right


@dataclass(frozen=True)
class FusionSettings(FusionConfig):
    """All that a run of the segmentation network depends on."""

    spacing: float = 1.5
    slices: SliceSetConfig = field(default_factory=SliceSetConfig)


class FusionExperiment(Experiment):
    """The segmentation network on labels of slices.

    Args:
        items: The slices.
        targets: (slices, n, n) uint8 on their windows: 0, 1 or 255.
        config: All settings.
        steps: Optimiser steps.
    """

    name = NAME

    def __init__(
        self, items: Sequence[LabelledSlice], targets: np.ndarray, config: Config, steps: int
    ) -> None:
        chosen = config.attention_fusion
        fields = {name: getattr(chosen, name) for name in chosen.__dataclass_fields__}
        fields["loop"] = replace(chosen.loop, steps=steps, validate_every=0)
        self.config = self.settings = FusionSettings(
            **fields, spacing=config.segmentation.spacing, slices=config.slices
        )
        self._items, self._targets, self._seed = items, targets, config.seed

    def build_network(self) -> nn.Module:
        """Return the untrained network."""
        return build(self.config)

    def samples(self) -> Dataset:
        """Return augmented slices with their labels."""
        settings = self.config.slices
        return SlicePictures(self._items, settings, self._seed, True, self._targets)

    def losses(self, network: nn.Module, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the loss, and the share of known pixels and of lesion among them."""
        target, c = batch["target"], self.config
        known = (target != UNKNOWN) & batch["lungs"]
        total = fusion_loss(
            network(batch["image"]),
            target == 1,
            known,
            missed=c.missed,
            gamma=c.gamma,
            alpha=c.alpha,
            focal_weight=c.focal_weight,
            epsilon=c.epsilon,
        )
        lesion = (target == 1).float().mean()
        return {"total": total, "known": known.float().mean(), "lesion": lesion}


def arguments_of(config: FusionConfig) -> dict[str, Any]:
    """Return what builds the network of some settings."""
    if config.network == "unet":
        return {"base_channels": config.base_channels, "levels": LEVELS}
    names = ("base_channels", "features", "channels", "pyramid", "residual")
    return {name: getattr(config, name) for name in names}


def build(config: FusionConfig) -> SliceNetwork:
    """Return the untrained network of some settings."""
    kind = UNet2D if config.network == "unet" else LightUNet
    return kind(**arguments_of(config))


class AttentionFusionMethod(Method):
    """The classifier, the fusion of its maps, and the light network.

    Args:
        fusion: Instead of the setting, for the comparison of fusions; the classifier is shared.
    """

    def __init__(self, fusion: Fusion | None = None) -> None:
        self._fusion = fusion
        self.name = NAME if fusion is None else f"{NAME}_{fusion}"
        self.rows = (ROW if fusion is None else f"{ROW} ({fusion})",)

    def train(self, work: Workplace) -> Path:
        """Train both networks; see the base class."""
        config = work.config
        folder, chosen = work.output / self.name, config.attention_fusion
        if self._fusion is not None:
            chosen = replace(chosen, fusion=self._fusion)
            config = replace(config, attention_fusion=chosen)
            work = replace(work, config=config)
        items = slices_of(work, folder, 2**LEVELS)
        if chosen.labels == "truth":
            targets, steps = true_targets(items, config), work.steps
        else:
            first = round(chosen.classifier_share * work.steps)
            targets, steps = self._fused_targets(work, items, first), work.steps - first
        experiment = FusionExperiment(items, targets, config, steps)
        train(experiment, folder / LIGHT, config, make_fabric(config))
        network = build(chosen)
        load_tensors(network, read_checkpoint(folder / LIGHT)["network"])
        settings = SliceConfig(
            self.name, config.segmentation.spacing, config.slices.size, chosen.threshold
        )
        given = given_words(items, config)
        return export_network(network, arguments_of(chosen), settings, folder / LIGHT, work, given)

    def load(self, folder: Path, device: str = "cpu") -> Predictor:
        """Return the light network; see the base class."""
        return SlicePredictor(self.name, self.rows[-1], folder, device)

    def _fused_targets(
        self, work: Workplace, items: Sequence[LabelledSlice], steps: int
    ) -> np.ndarray:
        """Train the classifier, which the comparison of fusions shares, and label all slices."""
        config, place = work.config, work.output / NAME / CLASSIFIER
        keeper = MapKeeper(items, config.slices, place / MAPS, config.classifier.loop.batch)
        times = config.attention_fusion.epochs
        experiment = ClassifierExperiment(items, config, steps, keeper, times)
        train(experiment, place, config, make_fabric(config))
        maps, right = keeper.load(steps)
        fused = fuse(maps, right, config.attention_fusion.fusion)
        return label_slices(items, fused, config.attention_fusion.foreground)


def label_slices(
    items: Sequence[LabelledSlice], fused: np.ndarray, foreground: float
) -> np.ndarray:
    """Return the labels of all slices on their windows, (slices, n, n) uint8.

    Args:
        items: The slices.
        fused: Maps of the diseased ones, in their order, (diseased, j, i) on a coarser grid.
        foreground: See :func:`pseudo_label`.
    """
    labels = np.zeros((len(items), *items[0].window.size), dtype=np.uint8)
    dense: dict[str, float] = {}
    maps = iter(fused)
    for n, item in enumerate(items):
        if not item.diseased:
            continue
        if item.case.name not in dense:
            inside = np.asarray(item.case.load("segmentation/lobes")) > 0
            values = np.asarray(item.case.load("segmentation/image"))[inside].astype(np.float32)
            dense[item.case.name] = otsu(values)
        fine = to_slices(torch.from_numpy(next(maps))[None, None], item.window.size)[0, 0].numpy()
        image, lungs = item.window.cut(item.image()), item.window.cut(item.lungs())
        labels[n] = pseudo_label(fine, image, lungs, dense[item.case.name], foreground)
    return labels


def true_targets(items: Sequence[LabelledSlice], config: Config) -> np.ndarray:
    """Return the true lesions of slices on their windows, (slices, n, n) uint8.

    Raises:
        InputError: If the slices were not labelled by the truth either.
    """
    if not needs_truth(config):
        message = (
            "attention_fusion.labels=truth learns from true masks: give "
            "slices.labels=truth_of_phantoms, too"
        )
        raise InputError(message)
    masks = [item.window.cut(item.case.load(LABELS)[item.k] == LESION) for item in items]
    return np.stack(masks).astype(np.uint8)
