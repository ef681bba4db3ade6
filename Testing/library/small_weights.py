"""Small networks for tests: untrained, random, one that marks dense voxels; and folders of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from DRAMLesionLib import weights
from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import UNet3D


def write_weights(
    folder: Path,
    regression: RegressionNetwork,
    segmentation: UNet3D,
    chunk_size: int,
    source: str,
    metrics: Mapping[str, Any],
) -> Path:
    """Write networks of one base channel, the regression without attention, with quick settings."""
    about: dict[str, Any] = {"date": "2026-01-01", "data": [source], "licence": "Apache-2.0"}
    weights.save_network(
        regression,
        folder,
        "regression",
        architecture={
            "type": "RegressionNetwork",
            "arguments": {"base_channels": 1, "attention": False},
        },
        config={
            "chunk": {"spacing": 3.0, "size": chunk_size},
            "scales": [1.0],
            "crf": {"iterations": 1},
            "threshold": 0.5,
        },
        metrics=metrics,
        **about,
    )
    weights.save_network(
        segmentation,
        folder,
        "segmentation",
        architecture={
            "type": "UNet3D",
            "arguments": {"base_channels": 1, "out_channels": 3, "padding": "valid"},
        },
        config={"spacing": 3.0},
        metrics=metrics,
        **about,
    )
    return folder


def write_small_weights(folder: Path) -> Path:
    """Write an untrained regression and segmentation network, small enough for tests."""
    torch.manual_seed(0)
    return write_weights(
        folder,
        RegressionNetwork(base_channels=1, attention=False),
        UNet3D(base_channels=1, out_channels=3, padding="valid"),
        chunk_size=16,
        source="nothing: untrained",
        metrics={},
    )


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


def random_network(seed: int) -> UNet3D:
    """Return a segmentation network with random weights, BatchNorm's statistics included."""
    torch.manual_seed(seed)
    network = UNet3D(out_channels=3, base_channels=2, padding="valid").eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    network.head.weight.data.normal_(0, 1)
    return network
