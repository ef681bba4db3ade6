"""A classifier of axial slices, its class activation maps, and Grad-CAM.

Paper 002 fuses the maps of such a classifier over its training; paper 001 compares with CAM (Zhou
2016) and Grad-CAM (Selvaraju 2017) of one. Both fine-tune networks for photographs; ours is the
encoder of a small 2D U-Net, trained from scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import SimpleITK as sitk
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from DRAMLesionLib.devices import pick_device
from DRAMLesionLib.images import geometry
from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.lesions.by_slice import map_slices
from DRAMLesionLib.lesions.density import at_common_level, find_level
from DRAMLesionLib.lesions.types import ReferenceTable, classify_lesions
from DRAMLesionLib.networks.light import SpatialAttention
from DRAMLesionLib.networks.slices import Encoder2D
from Training.config import ClassifierConfig, Config, SliceSetConfig
from Training.dataset.slices import LabelledSlice, SlicePictures
from Training.learning.engine import Experiment, make_fabric, read_run, train
from Training.learning.losses import masked_mean
from Training.methods.base import (
    Method,
    Outcome,
    Prediction,
    Predictor,
    Stopwatch,
    Workplace,
    find_lobes,
)
from Training.methods.cam import otsu
from Training.methods.slice_methods import slices_of

NAME = "gradcam"
CAM, GRAD_CAM = "CAM of slices", "Grad-CAM"


class SliceClassifier(nn.Module):
    """Tells diseased slices from normal ones by the mean over the lungs of a map.

    Args:
        base_channels: Width of the encoder.
        levels: Number of down-samplings.
        attention: Whether spatial attention precedes the pooling.
    """

    def __init__(self, base_channels: int, levels: int, attention: bool) -> None:
        super().__init__()
        self.stride = 2**levels
        self.encoder = Encoder2D(base_channels, levels)
        self.attention = SpatialAttention() if attention else nn.Identity()
        self.linear = nn.Conv2d(base_channels * self.stride, 1, kernel_size=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor, lungs: Tensor) -> Tensor:
        """Return the logit of 'diseased', (batch,).

        Args:
            image: (batch, 1, j, i) in [0, 1], 0 outside the lungs.
            lungs: The same shape, bool.
        """
        return self.logit(self.encoder(image)[-1], lungs)

    def activation(self, features: Tensor) -> Tensor:
        """Return Σ w_k F'_k of the lowest features, (batch, 1, j / stride, i / stride)."""
        activation: Tensor = self.linear(self.attention(features))
        return activation

    def logit(self, features: Tensor, lungs: Tensor) -> Tensor:
        """Return the logit of the lowest features: the pooled map and a bias."""
        share = F.avg_pool2d(lungs.to(features.dtype), self.stride)
        return masked_mean(self.activation(features), share) + self.bias


