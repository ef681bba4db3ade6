"""Weights: safetensors beside a JSON card, read and written through this module alone.

A folder of weights holds ``NAME.safetensors`` and ``NAME.json`` for each of the networks that it
brings. Pickled checkpoints are never loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from DRAMLesionLib.errors import WeightsError
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import UNet3D

NetworkName = Literal["regression", "vessels", "segmentation"]

BUNDLED = Path(__file__).resolve().parent / "bundled_weights"
"""The weights that come with the library."""

_FORMAT = 1
_ARCHITECTURES: dict[str, type[nn.Module]] = {
    "UNet3D": UNet3D,
    "RegressionNetwork": RegressionNetwork,
}


@dataclass(frozen=True)
class Card:
    """What is known about a set of weights.

    Attributes:
        name: Network: ``regression``, ``vessels`` or ``segmentation``.
        architecture: Class name under ``"type"``, its keyword arguments under ``"arguments"``.
        sha256: Checksum of the safetensors file.
        date: Day of the export, ISO 8601.
        data: Sources that the weights were trained on, in words.
        licence: Licence of the weights.
        config: Settings that the training and the inference share, such as chunk size.
        metrics: What was measured, with the set it was measured on.
    """

    name: str
    architecture: dict[str, Any]
    sha256: str
    date: str
    data: list[str]
    licence: str
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


def load_network(folder: Path | str, name: NetworkName) -> tuple[nn.Module, Card]:
    """Load one network in evaluation mode on the CPU.

    Args:
        folder: Folder with ``NAME.safetensors`` and ``NAME.json``.
        name: Which network.

    Raises:
        WeightsError: If a file is missing or damaged, the checksum differs from the card's, or
            tensors do not fit the network that the card describes.
    """
    tensors_path = Path(folder) / f"{name}.safetensors"
    card = read_card(folder, name)
    if not tensors_path.is_file():
        message = f"{tensors_path} is missing; its card is there: copy the whole folder of weights"
        raise WeightsError(message)
    if _checksum(tensors_path) != card.sha256:
        message = (
            f"{tensors_path} is not the file that its card describes (SHA-256 differs): "
            "it is damaged or was exchanged; export or copy the weights again"
        )
        raise WeightsError(message)
    network = build_network(card.architecture, tensors_path.name)
    try:
        network.load_state_dict(load_file(tensors_path))
    except (RuntimeError, SafetensorError) as error:
        message = f"{tensors_path} does not fit the network of its card: {error}"
        raise WeightsError(message) from error
    return network.eval(), card


def has_network(folder: Path | str, name: NetworkName) -> bool:
    """Tell whether ``folder`` brings the network ``name``."""
    return (Path(folder) / f"{name}.json").is_file()


def read_card(folder: Path | str, name: NetworkName) -> Card:
    """Read the card of one network.

    Raises:
        WeightsError: If the card is missing or is not one.
    """
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        message = (
            f"no weights of the {name} network in {folder}: {path.name} is missing; "
            "choose a folder made by 'python -m Training export'"
        )
        raise WeightsError(message)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.pop("format")
        card = Card(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"{path} is not a card of DRAMLesion weights: {error}"
        raise WeightsError(message) from error
    if version != _FORMAT:
        message = f"{path} has format {version}, this version of DRAMLesion reads {_FORMAT}"
        raise WeightsError(message)
    return card


def save_network(
    network: nn.Module,
    folder: Path | str,
    name: NetworkName,
    *,
    architecture: dict[str, Any],
    date: str,
    data: list[str],
    licence: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Card:
    """Write a network and its card; both appear whole or not at all.

    Args:
        network: The trained network.
        folder: Where to; made if it is missing.
        name: Which network.
        architecture: See :class:`Card`; building it must give the same tensors.
        date: See :class:`Card`.
        data: See :class:`Card`.
        licence: See :class:`Card`.
        config: See :class:`Card`.
        metrics: See :class:`Card`.

    Raises:
        WeightsError: If ``architecture`` does not build the network that is to be saved.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    try:
        build_network(architecture, name).load_state_dict(state)
    except RuntimeError as error:
        message = f"the architecture given for {name} does not fit its tensors: {error}"
        raise WeightsError(message) from error
    tensors_part = folder / f".{name}.safetensors.part"
    save_file(state, tensors_part)
    card = Card(
        name=name,
        architecture=architecture,
        sha256=_checksum(tensors_part),
        date=date,
        data=data,
        licence=licence,
        config=dict(config),
        metrics=dict(metrics),
    )
    card_part = folder / f".{name}.json.part"
    content = {"format": _FORMAT, **card.__dict__}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    card_part.write_text(text, encoding="utf-8")
    tensors_part.replace(folder / f"{name}.safetensors")
    card_part.replace(folder / f"{name}.json")
    return card


def build_network(architecture: Mapping[str, Any], source: str) -> nn.Module:
    """Build an untrained network from its description in a card.

    Args:
        architecture: ``{"type": class name, "arguments": keyword arguments}``.
        source: What to name in an error.

    Raises:
        WeightsError: If the type is unknown or the arguments do not fit.
    """
    kind = architecture.get("type")
    if kind not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        message = f"{source}: unknown network type {kind!r}; this version knows {known}"
        raise WeightsError(message)
    try:
        return _ARCHITECTURES[kind](**architecture.get("arguments", {}))
    except (TypeError, ValueError) as error:
        message = f"{source}: the arguments of {kind} do not fit: {error}"
        raise WeightsError(message) from error


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
