"""The light segmentation network of attention fusion (paper 002, figures 3 to 9).

The formulas of the paper are not to be had; blocks follow its text and figures. Widths, the order
of the parts of a block, and what the text leaves open are ours.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from DRAMLesionLib.networks.slices import SliceNetwork, check_edges, start_at, up
from DRAMLesionLib.networks.unet import Prior
from DRAMLesionLib.typed import Between

LEVELS = 4
"""Down-samplings: the encoder has four stages and the MDPPM is the fifth layer."""

POOLS, DILATIONS, ASPP_DILATIONS = (1, 2, 3, 6), (2, 4), (1, 2, 4)
"""Sizes of the adaptive pools and rates of the dilated branches; ours, those of ASPP included."""

REDUCTION, EXPANSION = 16, 6
"""Squeeze of the channel attention, and expansion of the bottlenecks as in MobileNetV2."""

LightWidth = Annotated[int, Between(3, 512)]
"""Base channels: the three parts of an FE block need one each."""

Pyramid = Literal["mdppm", "aspp", "none"]


class SpatialAttention(nn.Module):
    """Weights of places from their mean and maximum over channels.

    ``F' = F · σ(conv7×7[mean_c F; max_c F])``, as in CBAM; the paper's own formula is not to be
    had.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(2, 1, kernel_size=7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted features, (batch, channels, j, i)."""
        seen = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        return x * torch.sigmoid(self.weigh(seen))


class ChannelAttention(nn.Module):
    """Weights of channels from their mean over the slice, by two linear layers (figure 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(1, channels // REDUCTION)
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted features, (batch, channels, j, i)."""
        weights = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * weights[:, :, None, None]


def separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """Return a depthwise 3x3 and a pointwise convolution with BatchNorm and ReLU (figure 6)."""
    return nn.Sequential(
        nn.Conv2d(
            inputs,
            inputs,
            kernel_size=3,
            padding=dilation,
            dilation=dilation,
            groups=inputs,
            bias=False,
        ),
        nn.Conv2d(inputs, outputs, kernel_size=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """Return two separable convolutions (figure 5)."""
    return nn.Sequential(separable(inputs, outputs), separable(outputs, outputs))


class FeatureExtraction(nn.Module):
    """FE block (figure 7): a chain of three separable convolutions that see 3, 5 and 7 voxels.

    Their outputs are concatenated, weighted by spatial attention and normalised; a 1x1 convolution
    of the input is added. Each has about a third of the channels (ours).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        third = outputs // 3
        widths = (third, third, outputs - 2 * third)
        self.chain = nn.ModuleList(
            separable(a, b) for a, b in zip((inputs, *widths[:2]), widths, strict=True)
        )
        self.attention = SpatialAttention()
        self.norm = nn.BatchNorm2d(outputs)
        self.residual = nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, outputs, j, i)."""
        parts = []
        y = x
        for convolution in self.chain:
            y = convolution(y)
            parts.append(y)
        seen = self.norm(self.attention(torch.cat(parts, dim=1)))
        return F.relu(seen + self.residual(x))


class MDPPM(nn.Module):
    """Modified dilated pyramid pooling (figure 8): four pooled and two dilated views of a layer.

    Each view has a quarter of the channels, as the paper says of the pooled ones.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = max(1, channels // 4)
        self.pooled = nn.ModuleList(nn.Conv2d(channels, quarter, kernel_size=1) for _ in POOLS)
        self.dilated = nn.ModuleList(separable(channels, quarter, rate) for rate in DILATIONS)
        views = len(POOLS) + len(DILATIONS)
        self.join = nn.Conv2d(views * quarter, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, channels, j, i)."""
        size = (x.shape[2], x.shape[3])
        views = [
            F.interpolate(
                reduce(F.adaptive_avg_pool2d(x, n)), size=size, mode="bilinear", align_corners=False
            )
            for n, reduce in zip(POOLS, self.pooled, strict=True)
        ]
        views += [branch(x) for branch in self.dilated]
        joined: Tensor = self.join(torch.cat(views, dim=1))
        return joined


class ASPP(nn.Module):
    """Dilated branches alone, which the paper compares MDPPM with; the rates are ours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(separable(channels, channels, rate) for rate in ASPP_DILATIONS)
        self.join = nn.Conv2d(len(ASPP_DILATIONS) * channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, channels, j, i)."""
        joined: Tensor = self.join(torch.cat([branch(x) for branch in self.dilated], dim=1))
        return joined


class Bottleneck(nn.Module):
    """Inverted residual of MobileNetV2 (figure 9): pointwise, depthwise, linear pointwise."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = EXPANSION * channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, wide, kernel_size=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, kernel_size=3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, channels, j, i)."""
        return x + self.layers(x)


_PYRAMIDS = {"mdppm": MDPPM, "aspp": ASPP}


class LightUNet(SliceNetwork):
    """The light network (figure 3): a U-Net of depthwise-separable convolutions.

    Args:
        base_channels: Width b; the stages have b, 2b, 4b, 8b and 16b channels (ours).
        features: FE blocks in the encoder instead of conv blocks.
        channels: Channel attention in the encoder.
        pyramid: What follows the fifth layer.
        residual: 4, 3, 2 and 1 bottlenecks on the skip connections, from the top to the bottom.
        prior: Share of lesion that the untrained network starts with.
    """

    def __init__(
        self,
        base_channels: LightWidth = 16,
        features: bool = True,
        channels: bool = True,
        pyramid: Pyramid = "mdppm",
        residual: bool = True,
        prior: Prior = 0.1,
    ) -> None:
        super().__init__()
        self.stride = 2**LEVELS
        widths = [base_channels * 2**n for n in range(LEVELS + 1)]
        block = FeatureExtraction if features else conv_block
        self.encoder = nn.ModuleList(
            nn.Sequential(block(a, b), ChannelAttention(b) if channels else nn.Identity())
            for a, b in zip((1, *widths), widths[:-1], strict=False)
        )
        bottom = _PYRAMIDS[pyramid](widths[-1]) if pyramid in _PYRAMIDS else nn.Identity()
        self.bottom = nn.Sequential(conv_block(widths[-2], widths[-1]), bottom)
        self.skips = nn.ModuleList(
            nn.Sequential(*(Bottleneck(widths[n]) for _ in range(LEVELS - n if residual else 0)))
            for n in range(LEVELS)
        )
        self.shrink = nn.ModuleList(
            nn.Conv2d(widths[n + 1], widths[n], kernel_size=1) for n in reversed(range(LEVELS))
        )
        self.decoder = nn.ModuleList(
            conv_block(2 * widths[n], widths[n]) for n in reversed(range(LEVELS))
        )
        self.head = nn.Conv2d(base_channels, 1, kernel_size=1)
        start_at(self.head, prior)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (batch, 1, j, i) of slices in [0, 1], 0 outside the lungs.

        Raises:
            ValueError: If an edge is no multiple of 16.
        """
        check_edges(image, self.stride)
        kept: list[Tensor] = []
        x = image
        for stage, skip in zip(self.encoder, self.skips, strict=True):
            x = stage(x)
            kept.append(skip(x))
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for shrink, stage, skipped in zip(self.shrink, self.decoder, reversed(kept), strict=True):
            x = stage(torch.cat((skipped, shrink(up(x))), dim=1))
        logits: Tensor = self.head(x)
        return logits

    def lesion_map(self, image: Tensor, lungs: Tensor) -> Tensor:
        """Return the probability of lesion; see the base class."""
        return torch.sigmoid(self(image * lungs).float()) * lungs
