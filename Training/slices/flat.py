"""What a 3D U-Net makes of one slice that is repeated without end, at the cost of a 2D network.

In a volume whose slices are all the same, every sum over a kernel's three layers is the sum of the
layers' weights times one slice; pooling and up-sampling across slices change nothing. So a network
with valid padding, whose kernels are added up over k, gives exactly the slice that the 3D network
gives in the middle of as many copies as it can see.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.networks.unet import STRIDE, VALID_EXACT_SHRINK, VALID_SHRINK, UNet3D

_HALO = VALID_EXACT_SHRINK // 2


@torch.no_grad()
def flat_probabilities(network: UNet3D, hu: np.ndarray, beyond: float) -> np.ndarray:
    """Return the softmax of a network with valid padding for a slice repeated without end.

    Args:
        network: In evaluation mode, on the CPU; its padding is ignored, none is used.
        hu: (j, i) on the network's spacing.
        beyond: HU around the slice.

    Returns:
        (classes, j, i) float32.
    """
    size = [-(-n // STRIDE) * STRIDE for n in hu.shape]
    padded = np.full([n + 2 * _HALO for n in size], beyond, dtype=np.float32)
    padded[_HALO : _HALO + hu.shape[0], _HALO : _HALO + hu.shape[1]] = hu
    logits = _forward(network, torch.from_numpy(window(padded))[None, None])
    margin = (VALID_EXACT_SHRINK - VALID_SHRINK) // 2
    inner = logits[0, :, margin:-margin, margin:-margin]
    return torch.softmax(inner, dim=0).numpy()[:, : hu.shape[0], : hu.shape[1]]


def _forward(network: UNet3D, x: Tensor) -> Tensor:
    """Return the logits of (batch, channels, j, i)."""
    skips: list[Tensor] = []
    for stage in network.encoder:
        x = _stage(stage, x)
        skips.append(x)
        x = F.max_pool2d(x, 2)
    x = _stage(network.bottom, x)
    for stage, skip in zip(network.decoder, reversed(skips), strict=True):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = _stage(stage, torch.cat((_centre_crop(skip, x), x), dim=1))
    return _convolution(network.head, x)


def _centre_crop(x: Tensor, like: Tensor) -> Tensor:
    starts = [(have - want) // 2 for have, want in zip(x.shape[2:], like.shape[2:], strict=True)]
    j, i = (slice(s, s + n) for s, n in zip(starts, like.shape[2:], strict=True))
    return x[:, :, j, i]


def _stage(stage: nn.Module, x: Tensor) -> Tensor:
    for layer in stage.children():
        if isinstance(layer, nn.Conv3d):
            x = _convolution(layer, x)
        elif isinstance(layer, nn.BatchNorm3d):
            x = F.batch_norm(
                x,
                layer.running_mean,
                layer.running_var,
                layer.weight,
                layer.bias,
                eps=layer.eps,
            )
        else:
            x = F.relu(x)
    return x


def _convolution(layer: nn.Conv3d, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight.sum(dim=2), layer.bias)
