"""Learning from points on slices (paper 003): pictures, experiment, and what it finds.

Pictures are brought to one square size, greys to [0, 1]; nothing is told of lungs, as in the paper.
The network is our 2D U-Net with one logit, from scratch, where the paper has a VGG16-FCN8 that
knows ImageNet.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from skimage.transform import resize
from torch import Tensor, nn
from torch.utils.data import Dataset

from DRAMLesionLib.networks.slices import UNet2D
from Training.config import PointsConfig
from Training.dataset.augmentation import stretch_contrast
from Training.dataset.sampled_points import sample_points
from Training.dataset.sampling import augmentation_rng, shuffled
from Training.learning.engine import Experiment, read_run
from Training.learning.point_losses import total_loss
from Training.learning.shortcuts import freeze_norms
from Training.slices.measure import Finder, Found
from Training.slices.pictures import Slice

THRESHOLD = 0.5


def network_input(grey: np.ndarray, size: int) -> Tensor:
    """Return a picture as the network sees it, (1, size, size) float32 in [0, 1]."""
    image = resize(grey.astype(np.float32) / 255.0, (size, size), order=1, anti_aliasing=True)
    return torch.from_numpy(image.astype(np.float32))[None]


def points_of(one: Slice, size: int, seed: int) -> np.ndarray:
    """Return the points of a slice: always the same for a name and a seed.

    They are taken from the mask on the network's own grid, so that none falls between its pixels.

    Returns:
        (size, size) uint8: 0 background, 1 lesion, 255 unknown.
    """
    rng = np.random.default_rng([seed, zlib.crc32(one.name.encode())])
    return sample_points(mask_of(one, size), None, rng)


def mask_of(one: Slice, size: int) -> np.ndarray:
    """Return the truth of a slice on the network's grid, (size, size) bool."""
    return resize(one.truth.astype(np.float32), (size, size), order=1, anti_aliasing=True) > 0.5


class SlicePictures(Dataset):
    """Slices with their labels.

    A sample is a dictionary: ``image`` (1, n, n) float32, ``labels`` (1, n, n) uint8 (0, 1, 255),
    ``flip`` and ``quarters``, see :class:`Training.learning.point_losses.Turn`.

    Args:
        slices: To learn from.
        config: Settings; with the loss ``masks`` every pixel is labelled.
        seed: See :mod:`Training.dataset.sampling`.
    """

    def __init__(self, slices: Sequence[Slice], config: PointsConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.images = [network_input(one.grey, config.size) for one in slices]
        full = config.loss == "masks"
        self.labels = [
            mask_of(one, config.size).astype(np.uint8)
            if full
            else points_of(one, config.size, seed)
            for one in slices
        ]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        number = shuffled(position, len(self.images), self.seed)
        rng = augmentation_rng(position, self.seed)
        quarters = int(rng.integers(0, 4)) if self.config.rotate else 0
        return {
            "image": stretch_contrast(self.images[number], rng, self.config.contrast),
            "labels": torch.from_numpy(self.labels[number])[None],
            "flip": torch.tensor(True),
            "quarters": torch.tensor(quarters),
        }


class SlicePointsExperiment(Experiment):
    """Equation 1 on slices.

    Args:
        slices: To learn from.
        config: Settings.
        seed: Of points, order and turns.
    """

    name = "points on slices"

    def __init__(self, slices: Sequence[Slice], config: PointsConfig, seed: int) -> None:
        self.settings, self._slices, self._seed = config, slices, seed

    def build_network(self) -> nn.Module:
        """Return the untrained network."""
        return _network(self.settings)

    def samples(self) -> Dataset:
        """Return slices with their points."""
        return SlicePictures(self._slices, self.settings, self._seed)

    def losses(self, network: nn.Module, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return equation 1 and its two terms."""
        if step >= self.settings.freeze_norm * self.loop.steps:
            freeze_norms(network)
        return total_loss(network, batch, self.settings)


def points_finder(run: Path) -> Finder:
    """Return what finds lesions by a network that learnt from points of slices.

    Args:
        run: Folder of its training.

    Raises:
        InputError: If it was not trained.
    """
    config, tensors = read_run(run, PointsConfig)
    network = _network(config).eval()
    network.load_state_dict(tensors)

    @torch.no_grad()
    def find(grey: np.ndarray) -> Found:
        logits = network(network_input(grey, config.size)[None])[0, 0]
        probability = resize(torch.sigmoid(logits).numpy(), grey.shape, order=1, mode="edge")
        everywhere = np.ones(grey.shape, dtype=bool)
        return Found(probability > THRESHOLD, probability.astype(np.float32), everywhere)

    return find


def _network(config: PointsConfig) -> UNet2D:
    return UNet2D(config.base_channels, config.levels, config.prior)
