"""Untrained networks in a folder, and one that marks dense voxels, for tests of the whole way."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from DRAMLesionLib import weights
from DRAMLesionLib.intensity import window
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import VALID_SHRINK, UNet3D, UNetOutput


def write_small_weights(folder: Path) -> Path:
    """Write an untrained regression and segmentation network, small enough for tests."""
    torch.manual_seed(0)
    common = {"date": "2026-01-01", "data": ["nothing: untrained"], "licence": "Apache-2.0"}
    weights.save_network(
        RegressionNetwork(base_channels=1, attention=False),
        folder,
        "regression",
        architecture={
            "type": "RegressionNetwork",
            "arguments": {"base_channels": 1, "attention": False},
        },
        config={
            "chunk": {"spacing": 3.0, "size": 16},
            "scales": [1.0],
            "crf": {"iterations": 1},
            "threshold": 0.5,
        },
        metrics={},
        **common,
    )
    arguments = {"base_channels": 1, "out_channels": 3, "padding": "valid"}
    weights.save_network(
        UNet3D(**arguments),
        folder,
        "segmentation",
        architecture={"type": "UNet3D", "arguments": arguments},
        config={"spacing": 3.0},
        metrics={},
        **common,
    )
    return folder


class DenseVoxels(nn.Module):
    """Takes the place of the segmentation network: lesion is what is denser than -600 HU."""

    def forward(self, image: Tensor) -> UNetOutput:
        crop = VALID_SHRINK // 2
        seen = image[..., crop:-crop, crop:-crop, crop:-crop]
        lesion = (seen - float(window(torch.tensor(-600.0)))) * 100.0
        zero = torch.zeros_like(lesion)
        return UNetOutput(torch.cat((zero, zero - 50.0, lesion), dim=1), (image, image))
