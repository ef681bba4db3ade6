"""From dRAMs to the labels that the final network learns (paper, section III-A 5).

Each scan's label is also written as a file that Slicer opens and a person can correct. A corrected
file is never overwritten, and is used in place of the computed label; so is one that lies in the
data set (:mod:`Training.data`), which comes before both. Lobes without a score are left to the
map's own opinion here, and :class:`Training.sampling.ScanPatches` leaves them out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import SimpleITK as sitk
import torch
from scipy.ndimage import uniform_filter

from DRAMLesionLib import geometry, io
from DRAMLesionLib.dram import DRAM, DRAMConfig, compute_dram
from DRAMLesionLib.intensity import HU_MAX, HU_MIN
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.severity import score_to_interval
from Training.cache import BACKGROUND, LESION, VESSEL, CachedCase
from Training.config import Config
from Training.data import write_whole
from Training.engine import read_checkpoint
from Training.stages.prepare import grid_image
from Training.stages.regression import NAME as REGRESSION
from Training.stages.regression import RegressionExperiment
from Training.verify import label_on
from Training.workers import in_workers

NAME = "pseudolabels"
_AROUND_VOXELS = 7
"""Edge of the cube that decides what a vessel lies in."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class PseudoLabelTask:
    """What a worker needs for the label of one scan.

    Attributes:
        case: The prepared case.
        output: Folder of the training.
        config: All settings.
        computed_from: Checksum of the network and the settings that the label hangs on.
        given: Label in the data set that takes the place of the computed one.
    """

    case: CachedCase
    output: Path
    config: Config
    computed_from: str
    given: Path | None = None

    @property
    def file(self) -> Path:
        """The label as a file."""
        return self.output / NAME / f"{self.case.name}.nii.gz"

    @property
    def note(self) -> Path:
        """What the file was computed from, and its checksum at that time."""
        return self.output / NAME / f".{self.case.name}.json"


def make_pseudolabels(
    cases: Sequence[CachedCase],
    output: Path,
    config: Config,
    report: Report = lambda _: None,
    given: Mapping[str, Path] | None = None,
) -> None:
    """Write the pseudo-label of each case into ``output/pseudolabels`` and into the cache.

    Args:
        cases: Prepared cases.
        output: Folder of the training, with a finished regression.
        config: All settings.
        report: Called with a line of text for each case.
        given: Labels of the data sets by case, see :func:`Training.data.find_labels`.

    Raises:
        InputError: If the regression was not trained, or a label by hand cannot be used.
    """
    (output / NAME).mkdir(parents=True, exist_ok=True)
    checkpoint = output / REGRESSION / "checkpoint.pt"
    read_checkpoint(checkpoint.parent)
    settings = repr((config.regression, config.pseudolabels)).encode()
    origin = hashlib.sha256(checkpoint.read_bytes() + settings).hexdigest()
    given = given or {}
    tasks = [PseudoLabelTask(c, output, config, origin, given.get(c.name)) for c in cases]
    workers = config.pseudolabels.workers
    for number, (_, line) in enumerate(in_workers(_make_label, tasks, workers), start=1):
        report(f"{number}/{len(tasks)} {line}")


def _make_label(task: PseudoLabelTask) -> str:
    """Make one label unless it is there; returns what was done."""
    note = json.loads(task.note.read_text(encoding="utf-8")) if task.note.is_file() else {}
    edited = task.file.is_file() and note.get("file") != _checksum(task.file)
    if task.given is not None or edited:
        task.case.save("segmentation/labels", _by_hand(task.given or task.file, task.case))
        # so that the label is computed again once the corrected one is taken away
        write_whole(task.note, json.dumps({**note, "computed_from": "by hand"}) + "\n")
        return f"{task.case.name}: {'from the data set' if task.given else 'edited by hand, kept'}"
    current = note.get("computed_from") == task.computed_from
    if current and task.file.is_file() and task.case.has("segmentation/labels"):
        return f"{task.case.name}: there already"
    labels = compute_label(task.case, task.output, task.config)
    grid = grid_image(task.case.meta["grids"]["segmentation"])
    io.write_image(geometry.image_like(labels, grid), task.file)
    task.case.save("segmentation/labels", labels)
    content = {"computed_from": task.computed_from, "file": _checksum(task.file)}
    write_whole(task.note, json.dumps(content) + "\n")
    share = float(
        (labels == LESION).sum() / max((task.case.load("segmentation/lobes") > 0).sum(), 1)
    )
    return f"{task.case.name}: {100 * share:.1f} % lesion"


