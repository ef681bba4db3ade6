"""From maps to the labels that the final network learns (paper, section III-A 5).

The maps are the dRAMs; once the final network has finished a round (:mod:`Training.stages.rounds`),
they are its own.

Each scan's label is also written as a file that Slicer opens and a person can correct. A corrected
file is never overwritten, and is used in place of the computed label; so is one that lies in the
data set (:mod:`Training.dataset.folder`), which comes before both. Lobes without a label are left
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
from DRAMLesionLib.lesions.severity import MAX_SCORE, score_to_interval
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.typed import Between, read_json
from Training.config import Config, RegressionConfig
from Training.dataset.cache import (
    BACKGROUND,
    LABELS,
    LESION,
    MAP,
    VESSEL,
    VOXELS_OF_SCAN,
    CachedCase,
    for_lesions,
)
from Training.dataset.files import LobeName
from Training.dataset.labels import label_on, read_pseudolabel
from Training.dataset.regions import fit_shares
from Training.learning.engine import checkpoint_sum, read_checkpoint
from Training.learning.workers import in_workers
from Training.stages.prepare import grid_image
from Training.stages.regression import NAME as REGRESSION
from Training.stages.regression import RegressionExperiment

NAME = "pseudolabels"
_FILLINGS = 3
"""How often the amount of the map is corrected for the vessels that were filled."""

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
        shares: How much of each lobe is to be lesion; left to the case alone if left out.
    """

    case: CachedCase
    output: Path
    config: Config
    teacher: Path
    networks: tuple[str, str, str]
    given: Path | None = None
    shares: Mapping[Lobe, float] | None = None

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
        others = () if self.shares is None else (repr(sorted(self.shares.items())),)
        return _sum_of(self.networks[0], self.regressed_from, *others)


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
        map: Checksum of the map in the cache that was computed with them and waits for its label.
    """

    computed_from: str = ""
    file: str = ""
    before: str = ""
    labels: str = ""
    fractions: dict[LobeName, Annotated[float, Between(0, 1)]] = field(default_factory=dict)
    regressed_from: str = ""
    map: str = ""


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
    matched = config.pseudolabels.match_scores
    if matched and config.pseudolabels.amounts == "ranks":
        tasks = _with_ranked_shares(tasks, config, report, lambda done: progress(done / 2))
        # the two halves of the work
        honest, progress = progress, lambda done: honest((1 + done) / 2)
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


def _with_ranked_shares(
    tasks: Sequence[PseudoLabelTask],
    config: Config,
    report: Report,
    progress: Callable[[float], None],
) -> list[PseudoLabelTask]:
    """Return the tasks with the shares that their lobes get beside all others of one score."""
    work = in_workers(
        _regress,
        tasks,
        config.pseudolabels.workers,
        case=lambda task: task.case.name,
        setting="pseudolabels.workers",
    )
    found: dict[str, Mapping[Lobe, float]] = {}
    for number, (task, (fractions, is_new)) in enumerate(work, start=1):
        if fractions is not None:
            found[task.case.name] = fractions
        if is_new:
            report(f"{number}/{len(tasks)} {task.case.name}: how much of each lobe is lesion")
        progress(number / len(tasks))
    shares = ranked_shares({t.case.name: t.case.scores for t in tasks}, found)
    return [
        replace(task, shares=shares[task.case.name]) if task.case.name in found else task
        for task in tasks
    ]


def _regress(task: PseudoLabelTask) -> tuple[Mapping[Lobe, float] | None, bool]:
    """Return the lesion fractions of a scan, and whether they were computed now.

    There are none if the label hangs on none: each lobe is scored 0, or a person made it before
    they were known. Those of a label that was corrected later keep their place among the others,
    whose labels are then as they were. They are written down, and the map that was computed with
    them is kept until the label is made.
    """
    note = _read_note(task)
    known = {Lobe[name]: share for name, share in note.fractions.items()}
    if task.given is not None or _is_edited(_checksum(task.file), note):
        return (known or None) if note.regressed_from == task.regressed_from else None, False
    lobes = np.asarray(task.case.load("segmentation/lobes"))
    if task.config.pseudolabels.use_scores and _is_free(task.case, lobes):
        return None, False
    is_new = note.regressed_from != task.regressed_from
    if is_new:
        maps = compute_maps(task.case, task.teacher.with_name(REGRESSION), task.config)
        shares = {lobe.name: share for lobe, share in maps.fractions.items()}
        kept = ""
        if task.teacher.name == REGRESSION:
            task.case.save(MAP, _values(maps, task.case, task.config))
            kept = task.case.checksum(MAP)
        note = replace(
            note,
            fractions=cast(dict[LobeName, float], shares),
            regressed_from=task.regressed_from,
            map=kept,
        )
        _write_note(task, note)
    return {Lobe[name]: share for name, share in note.fractions.items()}, is_new


def ranked_shares(
    scores: Mapping[str, Mapping[Lobe, int | None]], fractions: Mapping[str, Mapping[Lobe, float]]
) -> dict[str, dict[Lobe, float]]:
    """Spread the lobes of each score over its interval, in the order of their predicted fractions.

    A young network knows which of two lobes has more lesion before it knows how much. Its
    fractions, clipped to the interval, would lie on a bound for most of the lobes.

    Args:
        scores: Of each lobe, by case.
        fractions: What the regression says, by case; only these cases are ranked.

    Returns:
        By case, the share of each lobe: the middle of its place among the lobes of its score. A
        lobe without a score keeps its fraction.
    """
    shares: dict[str, dict[Lobe, float]] = {name: dict(found) for name, found in fractions.items()}
    for score in range(MAX_SCORE + 1):
        low, high = score_to_interval(score)
        ranked = sorted(
            (fraction, name, lobe)
            for name, found in fractions.items()
            for lobe, fraction in found.items()
            if scores[name].get(lobe) == score
        )
        for place, (_, name, lobe) in enumerate(ranked):
            shares[name][lobe] = low + (high - low) * (place + 0.5) / len(ranked)
    return shares


def clipped_shares(
    scores: Mapping[Lobe, int | None], fractions: Mapping[Lobe, float]
) -> dict[Lobe, float]:
    """Return each lobe's predicted fraction, clipped to the interval of its score if it has one."""
    shares = {}
    for lobe, score in scores.items():
        allowed = (0.0, 1.0) if score is None else score_to_interval(score)
        shares[lobe] = float(np.clip(fractions.get(lobe, 0.0), *allowed))
    return shares


