"""A valid-padding U-Net over a whole volume, stage by stage, each stage in slabs.

Patch by patch, the network computes what lies between two patches again and again (132 voxels in,
44 out: 27 times). Here each stage runs once over the volume. What would need much memory is kept
as small as it can be: the full-resolution stages go slab by slab and are never held whole, the
first encoder stage is computed again for the skip connection (a fifteenth of the work), and of the
other skips only the part that the decoder wants is kept. The result is that of one huge patch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from DRAMLesionLib.networks.unet import VALID_EXACT_SHRINK, VALID_SHRINK, UNet3D

Progress = Callable[[float], None]

Take = Callable[[int, Tensor], None]
"""Gets an output slab by slab, in the order of k: the first index k of a slab, and its logits (1,
out_channels, k, j, i)."""

REACH = 4
"""Voxels that two valid convolutions take away on each axis."""

_QUICK = 20480
"""Channels times k times j above which PyTorch takes its quick code for a single image, too."""

_SKIP_0, _SKIP_1, _SKIP_2 = 40, 16, 4
"""Voxels by which each skip connection is cropped on each side."""

_EDGE = (VALID_EXACT_SHRINK - VALID_SHRINK) // 2

_SHARES = (0.12, 0.2, 0.33)
"""Usual shares of the work that are done before each decoder stage but the first."""


def fused(network: UNet3D) -> UNet3D:
    """Return a copy for inference whose convolutions contain their BatchNorm."""
    result = copy.deepcopy(network).eval()
    stages = [*result.encoder, result.bottom, *result.decoder]
    for stage in stages:
        if not isinstance(stage, nn.Sequential):
            continue
        for n in (0, 3):
            convolution, norm = stage[n], stage[n + 1]
            if not isinstance(convolution, nn.Conv3d) or not isinstance(norm, nn.BatchNorm3d):
                message = "a stage is twice a convolution, a BatchNorm and a ReLU"
                raise TypeError(message)
            _take_up(convolution, norm)
            stage[n + 1] = nn.Identity()
    # convolution, pooling and up-sampling of narrow layers are faster with channels last
    return result.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def _take_up(convolution: nn.Conv3d, norm: nn.BatchNorm3d) -> None:
    """Let a convolution do what the BatchNorm behind it does at inference."""
    if norm.running_mean is None or norm.running_var is None:
        message = "a BatchNorm without running statistics cannot be taken up by a convolution"
        raise ValueError(message)
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )


@torch.no_grad()
def run_whole(
    network: UNet3D,
    image: Tensor,
    take: Take,
    depth: int = 16,
    progress: Progress | None = None,
) -> None:
    """Run a valid-padding U-Net over a volume; its output comes slab by slab.

    Args:
        network: In evaluation mode, on the device of ``image``; quicker when :func:`fused`.
        image: (1, 1, k, j, i), each size 116 + 8 n. The output is ``VALID_EXACT_SHRINK`` smaller:
            voxels that the border of the volume has changed are left out.
        take: Gets the output, see :data:`Take`.
        depth: Thickness of the slabs in voxels of the full resolution, even; less needs less
            memory.
        progress: Called with the share done, 0 to 1.
    """
    tell = progress or (lambda _: None)
    size = torch.tensor(image.shape[2:])
    half = (size - REACH) // 2
    quarter = (half - REACH) // 2
    eighth = (quarter - REACH) // 2
    encoder, decoder = network.encoder, network.decoder

    def first(a: int, b: int) -> Tensor:
        return _pool(in_halves(encoder[0], image[:, :, 2 * a : 2 * b + REACH]))

    pooled = _slabs(half, depth // 2, first)
    tell(_SHARES[0])
    pooled, skip_1 = _encode(encoder[1], pooled, quarter, _SKIP_1, depth)
    pooled, skip_2 = _encode(encoder[2], pooled, eighth, _SKIP_2, depth)
    bottom = network.bottom(pooled)
    tell(_SHARES[1])
    level_2 = _decode(decoder[0], skip_2, bottom, depth)
    level_1 = _decode(decoder[1], skip_1, level_2, depth)
    del pooled, skip_1, skip_2, bottom, level_2
    tell(_SHARES[2])

    inner = [slice(_SKIP_0, _SKIP_0 + 2 * n + REACH) for n in level_1.shape[3:]]
    stop = int(size[0]) - VALID_SHRINK - _EDGE
    for a in range(_EDGE, stop, depth):
        b = min(a + depth, stop)
        seen = image[:, :, _SKIP_0 + a : _SKIP_0 + b + 2 * REACH, inner[0], inner[1]]
        both = torch.cat((in_halves(encoder[0], seen), _upsampled(level_1, a, b + REACH)), dim=1)
        logits = network.head(decoder[2](both))
        take(a - _EDGE, logits[..., _EDGE:-_EDGE, _EDGE:-_EDGE])
        tell(_SHARES[2] + (1.0 - _SHARES[2]) * (b - _EDGE) / (stop - _EDGE))


def _encode(
    stage: nn.Module, x: Tensor, pooled: Tensor, crop: int, depth: int
) -> tuple[Tensor, Tensor]:
    """Return the pooled output of an encoder stage, and the part of it that the decoder wants."""
    kept = [int(2 * n) - 2 * crop for n in pooled]
    skip: list[Tensor] = []

    def one(a: int, b: int) -> Tensor:
        y = stage(x[:, :, 2 * a : 2 * b + REACH])
        if not skip:
            skip.append(_empty(y, kept))
        first, last = max(2 * a, crop), min(2 * b, crop + kept[0])
        if first < last:
            part = y[:, :, first - 2 * a : last - 2 * a]
            inner = part[..., crop : crop + kept[1], crop : crop + kept[2]]
            skip[0][:, :, first - crop : last - crop] = inner
        return _pool(y)

    return _slabs(pooled, max(depth // 2, 1), one), skip[0]


def _decode(stage: nn.Module, skip: Tensor, x: Tensor, depth: int) -> Tensor:
    """Return the output of a decoder stage on its skip connection and the up-sampled ``x``."""
    size = torch.tensor(skip.shape[2:]) - REACH

    def one(a: int, b: int) -> Tensor:
        return stage(torch.cat((skip[:, :, a : b + REACH], _upsampled(x, a, b + REACH)), dim=1))

    return _slabs(size, depth, one)


def _slabs(size: Tensor, depth: int, one: Callable[[int, int], Tensor]) -> Tensor:
    """Return a volume put together from the slabs ``one(a, b)``."""
    length = int(size[0])
    part = one(0, min(depth, length))
    result = _empty(part, [int(n) for n in size])
    result[:, :, : part.shape[2]] = part
    for a in range(depth, length, depth):
        b = min(a + depth, length)
        result[:, :, a:b] = one(a, b)
    return result


def in_halves(stage: nn.Module, x: Tensor) -> Tensor:
    """Run two valid convolutions, where that is quicker as a batch of two halves that overlap.

    On a CPU, PyTorch leaves the convolution of a single small image to its slow code.
    """
    thick = x.shape[2] - REACH
    channels = min(layer.in_channels for layer in stage.modules() if isinstance(layer, nn.Conv3d))
    large = channels * thick * (x.shape[3] - REACH) > _QUICK
    if large or x.is_cuda or thick % 2:
        return stage(x)
    half = thick // 2
    y = stage(torch.cat((x[:, :, : half + REACH], x[:, :, half:])))
    return torch.cat((y[:1], y[1:]), dim=2)


def _empty(like: Tensor, size: list[int]) -> Tensor:
    return torch.empty(
        (*like.shape[:2], *size),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last_3d,
    )


def _pool(x: Tensor) -> Tensor:
    return F.max_pool3d(x, 2)


def _upsampled(x: Tensor, a: int, b: int) -> Tensor:
    """Return the slab a..b of ``x`` up-sampled by two."""
    first, last = max(a // 2 - 1, 0), min((b + 1) // 2 + 1, x.shape[2])
    y = F.interpolate(x[:, :, first:last], scale_factor=2, mode="trilinear", align_corners=False)
    return y[:, :, a - 2 * first : b - 2 * first]
