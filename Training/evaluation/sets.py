"""Sets to compare methods on, the same on every machine: phantoms, and lesions in real lungs.

``DIR/train``, ``DIR/validation`` and ``DIR/test`` are data sets (:mod:`Training.dataset.folder`)
with a truth. Everything in them hangs on seeds that no other set uses, so a set is known by its
size and by the real lungs that were given. ``DIR/benchmark.json`` says how it was made and the
checksum of every case: over voxels and geometry, not over files, which hang on the version of a
compressor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.reading import files
from DRAMLesionLib.typed import build, read_json
from DRAMLesionLib.version import __version__
from DRAMLesionLib.writing import write_text
from Training.dataset.folder import LOBES, SCANS, SCORES, TRUTH, case_name
from Training.dataset.scores import read_scores
from Training.learning.workers import in_workers
from Training.stages.phantoms import make_phantoms
from Training.synthesis.make import make_synthetic

Report = Callable[[str], None]

MANIFEST = "benchmark.json"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = (TRAIN, VALIDATION, TEST)
FIRST_SEEDS = {TRAIN: 500_015, VALIDATION: 700_000, TEST: 800_010}
"""Seeds of a part, for phantoms and synthetic lesions alike; the weights that ship use others.

They begin where even the small set has healthy cases in training and test.
"""

_FORMAT = 1


@dataclass(frozen=True)
class BenchmarkSize:
    """How large a set is.

    Attributes:
        spacing: Voxel edge in mm.
        phantoms: Phantoms in each part.
        synthetic: Cases in real lungs in each part, where real lungs are given.
        healthy_share: Share of cases without lesion, drawn by seed.
    """

    spacing: float
    phantoms: Mapping[str, int]
    synthetic: Mapping[str, int]
    healthy_share: float = 0.15


SIZES = {
    "small": BenchmarkSize(
        2.0, {TRAIN: 16, VALIDATION: 2, TEST: 12}, {TRAIN: 8, VALIDATION: 2, TEST: 6}
    ),
    "medium": BenchmarkSize(
        1.5, {TRAIN: 64, VALIDATION: 8, TEST: 24}, {TRAIN: 32, VALIDATION: 4, TEST: 12}
    ),
    # the paper: 322 scans to learn from, 69 to test on; real lungs come on top
    "paper": BenchmarkSize(
        1.2, {TRAIN: 290, VALIDATION: 32, TEST: 69}, {TRAIN: 145, VALIDATION: 16, TEST: 34}
    ),
}


def make_benchmark(
    folder: Path,
    size: str | BenchmarkSize,
    scans: Sequence[Path] = (),
    without: Mapping[str, Sequence[Lobe]] | None = None,
    workers: int = 2,
    report: Report = lambda _: None,
) -> dict[str, Any]:
    """Make a benchmark set, or what is missing of it.

    Args:
        folder: Of the set; made if it is missing.
        size: Name of one of :data:`SIZES`, or a size of one's own.
        scans: Real lungs without lesions: files or DICOM folders. Of three or more, the last third
            is for the test alone; fewer serve all parts, with other lesions, and the manifest says
            so.
        without: Lobes of a scan, by its name, that are not free of lesions.
        workers: Cases made at a time.
        report: Called with a line of text for each case.

    Returns:
        The content of the manifest.

    Raises:
        InputError: If there is no such size, a scan cannot be used, or the folder holds another
            set or one that was changed.
    """
    recipe = _recipe(size, scans, without or {})
    before = _read_manifest(folder, recipe)
    chosen = SIZES[size] if isinstance(size, str) else size
    folder.mkdir(parents=True, exist_ok=True)
    shared = share_out(scans)
    for part in PARTS:
        _make_part(folder / part, part, chosen, shared[part], without or {}, workers, report)
    content = {**recipe, "cases": _checksums(folder, workers)}
    content["digest"] = _digest(content["cases"])
    _compare(before, content, folder)
    write_text(json.dumps(content, indent=1) + "\n", folder / MANIFEST)
    return content


def share_out(scans: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the real lungs of each part; see :func:`make_benchmark`."""
    if len(scans) < 3:
        return {part: list(scans) for part in PARTS}
    kept = len(scans) // 3
    learnt = list(scans[:-kept])
    return {TRAIN: learnt, VALIDATION: learnt, TEST: list(scans[-kept:])}


def parse_without(entries: Sequence[str]) -> dict[str, list[Lobe]]:
    """Return lobes by scan from entries such as ``lidc-idri-0001=LUL,LLL``.

    Raises:
        InputError: If an entry reads otherwise.
    """
    known = {lobe.name: lobe for lobe in Lobe}
    without = {}
    for entry in entries:
        name, _, lobes = entry.partition("=")
        if not lobes or not set(lobes.split(",")) <= set(known):
            message = f"--without {entry}: write SCAN=LOBE,LOBE with {', '.join(known)}"
            raise InputError(message)
        without[name] = [known[lobe] for lobe in lobes.split(",")]
    return without


