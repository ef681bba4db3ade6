"""Make a data set of phantoms: scans, scores, lobes, and the truth for the evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.phantom.config import PhantomConfig
from Training.dataset.folder import LOBES, SCANS, SCORES, TRUTH
from Training.dataset.scores import Scores, read_scores, write_scores
from Training.learning.workers import in_workers
from Training.synthesis.make import least_bytes

Report = Callable[[str], None]


@dataclass(frozen=True)
class PhantomTask:
    """What a worker needs to make one case.

    Attributes:
        folder: The data set.
        seed: What the phantom is drawn from.
        spacing: Voxel edge in mm.
        healthy: Whether all lobes get score 0.
        expiration: Share of such patients whose CT is taken in expiration.
    """

    folder: Path
    seed: int
    spacing: float
    healthy: bool
    expiration: float = 0.0

    @property
    def case(self) -> str:
        """Name of the case."""
        return f"phantom-{self.seed:06d}"


def make_phantoms(
    folder: Path,
    count: int,
    first_seed: int,
    spacing: float,
    healthy_share: float = 0.15,
    expiration_share: float = 0.0,
    workers: int = 2,
    report: Report = lambda _: None,
) -> list[str]:
    """Make the phantoms of ``count`` consecutive seeds that are not there yet.

    A case is there when the table names it; its row is written after its files, so a stopped run
    leaves no half of one.

    Args:
        folder: The data set; made if it is missing.
        count: Number of cases.
        first_seed: Seed of the first.
        spacing: Voxel edge in mm.
        healthy_share: Share of the cases without any lesion: the paper's distribution has few
            such patients, and the vessel network learns from them.
        expiration_share: Share of the cases taken in expiration.
        workers: Cases made at a time.
        report: Called with a line of text for each finished case.

    Returns:
        The names of the ``count`` cases.

    Raises:
        InputError: If a number makes no sense.
        OutputError: If the disk is too full or cannot be written to.
    """
    shares_fit = 0 <= healthy_share <= 1 and 0 <= expiration_share <= 1
    if count < 1 or first_seed < 0 or spacing <= 0 or not shares_fit:
        message = (
            f"cannot make {count} phantoms from seed {first_seed} at {spacing} mm with "
            f"{healthy_share} of them healthy and {expiration_share} in expiration"
        )
        raise InputError(message)
    for name in (SCANS, LOBES, TRUTH):
        (folder / name).mkdir(parents=True, exist_ok=True)
    table = read_scores(folder / SCORES)[0] if (folder / SCORES).is_file() else {}
    tasks = [
        PhantomTask(folder, seed, spacing, is_healthy(seed, healthy_share), expiration_share)
        for seed in range(first_seed, first_seed + count)
    ]
    missing = [task for task in tasks if task.case not in table]
    writing.check_writable(folder, len(missing) * least_bytes(spacing))
    work = in_workers(
        _make_case, missing, workers, case=lambda task: task.case, setting="--workers"
    )
    for number, (task, scores) in enumerate(work, start=1):
        table[task.case] = scores
        write_scores(folder / SCORES, table)
        report(f"{number}/{len(missing)} {task.case}")
    return [task.case for task in tasks]


def is_healthy(seed: int, share: float) -> bool:
    """Tell whether the case of a seed has no lesion."""
    # a stream of its own, so that the phantom of a seed looks the same whether healthy or not
    return bool(np.random.default_rng([seed, 1]).random() < share)


def _make_case(task: PhantomTask) -> Scores:
    """Write one case into its folders and return its scores."""
    config = PhantomConfig(expiration_probability=task.expiration)
    scores: dict[Lobe, int] | None = {} if task.healthy else None
    phantom = make_phantom(task.seed, task.spacing, config, scores=scores)
    images = {
        SCANS: phantom.ct,
        LOBES: phantom.lobes,
        f"{TRUTH}/lesions": phantom.lesions,
        f"{TRUTH}/vessels": phantom.vessels,
    }
    for name, image in images.items():
        writing.write_image(image, task.folder / name / f"{task.case}.nii.gz")
    fractions = {lobe.name: float(phantom.fractions[lobe]) for lobe in Lobe}
    text = json.dumps({"spacing_mm": task.spacing, "fractions": fractions}, indent=2)
    writing.write_text(text + "\n", task.folder / TRUTH / f"{task.case}.json")
    return {lobe: phantom.scores[lobe] for lobe in Lobe}
