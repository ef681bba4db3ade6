"""From maps to the labels that the final network learns (paper, section III-A 5).

The maps are the dRAMs; once the final network has finished a round (:mod:`Training.stages.rounds`),
they are its own.

Each scan's label is also written as a file that Slicer opens and a person can correct. A corrected
file is never overwritten, and is used in place of the computed label; so is one that lies in the
data set (:mod:`Training.dataset.folder`), which comes before both. Lobes without a score are left
to the map's own opinion here, and :class:`Training.dataset.sampling.ScanPatches` leaves them out.

A note beside each file tells a computed label from a corrected one by its checksum. It is written
before the label gets its place, and knows the label that it replaces as well, so whenever a run is
killed, what lies there is known to be computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import SimpleITK as sitk
import torch
from scipy.ndimage import uniform_filter

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.images.intensity import HU_MAX, HU_MIN
from DRAMLesionLib.lesions import segmentation
from DRAMLesionLib.lesions.dram import DRAM, DRAMConfig, compute_dram
from DRAMLesionLib.lesions.segmentation import SegmentationConfig
from DRAMLesionLib.lesions.severity import score_to_interval
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.typed import Between, read_json
from Training.config import Config
from Training.dataset.cache import BACKGROUND, LABELS, LESION, VESSEL, CachedCase, for_lesions
from Training.dataset.files import LobeName
from Training.dataset.labels import label_on, read_pseudolabel
from Training.learning.engine import checkpoint_sum, read_checkpoint
from Training.learning.workers import in_workers
from Training.stages.prepare import grid_image
from Training.stages.regression import NAME as REGRESSION
from Training.stages.regression import RegressionExperiment

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
        teacher: Folder of the run whose network makes the map.
        networks: Checksums of that network and of the regression, and the settings.
        given: Label in the data set that takes the place of the computed one.
    """

    case: CachedCase
    output: Path
    config: Config
    teacher: Path
    networks: tuple[str, str, str]
    given: Path | None = None

    @property
    def file(self) -> Path:
        """The label as a file."""
        return self.output / NAME / f"{self.case.name}.nii.gz"

    @property
    def note(self) -> Path:
        """What the file was computed from, and its checksum at that time."""
        return self.output / NAME / f".{self.case.name}.json"

    @cached_property
    def regressed_from(self) -> str:
        """Checksum of all that the lesion fractions hang on."""
        _, regression, settings = self.networks
        vessels = self.case.fingerprint(self.config.regression.vessels)
        return _sum_of(regression, settings, vessels)

    @cached_property
    def computed_from(self) -> str:
        """Checksum of all that the label hangs on."""
        return _sum_of(self.networks[0], self.regressed_from)


@dataclass(frozen=True)
class Note:
    """What is known about the label of a scan.

    Attributes:
        computed_from: Checksum of all that it hangs on; "by hand" where a person made it.
        file: Checksum of the file as it was computed last.
        before: That of the computed file that it takes the place of, until it has its place.
        labels: Checksum of the array in the cache that belongs to it.
        fractions: Lesion fractions of the lobes, as the regression says.
        regressed_from: Checksum of all that these hang on.
    """

    computed_from: str = ""
    file: str = ""
    before: str = ""
    labels: str = ""
    fractions: dict[LobeName, Annotated[float, Between(0, 1)]] = field(default_factory=dict)
    regressed_from: str = ""


