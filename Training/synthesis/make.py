"""Make a data set of real lungs with synthetic lesions: scans, scores, lobes, and the truth.

Each source is read, checked and parted into lobes once. A case is a source with other lesions, seen
by another scanner: a little blurred or with more noise. Lobes that are not free of lesions are
named by the caller and left out of lungs and scores alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.integrity import damage
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.lobes.estimate import estimate_lobes
from DRAMLesionLib.phantom import draw_scores, insert_lesions
from DRAMLesionLib.reading import checks, files
from DRAMLesionLib.vessels.masks import reference_vessels
from DRAMLesionLib.writing import check_writable
from Training.dataset.folder import LOBES, SCANS, SCORES, TRUTH, case_name
from Training.dataset.scores import Scores, read_scores, write_scores
from Training.learning.workers import in_workers

Report = Callable[[str], None]

SOURCES = ".sources"
"""Folder of the sources on the working grid, with their lobes, vessels and airways."""

_PARTS = ("ct", "lobes", "vessels", "airways")
_LEAST_BYTES_A_MM3 = 1.0
"""At 1 mm, compressed; measured on phantoms: 1.2."""

_SMALL_CHEST_MM3 = 25e6
_BLUR_MM = 1.0
_NOISE_HU = 35.0
_GRAIN_MM = 0.8


@dataclass(frozen=True)
class SourceTask:
    """What a worker needs to prepare one source.

    Attributes:
        scan: File or DICOM folder.
        folder: The data set.
        spacing: Voxel edge in mm.
        without: Lobes that are not free of lesions.
    """

    scan: Path
    folder: Path
    spacing: float
    without: tuple[Lobe, ...]

    @property
    def files(self) -> dict[str, Path]:
        """What the source is prepared into."""
        # with another spacing or other lobes it has to be prepared again
        settings = repr((self.spacing, [int(lobe) for lobe in self.without])).encode()
        stem = f"{self.name}-{hashlib.sha256(settings).hexdigest()[:8]}"
        return {part: self.folder / SOURCES / f"{stem}_{part}.nii.gz" for part in _PARTS}

    @property
    def name(self) -> str:
        """Name of the source."""
        return case_name(self.scan) or self.scan.name


@dataclass(frozen=True)
class SynthesisTask:
    """What a worker needs to make one case.

    Attributes:
        folder: The data set.
        source: The prepared source.
        seed: What lesions and scanner are drawn from.
        healthy: Whether all lobes get score 0.
    """

    folder: Path
    source: SourceTask
    seed: int
    healthy: bool

    @property
    def case(self) -> str:
        """Name of the case."""
        return f"{self.source.name}-synthetic-{self.seed:06d}"


def make_synthetic(
    folder: Path,
    scans: Sequence[Path],
    count: int,
    first_seed: int = 0,
    spacing: float = 1.5,
    healthy_share: float = 0.25,
    without: Mapping[str, Sequence[Lobe]] | None = None,
    workers: int = 2,
    report: Report = lambda _: None,
) -> list[str]:
    """Make ``count`` cases, the sources taken in turn, that are not there yet.

    A case is there when the table names it; its row is written after its files, so a stopped run
    leaves no half of one.

    Args:
        folder: The data set; made if it is missing.
        scans: Files or DICOM folders of lungs without lesions.
        count: Number of cases.
        first_seed: Seed of the first.
        spacing: Voxel edge in mm.
        healthy_share: Share of the cases that get no lesion.
        without: Lobes of a source, by its name, that are left out.
        workers: Cases made at a time.
        report: Called with a line of text for each finished source and case.

    Returns:
        The names of the ``count`` cases.

    Raises:
        InputError: If a number makes no sense, a scan cannot be used, two have the same name, or
            ``without`` names none of them.
        OutputError: If the disk is too full or cannot be written to.
    """
    if count < 1 or first_seed < 0 or spacing <= 0 or not 0 <= healthy_share <= 1 or not scans:
        message = (
            f"cannot make {count} cases from {len(scans)} scans, seed {first_seed}, at {spacing} "
            f"mm with {healthy_share} of them healthy"
        )
        raise InputError(message)
    sources = _sources(folder, scans, spacing, without or {})
    for name in (SOURCES, SCANS, LOBES, TRUTH):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for source, _ in in_workers(
        _prepare_source, sources, workers, case=lambda task: task.name, setting="--workers"
    ):
        report(f"source {source.name}")
    table = read_scores(folder / SCORES)[0] if (folder / SCORES).is_file() else {}
    tasks = [
        SynthesisTask(folder, sources[n % len(sources)], seed, _draw(seed, healthy_share))
        for n, seed in enumerate(range(first_seed, first_seed + count))
    ]
    missing = [task for task in tasks if task.case not in table]
    check_writable(folder, len(missing) * least_bytes(spacing))
    work = in_workers(
        _make_case, missing, workers, case=lambda task: task.case, setting="--workers"
    )
    for number, (task, scores) in enumerate(work, start=1):
        table[task.case] = scores
        write_scores(folder / SCORES, table)
        report(f"{number}/{len(missing)} {task.case}")
    return [task.case for task in tasks]


def least_bytes(spacing: float) -> float:
    """Return how much room a case of a data set needs at least, with its truth.

    Args:
        spacing: Voxel edge in mm.
    """
    return _LEAST_BYTES_A_MM3 * _SMALL_CHEST_MM3 / spacing**3


def _sources(
    folder: Path, scans: Sequence[Path], spacing: float, without: Mapping[str, Sequence[Lobe]]
) -> list[SourceTask]:
    names = [case_name(scan) or scan.name for scan in scans]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        message = f"two scans are called {', '.join(twice)}; rename one"
        raise InputError(message)
    if unknown := sorted(set(without) - set(names)):
        message = (
            f"lobes are left out of {', '.join(unknown)}, but the scans are {', '.join(names)}"
        )
        raise InputError(message)
    return [
        SourceTask(scan, folder, spacing, tuple(without.get(name, ())))
        for scan, name in zip(scans, names, strict=True)
    ]


def _draw(seed: int, share: float) -> bool:
    # a stream of its own, so that a seed's lesions do not depend on the share
    return bool(np.random.default_rng([seed, 1]).random() < share)


def _prepare_source(task: SourceTask) -> None:
    """Write a source on its working grid, with all that lesions are placed by."""
    if all(file.is_file() and not damage(file) for file in task.files.values()):
        return
    ct, _ = files.read_ct(task.scan)
    checks.check_ct(ct, task.scan.name)
    grid = geometry.working_grid(ct, task.spacing)
    ct = geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True)
    estimate = estimate_lobes(ct)
    airways = geometry.resample(estimate.airways, ct, "nearest")
    lungs = sitk.Cast(estimate.lobes > 0, sitk.sitkUInt8)
    lobes = geometry.array(estimate.lobes)
    kept = np.where(np.isin(lobes, task.without), 0, lobes).astype(np.uint8)
    images = {
        "ct": sitk.Cast(sitk.Round(ct), sitk.sitkInt16),
        "lobes": geometry.image_like(kept, ct),
        "vessels": reference_vessels(ct, lungs),
        "airways": sitk.Cast(airways, sitk.sitkUInt8),
    }
    for part, file in task.files.items():
        writing.write_image(images[part], file)


def _make_case(task: SynthesisTask) -> Scores:
    """Write one case into its folders and return its scores."""
    images = {part: sitk.ReadImage(str(file)) for part, file in task.source.files.items()}
    ct, lobes, vessels, airways = (geometry.array(images[part]) for part in _PARTS)
    streams = np.random.default_rng(task.seed).spawn(3)
    present = [lobe for lobe in Lobe if (lobes == lobe).any()]
    drawn = {} if task.healthy else draw_scores(streams[0])
    wanted = {lobe: drawn.get(lobe, 0) for lobe in present}
    x, y, z = images["ct"].GetSpacing()
    hu, types = insert_lesions(ct, lobes, vessels, airways, (x, y, z), streams[1], wanted)
    hu = other_scanner(hu, x, streams[2])
    written = {
        SCANS: np.rint(np.clip(hu, -1024, 3071)).astype(np.int16),
        LOBES: lobes,
        f"{TRUTH}/lesions": types,
        f"{TRUTH}/vessels": vessels,
    }
    for name, values in written.items():
        image = geometry.image_like(values, images["ct"])
        writing.write_image(image, task.folder / name / f"{task.case}.nii.gz")
    fractions = {
        lobe.name: float((types[lobes == lobe] > 0).mean()) if lobe in present else 0.0
        for lobe in Lobe
    }
    text = json.dumps(
        {"spacing_mm": x, "source": task.source.name, "fractions": fractions}, indent=2
    )
    writing.write_text(text + "\n", task.folder / TRUTH / f"{task.case}.json")
    return {lobe: wanted.get(lobe) for lobe in Lobe}


def other_scanner(hu: np.ndarray, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Show a scan as another scanner and kernel might: smoother, or with more noise.

    Args:
        hu: HU, (k, j, i), isotropic.
        spacing: Voxel edge in mm.
        rng: Source of randomness.

    Returns:
        float32 HU.
    """
    result = hu.astype(np.float32)
    if rng.random() < 0.5:
        result = ndimage.gaussian_filter(result, rng.uniform(0.3, _BLUR_MM) / spacing)
    if rng.random() < 0.5:
        grain = ndimage.gaussian_filter(
            rng.standard_normal(hu.shape, dtype=np.float32), _GRAIN_MM / spacing
        )
        result += grain * np.float32(rng.uniform(5.0, _NOISE_HU) / grain.std())
    return result
