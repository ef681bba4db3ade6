"""The final network in rounds: each learns from what the one before makes of its own scans.

The paper has one round (section III-A 5). A network that has learnt from rough labels draws lesions
better than the labels did, since what is wrong in them differs from scan to scan. So its own map
makes better labels, as much of each lobe as regression and score say, and it goes on with these.
Labels that a person has made or corrected stay as they are.

``OUTPUT/segmentation`` is the last round, ``OUTPUT/segmentation-1`` the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lightning.fabric import Fabric

from DRAMLesionLib.errors import MissingDependencyError
from Training.config import Config
from Training.dataset.cache import CachedCase
from Training.learning.engine import is_finished, train
from Training.stages.regression import NAME as REGRESSION
from Training.stages.segmentation import (
    NAME,
    SegmentationExperiment,
    check_labels,
    check_regression,
)

Report = Callable[[str], None]


def label(
    cases: Sequence[CachedCase],
    output: Path,
    config: Config,
    report: Report = lambda _: None,
    given: Mapping[str, Path] | None = None,
) -> None:
    """Make the labels of the round that comes next.

    See :func:`Training.stages.pseudolabels.make_pseudolabels`.
    """
    finished = [f for f in _folders(output, config)[:-1] if _is_done(cases, f, output, config)]
    _labeller()(cases, output, config, report, given, finished[-1] if finished else None)


def train_final(
    cases: Sequence[CachedCase],
    output: Path,
    config: Config,
    fabric: Fabric,
    report: Report = lambda _: None,
    given: Mapping[str, Path] | None = None,
) -> None:
    """Train the final network, or go on training, until the last step of the last round.

    Args:
        cases: Prepared cases with the labels of :func:`label`.
        output: Folder of the training, with a finished regression.
        config: All settings.
        fabric: From :func:`Training.learning.engine.make_fabric`.
        report: Called with a line of text for each case that gets new labels.
        given: Labels of the data sets by case, see :func:`Training.dataset.folder.find_labels`.

    Raises:
        InputError: If there are no labels, or labels or regression are not those that the run
            began with.
        Cancelled: If it was stopped; the next call goes on from there.
    """
    folders = _folders(output, config)
    for number, folder in enumerate(folders):
        last = number == len(folders) - 1
        if not last and _is_done(cases, folder, output, config):
            continue
        if number and fabric.is_global_zero:
            _labeller()(cases, output, config, report, given, folders[number - 1])
        fabric.barrier()
        check_labels(cases, folder)
        if _hangs_on_regression(config):
            check_regression(folder, output / REGRESSION)
        train(_experiment(cases, folder, output, config), folder, config, fabric)


def _labeller() -> Callable[..., None]:
    """Return what makes the labels; a machine that has only torch and numpy can train a round."""
    try:
        from Training.stages.pseudolabels import make_pseudolabels
    except ImportError as error:
        message = (
            f"labels cannot be made without {error.name}: install it, or make them on another "
            "machine (with segmentation.rounds above 1 they are made anew between the rounds)"
        )
        raise MissingDependencyError(message) from error
    return make_pseudolabels


def _folders(output: Path, config: Config) -> list[Path]:
    rounds = config.segmentation.rounds
    return [*(output / f"{NAME}-{n}" for n in range(1, rounds)), output / NAME]


def _is_done(cases: Sequence[CachedCase], folder: Path, output: Path, config: Config) -> bool:
    if not is_finished(folder, _experiment(cases, folder, output, config)):
        return False
    if _hangs_on_regression(config):
        check_regression(folder, output / REGRESSION)
    return True


def _hangs_on_regression(config: Config) -> bool:
    """Tell whether a round takes more from the regression than its labels, which are compared."""
    return config.segmentation.rounds > 1 or config.segmentation.start == "regression"


def _experiment(
    cases: Sequence[CachedCase], folder: Path, output: Path, config: Config
) -> SegmentationExperiment:
    """Return a round, with its share of the steps."""
    folders = _folders(output, config)
    number = folders.index(folder)
    settings = config.segmentation
    first, end = (settings.loop.steps * n // settings.rounds for n in (number, number + 1))
    settings = replace(settings, loop=replace(settings.loop, steps=end - first), rounds=1)
    return SegmentationExperiment(
        cases,
        replace(config, segmentation=settings),
        output / REGRESSION,
        folders[number - 1] if number else None,
        seed=number,
    )
