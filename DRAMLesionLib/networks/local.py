"""A U-Net whose deep levels are cut off, over a whole volume: what they would give is not computed.

In such a *local* network the weights by which the second level takes up the deeper ones are 0, so
each voxel hangs on some 16 voxels around it instead of 54. The result is that of
:func:`DRAMLesionLib.networks.whole.run_whole`, at a fraction of the work.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.networks.whole import REACH, Progress, Take, in_halves

LOCAL_HALO = 16
"""Voxels on each side that the output depends on: 12 of the valid convolutions, and 4 that the last
voxel's repetition in the up-sampling reaches, rounded up to keep the pooling lattice."""

_EDGE = LOCAL_HALO - 3 * REACH


def is_local(network: UNet3D) -> bool:
    """Tell whether nothing from below the second level reaches the output."""
    return not bool(_second_level(network).weight[:, network.low_level_channels[1] :].any())


@torch.no_grad()
def run_local(
    network: UNet3D,
    image: Tensor,
    take: Take,
    depth: int = 16,
    progress: Progress | None = None,
) -> None:
    """Run a local U-Net over a volume; its output comes slab by slab.

    Args:
        network: Local, fused (:func:`DRAMLesionLib.networks.whole.fused`), on the device of
            ``image``.
        image: (1, 1, k, j, i), sizes even. The output is twice ``LOCAL_HALO`` smaller.
        take: Gets the output, see :data:`~DRAMLesionLib.networks.whole.Take`.
        depth: Thickness of the slabs in voxels, even; less needs less memory and more work.
        progress: Called with the share done, 0 to 1.
    """
    second_level = _without_deep(network)
    stop = image.shape[2] - 2 * LOCAL_HALO
    for a in range(0, stop, depth):
        b = min(a + depth, stop)
        take(a, _slab(network, second_level, image[:, :, a : b + 2 * LOCAL_HALO]))
        if progress is not None:
            progress(b / stop)


def _slab(network: UNet3D, second_level: nn.Module, image: Tensor) -> Tensor:
    first = in_halves(network.encoder[0], image)
    second = in_halves(network.encoder[1], F.max_pool3d(first, 2))
    second = in_halves(second_level, second)
    up = F.interpolate(second, scale_factor=2, mode="trilinear", align_corners=False)
    crop = (first.shape[2] - up.shape[2]) // 2
    inner = slice(crop, -crop)
    skip = first[:, :, inner, inner, inner]
    logits = network.head(in_halves(network.decoder[2], torch.cat((skip, up), dim=1)))
    edge = slice(_EDGE, -_EDGE)
    return logits[:, :, edge, edge, edge]


def _without_deep(network: UNet3D) -> nn.Module:
    """Return the second stage of the decoder without what takes up the deeper levels."""
    start, *rest = cast(nn.Sequential, network.decoder[1])
    whole = cast(nn.Conv3d, start)
    own = network.low_level_channels[1]
    convolution = nn.Conv3d(own, whole.out_channels, 3, bias=whole.bias is not None)
    convolution.weight = nn.Parameter(whole.weight[:, :own].contiguous())
    convolution.bias = whole.bias
    reduced = nn.Sequential(convolution, *rest).eval()
    return reduced.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def _second_level(network: UNet3D) -> nn.Conv3d:
    return cast(nn.Conv3d, cast(nn.Sequential, network.decoder[1])[0])
