"""Write trained networks as the safetensors with cards that the library loads.

``config`` of the regression's card: ``chunk`` (spacing in mm, size), ``scales``, ``crf``,
``threshold``, ``gain``, ``least_level``, ``refined_by``; of the vessels' card: ``spacing`` in mm,
``threshold``; of the segmentation's card: ``spacing`` in mm. ``NAME.training.yaml`` beside each are
the settings of the training.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.weights import NetworkName, save_network
from DRAMLesionLib.writing import whole_results, write_text
from Training.config import Config, dump_config, to_plain
from Training.dataset.cache import CachedCase, for_lesions
from Training.dataset.sampling import clear_lobes
from Training.learning.engine import last_logged, read_checkpoint
from Training.stages import segmentation
from Training.stages.pseudolabels import dram_config

NAME = "export"
_FILES = tuple(
    f"{name}{suffix}"
    for name in ("vessels", "regression", "segmentation")
    for suffix in (".safetensors", ".json", ".training.yaml")
)


def export(
    cases: Sequence[CachedCase],
    output: Path,
    config: Config,
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write ``output/weights``: regression, segmentation, and the vessel network if there is one.

    They take the place of those of an earlier export together; other files there are left alone.

    Args:
        cases: Prepared cases, for the cards.
        output: Folder of the training.
        config: All settings.
        report: Called with a line of text for each network.

    Returns:
        The folder with the weights.

    Raises:
        InputError: If a network was not trained, or its checkpoint is damaged.
        OutputError: If the weights cannot be written.
    """
    folder = output / "weights"
    with whole_results(folder, "segmentation.json", owned=_FILES) as part:
        if config.vessels.enabled:
            _export_vessels(part, cases, output, config)
        _export_ours(part, cases, output, config)
        names = sorted(path.stem for path in part.glob("*.safetensors"))
    for name in names:
        report(f"wrote {folder / name}.safetensors")
    return folder


def _export_ours(folder: Path, cases: Sequence[CachedCase], output: Path, config: Config) -> None:
    """Write regression and segmentation."""
    seen = for_lesions(cases, config.vessels.alone)
    given = describe_labels([case for case in seen if not case.validation])

    settings = config.regression
    arguments = {"base_channels": settings.base_channels, "attention": settings.attention}
    network = RegressionNetwork(settings.base_channels, settings.attention)
    card = to_plain(dram_config(settings))
    description = {"type": "RegressionNetwork", "arguments": arguments}
    _export(network, "regression", description, card, folder, output, config, given)

    final = config.segmentation
    # the same convolutions whichever padding they were trained with; inference never pads
    shape: dict[str, Any] = {
        "base_channels": final.base_channels,
        "out_channels": segmentation.CLASSES,
        "padding": "valid",
    }
    description = {"type": "UNet3D", "arguments": shape}
    card = {"spacing": final.spacing, "level": final.level}
    _export(UNet3D(**shape), "segmentation", description, card, folder, output, config, given)


def describe_labels(cases: Sequence[CachedCase]) -> str:
    """Say what a training was given, for the card.

    Args:
        cases: Those that it has seen.
    """
    kinds = {
        "lobe scores": [any(s is not None for s in case.scores.values()) for case in cases],
        "shares of regions": [bool(case.meta.get("regions")) for case in cases],
        "points": [_count(case, "lesion points", "background points") > 0 for case in cases],
        "masks": [_count(case, "masks", "pseudo-labels as masks") > 0 for case in cases],
    }
    there = {kind: sum(flags) for kind, flags in kinds.items() if any(flags)}
    if set(there) <= {"lobe scores"}:
        return f"{len(cases)} scans with lobe scores; no voxel of any lesion was given"
    told = ", ".join(f"{count} with {kind}" for kind, count in there.items())
    none = "" if any(case.outlined for case in cases) else "; no voxel of any lesion was given"
    return f"{len(cases)} scans: {told}{none}"


def _count(case: CachedCase, *kinds: str) -> int:
    return sum(case.meta.get("counts", {}).get(kind, 0) for kind in kinds)


def _export_vessels(
    folder: Path, cases: Sequence[CachedCase], output: Path, config: Config
) -> None:
    """Write the vessel network."""
    settings = config.vessels
    clear = [clear_lobes(c, settings.source) for c in cases if not c.validation]
    given = (
        f"Frangi and Otsu references of {sum(map(len, clear))} lobes without lesions in "
        f"{sum(map(bool, clear))} scans"
    )
    shape: dict[str, Any] = {"base_channels": settings.base_channels, "padding": "valid"}
    card = {"spacing": config.regression.chunk.spacing, "threshold": settings.threshold}
    description = {"type": "UNet3D", "arguments": shape}
    _export(UNet3D(**shape), "vessels", description, card, folder, output, config, given)


def _export(
    network: nn.Module,
    name: NetworkName,
    architecture: dict[str, Any],
    card: dict[str, Any],
    folder: Path,
    output: Path,
    config: Config,
    given: str,
) -> None:
    """Write the network that a run trained, with its card."""
    state = read_checkpoint(output / name)
    network.load_state_dict(state["network"])
    save_network(
        network,
        folder,
        name,
        architecture=architecture,
        config=card,
        metrics=_metrics(output / name, _steps(name, state["step"], config)),
        date=config.export.date or datetime.date.today().isoformat(),
        data=[*(config.export.data or ("data of the user",)), given],
        licence=config.export.licence,
    )
    # the settings of the run, word for word, beside what they led to
    write_text(dump_config(config), folder / f"{name}.training.yaml")


def _steps(name: NetworkName, last: int, config: Config) -> int:
    """Return the steps of a network in all; the last round has only its share of them."""
    return config.segmentation.loop.steps if name == "segmentation" else last


def _metrics(run: Path, steps: int) -> dict[str, object]:
    return {
        "steps": steps,
        "training": last_logged(run, "train"),
        "validation": last_logged(run, "validation"),
    }
