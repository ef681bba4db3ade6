"""What the cards beside weights say, without loading any network."""

import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from DRAMLesionPanel.telling import sentence

NETWORKS = ("regression", "segmentation")


@dataclass(frozen=True)
class Card:
    """What the panel shows of a card; `DRAMLesionLib.weights` reads all of it, but needs torch."""

    date: str
    licence: str
    sha256: str
    data: list[str]
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


def describe(folder: str) -> str:
    """What a folder made by 'python -m Training export' says of itself, as HTML.

    Raises ValueError if it is no such folder.
    """
    return "<br>".join(_describe(Path(folder), name) for name in _networks(Path(folder)))


def problem(folder: str) -> str:
    """Why the weights of a folder cannot be used, '' if they can or none is chosen."""
    try:
        if folder:
            describe(folder)
    except ValueError as error:
        return sentence(str(error))
    return ""


def _networks(folder: Path) -> tuple[str, ...]:
    """Networks that a folder has to hold: those of methods without a dRAM are alone."""
    if (folder / "regression.json").is_file():
        return NETWORKS
    if (folder / "segmentation.json").is_file() and "method" in _read(folder, NETWORKS[-1]).config:
        return NETWORKS[-1:]
    return NETWORKS


def _read(folder: Path, name: str) -> Card:
    from DRAMLesionLib.errors import InputError
    from DRAMLesionLib.typed import read_json

    try:
        return read_json(folder / f"{name}.json", Card, others=True)
    except InputError as error:
        message = _(
            "{folder} holds no weights of the {network} network: choose a folder made by "
            "'python -m Training export'"
        ).format(folder=folder, network=name)
        raise ValueError(message) from error


def _describe(folder: Path, name: str) -> str:
    card = _read(folder, name)
    if not (folder / f"{name}.safetensors").is_file():
        message = _("{folder}: {network}.safetensors is missing; copy the whole folder").format(
            folder=folder, network=name
        )
        raise ValueError(message)
    method = card.config.get("method")
    facts = [card.date, card.licence, f"SHA-256 {card.sha256[:12]}…"]
    if method:
        facts.insert(0, str(method))
    if "steps" in card.metrics:
        facts.append(_("{steps} steps").format(steps=card.metrics["steps"]))
    text = html.escape(f"{', '.join(facts)} – {'; '.join(card.data)}")
    return f"<b>{html.escape(name)}</b>: {text}"
