"""A reader's small training set and weights that mark too much, made in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from DRAMLesionLib.lesions.severity import fraction_to_score
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.regression import RegressionNetwork
from Testing.fuzz import chest
from Testing.library.small_weights import dense_voxels, write_weights
from Training.dataset.scores import write_scores

SETTINGS = (
    *("threads=1", "prepare.workers=1", "pseudolabels.workers=1"),
    *("regression.crf.iterations=1", "regression.loop.steps=3", "regression.loop.batch=2"),
    *("regression.loop.tensorboard=false", "segmentation.loop.tensorboard=false"),
    *("segmentation.patch=20", "segmentation.border=2", "segmentation.loop.batch=2"),
    *("segmentation.loop.steps=30", "segmentation.optimiser.learning_rate=5e-4"),
    *("segmentation.optimiser.warmup=2",),
    *("segmentation.augmentation.thick_slices=0", "segmentation.augmentation.spacing_jitter=0"),
)
"""Quick settings for the command ``improve``."""


def write_case(folder: Path, name: str, radius_mm: float = 18.0, labelled: bool = True) -> None:
    """Add a chest with a dense ball in its right lower lobe, its scores and a corrected label."""
    ct, lobes = sitk.Image(chest.ct()), sitk.GetArrayFromImage(chest.lobes())
    voxels = sitk.GetArrayFromImage(ct)
    k, j, i = np.indices(voxels.shape)
    centre = [int(n) for n in np.argwhere(lobes == Lobe.RLL).mean(axis=0)]
    steps = np.stack([k - centre[0], j - centre[1], i - centre[2]]) * np.reshape(
        chest.SPACING[::-1], (3, 1, 1, 1)
    )
    ball = (np.linalg.norm(steps, axis=0) < radius_mm) & (lobes > 0)
    voxels[ball] = -250
    # no two cases are one scan
    voxels = voxels + np.random.default_rng([ord(c) for c in name]).integers(-3, 4, voxels.shape)
    for part, values in (
        ("scans", voxels.astype(np.int16)),
        ("lobes", lobes),
        ("pseudolabels", np.where(ball, 2, 0).astype(np.uint8)),
    ):
        if part == "pseudolabels" and not labelled:
            continue
        image = sitk.GetImageFromArray(values)
        image.CopyInformation(ct)
        (folder / part).mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(folder / part / f"{name}.nii.gz"))
    scores = {lobe: fraction_to_score(float(ball[lobes == lobe].mean())) for lobe in Lobe}
    table = folder / "scores.csv"
    known = {}
    if table.is_file():
        from Training.dataset.scores import read_scores

        known = read_scores(table)[0]
    write_scores(table, {**known, name: scores})


def write_set(folder: Path, count: int = 4) -> Path:
    """Write some cases with balls of different sizes."""
    for number in range(count):
        write_case(folder, f"case-{number + 1:04d}", 16.0 + 3.0 * number)
    return folder


def write_eager_weights(folder: Path) -> Path:
    """Write networks whose segmentation calls lung a lesion, too, the densest most surely so."""
    torch.manual_seed(0)
    segmentation = dense_voxels()
    with torch.no_grad():
        segmentation.head.weight[2, 0] = 30.0
        segmentation.head.bias[2] = -6.6
    return write_weights(
        folder,
        RegressionNetwork(base_channels=1, attention=False),
        segmentation,
        chunk_size=16,
        source="nothing: set by hand",
        metrics={},
    )
