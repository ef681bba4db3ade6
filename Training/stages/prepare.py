"""Verify a data set and cache what the training reads."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.lesions import density
from DRAMLesionLib.lesions.chunks import lobe_boxes
from DRAMLesionLib.lesions.dram import fine_scan
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.vessels.masks import ReferenceConfig, reference_vessels
from DRAMLesionLib.writing import check_writable, whole_folder, write_text
from Training.config import Config
from Training.dataset.cache import (
    META,
    PREPARED,
    UNKNOWN,
    VESSELS,
    VOXELS,
    VOXELS_OF_SCAN,
    CachedCase,
    write_index,
    write_meta,
)
from Training.dataset.folder import Case, find_cases
from Training.dataset.scores import Problem
from Training.dataset.verify import LoadedCase, load_case
from Training.dataset.voxel_labels import planes_of_slice, voxels_on
from Training.dataset.weak_labels import LEAST_DISEASED, RegionLabel
from Training.learning.workers import in_workers

Report = Callable[[str], None]

PROBLEMS = "problems.txt"
_FORMAT = 3
_SMALL_CHEST_MM3 = 260.0 * 260.0 * 220.0


@dataclass(frozen=True)
class PrepareTask:
    """What a worker needs to prepare one case.

    Attributes:
        case: The case.
        folder: The cache.
        regression_spacing: Grid of the lobe chunks in mm.
        segmentation_spacing: Grid of the final network in mm.
        vessels: Whether to compute the Frangi reference.
        lobe_scheme: How given masks number the lobes.
        vessel_guards: Whether that reference is guarded against noise.
    """

    case: Case
    folder: Path
    regression_spacing: float
    segmentation_spacing: float
    vessels: bool
    lobe_scheme: str
    vessel_guards: bool = True

    def origin(self) -> dict[str, Any]:
        """Return what the cached arrays depend on; they are stale when it changes."""
        files = {"scan": self.case.scan, "lobes": self.case.lobes}
        # a key that only some have: caches made before there was the choice stay what they are
        unguarded = {"vessel_guards": False} if self.vessels and not self.vessel_guards else {}
        # a case with scores alone has the origin that it had before there were other labels
        files |= {"points": self.case.points, "outlined": self.case.outlined}
        regions = [dataclasses.asdict(one) for one in self.case.regions]
        return {
            **({"regions": regions} if regions else {}),
            "format": _FORMAT,
            "regression_spacing": self.regression_spacing,
            "segmentation_spacing": self.segmentation_spacing,
            "vessels": self.vessels,
            **unguarded,
            "lobe_scheme": self.lobe_scheme,
            "files": {name: _stamp(path) for name, path in files.items() if path is not None},
        }

    def arrays(self) -> tuple[str, ...]:
        """Return the names of the arrays that are to be made."""
        labelled = self.case.points is not None or self.case.outlined is not None
        voxels = (VOXELS, VOXELS_OF_SCAN) if labelled else ()
        return (*PREPARED, *([VESSELS] if self.vessels else []), *voxels)


def prepare(
    data: Sequence[Path],
    output: Path,
    config: Config,
    report: Report = lambda _: None,
    progress: Callable[[float], None] = lambda _: None,
) -> list[Problem]:
    """Bring data sets into ``output/cache``.

    Cases that are there and still match their files are left as they are, so a stopped run goes
    on where it was.

    Args:
        data: Data sets.
        output: Folder of the training.
        config: Settings.
        report: Called with a line of text for each case and problem.
        progress: Called after each case with the share that is done.

    Returns:
        All problems that were found; they are also written to ``cache/problems.txt``.

    Raises:
        InputError: If cases are broken and are not to be skipped, or none is left.
        OutputError: If the disk is too full or cannot be written to.
    """
    cache = output / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    cases, problems = find_cases(data)
    tasks = [
        PrepareTask(
            case,
            cache,
            config.regression.chunk.spacing,
            config.segmentation.spacing,
            config.prepare.vessels,
            config.prepare.lobe_scheme,
            config.prepare.vessel_guards,
        )
        for case in cases
    ]
    todo = []
    for task in tasks:
        known = _known_problems(task, report)
        if known is None:
            todo.append(task)
        else:
            problems += known
    report(f"{len(tasks) - len(todo)} of {len(tasks)} cases are prepared already")
    check_writable(cache, len(todo) * _least_bytes(config))
    failed = set()
    work = in_workers(
        _prepare_case,
        todo,
        config.prepare.workers,
        case=lambda task: task.case.name,
        setting="prepare.workers",
    )
    for number, (task, found) in enumerate(work, start=1):
        problems += found
        if any(problem.fatal for problem in found):
            failed.add(task.case.name)
        report(f"{number}/{len(todo)} {task.case.name}")
        progress(number / len(todo))
    lines = [str(problem) for problem in problems]
    write_text("".join(f"{line}\n" for line in lines), cache / PROBLEMS)
    for line in lines:
        report(line)
    _stop_if_broken(problems, len(cases) - len(failed), config, cache)
    names = [case.name for case in cases if case.name not in failed]
    report(count_labels([case for case in cases if case.name not in failed], cache))
    write_index(cache, names, config.prepare.validation_share)
    return problems


def _stop_if_broken(problems: list[Problem], left: int, config: Config, cache: Path) -> None:
    broken = sum(problem.fatal for problem in problems)
    if broken and not config.prepare.skip_broken:
        message = (
            f"{broken} problems must be solved first, see {cache / PROBLEMS}; or leave the broken "
            "cases out with prepare.skip_broken=true"
        )
        raise InputError(message)
    if left == 0:
        message = f"no case is left to train on, see {cache / PROBLEMS}"
        raise InputError(message)


def _known_problems(task: PrepareTask, report: Report) -> list[Problem] | None:
    """Return the notes about a case that is cached from the same files; refresh its scores.

    Returns:
        None if it has to be prepared.
    """
    cached = CachedCase(task.case.name, task.folder / task.case.name, validation=False)
    if not cached.folder.is_dir():
        return None
    try:
        meta = cached.meta
    except InputError:
        report(f"{META} of {task.case.name} is damaged: the case is prepared again")
        return None
    if meta.get("origin") != task.origin():
        return None
    if damaged := [name for name in task.arrays() if not cached.is_sound(name)]:
        names = ", ".join(damaged)
        report(f"{names} of {task.case.name} damaged or missing: the case is prepared again")
        return None
    scores = _plain_scores(task.case)
    if meta["scores"] != scores:
        write_meta(cached.folder, {**meta, "scores": scores})
    return [Problem(task.case.name, note, fatal=False) for note in meta.get("notes", [])]


def _prepare_case(task: PrepareTask) -> list[Problem]:
    """Write the arrays of one case: all of them, or none."""
    loaded, problems = load_case(task.case, task.lobe_scheme)
    final = task.folder / task.case.name
    if loaded is None or not (final / META).is_file():
        shutil.rmtree(final, ignore_errors=True)
    if loaded is None:
        return problems
    lungs = sitk.Cast(loaded.lobes > 0, sitk.sitkUInt8)
    level = density.find_level(loaded.ct, lungs)
    # what the networks see at inference, too
    loaded = replace(loaded, ct=density.at_common_level(loaded.ct, level))
    with whole_folder(final, META) as part:
        cached = CachedCase(task.case.name, part, validation=False)
        regression_grid, boxes = _save_regression(cached, loaded, task)
        segmentation_grid = _save_segmentation(cached, loaded, task.segmentation_spacing)
        meta = {
            "origin": task.origin(),
            "scores": _plain_scores(task.case),
            "boxes": boxes,
            "lobes_estimated": loaded.estimated,
            "notes": [problem.message for problem in problems],
            "grids": {
                "regression": plain_grid(regression_grid),
                "segmentation": plain_grid(segmentation_grid),
            },
            **_save_labels(cached, loaded, task.case, regression_grid, segmentation_grid),
        }
        write_meta(part, meta)
    return problems


def _save_regression(
    cached: CachedCase, loaded: LoadedCase, task: PrepareTask
) -> tuple[sitk.Image, dict[str, list[list[int]]]]:
    """Write the arrays on the grid of the lobe chunks; return the grid and the lobes' boxes."""
    scan = fine_scan(loaded.ct, loaded.lobes, task.regression_spacing)
    lobes = geometry.array(scan.lobes)
    cached.save("regression/image", window(geometry.array(scan.ct)).astype(np.float16))
    cached.save("regression/lobes", lobes)
    if task.vessels:
        guards = ReferenceConfig() if task.vessel_guards else ReferenceConfig.unguarded()
        found = reference_vessels(scan.ct, scan.lungs, guards)
        cached.save(VESSELS, geometry.array(found))
    boxes = {
        lobe.name: [[int(s.start), int(s.stop)] for s in box]
        for lobe, box in lobe_boxes(lobes).items()
    }
    return scan.lobes, boxes