def _make_part(
    folder: Path,
    part: str,
    size: BenchmarkSize,
    scans: Sequence[Path],
    without: Mapping[str, Sequence[Lobe]],
    workers: int,
    report: Report,
) -> None:
    def tell(line: str) -> None:
        report(f"{part}: {line}")

    first = FIRST_SEEDS[part]
    share = size.healthy_share
    if size.phantoms[part]:
        make_phantoms(
            folder, size.phantoms[part], first, size.spacing, share, workers=workers, report=tell
        )
    if scans and size.synthetic[part]:
        names = {case_name(scan) or scan.name for scan in scans}
        here = {name: lobes for name, lobes in without.items() if name in names}
        make_synthetic(
            folder, scans, size.synthetic[part], first, size.spacing, share, here, workers, tell
        )


def _recipe(
    size: str | BenchmarkSize, scans: Sequence[Path], without: Mapping[str, Sequence[Lobe]]
) -> dict[str, Any]:
    """Return what a set hangs on."""
    if isinstance(size, str) and size not in SIZES:
        message = f"there is no benchmark size {size!r}; known: {', '.join(SIZES)}"
        raise InputError(message)
    chosen = SIZES[size] if isinstance(size, str) else size
    names = [case_name(scan) or scan.name for scan in scans]
    if unknown := sorted(set(without) - set(names)):
        message = f"lobes are left out of {', '.join(unknown)}, which is no scan that was given"
        raise InputError(message)
    recipe = {
        "format": _FORMAT,
        "size": size if isinstance(size, str) else "own",
        "settings": asdict(chosen),
        "first_seeds": FIRST_SEEDS,
        "scans": {
            name: {
                "sha256": _image_checksum(scan, full=True),
                "without": [lobe.name for lobe in without.get(name, ())],
            }
            for name, scan in zip(names, scans, strict=True)
        },
        "same_lungs_in_all_parts": 0 < len(scans) < 3,
        "version": __version__,
    }
    plain: dict[str, Any] = json.loads(json.dumps(recipe))
    return plain


def _read_manifest(folder: Path, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest that is there, or nothing; refuse one of another set."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        content = read_json(path, dict[str, Any])
        build(dict[str, Any], content.get("cases", {}), f"{path}: cases")
    except InputError as error:
        message = f"{path} is damaged ({error}): remove it, and it is made again"
        raise InputError(message) from error
    different = [name for name in recipe if content.get(name) != recipe[name]]
    if different:
        message = (
            f"{folder} holds another benchmark set (its {', '.join(different)} differ): choose "
            "another folder"
        )
        raise InputError(message)
    return content


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    changed = [
        name
        for name, sums in before.get("cases", {}).items()
        if now["cases"].get(name, sums) != sums
    ]
    if changed:
        message = (
            f"{len(changed)} cases of {folder} are not as they were made, such as {changed[0]}: "
            "remove the folder and make the set again"
        )
        raise InputError(message)


def _checksums(folder: Path, workers: int) -> dict[str, dict[str, Any]]:
    """Return scores and checksums of each case, by part and name."""
    tasks, scores = [], {}
    for part in PARTS:
        if not (folder / part / SCORES).is_file():
            continue
        table, _ = read_scores(folder / part / SCORES)
        for name in table:
            scores[f"{part}/{name}"] = [table[name][lobe] for lobe in Lobe]
            tasks.append((folder / part, name))
    found = {
        f"{part.name}/{name}": sums
        for (part, name), sums in in_workers(
            _case_checksums, tasks, workers, case=lambda task: task[1], setting="--workers"
        )
    }
    return {name: {"scores": scores[name], **found[name]} for name in sorted(found)}


def _case_checksums(task: tuple[Path, str]) -> dict[str, str]:
    folder, name = task
    kinds = (SCANS, LOBES, f"{TRUTH}/lesions")
    return {kind: _image_checksum(folder / kind / f"{name}.nii.gz") for kind in kinds}


def _image_checksum(path: Path, full: bool = False) -> str:
    """Return the checksum of an image's voxels and geometry.

    Args:
        path: File or, if ``full``, anything that :func:`DRAMLesionLib.reading.files.read_ct` reads.
        full: Whether it is a CT that a user gave.

    Raises:
        InputError: If it cannot be read.
    """
    if full:
        image, _ = files.read_ct(path)
    else:
        try:
            image = sitk.ReadImage(str(path))
        except RuntimeError as error:
            message = f"{path} cannot be read: remove the folder and make the set again"
            raise InputError(message) from error
    geometry = (image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    rounded = [[round(float(x), 4) for x in numbers] for numbers in geometry]
    digest = hashlib.sha256(json.dumps(rounded).encode())
    digest.update(np.ascontiguousarray(sitk.GetArrayViewFromImage(image)).tobytes())
    return digest.hexdigest()


def _digest(cases: Mapping[str, Any]) -> str:
    """Return one checksum of all cases: two machines compare this."""
    return hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()
