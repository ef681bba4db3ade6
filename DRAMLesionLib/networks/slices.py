"""Networks that find lesions in one axial slice: what they have in common, and a 2D U-Net."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from DRAMLesionLib.networks.unet import Prior, Width
from DRAMLesionLib.typed import Between

Levels = Annotated[int, Between(1, 5)]
"""Number of down-samplings."""


class SliceNetwork(nn.Module, ABC):
    """A network from axial slices to maps of lesion.

    Attributes:
        stride: Edges of its input are a multiple of this.
    """

    stride: int

    @abstractmethod
    def lesion_map(self, image: Tensor, lungs: Tensor) -> Tensor:
        """Return a map in [0, 1], larger means lesion, 0 outside the lungs, (batch, 1, j, i).

        Args:
            image: (batch, 1, j, i), windowed to [0, 1].
            lungs: (batch, 1, j, i) bool.
        """


class Encoder2D(nn.Module):
    """The way down of a 2D U-Net: two 3x3 convolutions a stage, max-pooling by 2.

    Args:
        base_channels: Channels b of the first stage; stage n has b * 2**n.
        levels: Number of down-samplings; there is one stage more.
    """

    def __init__(self, base_channels: int, levels: int) -> None:
        super().__init__()
        widths = [1, *(base_channels * 2**n for n in range(levels + 1))]
        self.stages = nn.ModuleList(double_convolution(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features of all stages, from the finest to the coarsest.

        Raises:
            ValueError: If an edge of (batch, 1, j, i) is no multiple of 2**levels.
        """
        check_edges(image, 2 ** (len(self.stages) - 1))
        features = [self.stages[0](image)]
        for stage in list(self.stages)[1:]:
            features.append(stage(F.max_pool2d(features[-1], 2)))
        return features


class Decoder2D(nn.Module):
    """The way up of a 2D U-Net to one channel of logits.

    Args:
        base_channels: See :class:`Encoder2D`.
        levels: See :class:`Encoder2D`.
        top_skip: Whether the finest features of the encoder come in.
    """

    def __init__(self, base_channels: int, levels: int, top_skip: bool = True) -> None:
        super().__init__()
        self.top_skip = top_skip
        widths = [base_channels * 2**n for n in range(levels + 1)]
        self.stages = nn.ModuleList(
            double_convolution(widths[n + 1] + (widths[n] if n or top_skip else 0), widths[n])
            for n in reversed(range(levels))
        )
        self.head = nn.Conv2d(base_channels, 1, kernel_size=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits (batch, 1, j, i) from the features of the encoder."""
        x = features[-1]
        for n, stage in zip(reversed(range(len(self.stages))), self.stages, strict=True):
            x = up(x)
            x = stage(torch.cat((features[n], x), dim=1) if n or self.top_skip else x)
        logits: Tensor = self.head(x)
        return logits


class UNet2D(SliceNetwork):
    """A plain 2D U-Net with one channel of logits, which the light network is compared with.

    Args:
        base_channels: Width; the usual U-Net: 64.
        levels: Number of down-samplings.
        prior: Share of lesion that the untrained network starts with.
    """

    def __init__(self, base_channels: Width = 16, levels: Levels = 4, prior: Prior = 0.1) -> None:
        super().__init__()
        self.stride = 2**levels
        self.encoder = Encoder2D(base_channels, levels)
        self.decoder = Decoder2D(base_channels, levels)
        start_at(self.decoder.head, prior)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (batch, 1, j, i) of slices in [0, 1], 0 outside the lungs."""
        logits: Tensor = self.decoder(self.encoder(image))
        return logits

    def lesion_map(self, image: Tensor, lungs: Tensor) -> Tensor:
        """Return the probability of lesion; see the base class."""
        return torch.sigmoid(self(image * lungs).float()) * lungs


def double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each with BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    nn.init.kaiming_normal_(layers[0].weight, nonlinearity="relu")  # type: ignore[arg-type]
    nn.init.kaiming_normal_(layers[3].weight, nonlinearity="relu")  # type: ignore[arg-type]
    return nn.Sequential(*layers)


def up(x: Tensor) -> Tensor:
    """Return (batch, channels, j, i) with edges twice as long."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def start_at(head: nn.Conv2d, prior: float) -> None:
    """Let the last layer of an untrained network say ``prior`` everywhere, but for a little."""
    with torch.no_grad():
        head.weight.mul_(0.1)
        if head.bias is not None:
            head.bias.fill_(math.log(prior / (1.0 - prior)))


def check_edges(image: Tensor, multiple: int) -> None:
    """Refuse slices whose edges do not fit the poolings.

    Raises:
        ValueError: If an edge of (batch, channels, j, i) is no multiple of ``multiple``.
    """
    edges = tuple(image.shape[2:])
    if len(edges) != 2 or any(edge % multiple for edge in edges):
        message = f"each edge of the network's input must be a multiple of {multiple}, not {edges}"
        raise ValueError(message)