def _make_label(task: PseudoLabelTask) -> str:
    """Make one label unless it is there; returns what was done."""
    note = _read_note(task)
    found = _checksum(task.file)
    if task.given is not None or _is_edited(found, note):
        return _take_by_hand(task, note)
    sound = task.case.is_sound(LABELS) and task.case.checksum(LABELS) == note.labels
    if sound and found == note.file and note.computed_from == task.computed_from:
        task.case.remove(MAP)  # a run may have been killed before it came to that
        return f"{task.case.name}: there already"
    known = None
    if note.fractions and note.regressed_from == task.regressed_from:
        known = {Lobe[name]: share for name, share in note.fractions.items()}
    kept = None
    if known is not None and note.map and task.case.checksum(MAP) == note.map:
        kept = np.array(task.case.load(MAP))
    labels, fractions = compute_label(
        task.case, task.teacher, task.config, known, task.shares, kept
    )
    grid = grid_image(task.case.meta["grids"]["segmentation"])
    shares = {lobe.name: share for lobe, share in fractions.items()}
    try:
        note = _put(geometry.image_like(labels, grid), task, note, shares)
    except _EditedMeanwhile:
        return _take_by_hand(task, note)
    task.case.save(LABELS, labels)
    checksum = task.case.checksum(LABELS)
    note = replace(note, computed_from=task.computed_from, before="", labels=checksum, map="")
    _write_note(task, note)
    task.case.remove(MAP)
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
    task.case.remove(MAP)
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
    case: CachedCase,
    teacher: Path,
    config: Config,
    fractions: Mapping[Lobe, float] | None = None,
    shares: Mapping[Lobe, float] | None = None,
    values: np.ndarray | None = None,
) -> tuple[np.ndarray, Mapping[Lobe, float]]:
    """Compute a scan's label: 0 background, 1 vessel, 2 lesion.

    How much of a lobe is lesion is the regression's to say, whoever says where: a network that
    learnt from labels with mistakes finds less than was labelled, and less in every round.

    Args:
        case: The prepared case.
        teacher: Folder of the run whose network makes the map.
        config: All settings.
        fractions: Lesion fractions of the lobes, if the regression has been asked already.
        shares: How much of each lobe is to be lesion where ``match_scores`` holds; from fractions
            and scores of this case alone if left out.
        values: The regression's map on the grid of the final network, if it is known with the
            fractions.

    Returns:
        (k, j, i) uint8 on the grid of the final network, and the lesion fractions of the lobes;
        none where each lobe is free of lesions, for which the regression was not asked.
    """
    target = grid_image(case.meta["grids"]["segmentation"])
    lobes = np.asarray(case.load("segmentation/lobes"))
    found = _vessel_image(case, config)
    labels = np.full(lobes.shape, BACKGROUND, dtype=np.uint8)
    if found is not None:
        labels[geometry.array(geometry.resample(found, target, "labels")) > 0] = VESSEL
    if config.pseudolabels.use_scores and _is_free(case, lobes):
        return _with_seen(labels, case), {}
    of_regression = teacher.name == REGRESSION
    if fractions is None or (of_regression and values is None):
        maps = compute_maps(case, teacher.with_name(REGRESSION), config)
        fractions, values = maps.fractions, _values(maps, case, config)
    if of_regression:
        assert values is not None  # noqa: S101
        lesion = values > config.regression.threshold
        eligible = lobes * (labels != VESSEL)
    else:
        three = final_probabilities(case, teacher, config)
        values, eligible = three[LESION], lobes
        lesion = segmentation.lesion_margin(three, config.segmentation.level) > 0
    fill = config.pseudolabels.fill_vessels
    if config.pseudolabels.match_scores:
        shares = clipped_shares(case.scores, fractions) if shares is None else shares
        voxels = {lobe: int(np.count_nonzero(lobes == lobe)) for lobe in shares}
        shares = fit_shares(shares, voxels, case.regions)
        found_by_rank = _matched(values, labels, lobes, eligible, shares, fill)
        return _with_seen(found_by_rank, case), fractions
    if config.pseudolabels.use_scores:
        lesion &= ~np.isin(lobes, sorted(case.clear))
    labels[lesion] = LESION
    if fill:
        labels[_vessels_in_lesions(labels, lobes)] = LESION
    return _with_seen(labels, case), fractions