def _save_segmentation(cached: CachedCase, loaded: LoadedCase, spacing: float) -> sitk.Image:
    """Write the arrays on the grid of the final network; return the grid."""
    grid = geometry.working_grid(loaded.ct, spacing)
    ct = geometry.resample(loaded.ct, grid, fill=geometry.AIR_HU, antialias=True)
    cached.save("segmentation/image", window(geometry.array(ct)).astype(np.float16))
    lobes = geometry.resample(loaded.lobes, grid, "nearest")
    cached.save("segmentation/lobes", geometry.array(lobes))
    return grid


def _save_labels(
    cached: CachedCase, loaded: LoadedCase, case: Case, fine: sitk.Image, final: sitk.Image
) -> dict[str, Any]:
    """Write the labelled voxels; return what ``meta.json`` says of labels beside the scores."""
    content: dict[str, Any] = {}
    lobes = np.asarray(cached.load("regression/lobes"))
    if case.regions:
        placed = [_placed(one, loaded.ct, lobes, fine) for one in case.regions]
        content["regions"] = [one for one in placed if one["lobes"]]
    if case.points is None and case.outlined is None:
        return content
    voxels = voxels_on(fine, loaded.outlined, loaded.points)
    cached.save(VOXELS, voxels)
    cached.save(VOXELS_OF_SCAN, voxels_on(final, loaded.outlined, loaded.points))
    there = np.unique(lobes[voxels != UNKNOWN])
    content["outlined"] = [lobe.name for lobe in Lobe if lobe in there]
    lesions = sum(point.lesion for point in loaded.points)
    content["counts"] = {
        "lesion points": lesions,
        "background points": len(loaded.points) - lesions,
        "masks": int(case.mask is not None),
        "pseudo-labels as masks": int(case.mask is None and case.outlined is not None),
    }
    return content


