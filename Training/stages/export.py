"""Write trained networks as the safetensors with cards that the library loads.

``config`` of the regression's card: ``chunk`` (spacing in mm, size), ``scales``, ``crf``,
``threshold``; of the segmentation's card: ``spacing`` in mm.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path

from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.weights import save_network
from Training.cache import CachedCase
from Training.config import Config, to_plain
from Training.engine import last_logged, read_checkpoint
from Training.stages import regression, segmentation

NAME = "export"


def export(
    cases: Sequence[CachedCase],
    output: Path,
    config: Config,
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write ``output/weights``.

    Args:
        cases: Prepared cases, for the cards.
        output: Folder of the training.
        config: All settings.
        report: Called with a line of text for each network.

    Returns:
        The folder with the weights.

    Raises:
        InputError: If a network was not trained.
    """
    folder = output / "weights"
    trained = sum(not case.validation for case in cases)
    sources = list(config.export.data) or ["data of the user"]
    data = [*sources, f"{trained} scans with lobe scores; no voxel of any lesion was given"]
    date = config.export.date or datetime.date.today().isoformat()
    licence = config.export.licence

    settings = config.regression
    arguments = {"base_channels": settings.base_channels, "attention": settings.attention}
    network = RegressionNetwork(settings.base_channels, settings.attention)
    state = read_checkpoint(output / regression.NAME)
    network.load_state_dict(state["network"])
    save_network(
        network,
        folder,
        "regression",
        architecture={"type": "RegressionNetwork", "arguments": arguments},
        config={
            "chunk": to_plain(settings.chunk),
            "scales": list(settings.scales),
            "crf": to_plain(settings.crf),
            "threshold": settings.threshold,
        },
        metrics=_metrics(output / regression.NAME, state["step"]),
        date=date,
        data=data,
        licence=licence,
    )
    report(f"wrote {folder / 'regression.safetensors'}")

    final = config.segmentation
    shape = {"base_channels": final.base_channels, "out_channels": segmentation.CLASSES}
    # the same convolutions whichever padding they were trained with; inference never pads
    unet = UNet3D(**shape, padding="valid")
    state = read_checkpoint(output / segmentation.NAME)
    unet.load_state_dict(state["network"])
    save_network(
        unet,
        folder,
        "segmentation",
        architecture={"type": "UNet3D", "arguments": {**shape, "padding": "valid"}},
        config={"spacing": final.spacing},
        metrics=_metrics(output / segmentation.NAME, state["step"]),
        date=date,
        data=data,
        licence=licence,
    )
    report(f"wrote {folder / 'segmentation.safetensors'}")
    return folder


def _metrics(run: Path, steps: int) -> dict[str, object]:
    return {
        "steps": steps,
        "training": last_logged(run, "train"),
        "validation": last_logged(run, "validation"),
    }
