"""Points with consistency (paper 003: Laradji et al.), in volumes.

The labels are voxels that a person has clicked or outlined (:mod:`Training.dataset.folder`). A data
set without any that brings a truth gets points from it, as the paper takes them from masks. The
network is our U-Net with one logit, on cubes around labelled voxels; flips and quarter turns lie in
the axial plane. It is exported as weights that the pipeline runs, with a vessel class that never
is.
"""

from __future__ import annotations

import datetime
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from DRAMLesionLib import weights
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions.chunks import ChunkConfig
from DRAMLesionLib.lesions.dram import DRAMConfig
from DRAMLesionLib.lesions.segmentation import SegmentationConfig
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import STRIDE, UNet3D
from DRAMLesionLib.reading import files
from DRAMLesionLib.weights import save_network
from DRAMLesionLib.writing import whole_results, write_text
from Training.config import Config, PointsConfig, dump_config, to_plain
from Training.dataset.cache import VOXELS_OF_SCAN, CachedCase, CaseWithTruth
from Training.dataset.sampled_points import sample_points
from Training.dataset.sampling import PointPatches
from Training.learning.engine import Experiment, last_logged, make_fabric, read_checkpoint, train
from Training.learning.point_losses import total_loss
from Training.learning.shortcuts import freeze_norms
from Training.learning.workers import in_workers
from Training.methods.base import Method, Predictor, Workplace
from Training.methods.supervised import NetworkPredictor, find_truths
from Training.stages.export import describe_labels
from Training.stages.prepare import grid_image

NAME = "points"
ROWS = {
    "points": "points, CB flip + rotation",
    "points_flip": "points, CB flip",
    "points_alone": "points alone",
    "points_lcfcn": "points, LCFCN",
}
"""Rows of the tables by the name of the method."""

LOBE_MM = 120.0
"""About the edge of a lobe: a chunk of so many mm changes its spacing little (ours)."""

_SHUT = -30.0
"""Logit of a class that never is."""

_FILES = (
    *(
        f"{name}{end}"
        for name in ("regression", "segmentation")
        for end in (".json", ".safetensors")
    ),
    "segmentation.training.yaml",
)


def variant(name: str, config: PointsConfig) -> PointsConfig:
    """Return the settings of a row.

    Args:
        name: A key of :data:`ROWS`; ``points`` is as the settings say.
        config: Settings of the user.
    """
    changes: dict[str, dict[str, Any]] = {
        "points": {},
        "points_flip": {"rotate": False},
        "points_alone": {"consistency": 0.0},
        "points_lcfcn": {"loss": "lcfcn", "rotate": False},
    }
    return replace(config, **changes[name])