def make_pseudolabels(
    cases: Sequence[CachedCase],
    output: Path,
    config: Config,
    report: Report = lambda _: None,
    given: Mapping[str, Path] | None = None,
    teacher: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Write the pseudo-label of each case into ``output/pseudolabels`` and into the cache.

    Args:
        cases: Prepared cases.
        output: Folder of the training, with a finished regression.
        config: All settings.
        report: Called with a line of text for each case.
        given: Labels of the data sets by case, see :func:`Training.dataset.folder.find_labels`.
        teacher: Folder of the run whose network makes the maps; the regression's if left out.
        progress: Called after each case with the share that is done.

    Raises:
        InputError: If the regression was not trained, or a label by hand cannot be used.
    """
    (output / NAME).mkdir(parents=True, exist_ok=True)
    teacher = teacher or output / REGRESSION
    # how many work on it changes nothing
    settings = repr((config.regression, replace(config.pseudolabels, workers=1)))
    networks = checkpoint_sum(teacher), checkpoint_sum(output / REGRESSION), settings
    given, cases = given or {}, for_lesions(cases, config.vessels.alone)
    tasks = [
        PseudoLabelTask(c, output, config, teacher, networks, given.get(c.name)) for c in cases
    ]
    work = in_workers(
        _make_label,
        tasks,
        config.pseudolabels.workers,
        case=lambda task: task.case.name,
        setting="pseudolabels.workers",
    )
    for number, (_, line) in enumerate(work, start=1):
        report(f"{number}/{len(tasks)} {line}")
        progress(number / len(tasks))


def _make_label(task: PseudoLabelTask) -> str:
    """Make one label unless it is there; returns what was done."""
    note = _read_note(task)
    found = _checksum(task.file)
    if task.given is not None or _is_edited(found, note):
        return _take_by_hand(task, note)
    sound = task.case.is_sound(LABELS) and task.case.checksum(LABELS) == note.labels
    if sound and found == note.file and note.computed_from == task.computed_from:
        return f"{task.case.name}: there already"
    known = None
    if note.fractions and note.regressed_from == task.regressed_from:
        known = {Lobe[name]: share for name, share in note.fractions.items()}
    labels, fractions = compute_label(task.case, task.teacher, task.config, known)
    grid = grid_image(task.case.meta["grids"]["segmentation"])
    shares = {lobe.name: share for lobe, share in fractions.items()}
    try:
        note = _put(geometry.image_like(labels, grid), task, note, shares)
    except _EditedMeanwhile:
        return _take_by_hand(task, note)
    task.case.save(LABELS, labels)
    checksum = task.case.checksum(LABELS)
    note = replace(note, computed_from=task.computed_from, before="", labels=checksum)
    _write_note(task, note)
    share = float(
        (labels == LESION).sum() / max((task.case.load("segmentation/lobes") > 0).sum(), 1)
    )
    return f"{task.case.name}: {100 * share:.1f} % lesion"


class _EditedMeanwhile(Exception):
    """Somebody has saved a correction while the label was computed."""


def _put(label: sitk.Image, task: PseudoLabelTask, note: Note, fractions: dict[str, float]) -> Note:
    """Give a computed label its place; returns the note about it, which was written before."""
    with writing.whole_file(task.file, ".nii.gz") as part:
        writing.write_image(label, part)
        there = _checksum(task.file)
        if _is_edited(there, note):
            raise _EditedMeanwhile
        note = Note(
            file=_checksum(part),
            before=there,
            fractions=cast(dict[LobeName, float], fractions),
            regressed_from=task.regressed_from,
        )
        _write_note(task, note)
    return note


def _is_edited(found: str, note: Note) -> bool:
    return bool(found) and found not in (note.file, note.before)


def _take_by_hand(task: PseudoLabelTask, note: Note) -> str:
    """Bring a label by a person into the cache."""
    task.case.save(LABELS, _by_hand(task.given or task.file, task.case))
    # so that the label is computed again once the corrected one is taken away
    _write_note(task, replace(note, computed_from="by hand"))
    return f"{task.case.name}: {'from the data set' if task.given else 'edited by hand, kept'}"


def _read_note(task: PseudoLabelTask) -> Note:
    """Return what is known about a label; an empty note if it was not made yet.

    Raises:
        InputError: If the note is damaged: it is all that tells a corrected label from another.
    """
    if not task.note.is_file():
        return Note()
    try:
        return read_json(task.note, Note)
    except InputError as error:
        message = (
            f"{task.note} is damaged ({error}): remove it, and {task.file.name} is kept as "
            f"corrected by hand; remove both, and it is computed again"
        )
        raise InputError(message) from error


def _write_note(task: PseudoLabelTask, note: Note) -> None:
    writing.write_text(json.dumps(asdict(note)) + "\n", task.note)


def compute_label(
    case: CachedCase, teacher: Path, config: Config, fractions: Mapping[Lobe, float] | None = None
) -> tuple[np.ndarray, Mapping[Lobe, float]]:
    """Compute a scan's label: 0 background, 1 vessel, 2 lesion.

    How much of a lobe is lesion is the regression's to say, whoever says where: a network that
    learnt from labels with mistakes finds less than was labelled, and less in every round.

    Args:
        case: The prepared case.
        teacher: Folder of the run whose network makes the map.
        config: All settings.
        fractions: Lesion fractions of the lobes, if the regression has been asked already.

    Returns:
        (k, j, i) uint8 on the grid of the final network, and the lesion fractions of the lobes;
        none where each lobe is scored 0, for which the regression was not asked.
    """
    target = grid_image(case.meta["grids"]["segmentation"])
    lobes = np.asarray(case.load("segmentation/lobes"))
    found = _vessel_image(case, config)
    labels = np.full(lobes.shape, BACKGROUND, dtype=np.uint8)
    if found is not None:
        labels[geometry.array(geometry.resample(found, target, "labels")) > 0] = VESSEL
    if config.pseudolabels.use_scores and _is_free(case, lobes):
        return labels, {}
    of_regression = teacher.name == REGRESSION
    if of_regression or fractions is None:
        maps = compute_maps(case, teacher.with_name(REGRESSION), config)
        fractions = maps.fractions
    if of_regression:
        chosen = maps.refined if config.pseudolabels.refined else maps.dram
        values = geometry.array(geometry.resample(chosen, target))
        lesion = values > config.regression.threshold
        eligible = lobes * (labels != VESSEL)
    else:
        shares = final_probabilities(case, teacher, config)
        values, lesion, eligible = shares[LESION], segmentation.lesion_margin(shares) > 0, lobes
    if config.pseudolabels.match_scores:
        lesion = _most_likely(values, eligible, case, fractions)
    if config.pseudolabels.use_scores:
        clear = [lobe for lobe, score in case.scores.items() if score == 0]
        lesion &= ~np.isin(lobes, clear)
    labels[lesion] = LESION
    if config.pseudolabels.fill_vessels:
        labels[_vessels_in_lesions(labels, lobes)] = LESION
    return labels, fractions


def _is_free(case: CachedCase, lobes: np.ndarray) -> bool:
    """Tell whether each lobe of a scan is scored 0, so that no network has to be asked."""
    return all(case.scores.get(lobe) == 0 for lobe in Lobe if (lobes == lobe).any())


def final_probabilities(case: CachedCase, run: Path, config: Config) -> np.ndarray:
    """Compute what the final network makes of a prepared case.

    Args:
        case: The prepared case.
        run: Folder of the network's run.
        config: All settings.

    Returns:
        (3, k, j, i) float32 probabilities of background, vessel and lesion, on the network's grid.
    """
    settings = config.segmentation
    network = UNet3D(
        out_channels=segmentation.CLASSES, base_channels=settings.base_channels, padding="valid"
    ).eval()
    network.load_state_dict(read_checkpoint(run)["network"])
    grid = grid_image(case.meta["grids"]["segmentation"])
    lungs = (np.asarray(case.load("segmentation/lobes")) > 0).astype(np.uint8)
    return segmentation.segment(
        network,
        geometry.image_like(_hu(case, "segmentation/image"), grid),
        geometry.image_like(lungs, grid),
        SegmentationConfig(settings.spacing),
    )


def _hu(case: CachedCase, name: str) -> np.ndarray:
    return HU_MIN + (HU_MAX - HU_MIN) * case.load(name).astype(np.float32)


def compute_maps(case: CachedCase, run: Path, config: Config) -> DRAM:
    """Compute the dRAM and the refined dRAM of a prepared case.

    Args:
        case: The prepared case.
        run: Folder of the finished regression.
        config: All settings.

    Returns:
        Maps on the grid of the lobe chunks.
    """
    settings = config.regression
    network = cast(RegressionNetwork, RegressionExperiment([], config).build_network())
    network.load_state_dict(read_checkpoint(run)["network"])
    grid = grid_image(case.meta["grids"]["regression"])
    return compute_dram(
        network.eval(),
        geometry.image_like(_hu(case, "regression/image"), grid),
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
    values: np.ndarray, lobes: np.ndarray, case: CachedCase, fractions: Mapping[Lobe, float]
) -> np.ndarray:
    """Return in each lobe the voxels of highest value, as many as its score allows."""
    lesion = np.zeros(values.shape, dtype=bool)
    for lobe, score in case.scores.items():
        inside = np.flatnonzero(lobes == lobe)
        if score == 0 or not inside.size:
            continue
        # without a score, what the regression says is all that is known
        allowed = (0.0, 1.0) if score is None else score_to_interval(score)
        share = float(np.clip(fractions.get(lobe, 0.0), *allowed))
        # by rank: a cut at a quantile would lose all voxels of a map that is 1 almost everywhere
        order = np.argsort(values.flat[inside], kind="stable")
        lesion.flat[inside[order[inside.size - round(share * inside.size) :]]] = True
    return lesion


def _by_hand(path: Path, case: CachedCase) -> np.ndarray:
    """Read a label that a person made, onto the grid of the final network."""
    return label_on(
        read_pseudolabel(path), grid_image(case.meta["grids"]["segmentation"]), str(path)
    )


def _checksum(path: Path) -> str:
    """Return the SHA-256 of a file; nothing if it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _sum_of(*words: str) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()
