"""The ceiling: our final network, taught by true masks instead of pseudo-labels.

Network, patches, augmentation and inference are those of :mod:`Training.stages.segmentation`. The
labels have its three classes too; vessels are those of the Frangi reference, as in our
pseudo-labels, so that nothing differs but the lesions. It starts from scratch and takes as many
steps as our two networks together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import SimpleITK as sitk
from torch import nn

from DRAMLesionLib.devices import pick_device
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions import segmentation
from DRAMLesionLib.lesions.segmentation import SegmentationConfig
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.reading import files
from Training.config import Config, SegmentationTrainingConfig
from Training.dataset.cache import BACKGROUND, LESION, VESSEL, CachedCase, CaseWithTruth
from Training.dataset.folder import TRUTH
from Training.learning.engine import make_fabric, read_run, train
from Training.learning.workers import in_workers
from Training.methods.base import MaskPredictor, Method, Predictor, Workplace
from Training.stages.prepare import grid_image
from Training.stages.segmentation import CLASSES, SegmentationExperiment

NAME = "supervised"
ROW = "U-Net supervised"
LABELS = "segmentation/labels"


class SupervisedExperiment(SegmentationExperiment):
    """The final network on true labels.

    Args:
        cases: Cases with true labels.
        config: All settings; those of the segmentation hold.
        steps: Optimiser steps.
    """

    name = NAME

    def __init__(self, cases: Sequence[CachedCase], config: Config, steps: int) -> None:
        loop = replace(config.segmentation.loop, steps=steps)
        # the truth is to be trusted, and there is no regression to start from
        settings = replace(config.segmentation, loop=loop, start="scratch", rounds=1, beta=1.0)
        super().__init__(cases, replace(config, segmentation=settings), Path())


class SupervisedMethod(Method):
    """The U-Net on true masks."""

    name = NAME
    rows = (ROW,)

    def train(self, work: Workplace) -> Path:
        """Make labels of the truth and train on them; see the base class."""
        folder = work.output / NAME
        cases = true_cases(work, folder / "labels")
        experiment = SupervisedExperiment(cases, work.config, work.steps)
        train(experiment, folder, work.config, make_fabric(work.config))
        return folder

    def load(self, folder: Path, device: str = "cpu") -> Predictor:
        """Return the trained network; see the base class."""
        config, tensors = read_run(folder, SegmentationTrainingConfig)
        network = UNet3D(out_channels=CLASSES, base_channels=config.base_channels, padding="valid")
        network.load_state_dict(tensors)
        return NetworkPredictor(NAME, ROW, network, config.spacing, device)


def true_cases(work: Workplace, folder: Path) -> list[CaseWithTruth]:
    """Return the cases with labels of their truth, which are written where they are missing.

    Raises:
        InputError: If a case has no truth.
    """
    truths = find_truths(work.data, [case.name for case in work.cases])
    folder.mkdir(parents=True, exist_ok=True)
    cases = [CaseWithTruth(c.name, c.folder, c.validation, folder, LABELS) for c in work.cases]
    tasks = [(case, truths[case.name]) for case in cases if not case.has(LABELS)]
    workers = work.config.prepare.workers
    for _ in in_workers(
        _save_labels, tasks, workers, case=lambda task: task[0].name, setting="prepare.workers"
    ):
        pass
    return cases


def find_truths(data: Sequence[Path], names: Sequence[str]) -> dict[str, Path]:
    """Return the file with the true lesions of each case.

    Raises:
        InputError: If a case has none.
    """
    candidates = {
        name: [path for d in data if (path := d / TRUTH / "lesions" / f"{name}.nii.gz").is_file()]
        for name in names
    }
    if missing := sorted(name for name, paths in candidates.items() if not paths):
        message = (
            f"{len(missing)} cases have no truth to learn from, such as {missing[0]} "
            f"(looked for {TRUTH}/lesions/{missing[0]}.nii.gz); leave the supervised methods out"
        )
        raise InputError(message)
    return {name: paths[0] for name, paths in candidates.items()}


def _save_labels(task: tuple[CaseWithTruth, Path]) -> None:
    case, truth = task
    grid = grid_image(case.meta["grids"]["segmentation"])
    lesions = geometry.resample(files.read_labels(truth), grid, "nearest")
    labels = np.full(geometry.array(lesions).shape, BACKGROUND, dtype=np.uint8)
    if case.has("regression/vessels"):
        fine = grid_image(case.meta["grids"]["regression"])
        vessels = geometry.image_like(np.array(case.load("regression/vessels")), fine)
        labels[geometry.array(geometry.resample(vessels, grid, "labels")) > 0] = VESSEL
    labels[geometry.array(lesions) > 0] = LESION
    case.save(LABELS, labels)


class NetworkPredictor(MaskPredictor):
    """A final segmentation network over the whole scan, as in the pipeline.

    Args:
        name: Of the method.
        row: Of its row in the tables.
        network: With three classes.
        spacing: Of its grid in mm.
        device: Where to compute.
    """

    def __init__(
        self, name: str, row: str, network: nn.Module, spacing: float, device: str = "cpu"
    ) -> None:
        super().__init__()
        self.name, self.row = name, row
        self._config = SegmentationConfig(spacing=spacing)
        self._device = pick_device(device)
        self._network = cast(UNet3D, network.to(self._device).eval())

    def segment(self, ct: sitk.Image, lungs: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
        """Run the network; see the base class."""
        grid = geometry.working_grid(ct, self._config.spacing)
        coarse = geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True)
        inside = geometry.resample(lungs, grid, "nearest")
        shares = segmentation.segment(self._network, coarse, inside, self._config, self._device)
        margin = geometry.image_like(segmentation.lesion_margin(shares), grid)
        found = sitk.Cast(geometry.resample(margin, ct, fill=-1.0) > 0, sitk.sitkUInt8)
        share = geometry.image_like(shares[segmentation.LESION], grid)
        return found, geometry.resample(share, ct)