@torch.no_grad()
def cam(network: SliceClassifier, image: Tensor, lungs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class activation map A = ReLU(Σ w_k F_k) / max of slices, and their logits.

    Args:
        network: In evaluation mode.
        image: (batch, 1, j, i) in [0, 1], 0 outside the lungs.
        lungs: The same shape, bool.

    Returns:
        (batch, 1, j / stride, i / stride) in [0, 1], and (batch,).
    """
    features = network.encoder(image)[-1]
    share = F.avg_pool2d(lungs.float(), network.stride)
    return _scaled(network.activation(features), share), network.logit(features, lungs)


def grad_cam(network: SliceClassifier, image: Tensor, lungs: Tensor) -> tuple[Tensor, Tensor]:
    """Return ReLU(Σ α_k F_k) / max with α_k the mean gradient of the logit, and the logits.

    F are the features before the attention; see :func:`cam` for arguments and result.
    """
    with torch.enable_grad():
        features = network.encoder(image)[-1].detach().requires_grad_(True)
        logit = network.logit(features, lungs)
        (gradient,) = torch.autograd.grad(logit.sum(), features)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    share = F.avg_pool2d(lungs.float(), network.stride)
    return _scaled((weights * features).sum(1, keepdim=True).detach(), share), logit.detach()


def _scaled(activation: Tensor, share: Tensor) -> Tensor:
    """Return the positive part of a map, divided by its maximum where there is some lung."""
    positive = F.relu(activation) * (share > 0)
    return positive / positive.amax(dim=(2, 3), keepdim=True).clamp_min(1e-6)


MapFunction = Callable[[SliceClassifier, Tensor, Tensor], tuple[Tensor, Tensor]]


def to_slices(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring maps to the pixels of their slices, linearly, (batch, 1, j, i)."""
    return F.interpolate(maps, size=(size[0], size[1]), mode="bilinear", align_corners=False)


After = Callable[[SliceClassifier, torch.device, int], float]


@dataclass(frozen=True)
class ClassifierSettings(ClassifierConfig):
    """All that a run of the classifier depends on: its settings, grid, and the set of slices."""

    spacing: float = 1.5
    slices: SliceSetConfig = field(default_factory=SliceSetConfig)


class ClassifierExperiment(Experiment):
    """Tell diseased slices from normal ones.

    Args:
        items: The slices to learn from.
        config: All settings.
        steps: Optimiser steps.
        after: Called with the network in evaluation mode, the device and the step; returns the
            share of slices that are told right.
        times: How often that is, evenly spread over the training.
    """

    name = "classifier"

    def __init__(
        self,
        items: Sequence[LabelledSlice],
        config: Config,
        steps: int,
        after: After | None = None,
        times: int = 0,
    ) -> None:
        chosen = config.classifier
        every = max(1, steps // times) if times else 0
        loop = replace(chosen.loop, steps=steps, validate_every=every)
        fields = {name: getattr(chosen, name) for name in chosen.__dataclass_fields__}
        self.settings = ClassifierSettings(
            **{**fields, "loop": loop}, spacing=config.segmentation.spacing, slices=config.slices
        )
        self._items, self._seed, self._after = items, config.seed, after
        self._step = 0

    def build_network(self) -> nn.Module:
        """Return the untrained classifier."""
        return build_classifier(self.settings)

    def samples(self) -> Dataset:
        """Return augmented slices."""
        return SlicePictures(self._items, self.settings.slices, self._seed, augment=True)

    def losses(self, network: nn.Module, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the cross-entropy and the share of slices that are told right."""
        self._step = step + 1
        logits, wanted = network(batch["image"], batch["lungs"]), batch["diseased"].float()
        right = ((logits.detach() > 0) == (wanted > 0)).float().mean()
        return {"total": F.binary_cross_entropy_with_logits(logits, wanted), "right": right}

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Let the maps of this moment be taken, and return the share of slices told right."""
        if self._after is None or not isinstance(network, SliceClassifier):
            return {}
        return {"right": self._after(network, device, self._step)}


def build_classifier(config: ClassifierConfig) -> SliceClassifier:
    """Return an untrained classifier."""
    return SliceClassifier(config.base_channels, config.levels, config.attention)


class GradCAMMethod(Method):
    """CAM and Grad-CAM of a classifier of slices."""

    name = NAME
    rows = (CAM, GRAD_CAM)

    def train(self, work: Workplace) -> Path:
        """Train the classifier; see the base class."""
        folder = work.output / NAME
        items = slices_of(work, folder, 2**work.config.classifier.levels)
        experiment = ClassifierExperiment(items, work.config, work.steps)
        train(experiment, folder, work.config, make_fabric(work.config))
        return folder

    def load(self, folder: Path, device: str = "cpu") -> Predictor:
        """Return the trained classifier; see the base class."""
        return GradCAMPredictor(folder, device)


class GradCAMPredictor(Predictor):
    """Maps of all slices, each weighted by how surely it is diseased, cut by Otsu's threshold.

    The weight is ours: without it, every slice of healthy lungs would have a place of value 1.

    Args:
        folder: Folder of the run.
        device: Where to compute.
    """

    name = NAME

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self._config, tensors = read_run(folder, ClassifierSettings)
        self._device = pick_device(device)
        network = build_classifier(self._config)
        network.load_state_dict(tensors)
        self._network = network.to(self._device).eval()
        self._types = ReferenceTable.load(None)

    def __call__(self, ct: sitk.Image, lobes: sitk.Image | None) -> Outcome:
        """Map the scan; see the base class."""
        clock = Stopwatch()
        with clock.stage("lobes"):
            lobes, missing = find_lobes(ct, lobes)
        lungs = sitk.Cast(lobes > 0, sitk.sitkUInt8)
        ct = at_common_level(ct, find_level(ct, lungs))
        predictions = {}
        for row, function in ((CAM, cam), (GRAD_CAM, grad_cam)):
            with clock.stage(row):
                predictions[row] = self._predict(ct, lungs, function)
        return Outcome(predictions, lobes, missing, clock.seconds)

    def _predict(self, ct: sitk.Image, lungs: sitk.Image, function: MapFunction) -> Prediction:
        grid = geometry.working_grid(ct, self._config.spacing)
        coarse = geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True)
        inside = geometry.array(geometry.resample(lungs, grid, "nearest")) > 0

        def found(image: Tensor, seen: Tensor) -> Tensor:
            maps, logits = function(self._network, image * seen, seen)
            sure = torch.sigmoid(logits)[:, None, None, None]
            return to_slices(maps, image.shape[2:]) * sure

        values = map_slices(
            found,
            window(geometry.array(coarse)),
            inside,
            self._config.slices.size,
            self._network.stride,
            device=self._device,
        )
        threshold = otsu(values[inside]) if inside.any() else 1.0
        shown = sitk.Mask(geometry.resample(geometry.image_like(values, grid), ct), lungs)
        mask = sitk.Cast(shown > threshold, sitk.sitkUInt8)
        return Prediction(shown, classify_lesions(ct, mask, self._types))
