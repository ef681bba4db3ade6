"""The regression network with its refinement branch (figure 2 a and b of the paper)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from DRAMLesionLib.networks.attention import LocalAttention
from DRAMLesionLib.networks.unet import Prior, UNet3D, Width


class RegressionOutput(NamedTuple):
    """What the regression network gives for a lobe chunk, each (batch, 1, k, j, i).

    Attributes:
        dram: Dense regression activation map, logit.
        attended: The same after the local attention (equation 5), logit; equal to ``dram`` where
            the network has no attention.
    """

    dram: Tensor
    attended: Tensor


class RegressionNetwork(nn.Module):
    """3D U-Net with one output channel and, if wanted, the local attention on top.

    Args:
        base_channels: Width of the U-Net, 32 in the paper.
        attention: Whether the refinement branch has the local attention.
        prior: Lesion fraction that the untrained map starts with.
    """

    def __init__(
        self, base_channels: Width = 32, attention: bool = True, prior: Prior = 0.1
    ) -> None:
        super().__init__()
        self.unet = UNet3D(base_channels=base_channels, prior=prior)
        features = 1 + sum(self.unet.low_level_channels)
        self.attention = LocalAttention(features) if attention else None

    def forward(self, image: Tensor) -> RegressionOutput:
        """Map a batch of lobe chunks (batch, 1, k, j, i) in [0, 1] to logits of the same size."""
        output = self.unet(image)
        if self.attention is None:
            return RegressionOutput(output.logits, output.logits)
        first, second = (stage.detach() for stage in output.low_level)
        second = F.interpolate(second, size=image.shape[2:], mode="trilinear", align_corners=False)
        features = torch.cat((image, first, second), dim=1)
        return RegressionOutput(output.logits, self.attention(output.logits, features))
