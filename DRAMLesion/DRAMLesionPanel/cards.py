"""What the cards beside weights say, without loading any network."""

import html
import json
from pathlib import Path

from slicer.i18n import tr as _

NETWORKS = ("regression", "segmentation")


def describe(folder: str) -> str:
    """What a folder made by 'python -m Training export' says of itself, as HTML.

    Raises ValueError if it is no such folder.
    """
    return "<br>".join(_describe(Path(folder), name) for name in NETWORKS)


def _describe(folder: Path, name: str) -> str:
    try:
        card = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        facts = [card["date"], card["licence"], f"SHA-256 {card['sha256'][:12]}…"]
        data = "; ".join(card["data"])
        steps = card.get("metrics", {}).get("steps")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = _(
            "{folder} holds no weights of the {network} network: choose a folder made by "
            "'python -m Training export'"
        ).format(folder=folder, network=name)
        raise ValueError(message) from error
    if not (folder / f"{name}.safetensors").is_file():
        message = _("{folder}: {network}.safetensors is missing; copy the whole folder").format(
            folder=folder, network=name
        )
        raise ValueError(message)
    if steps is not None:
        facts.append(_("{steps} steps").format(steps=steps))
    text = html.escape(f"{', '.join(str(fact) for fact in facts)} – {data}")
    return f"<b>{html.escape(name)}</b>: {text}"
