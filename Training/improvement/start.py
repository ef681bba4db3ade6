"""Weights as the start of a training: their settings, and their networks as checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from torch import nn

from DRAMLesionLib import weights
from DRAMLesionLib.lesions.dram import CARD_SETTINGS, DRAMConfig
from DRAMLesionLib.lesions.segmentation import SegmentationConfig
from DRAMLesionLib.networks.local import is_local
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.vessels.masks import VesselSettings
from DRAMLesionLib.weights import Card, NetworkName
from Training.config import Config
from Training.learning.engine import begin_from
from Training.stages.regression import NAME as REGRESSION
from Training.stages.segmentation import NAME as SEGMENTATION
from Training.stages.vessels import NAME as VESSELS

_NAMES: tuple[NetworkName, ...] = ("regression", "segmentation", "vessels")
_STEP = 8
"""Chunk sizes are multiples of it."""


@dataclass(frozen=True)
class Start:
    """Weights to start from.

    Attributes:
        folder: Where they lie.
        networks: By name; ``vessels`` is among them only if the folder brings it.
        cards: By name.
        config: All settings; what belongs to the networks is that of the weights.
    """

    folder: Path
    networks: dict[NetworkName, nn.Module]
    cards: dict[NetworkName, Card]
    config: Config

    @property
    def name(self) -> str:
        """What to call them."""
        if self.folder.resolve() == weights.BUNDLED:
            return "the weights that come with DRAMLesion"
        return f"the weights in {self.folder.name}"

    def lay_out(self, output: Path) -> None:
        """Write the networks as checkpoints that the stages start at.

        Args:
            output: Folder of the training.
        """
        begin_from(self.networks["regression"], start_of(output, REGRESSION))
        begin_from(self.networks["segmentation"], start_of(output, SEGMENTATION))
        if "vessels" in self.networks:
            begin_from(self.networks["vessels"], output / VESSELS)


def start_of(output: Path, name: str) -> Path:
    """Return the folder of the checkpoint that a network starts at."""
    return output / f"{name}-start"


def read_start(folder: Path, config: Config) -> Start:
    """Read weights, with the settings of a training that goes on from them.

    Args:
        folder: Weights as ``python -m Training export`` writes them.
        config: What is to be done with them: steps, rates and the like.

    Raises:
        WeightsError: If they cannot be used.
    """
    networks: dict[NetworkName, nn.Module] = {}
    cards: dict[NetworkName, Card] = {}
    for name in _NAMES:
        if name != "vessels" or weights.has_network(folder, name):
            networks[name], cards[name] = weights.load_network(folder, name)
    shared = weights.settings(folder, cards["regression"], DRAMConfig, CARD_SETTINGS)
    final = weights.settings(folder, cards["segmentation"], SegmentationConfig, ("spacing",))
    first = cast(RegressionNetwork, networks["regression"])
    last = cast(UNet3D, networks["segmentation"])
    has_vessels = "vessels" in networks
    regression = replace(
        config.regression,
        chunk=shared.chunk,
        scales=shared.scales,
        crf=shared.crf,
        threshold=shared.threshold,
        gain=shared.gain,
        least_level=shared.least_level,
        refined_by=shared.refined_by,
        base_channels=first.unet.base_channels,
        attention=first.attention is not None,
        local=is_local(first.unet),
        sizes=_sizes(shared.chunk.size),
        vessels="network" if has_vessels else "frangi",
    )
    segmentation = replace(
        config.segmentation,
        spacing=final.spacing,
        level=final.level,
        base_channels=last.base_channels,
        local=is_local(last),
        start="scratch",
        rounds=1,
    )
    vessels = replace(config.vessels, enabled=has_vessels)
    if has_vessels:
        found = weights.settings(folder, cards["vessels"], VesselSettings)
        width = cast(UNet3D, networks["vessels"]).base_channels
        vessels = replace(vessels, base_channels=width, threshold=found.threshold)
    config = replace(
        config,
        prepare=replace(config.prepare, vessels=not has_vessels, skip_broken=True),
        regression=regression,
        segmentation=segmentation,
        vessels=vessels,
    )
    return Start(folder, networks, cards, config)


def _sizes(size: int) -> tuple[int, ...]:
    """Return the chunk sizes of the training: those about the one that inference averages."""
    return (size - _STEP, size, size, size + _STEP) if size > 2 * _STEP else (size,)
