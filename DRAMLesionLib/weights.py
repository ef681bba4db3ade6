"""Weights: safetensors beside a JSON card, read and written through this module alone.

A folder of weights holds ``NAME.safetensors`` and ``NAME.json`` for each of the networks that it
brings. Pickled checkpoints are never loaded.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from DRAMLesionLib import typed, writing
from DRAMLesionLib.errors import InputError, WeightsError
from DRAMLesionLib.networks.decomposition import DecompositionNetwork
from DRAMLesionLib.networks.light import LightUNet
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.slices import SliceNetwork, UNet2D
from DRAMLesionLib.networks.unet import UNet3D

NetworkName = Literal["regression", "vessels", "segmentation"]

BUNDLED = Path(__file__).resolve().parent / "bundled_weights"
"""The weights that come with the library."""

_FORMAT = 1
_ARCHITECTURES: dict[str, type[nn.Module]] = {
    "UNet3D": UNet3D,
    "RegressionNetwork": RegressionNetwork,
    "LightUNet": LightUNet,
    "UNet2D": UNet2D,
    "DecompositionNetwork": DecompositionNetwork,
}
_USED_AS: dict[NetworkName, tuple[str, int]] = {
    "regression": ("RegressionNetwork", 1),
    "vessels": ("UNet3D", 1),
    "segmentation": ("UNet3D", 3),
}
"""Type and output channels of each network; a network for slices segments, too."""

_DTYPES = {"F32": torch.float32, "I64": torch.int64}
_LARGEST_HEADER = 1 << 24
"""Bytes; the tables of our tensors take some kilobytes."""

T = TypeVar("T")


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

    name: NetworkName
    architecture: dict[str, Any]
    sha256: str
    date: str
    data: list[str]
    licence: str
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Architecture:
    """What a card says of the network; see :class:`Card`."""

    type: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Entry:
    """A tensor in the header of a safetensors file."""

    dtype: str
    shape: tuple[Annotated[int, typed.Between(0)], ...]
    data_offsets: tuple[int, int]


def load_network(folder: Path | str, name: NetworkName) -> tuple[nn.Module, Card]:
    """Load one network in evaluation mode on the CPU.

    Args:
        folder: Folder with ``NAME.safetensors`` and ``NAME.json``.
        name: Which network.

    Raises:
        WeightsError: If a file is missing or damaged, the checksum differs from the card's, or
            tensors do not fit the network that the card describes; told before memory is taken.
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
    _check_shapes(tensors_path, card)
    network = build_network(card.architecture, str(Path(folder) / f"{name}.json"))
    try:
        network.load_state_dict(load_file(tensors_path))
    except (RuntimeError, SafetensorError) as error:
        message = f"{tensors_path} does not fit the network of its card: {error}"
        raise WeightsError(message) from error
    return network.eval(), card


def has_network(folder: Path | str, name: NetworkName) -> bool:
    """Tell whether ``folder`` brings the network ``name``."""
    return (Path(folder) / f"{name}.json").is_file()


def is_for_slices(card: Card) -> bool:
    """Tell whether the network of a card reads axial slices, one by one, instead of volumes."""
    kind = _ARCHITECTURES.get(str(card.architecture.get("type")))
    return card.name == "segmentation" and kind is not None and issubclass(kind, SliceNetwork)


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
        content = typed.load_json(path)
        version = content.pop("format", None) if isinstance(content, dict) else None
        if version != _FORMAT and isinstance(version, int):
            message = f"{path} has format {version}, this version of DRAMLesion reads {_FORMAT}"
            raise WeightsError(message)
        card = typed.build(Card, content, str(path))
    except InputError as error:
        message = f"{path} is not a card of DRAMLesion weights: {error}"
        raise WeightsError(message) from error
    if version is None or card.name != name:
        found = "without a format" if version is None else f"of the {card.name} network"
        message = f"{path} is a card {found}: copy the whole folder of weights again"
        raise WeightsError(message)
    return card