class PointsExperiment(Experiment):
    """Equation 1 on cubes.

    Args:
        cases: Cases with labelled voxels; those for validation are kept apart.
        config: All settings; those of ``points`` hold.
        steps: Optimiser steps.
    """

    name = NAME

    def __init__(self, cases: Sequence[CachedCase], config: Config, steps: int) -> None:
        settings = config.points
        self.settings = replace(settings, loop=replace(settings.loop, steps=steps))
        self._seed = config.seed
        self._cases = [case for case in cases if not case.validation]

    def build_network(self) -> nn.Module:
        """Return the untrained network."""
        return UNet3D(base_channels=self.settings.base_channels, prior=self.settings.prior)

    def samples(self) -> Dataset:
        """Return cubes around labelled voxels."""
        return PointPatches(self._cases, self.settings, self._seed)

    def losses(self, network: nn.Module, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return equation 1 and its two terms."""
        if step >= self.settings.freeze_norm * self.loop.steps:
            freeze_norms(network)
        return total_loss(lambda image: network(image).logits, batch, self.settings)


class PointsMethod(Method):
    """A row of the paper's table.

    Args:
        name: A key of :data:`ROWS`.
    """

    def __init__(self, name: str = NAME) -> None:
        self.name = name
        self.rows = (ROWS[name],)

    def train(self, work: Workplace) -> Path:
        """Train and export; see the base class."""
        folder = work.output / self.name
        config = replace(work.config, points=variant(self.name, work.config.points))
        work = replace(work, config=config)
        cases = labelled_cases(work, folder / "labels")
        train(PointsExperiment(cases, config, work.steps), folder, config, make_fabric(config))
        return export_points(cases, folder, work)

    def load(self, folder: Path, device: str = "cpu") -> Predictor:
        """Return the exported network; see the base class."""
        network, card = weights.load_network(folder, "segmentation")
        settings = weights.settings(folder, card, SegmentationConfig, ("spacing",))
        return NetworkPredictor(self.name, self.rows[0], network, settings.spacing, device)


def labelled_cases(work: Workplace, folder: Path) -> list[CachedCase]:
    """Return the cases with labelled voxels; with points from their truth where none has any.

    Raises:
        InputError: If no case has a labelled voxel, and one has no truth either.
    """
    if any(case.has(VOXELS_OF_SCAN) for case in work.cases):
        return list(work.cases)
    truths = find_truths(work.data, [case.name for case in work.cases])
    folder.mkdir(parents=True, exist_ok=True)
    cases = [
        CaseWithTruth(c.name, c.folder, c.validation, folder, VOXELS_OF_SCAN) for c in work.cases
    ]
    tasks = [(case, truths[case.name]) for case in cases if not case.has(VOXELS_OF_SCAN)]
    workers = work.config.prepare.workers
    for _ in in_workers(
        _save_points, tasks, workers, case=lambda task: task[0].name, setting="prepare.workers"
    ):
        pass
    return list(cases)


def _save_points(task: tuple[CaseWithTruth, Path]) -> None:
    case, truth = task
    grid = grid_image(case.meta["grids"]["segmentation"])
    lesions = geometry.array(geometry.resample(files.read_labels(truth), grid, "nearest")) > 0
    lungs = np.asarray(case.load("segmentation/lobes")) > 0
    # the same points whichever cases are beside it
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    case.save(VOXELS_OF_SCAN, sample_points(lesions & lungs, lungs, rng))


def export_points(cases: Sequence[CachedCase], run: Path, work: Workplace) -> Path:
    """Write the trained network as weights that the pipeline runs.

    It is the final segmentation network, over the whole scan, and in place of the regression also
    the map of lobe chunks, whose threshold the panel moves: the same tensors on each lobe alone,
    brought to about the spacing that they were trained at. Its values are probabilities of their
    own, so nothing is steepened and no lobe taken for free of lesions by its level.

    Args:
        cases: That it was trained on, for the cards.
        run: Folder of its training.
        work: For the cards.

    Returns:
        The folder of the weights.

    Raises:
        OutputError: If they cannot be written.
    """
    folder, config = run / "weights", work.config
    state = read_checkpoint(run)
    width, spacing = config.points.base_channels, config.segmentation.spacing
    final: dict[str, Any] = {"base_channels": width, "out_channels": 3, "padding": "valid"}
    whole = UNet3D(**final)
    whole.load_state_dict(three_classes(state["network"]))
    of_lobes: dict[str, Any] = {"base_channels": width, "attention": False}
    lobes = RegressionNetwork(**of_lobes)
    lobes.unet.load_state_dict(state["network"])
    chunk = ChunkConfig(spacing, max(2, round(LOBE_MM / spacing / STRIDE)) * STRIDE)
    card = DRAMConfig(chunk, (1.0,), config.regression.crf, 0.5, gain=0.0, least_level=0.0)
    trained = [case for case in cases if not case.validation]
    sampled = any(isinstance(case, CaseWithTruth) for case in cases)
    given = f"points taken from the truth of {len(trained)} scans"
    about: dict[str, Any] = {
        "metrics": {"steps": state["step"], "training": last_logged(run, "train")},
        "date": config.export.date or datetime.date.today().isoformat(),
        "data": [
            *(config.export.data or ("data of the user",)),
            given if sampled else describe_labels(trained),
            f"method: {ROWS[run.name]}",
        ],
        "licence": config.export.licence,
    }
    with whole_results(folder, "segmentation.json", owned=_FILES) as part:
        kind = {"type": "RegressionNetwork", "arguments": of_lobes}
        of_map = to_plain(card)
        save_network(lobes, part, "regression", architecture=kind, config=of_map, **about)
        kind = {"type": "UNet3D", "arguments": final}
        of_scan = {"spacing": spacing}
        save_network(whole, part, "segmentation", architecture=kind, config=of_scan, **about)
        write_text(dump_config(config), part / "segmentation.training.yaml")
    work.report(f"wrote {folder / 'segmentation'}.safetensors")
    return folder


def three_classes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a network with one logit as those of background, vessel and lesion.

    The softmax of (0, -30, z) is the sigmoid of z, and lesion is the largest where z > 0.
    """
    weight, bias = state["head.weight"], state["head.bias"]
    shut = torch.tensor([0.0, _SHUT], dtype=bias.dtype)
    none = torch.zeros((2, *weight.shape[1:]), dtype=weight.dtype)
    return {**state, "head.weight": torch.cat((none, weight)), "head.bias": torch.cat((shut, bias))}
