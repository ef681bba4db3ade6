"""The 3D U-Net of the paper (section III-A 1, figure 2 a), used by all three networks."""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from DRAMLesionLib.typed import Between

Padding = Literal["zero", "valid"]
Width = Annotated[int, Between(1, 512)]
"""Base channels of a network; the paper: 32."""
Prior = Annotated[float, Between(1e-6, 1 - 1e-6)]
"""The share of voxels that an untrained network starts with."""

LEVELS = 3
"""Number of down-samplings."""

STRIDE = 2**LEVELS
"""Sizes of zero-padded inputs, and origins of tiles, are multiples of this."""

VALID_SHRINK = 88
"""A valid-padding network's output is this many voxels smaller than its input (132 in, 44 out)."""

VALID_EXACT_SHRINK = VALID_SHRINK + 20
"""Crop this much instead and no voxel depends on where a tile ends.

Trilinear up-sampling repeats the last voxel of a tile at its edge. Followed through the three
up-samplings and six convolutions, that touches the outermost 7 voxels of the output. 10 on each
side also make tiles of 8 n voxels out of the sizes that the network takes.
"""


class UNetOutput(NamedTuple):
    """What the network gives.

    Attributes:
        logits: (batch, out_channels, k, j, i).
        low_level: Encoder stages 1 and 2 before pooling, (batch, 2 * base, k, j, i) and
            (batch, 4 * base, k / 2, j / 2, i / 2): the features of the local attention.
    """

    logits: Tensor
    low_level: tuple[Tensor, Tensor]


class UNet3D(nn.Module):
    """3D U-Net with three down-samplings and two 3x3x3 convolutions a stage.

    Channels for ``base_channels=b`` (the paper: 32): encoder b→2b, 2b→4b, 4b→8b, bottom 8b→16b,
    decoder 8b, 4b, 2b, head 1x1x1. BatchNorm and ReLU after each convolution, max-pooling by 2,
    trilinear up-sampling (``align_corners=False``), He initialisation.

    Args:
        in_channels: Channels of the input image, 1 for a windowed CT.
        out_channels: Channels of the logits: 1 for dRAM and vessels, 3 for the segmentation.
        base_channels: Width.
        padding: ``"zero"`` keeps the size (multiples of 8); ``"valid"`` loses 88 voxels per axis,
            and takes sizes of 132 + 8 n (at least 92 + 8 n with n >= 0 gives an output of 4 + 8 n).
        prior: Expected share of voxels of the last channels; the head's bias starts there, since a
            map that starts at 0.5 makes a half-diseased lobe of everything.
    """

    def __init__(
        self,
        in_channels: Annotated[int, Between(1, 16)] = 1,
        out_channels: Annotated[int, Between(1, 64)] = 1,
        base_channels: Width = 32,
        padding: Padding = "zero",
        prior: Prior = 0.1,
    ) -> None:
        super().__init__()
        if padding not in ("zero", "valid"):
            message = f"padding is 'zero' or 'valid', not {padding!r}"
            raise ValueError(message)
        self.padding: Padding = padding
        self.base_channels = b = base_channels
        pad = 1 if padding == "zero" else 0
        widths = [in_channels, 2 * b, 4 * b, 8 * b, 16 * b]
        self.encoder = nn.ModuleList(
            _double_convolution(widths[n], b * 2**n, widths[n + 1], pad) for n in range(LEVELS)
        )
        self.bottom = _double_convolution(8 * b, 8 * b, 16 * b, pad)
        self.decoder = nn.ModuleList(
            _double_convolution(widths[n + 2] + widths[n + 1], widths[n + 1], widths[n + 1], pad)
            for n in reversed(range(LEVELS))
        )
        self.head = nn.Conv3d(2 * b, out_channels, kernel_size=1)
        self.low_level_channels = (2 * b, 4 * b)
        self._initialise(prior)

    def forward(self, image: Tensor) -> UNetOutput:
        """Run the network.

        Args:
            image: (batch, in_channels, k, j, i), windowed to [0, 1].

        Raises:
            ValueError: If a spatial size does not fit the three poolings.
        """
        self._check_size(image)
        skips: list[Tensor] = []
        x = image
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
            x = F.max_pool3d(x, 2)
        x = self.bottom(x)
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
            x = stage(torch.cat((_centre_crop(skip, x.shape[2:]), x), dim=1))
        return UNetOutput(self.head(x), (skips[0], skips[1]))

    def _check_size(self, image: Tensor) -> None:
        sizes = tuple(image.shape[2:])
        remainder, least = (0, STRIDE) if self.padding == "zero" else (4, VALID_SHRINK + 4)
        if len(sizes) != 3 or any(s % STRIDE != remainder or s < least for s in sizes):
            rule = "a multiple of 8" if self.padding == "zero" else "92 + 8 n, such as 132"
            message = f"each side of the network's input must be {rule}, not {sizes}"
            raise ValueError(message)

    def _initialise(self, prior: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            # a He-initialised head would swamp the prior with its own noise
            self.head.weight.mul_(0.1)
            if self.head.bias is not None:
                self.head.bias.fill_(math.log(prior / (1.0 - prior)))
                if self.head.out_channels > 1:
                    self.head.bias[0] = 0.0


def _double_convolution(inputs: int, middle: int, outputs: int, pad: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, middle, kernel_size=3, padding=pad, bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, outputs, kernel_size=3, padding=pad, bias=False),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    )


def _centre_crop(x: Tensor, size: torch.Size) -> Tensor:
    if x.shape[2:] == size:
        return x
    starts = [(have - want) // 2 for have, want in zip(x.shape[2:], size, strict=True)]
    k, j, i = (slice(s, s + n) for s, n in zip(starts, size, strict=True))
    return x[:, :, k, j, i]
