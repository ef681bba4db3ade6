"""Untrained networks in a folder, and one that marks dense voxels, for tests of the whole way."""

from __future__ import annotations

from pathlib import Path

import torch

from DRAMLesionLib import weights
from DRAMLesionLib.intensity import window
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import UNet3D


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


def dense_voxels() -> UNet3D:
    """Return a segmentation network whose weights are set so that lesion is above -600 HU."""
    network = UNet3D(out_channels=3, base_channels=1, padding="valid").eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "head" in name or parameter.dim() == 5:
                parameter.zero_()
        # the image passes through the first skip connection to the head
        for stage in (network.encoder[0], network.decoder[2]):
            stage[0].weight[0, 0, 1, 1, 1] = 1.0
            stage[3].weight[0, 0, 1, 1, 1] = 1.0
        network.head.weight[2, 0] = 100.0
        network.head.bias[1] = -50.0
        network.head.bias[2] = -100.0 * float(window(torch.tensor(-600.0)))
    return network
