"""What networks make of validation cases, and pictures of it.

The segmentation is measured on its working grid, cleaned as at inference, but that what gravity
makes in expiration is left in; the regression by the lobe fractions at its own chunk size. Both
read the prepared cache, so nothing is read or checked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image

from DRAMLesionLib.images.boxes import bounding_box
from DRAMLesionLib.images.intensity import HU_MAX, HU_MIN
from DRAMLesionLib.lesions.segmentation import (
    SegmentationConfig,
    lesions_on_grid,
)
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.report import drawing
from Training.config import Config
from Training.dataset.cache import LESION, CachedCase
from Training.dataset.labels import label_on, read_pseudolabel
from Training.dataset.sampling import LobeChunks
from Training.improvement.verdict import CaseFigures, LobeFigures
from Training.learning import losses
from Training.learning.engine import read_checkpoint
from Training.metrics import Confusion
from Training.stages.prepare import grid_image
from Training.stages.pseudolabels import final_probabilities
from Training.stages.regression import RegressionExperiment

_PIXELS = 320
"""Width of a slice in a picture, about."""

_MARGIN = 4
_GAP = 6
_READER, _FOUND = 1, 2
"""Colours of :data:`DRAMLesionLib.report.drawing.TYPE_COLOURS`: blue and red."""


@dataclass(frozen=True)
class MeasureTask:
    """What a worker needs to measure the segmentation of one case.

    Attributes:
        case: The prepared case.
        run: Folder of the network's run.
        config: All settings.
        label: The pseudo-label that a reader corrected, if there is one.
    """

    case: CachedCase
    run: Path
    config: Config
    label: Path | None


@dataclass(frozen=True)
class Measured:
    """A case as the segmentation network sees it.

    Attributes:
        figures: See the class.
        found: (k, j, i) bool lesion on the network's grid.
    """

    figures: CaseFigures
    found: np.ndarray


def measure_segmentation(task: MeasureTask) -> Measured:
    """Find the lesions of a case, and compare them with its scores and its corrected label."""
    case, config = task.case, task.config
    lobes = np.asarray(case.load("segmentation/lobes"))
    _, found, _ = lesions_on_grid(
        final_probabilities(case, task.run, config),
        _hu(case, slice(None)),
        lobes > 0,
        SegmentationConfig(config.segmentation.spacing),
    )
    figures = {
        lobe.name: LobeFigures(score, float(found[lobes == lobe].mean()))
        for lobe, score in case.scores.items()
        if score is not None and (lobes == lobe).any()
    }
    dice = None
    if task.label is not None:
        dice = Confusion.of(found, readers_label(case, task.label), lobes > 0).dice
    return Measured(CaseFigures(figures, dice), found)


def readers_label(case: CachedCase, path: Path) -> np.ndarray:
    """Return the lesions that a reader corrected, (k, j, i) bool on the segmentation's grid."""
    grid = grid_image(case.meta["grids"]["segmentation"])
    return label_on(read_pseudolabel(path), grid, str(path)) == LESION


def _hu(case: CachedCase, where: int | slice) -> np.ndarray:
    image = case.load("segmentation/image")[where]
    return HU_MIN + (HU_MAX - HU_MIN) * image.astype(np.float32)


@torch.no_grad()
def measure_regression(
    cases: Sequence[CachedCase], run: Path, config: Config
) -> dict[str, CaseFigures]:
    """Return the lesion fractions of the scored lobes by case.

    Args:
        cases: Prepared cases with at least one scored lobe each.
        run: Folder of the network's run.
        config: All settings.
    """
    network = cast(RegressionNetwork, RegressionExperiment([], config).build_network())
    network.load_state_dict(read_checkpoint(run)["network"])
    network.eval()
    samples = LobeChunks(cases, config.regression, config.seed, augment=False)
    found: dict[str, dict[str, LobeFigures]] = {case.name: {} for case in cases}
    for number, (case, lobe, _, score) in enumerate(samples.items):
        sample = samples[number]
        dram = torch.sigmoid(network(sample["image"][None]).dram)
        share = float(losses.masked_mean(dram, sample["mask"][None]))
        found[case.name][lobe.name] = LobeFigures(score, share)
    return {name: CaseFigures(lobes) for name, lobes in found.items()}


def before_and_after(
    case: CachedCase, before: np.ndarray, after: np.ndarray, label: Path | None
) -> bytes:
    """Draw the axial slice with most lesion twice, before on the left, after on the right.

    What the network finds is outlined in red, the reader's corrected label in blue.

    Args:
        case: The prepared case.
        before: (k, j, i) bool, from :func:`measure_segmentation`.
        after: Likewise.
        label: The reader's label, if there is one.

    Returns:
        A PNG file.
    """
    lobes = np.asarray(case.load("segmentation/lobes")) > 0
    known = readers_label(case, label) if label is not None else None
    most = known if known is not None and known.any() else before | after
    counts = (most if most.any() else lobes).sum(axis=(1, 2))
    k = int(counts.argmax())
    box = bounding_box(lobes, margin=_MARGIN)[1:]
    hu = _hu(case, k)[box]
    factor = max(1, round(_PIXELS / hu.shape[1]))
    size = (hu.shape[1] * factor, hu.shape[0] * factor)
    slices = []
    for found in (before, after):
        outlines = {_FOUND: _enlarged(found[k][box], size)}
        if known is not None:
            outlines[_READER] = _enlarged(known[k][box], size)
        picture = drawing.grey(hu).resize(size, Image.Resampling.BILINEAR)
        slices.append(drawing.with_outlines(picture, {}, outlines))
    both = Image.new("RGB", (2 * size[0] + _GAP, size[1]), (255, 255, 255))
    for number, picture in enumerate(slices):
        both.paste(picture, (number * (size[0] + _GAP), 0))
    return drawing.png(both)


def _enlarged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the share of each pixel of a larger picture."""
    picture = Image.fromarray(mask.astype(np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def contradictions(case: CachedCase, label: Path) -> list[str]:
    """Name the lobes whose score is another than that of the reader's own label, in sentences."""
    lesion = readers_label(case, label)
    lobes = np.asarray(case.load("segmentation/lobes"))
    found = []
    for lobe, score in case.scores.items():
        inside = lobes == lobe
        if score is None or not inside.any():
            continue
        figures = LobeFigures(score, float(lesion[inside].mean()))
        if not figures.in_interval:
            found.append(
                f"{case.name}: the corrected pseudo-label marks {100 * figures.share:.1f} % of the "
                f"{lobe.full_name}, which has the score {score}: one of the two is wrong"
            )
    return found