def compute_label(case: CachedCase, output: Path, config: Config) -> np.ndarray:
    """Compute a scan's label: 0 background, 1 vessel, 2 lesion.

    Args:
        case: The prepared case.
        output: Folder of the training.
        config: All settings.

    Returns:
        (k, j, i) uint8 on the grid of the final network.
    """
    settings = config.regression
    target = grid_image(case.meta["grids"]["segmentation"])
    maps = compute_maps(case, output, config)
    found = _vessel_image(case, config)
    chosen = maps.refined if config.pseudolabels.refined else maps.dram
    values = geometry.array(geometry.resample(chosen, target))
    labels = np.full(values.shape, BACKGROUND, dtype=np.uint8)
    if found is not None:
        labels[geometry.array(geometry.resample(found, target, "labels")) > 0] = VESSEL
    lobes = np.asarray(case.load("segmentation/lobes"))
    if config.pseudolabels.match_scores:
        lesion = _most_likely(values, (labels != VESSEL) * lobes, case, maps.fractions)
    else:
        lesion = values > settings.threshold
    if config.pseudolabels.use_scores:
        clear = [lobe for lobe, score in case.scores.items() if score == 0]
        lesion &= ~np.isin(lobes, clear)
    labels[lesion] = LESION
    if config.pseudolabels.fill_vessels:
        labels[_vessels_in_lesions(labels, lobes)] = LESION
    return labels


def compute_maps(case: CachedCase, output: Path, config: Config) -> DRAM:
    """Compute the dRAM and the refined dRAM of a prepared case.

    Args:
        case: The prepared case.
        output: Folder of the training, with a finished regression.
        config: All settings.

    Returns:
        Maps on the grid of the lobe chunks.
    """
    settings = config.regression
    network = cast(RegressionNetwork, RegressionExperiment([], config).build_network())
    network.load_state_dict(read_checkpoint(output / REGRESSION)["network"])
    grid = grid_image(case.meta["grids"]["regression"])
    hu = HU_MIN + (HU_MAX - HU_MIN) * case.load("regression/image").astype(np.float32)
    return compute_dram(
        network.eval(),
        geometry.image_like(hu, grid),
        geometry.image_like(np.array(case.load("regression/lobes")), grid),
        _vessel_image(case, config) if settings.suppress_vessels else None,
        DRAMConfig(settings.chunk, settings.scales, settings.crf, settings.threshold),
        torch.device("cpu"),
    )


def _vessel_image(case: CachedCase, config: Config) -> sitk.Image | None:
    vessels = case.vessels(config.regression.vessels)
    if vessels is None:
        return None
    return geometry.image_like(np.array(vessels), grid_image(case.meta["grids"]["regression"]))


def _vessels_in_lesions(labels: np.ndarray, lobes: np.ndarray) -> np.ndarray:
    """Return the vessel voxels of which most of the lung around them, vessels apart, is lesion."""
    lesion = uniform_filter((labels == LESION).astype(np.float32), _AROUND_VOXELS)
    other = (lobes > 0) & (labels != VESSEL)
    lung = uniform_filter(other.astype(np.float32), _AROUND_VOXELS)
    return (labels == VESSEL) & (lobes > 0) & (lesion > 0.5 * lung) & (lesion > 0)


def _most_likely(
    values: np.ndarray, lobes: np.ndarray, case: CachedCase, fractions: dict[Lobe, float]
) -> np.ndarray:
    """Return in each lobe the voxels of highest value, as many as its score allows."""
    lesion = np.zeros(values.shape, dtype=bool)
    for lobe, score in case.scores.items():
        inside = lobes == lobe
        if score == 0 or not inside.any():
            continue
        # without a score, what the network says is all that is known
        allowed = (0.0, 1.0) if score is None else score_to_interval(score)
        share = float(np.clip(fractions.get(lobe, 0.0), *allowed))
        lesion |= inside & (values > np.quantile(values[inside], 1.0 - share))
    return lesion


def _by_hand(path: Path, case: CachedCase) -> np.ndarray:
    """Read a label that a person made, onto the grid of the final network."""
    return label_on(io.read_labels(path), grid_image(case.meta["grids"]["segmentation"]), str(path))


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
