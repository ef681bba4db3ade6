"""What makes a few hundred steps on a CPU enough for a first map."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from DRAMLesionLib.networks.unet import UNet3D


def hold_deep_levels_at_zero(network: UNet3D) -> None:
    """Cut the decoder off from everything below the second level, for good.

    The weights by which the second level takes up the deeper ones become 0 and get no gradient, so
    the network keeps its architecture and sees only some twenty voxels around each.
    """
    convolution = cast(nn.Conv3d, cast(nn.Sequential, network.decoder[1])[0])
    own = network.low_level_channels[1]
    with torch.no_grad():
        convolution.weight[:, own:] = 0.0

    def without_deep(gradient: Tensor) -> Tensor:
        kept = gradient.clone()
        kept[:, own:] = 0.0
        return kept

    convolution.weight.register_hook(without_deep)


def freeze_norms(network: nn.Module) -> None:
    """Let BatchNorm use its running statistics, as at inference."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