def settings(folder: Path | str, card: Card, kind: type[T], required: Iterable[str] = ()) -> T:
    """Return the settings that a card shares with the training.

    Args:
        folder: Where the card was read from.
        card: The card.
        kind: Dataclass that they belong into.
        required: Fields that the card has to bring though they have a default.

    Raises:
        WeightsError: If one is missing, unknown, or of another type or range.
    """
    source = f"{Path(folder) / card.name}.json: config"
    try:
        return typed.build(kind, card.config, source, required=required)
    except InputError as error:
        raise WeightsError(str(error)) from error


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
    """Write a network and its card; both appear whole or not at all, the card as the last.

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
        OutputError: If they cannot be written. What was there before is there again.
        WeightsError: If ``architecture`` does not build the network that is to be saved.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    try:
        build_network(architecture, name).load_state_dict(state)
    except RuntimeError as error:
        message = f"the architecture given for {name} does not fit its tensors: {error}"
        raise WeightsError(message) from error
    with writing.whole_results(folder, f"{name}.json") as part:
        content = save(state)
        writing.write_bytes(content, part / f"{name}.safetensors")
        card = Card(
            name=name,
            architecture=architecture,
            sha256=hashlib.sha256(content).hexdigest(),
            date=date,
            data=data,
            licence=licence,
            config=dict(config),
            metrics=dict(metrics),
        )
        writing.write_json({"format": _FORMAT, **card.__dict__}, part / f"{name}.json")
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
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        message = f"{source}: unknown network type {kind!r}; this version knows {known}"
        raise WeightsError(message)
    network = _ARCHITECTURES[kind]
    try:
        given = typed.build(_Architecture, dict(architecture), f"{source}: architecture")
        return network(**typed.arguments(network, given.arguments, f"{source}: arguments"))
    except InputError as error:
        message = f"the arguments of {kind} do not fit: {error}"
        raise WeightsError(message) from error


def _check_shapes(path: Path, card: Card) -> None:
    """Compare the table in a safetensors file with the network of its card; allocates nothing.

    Raises:
        WeightsError: If names, types or shapes differ, or the network is not one for its task.
    """
    with torch.device("meta"):
        network = build_network(card.architecture, str(path.with_suffix(".json")))
    if not is_for_slices(card):
        _check_task(network, path, card)
    wanted = {n: (tensor.dtype, tuple(tensor.shape)) for n, tensor in network.state_dict().items()}
    there = {n: (_DTYPES.get(e.dtype), e.shape) for n, e in _tensor_table(path).items()}
    different = sorted(n for n in wanted.keys() | there.keys() if wanted.get(n) != there.get(n))
    if different:
        first = different[0]
        message = (
            f"{path} does not fit the network of its card: {len(different)} tensors differ, such "
            f"as {first}: {_described(there.get(first))}, not {_described(wanted.get(first))}"
        )
        raise WeightsError(message)


def _check_task(network: nn.Module, path: Path, card: Card) -> None:
    """Refuse a network of another type, or with other channels, than its task has.

    Raises:
        WeightsError: If it is one.
    """
    task, outputs = _USED_AS[card.name]
    there = type(network).__name__
    unet = network.unet if isinstance(network, RegressionNetwork) else network
    if isinstance(unet, UNet3D):
        channels = (unet.encoder[0][0].in_channels, unet.head.out_channels)  # type: ignore[index]
        if there == task and channels == (1, outputs):
            return
        there = f"{there} from {channels[0]} to {channels[1]}"
    message = (
        f"{path.with_suffix('.json')}: the {card.name} network is a {task} from 1 channel to "
        f"{outputs}, not a {there}"
    )
    raise WeightsError(message)


def _described(tensor: tuple[torch.dtype | None, tuple[int, ...]] | None) -> str:
    if tensor is None:
        return "none"
    return f"{'x'.join(map(str, tensor[1])) or 'one number'} ({tensor[0] or 'another type'})"


def _tensor_table(path: Path) -> dict[str, _Entry]:
    """Return the tensors that a safetensors file says it holds, from its header alone.

    Raises:
        WeightsError: If the header is damaged.
    """
    try:
        with path.open("rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            if size > _LARGEST_HEADER:
                message = f"its header claims {size} bytes"
                raise ValueError(message)
            text = file.read(size).decode("utf-8")
        content = typed.parse_json(text, str(path))
        if isinstance(content, dict):
            content.pop("__metadata__", None)
        return typed.build(dict[str, _Entry], content, str(path))
    except (OSError, ValueError, struct.error, InputError) as error:
        message = f"{path} is damaged: {error}; export or copy the weights again"
        raise WeightsError(message) from error


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