def _with_seen(labels: np.ndarray, case: CachedCase) -> np.ndarray:
    """Return a label with what a person has seen, which goes before all others.

    These are slices without lesions, and voxels.
    """
    lesion = labels == LESION
    lesion[~_clear_planes(case, len(labels))] = False
    labels[lesion] = BACKGROUND
    if case.has(VOXELS_OF_SCAN):
        seen = case.load(VOXELS_OF_SCAN)
        labels[(seen == 0) & (labels == LESION)] = BACKGROUND
        labels[seen == 1] = LESION
    return labels


def _is_free(case: CachedCase, lobes: np.ndarray) -> bool:
    """Tell whether each lobe of a scan is free of lesions, so that no network has to be asked."""
    return all(lobe in case.clear for lobe in Lobe if (lobes == lobe).any())


def _values(maps: DRAM, case: CachedCase, config: Config) -> np.ndarray:
    """Return the map that labels are made of, on the grid of the final network."""
    chosen = maps.refined if config.pseudolabels.refined else maps.dram
    grid = grid_image(case.meta["grids"]["segmentation"])
    return geometry.array(geometry.resample(chosen, grid))


def _matched(
    values: np.ndarray,
    labels: np.ndarray,
    lobes: np.ndarray,
    eligible: np.ndarray,
    shares: Mapping[Lobe, float],
    fill: bool,
) -> np.ndarray:
    """Return labels in which as much of each lobe is lesion as it should be.

    A share is one of the whole lobe, vessels included: what vessels take away from the map is made
    up by more of the map or, where vessels within lesions are filled, by these.

    Args:
        values: (k, j, i) map.
        labels: (k, j, i) vessels and background.
        lobes: (k, j, i) lobes.
        eligible: The same, 0 where the map may not say lesion.
        shares: How much of each lobe is to be lesion.
        fill: Whether vessels with lesion all around them are lesion too.
    """
    wanted = {
        lobe: round(share * np.count_nonzero(lobes == lobe)) for lobe, share in shares.items()
    }
    counts = dict(wanted)
    for _ in range(_FILLINGS):
        found = labels.copy()
        found[_most_likely(values, eligible, counts)] = LESION
        if not fill:
            break
        found[_vessels_in_lesions(found, lobes)] = LESION
        there = np.bincount(lobes[found == LESION], minlength=len(Lobe) + 1)
        counts = {lobe: counts[lobe] + wanted[lobe] - int(there[lobe]) for lobe in wanted}
    return found


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
        dram_config(settings),
        torch.device("cpu"),
    )


def dram_config(settings: RegressionConfig) -> DRAMConfig:
    """Return what inference has to know of a regression: what its card says."""
    return DRAMConfig(
        chunk=settings.chunk,
        scales=settings.scales,
        crf=settings.crf,
        threshold=settings.threshold,
        gain=settings.gain,
        least_level=settings.least_level,
        refined_by=settings.refined_by,
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


def _most_likely(values: np.ndarray, lobes: np.ndarray, counts: Mapping[Lobe, int]) -> np.ndarray:
    """Return in each lobe the voxels of highest value.

    Args:
        values: (k, j, i) map.
        lobes: (k, j, i) lobes, 0 where nothing may be taken.
        counts: How many voxels to take.
    """
    lesion = np.zeros(values.shape, dtype=bool)
    for lobe, count in counts.items():
        inside = np.flatnonzero(lobes == lobe)
        # by rank: a cut at a quantile would lose all voxels of a map that is 1 almost everywhere
        order = np.argsort(values.flat[inside], kind="stable")
        lesion.flat[inside[order[max(0, inside.size - max(0, count)) :]]] = True
    return lesion


def _clear_planes(case: CachedCase, count: int) -> np.ndarray:
    """Return which planes of the final network's grid lie in slices without lesions, (k) bool."""
    clear = np.zeros(count, dtype=bool)
    slices = [one.planes for one in case.regions if one.planes is not None and one.upper == 0]
    if not slices:
        return clear
    grids = case.meta["grids"]
    z = grids["segmentation"]["origin"][2] + np.arange(count) * grids["segmentation"]["spacing"][2]
    fine = grids["regression"]
    plane = np.round((z - fine["origin"][2]) / fine["spacing"][2])
    for first, stop in slices:
        clear |= (plane >= first) & (plane < stop)
    return clear


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