def _placed(
    label: RegionLabel, ct: sitk.Image, lobes: np.ndarray, grid: sitk.Image
) -> dict[str, Any]:
    """Return a label of a region as ``meta.json`` has it: with lobes and planes of the grid."""
    planes = planes_of_slice(ct, label.slice_number, grid) if label.is_slice else None
    part = lobes if planes is None else lobes[max(0, planes[0]) : max(0, planes[1])]
    there = np.unique(part)
    return {
        "region": label.region,
        "lower": label.lower,
        "upper": label.upper,
        "lobes": [lobe.name for lobe in label.lobes if lobe in there],
        "planes": planes,
    }


def count_labels(cases: Sequence[Case], cache: Path) -> str:
    """Say how many labels of each kind some prepared cases have."""
    counts = Counter[str]()
    for case in cases:
        counts["scores of lobes"] += sum(score is not None for score in case.scores.values())
        for label in case.regions:
            counts[_kind(label)] += 1
        counts["pseudo-labels"] += case.label is not None
        meta = CachedCase(case.name, cache / case.name, validation=False).meta
        counts.update(meta.get("counts", {}))
    told = [f"{number} {kind}" for kind, number in counts.items() if number]
    return f"labels of {len(cases)} cases: {', '.join(told)}"


def _kind(label: RegionLabel) -> str:
    where = "slices" if label.is_slice else "lobes" if len(label.lobes) == 1 else "lungs"
    if label.upper == 0:
        return f"{where} free of lesions"
    diseased = (label.lower, label.upper) == (LEAST_DISEASED, 1.0)
    return f"{where} diseased" if diseased else f"per cents of {where}"


def plain_grid(grid: sitk.Image) -> dict[str, list[float]]:
    """Return the geometry of a working grid as plain numbers."""
    return {
        "size": list(grid.GetSize()),
        "spacing": list(grid.GetSpacing()),
        "origin": list(grid.GetOrigin()),
    }


def grid_image(plain: dict[str, list[float]]) -> sitk.Image:
    """Return an empty image with the geometry that :func:`plain_grid` wrote down."""
    grid = sitk.Image([int(n) for n in plain["size"]], sitk.sitkUInt8)
    grid.SetSpacing(plain["spacing"])
    grid.SetOrigin(plain["origin"])
    return grid


def _plain_scores(case: Case) -> dict[str, int | None]:
    return {lobe.name: case.scores[lobe] for lobe in Lobe}


def _stamp(path: Path) -> str:
    """Return what changes when a file or a folder of files changes.

    It tells no name of a file: those of DICOM files may be a patient's.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    content = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _least_bytes(config: Config) -> float:
    """Return how much room a case needs at least: that of a small chest."""
    labels = 2 + 1 + 1  # image, lobes, and the label or the vessels that come later
    return (
        labels
        * _SMALL_CHEST_MM3
        * (config.segmentation.spacing**-3 + 0.3 * config.regression.chunk.spacing**-3)
    )
