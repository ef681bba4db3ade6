"""The baseline of the paper: class activation maps of a lobe classifier (section IV-B).

The network is the down-sampling path of the U-Net. Its lowest features, weighted by the linear
layer, are the map; the mean of the map over the lobe says whether the lobe has a lesion. The paper
pools over the whole chunk or over the lobe, it does not say: over the lobe, as ours does.

*Raw*: the maps of the lobes pasted back, rescaled over the lungs of the scan by minimum and
maximum, and cut by Otsu's threshold. *Refined*: limited to the lesion proposal, what Otsu's
threshold on HU takes for dense inside the lungs, without the vessels. Minimum and maximum leave
something above the threshold in every scan, so healthy lungs get lesions: that is the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from skimage.filters import threshold_otsu
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from DRAMLesionLib.devices import pick_device
from DRAMLesionLib.images import geometry
from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.lesions import chunks
from DRAMLesionLib.lesions.density import at_common_level, find_level
from DRAMLesionLib.lesions.dram import fine_scan
from DRAMLesionLib.lesions.types import ReferenceTable, classify_lesions
from DRAMLesionLib.networks.unet import STRIDE, UNet3D
from DRAMLesionLib.vessels.masks import reference_vessels
from Training.config import Config, RegressionConfig
from Training.dataset.cache import CachedCase
from Training.dataset.sampling import LobeChunks
from Training.learning import losses
from Training.learning.engine import Experiment, make_fabric, read_run, train
from Training.learning.shortcuts import freeze_norms
from Training.methods.base import (
    Method,
    Outcome,
    Prediction,
    Predictor,
    Stopwatch,
    Workplace,
    find_lobes,
)

NAME = "cam"
RAW, REFINED = "CAM raw", "CAM refined"


class CAMNetwork(nn.Module):
    """The down-sampling path of the U-Net with a linear layer on its lowest features.

    Args:
        base_channels: Width of the U-Net.
    """

    def __init__(self, base_channels: int) -> None:
        super().__init__()
        unet = UNet3D(base_channels=base_channels)
        self.encoder, self.bottom = unet.encoder, unet.bottom
        self.linear = nn.Conv3d(16 * base_channels, 1, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the class activation map (batch, 1, k / 8, j / 8, i / 8) of a chunk, a logit."""
        x = image
        for stage in self.encoder:
            x = F.max_pool3d(stage(x), 2)
        logits: Tensor = self.linear(self.bottom(x))
        return logits


