"""A slice taken apart into a normal slice and its lesions (paper 001, figure 1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from DRAMLesionLib.networks.slices import Decoder2D, Encoder2D, Levels, SliceNetwork
from DRAMLesionLib.networks.unet import Width


class Parts(NamedTuple):
    """What a slice x in [-1, 1] is made of.

    Attributes:
        normal: G1(E(x)), (batch, 1, j, i) in (-1, 1), -1 outside the lungs.
        lesion: G2(E(x)), the same shape, 0 outside the lungs; lesions are denser, so above 0.
    """

    normal: Tensor
    lesion: Tensor


class DecompositionNetwork(SliceNetwork):
    """Encoder E with the generator G1 of the normal slice and the lesion decoder G2.

    E with either is a U-Net with tanh as its last layer.

    Args:
        base_channels: Width; the paper's U-Nets have 64.
        levels: Number of down-samplings.
        normal_skip: Whether the finest features reach G1; without them it cannot copy the lesion
            as it is (ours).
    """

    def __init__(
        self, base_channels: Width = 16, levels: Levels = 4, normal_skip: bool = False
    ) -> None:
        super().__init__()
        self.stride = 2**levels
        self.encoder = Encoder2D(base_channels, levels)
        self.normal = Decoder2D(base_channels, levels, top_skip=normal_skip)
        self.lesion = Decoder2D(base_channels, levels)
        with torch.no_grad():
            # no lesion at first
            self.lesion.head.weight.mul_(0.1)
            self.lesion.head.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor, lungs: Tensor) -> Parts:
        """Take slices apart.

        Args:
            x: From :func:`to_input`.
            lungs: (batch, 1, j, i) bool.
        """
        features = self.encoder(x)
        inside = lungs.to(x.dtype)
        normal = torch.tanh(self.normal(features))
        lesion = torch.tanh(self.lesion(features))
        return Parts(normal * inside - (1.0 - inside), lesion * inside)

    def lesion_map(self, image: Tensor, lungs: Tensor) -> Tensor:
        """Return G2 clipped to [0, 1]; see the base class."""
        return self(to_input(image, lungs), lungs).lesion.float().clamp(0.0, 1.0)


def to_input(image: Tensor, lungs: Tensor) -> Tensor:
    """Return what the network reads: the window of HU as [-1, 1], -1 outside the lungs.

    The paper normalises by mean and deviation, which the range of tanh does not fit (ours).

    Args:
        image: (batch, 1, j, i), windowed to [0, 1].
        lungs: (batch, 1, j, i) bool.
    """
    return 2.0 * image * lungs - 1.0