def pooled(cam: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of a map over the lobe, (batch,).

    Args:
        cam: (batch, 1, k / 8, j / 8, i / 8).
        mask: (batch, 1, k, j, i) bool, the lobe.
    """
    share = F.avg_pool3d(mask.to(cam.dtype), STRIDE)
    return losses.masked_mean(cam, share)


class DiseasedChunks(LobeChunks):
    """Lobe chunks of two classes, with or without a lesion, instead of six scores."""

    def __init__(
        self, cases: Sequence[CachedCase], config: RegressionConfig, seed: int, augment: bool
    ) -> None:
        super().__init__(cases, config, seed, augment)
        diseased = [item[3] > 0 for item in self.items]
        weights = losses.inverse_frequency_weights(map(int, diseased))
        self.weights = {item[3]: weights[int(item[3] > 0)] for item in self.items}
        self._by_score = [
            [n for n, ill in enumerate(diseased) if ill == kind] for kind in sorted(set(diseased))
        ]


class CAMExperiment(Experiment):
    """Tell lobes with a lesion from lobes without.

    Args:
        cases: Prepared cases; those for validation are kept apart.
        config: All settings; those of the regression hold.
        steps: Optimiser steps.
    """

    name = NAME

    def __init__(self, cases: Sequence[CachedCase], config: Config, steps: int) -> None:
        loop = replace(config.regression.loop, steps=steps)
        # it never looks at the vessels of its chunks
        self.config = self.settings = replace(config.regression, loop=loop, vessels="frangi")
        self._seed = config.seed
        self._cases = [case for case in cases if not case.validation]

    def build_network(self) -> nn.Module:
        """Return the untrained classifier."""
        return CAMNetwork(self.config.base_channels)

    def samples(self) -> Dataset:
        """Return augmented lobe chunks."""
        return DiseasedChunks(self._cases, self.config, self._seed, augment=True)

    def losses(self, network: nn.Module, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the cross-entropy and the share of chunks that are told right."""
        if step >= self.config.freeze_norm * self.loop.steps:
            freeze_norms(network)
        wanted = (batch["score"] > 0).float()
        logits = pooled(network(batch["image"]), batch["mask"])
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        right = ((logits.detach() > 0) == (wanted > 0)).float().mean()
        return {"total": (each * batch["weight"].to(each)).mean(), "right": right}


class CAMMethod(Method):
    """Class activation maps, raw and refined."""

    name = NAME
    rows = (RAW, REFINED)

    def train(self, work: Workplace) -> Path:
        """Train the classifier; see the base class."""
        folder = work.output / NAME
        experiment = CAMExperiment(work.cases, work.config, work.steps)
        train(experiment, folder, work.config, make_fabric(work.config))
        return folder

    def load(self, folder: Path, device: str = "cpu") -> Predictor:
        """Return the trained classifier; see the base class."""
        return CAMPredictor(folder, device)


class CAMPredictor(Predictor):
    """Maps of the lobes put together to a scan, cut by Otsu's threshold.

    Args:
        folder: Folder of the run.
        device: Where to compute.
    """

    name = NAME

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self._config, tensors = read_run(folder, RegressionConfig)
        self._device = pick_device(device)
        network = CAMNetwork(self._config.base_channels)
        network.load_state_dict(tensors)
        self._network = network.to(self._device).eval()
        self._types = ReferenceTable.load(None)

    def __call__(self, ct: sitk.Image, lobes: sitk.Image | None) -> Outcome:
        """Map the scan; see the base class."""
        clock = Stopwatch()
        with clock.stage("lobes"):
            lobes, missing = find_lobes(ct, lobes)
        lung = sitk.Cast(lobes > 0, sitk.sitkUInt8)
        ct = at_common_level(ct, find_level(ct, lung))
        scan = fine_scan(ct, lobes, self._config.chunk.spacing)
        with clock.stage("CAM"):
            inside = geometry.array(scan.lobes) > 0
            cam = rescaled(self._scan_map(scan.ct, scan.lobes), inside)
            threshold = otsu(cam[inside])
            values = geometry.resample(geometry.image_like(cam, scan.ct), ct)
            values = sitk.Mask(values, lung)
        with clock.stage("vessels"):
            vessels = geometry.resample(reference_vessels(scan.ct, scan.lungs), ct, "labels")
        with clock.stage("lesion types"):
            mask = sitk.Cast(values > threshold, sitk.sitkUInt8)
            proposal = lesion_proposal(ct, lung, vessels)
            predictions = {
                RAW: self._prediction(ct, values, mask, vessels),
                REFINED: self._prediction(
                    ct, sitk.Mask(values, proposal), mask * proposal, vessels
                ),
            }
        return Outcome(predictions, lobes, missing, clock.seconds)

    @torch.no_grad()
    def _scan_map(self, ct: sitk.Image, lobes: sitk.Image) -> np.ndarray:
        """Return the maps of the lobes pasted together, averaged over the scales of the test."""
        image, labels = window(geometry.array(ct)), geometry.array(lobes)
        result = np.zeros(image.shape, dtype=np.float32)
        size = self._config.chunk.size
        for lobe, box in chunks.lobe_boxes(labels).items():
            total = torch.zeros((1, 1, size, size, size))
            for scale in self._config.scales:
                edge = max(1, round(size * scale / STRIDE)) * STRIDE
                chunk = chunks.cut_chunk(image, labels, lobe, box, edge)
                cam = self._network(chunk.image.to(self._device)).float().cpu()
                total += chunks.resize(cam, (size, size, size))
            mean = total / len(self._config.scales)
            chunks.paste_chunk(mean, box, labels[box] == lobe, result)
        return result

    def _prediction(
        self, ct: sitk.Image, values: sitk.Image, mask: sitk.Image, vessels: sitk.Image
    ) -> Prediction:
        return Prediction(values, classify_lesions(ct, mask, self._types, vessels))


def rescaled(cam: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Bring a scan's map to [0, 1] by its minimum and maximum inside the lungs; 0 outside."""
    result = np.zeros(cam.shape, dtype=np.float32)
    values = cam[inside]
    span = float(np.ptp(values))
    if span > 0:
        result[inside] = (values - values.min()) / span
    return result


def otsu(values: np.ndarray) -> float:
    """Return Otsu's threshold; the value itself where all are the same."""
    return float(threshold_otsu(values))


def lesion_proposal(ct: sitk.Image, lungs: sitk.Image, vessels: sitk.Image) -> sitk.Image:
    """Return what is dense inside the lungs and no vessel, uint8 on the grid of the CT.

    Otsu's threshold is that of the lungs without their vessels: these would pull it up.

    Args:
        ct: HU.
        lungs: Mask on the same grid.
        vessels: Mask on the same grid.
    """
    hu = window(geometry.array(ct))
    inside = (geometry.array(lungs) > 0) & (geometry.array(vessels) == 0)
    dense = inside & (hu > otsu(hu[inside])) if inside.any() else inside
    return geometry.image_like(dense.astype(np.uint8), ct)
