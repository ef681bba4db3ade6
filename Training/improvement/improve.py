"""From weights and a data set to new weights, a verdict on them, and pictures.

``OUTPUT/result`` holds ``verdict.json`` (:class:`Training.improvement.verdict.Verdict`) with the
pictures of the validation cases, whole or not at all; ``OUTPUT/weights-…`` new weights, only where
the verdict is that they are better. Beside them lie the stages' folders as those of any training.
``OUTPUT/unfinished.json`` names the weights of an improvement that was stopped: the same command
goes on with it. With other cases, scores, labels, weights or settings it begins anew; what is
prepared stays.
"""

from __future__ import annotations

import datetime
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from lightning.fabric import Fabric

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.typed import read_json
from DRAMLesionLib.weights import NetworkName, save_network
from DRAMLesionLib.writing import whole_folder, write_bytes, write_json, write_text
from Training.config import Config, dump_config
from Training.dataset.cache import CachedCase, read_cache
from Training.dataset.folder import find_labels
from Training.improvement import measure
from Training.improvement.split import keep_split
from Training.improvement.start import Start, read_start, start_of
from Training.improvement.verdict import (
    CaseVerdict,
    Figures,
    NetworkVerdict,
    Verdict,
    compare,
    summarise,
)
from Training.learning.engine import begin_from, make_fabric, read_checkpoint, train
from Training.learning.results import plain
from Training.learning.workers import in_workers
from Training.stages.prepare import prepare
from Training.stages.pseudolabels import make_pseudolabels
from Training.stages.regression import NAME as REGRESSION
from Training.stages.regression import RegressionExperiment
from Training.stages.segmentation import NAME as SEGMENTATION
from Training.stages.segmentation import SegmentationExperiment, check_labels
from Training.stages.vessels import find_vessels

RESULT, VERDICT, UNFINISHED = "result", "verdict.json", "unfinished.json"
LEAST_LOBES = 10
"""Scored lobes, of two scores at least, below which the regression is left as it is."""

SHARES = {
    "prepare": 12.0,
    "vessels": 10.0,
    "regression": 11.0,
    "pseudolabels": 29.0,
    "segmentation": 27.0,
    "measure": 11.0,
}
"""Stages in their order, and their usual shares of the time."""

Report = Callable[[str], None]
Progress = Callable[[str, float], None]
"""Called with the name of the stage and the share of the whole improvement that is done."""

_BEGUN = "begun.json"


@dataclass(frozen=True)
class _Begun:
    """What the folders of the stages were begun for."""

    made_from: str


@dataclass
class _Work:
    """All that the steps of an improvement share.

    Attributes:
        data: The data set.
        output: Folder of the improvement.
        start: The weights.
        cases: Prepared cases on their sides.
        labels: The reader's corrected pseudo-labels by case.
        notes: What the user has to know.
        report: Called with lines of text.
        progress: See :data:`Progress`.
    """

    data: Path
    output: Path
    start: Start
    report: Report
    progress: Progress
    cases: list[CachedCase] = field(default_factory=list)
    labels: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def config(self) -> Config:
        """All settings."""
        return self.start.config

    @property
    def training(self) -> list[CachedCase]:
        """The cases to train on."""
        return [case for case in self.cases if not case.validation]

    @property
    def validation(self) -> list[CachedCase]:
        """The cases to measure on."""
        return [case for case in self.cases if case.validation]

    def part(self, stage: str) -> Callable[[float], None]:
        """Return what is called with the share of a stage that is done."""
        names = list(SHARES)
        before = sum(SHARES[name] for name in names[: names.index(stage)])

        def told(share: float) -> None:
            self.progress(stage, (before + SHARES[stage] * share) / sum(SHARES.values()))

        told(0.0)
        return told


def improve(
    data: Path,
    output: Path,
    weights: Path,
    config: Config,
    report: Report = lambda _: None,
    progress: Progress = lambda _stage, _share: None,
) -> Verdict:
    """Improve weights on a data set, or go on with it.

    Args:
        data: The data set; which cases are kept for validation is written into it.
        output: Folder of the improvement.
        weights: Folder of the weights to start from.
        config: Settings; those of the networks are taken from the weights.
        report: Called with lines of text.
        progress: See :data:`Progress`.

    Raises:
        InputError: If fewer than two cases can be used.
        WeightsError: If the weights cannot be used.
        OutputError: If something cannot be written.
        Cancelled: If it was stopped; the next call goes on from there.
    """
    write_json({"weights": str(weights.resolve())}, output / UNFINISHED)
    work = _Work(data, output, read_start(weights, config), report, progress)
    _prepare(work)
    made_from = _made_from(work)
    verdict = _known(output, made_from)
    if verdict is None:
        _begin(work, made_from)
        fabric = make_fabric(work.config)
        _vessels(work)
        is_regressed = _regress(work, fabric)
        _segment(work, fabric)
        verdict = _judge(work, made_from, is_regressed)
    (output / UNFINISHED).unlink(missing_ok=True)
    report(summary(verdict))
    return verdict


def summary(verdict: Verdict) -> str:
    """Return the verdict in a sentence."""
    kept = f"on the {len(verdict.validation)} cases kept for validation"
    if not verdict.better:
        return f"no better weights: {kept}, {verdict.start} are as good"
    names = " and ".join(n for n, network in verdict.networks.items() if network.better)
    return f"better weights in {verdict.weights}: {names}, {kept}"


def _prepare(work: _Work) -> None:
    """Fill the cache, and put each case on its side."""
    config = work.config
    problems = prepare([work.data], work.output, config, work.report, work.part("prepare"))
    work.notes += [str(problem) for problem in problems if problem.fatal]
    cases = read_cache(work.output / "cache")
    names = [case.name for case in cases]
    kept = set(keep_split(work.data, names, config.prepare.validation_share).validation)
    work.cases = [replace(case, validation=case.name in kept) for case in cases]
    _leave_out_twins(work)
    if not work.training or not work.validation:
        message = (
            f"{work.data} has {len(work.training)} cases to train on and {len(work.validation)} "
            "kept for validation that can be used: add a case, at least one of each is needed"
        )
        raise InputError(message)
    found = find_labels([work.data])
    work.labels = {case.name: found[case.name] for case in work.cases if case.name in found}
    for case in work.cases:
        if case.name in work.labels:
            work.notes += measure.contradictions(case, work.labels[case.name])


def _leave_out_twins(work: _Work) -> None:
    """Leave out of the training what is the scan of a validation case under another name."""
    image = "segmentation/image"
    known = {case.checksum(image): case.name for case in work.validation}
    for case in work.training:
        twin = known.get(case.checksum(image))
        if twin is not None:
            work.cases.remove(case)
            work.notes.append(
                f"{case.name} is the same scan as {twin}, which is kept for validation: left out"
            )


def _made_from(work: _Work) -> str:
    """Return the checksum of all that the outcome hangs on; how many work on it does not count."""
    config = replace(
        work.config,
        threads=0,
        prepare=replace(work.config.prepare, workers=1),
        vessels=replace(work.config.vessels, workers=1),
        pseudolabels=replace(work.config.pseudolabels, workers=1),
    )
    cases = [
        (case.name, case.validation, case.fingerprint("frangi"), _sum(work.labels.get(case.name)))
        for case in work.cases
    ]
    sums = sorted(card.sha256 for card in work.start.cards.values())
    return hashlib.sha256(repr((dump_config(config), cases, sums)).encode()).hexdigest()


def _sum(path: Path | None) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else ""


def _known(output: Path, made_from: str) -> Verdict | None:
    """Return the verdict that is there already, if it is on the same and still whole."""
    path = output / RESULT / VERDICT
    if not path.is_file():
        return None
    try:
        verdict = read_json(path, Verdict, others=True)
    except InputError:
        return None  # of another version, or damaged: it is made anew
    there = verdict.weights is None or (output / verdict.weights / "segmentation.json").is_file()
    return verdict if there and verdict.made_from == made_from else None


def _begin(work: _Work, made_from: str) -> None:
    """Lay out the start, unless the folders of the stages were begun for the very same."""
    output = work.output
    note = output / _BEGUN
    if _was_begun(note, made_from):
        return
    note.unlink(missing_ok=True)
    for name in (REGRESSION, SEGMENTATION):
        shutil.rmtree(output / name, ignore_errors=True)
        shutil.rmtree(start_of(output, name), ignore_errors=True)
    work.start.lay_out(output)
    write_json({"made_from": made_from}, note)


def _was_begun(note: Path, made_from: str) -> bool:
    try:
        return note.is_file() and read_json(note, _Begun).made_from == made_from
    except InputError:
        return False  # damaged: begun anew


def _vessels(work: _Work) -> None:
    if work.config.vessels.enabled:
        find_vessels(work.cases, work.output, work.config, work.report, work.part("vessels"))


def _regress(work: _Work, fabric: Fabric) -> bool:
    """Train the regression on the scores; returns whether there were enough."""
    told, run = work.part("regression"), work.output / REGRESSION
    lobes = [case.scores[lobe] for case in work.training for lobe in case.boxes]
    scores = [score for score in lobes if score is not None]
    if len(scores) < LEAST_LOBES or len(set(scores)) < 2:
        work.notes.append(
            f"the regression was left as it is: {len(scores)} scored lobes to train on, of "
            f"{len(set(scores))} different scores, are too few ({LEAST_LOBES}, of 2)"
        )
        begin_from(work.start.networks["regression"], run)
        return False
    begin = start_of(work.output, REGRESSION)
    experiment = RegressionExperiment(work.cases, work.config, begin)
    train(experiment, run, work.config, fabric, told)
    return True


def _segment(work: _Work, fabric: Fabric) -> None:
    """Make labels that keep to the scores, and train the final network on them."""
    begin = start_of(work.output, SEGMENTATION)
    make_pseudolabels(
        work.training,
        work.output,
        work.config,
        work.report,
        work.labels,
        teacher=begin,
        progress=work.part("pseudolabels"),
    )
    told, run = work.part("segmentation"), work.output / SEGMENTATION
    check_labels(work.cases, run)
    experiment = SegmentationExperiment(
        work.cases, work.config, work.output / REGRESSION, previous=begin
    )
    train(experiment, run, work.config, fabric, told)


def _judge(work: _Work, made_from: str, is_regressed: bool) -> Verdict:
    """Measure before and after, and write the verdict, with new weights if they are better."""
    before, after = _measure(work)
    networks = {
        SEGMENTATION: compare(
            summarise(measured.figures for measured in before),
            summarise(measured.figures for measured in after),
        ),
        REGRESSION: compare(
            _regression(work, start_of(work.output, REGRESSION)),
            _regression(work, work.output / REGRESSION),
            is_regressed,
        ),
    }
    better = any(network.better for network in networks.values())
    verdict = Verdict(
        better=better,
        weights=f"weights-{made_from[:8]}" if better else None,
        start=work.start.name,
        made_from=made_from,
        training=[case.name for case in work.training],
        validation=[case.name for case in work.validation],
        edited=sum(case.name in work.labels for case in work.training),
        networks=networks,
        cases=[
            CaseVerdict(
                case.name,
                summarise([first.figures]),
                summarise([second.figures]),
                f"{case.name}.png",
            )
            for case, first, second in zip(work.validation, before, after, strict=True)
        ],
        notes=work.notes,
    )
    if verdict.weights is not None:
        _write_weights(work, work.output / verdict.weights, verdict)
    with whole_folder(work.output / RESULT, VERDICT) as part:
        for case, first, second in zip(work.validation, before, after, strict=True):
            label = work.labels.get(case.name)
            picture = measure.before_and_after(case, first.found, second.found, label)
            write_bytes(picture, part / f"{case.name}.png")
        write_json(plain(asdict(verdict)), part / VERDICT)
    return verdict


def _regression(work: _Work, run: Path) -> Figures:
    cases = measure.measure_regression(work.validation, run, work.config)
    return summarise(cases.values())


def _measure(work: _Work) -> tuple[list[measure.Measured], list[measure.Measured]]:
    """Return what the segmentation makes of each validation case, before and after."""
    told = work.part("measure")
    tasks = [
        measure.MeasureTask(case, run, work.config, work.labels.get(case.name))
        for run in (start_of(work.output, SEGMENTATION), work.output / SEGMENTATION)
        for case in work.validation
    ]
    found: dict[tuple[Path, str], measure.Measured] = {}
    done = in_workers(
        measure.measure_segmentation,
        tasks,
        work.config.pseudolabels.workers,
        case=lambda task: task.case.name,
        setting="pseudolabels.workers",
    )
    for number, (task, result) in enumerate(done, start=1):
        found[task.run, task.case.name] = result
        told(number / len(tasks))
    results = [found[task.run, task.case.name] for task in tasks]
    return results[: len(work.validation)], results[len(work.validation) :]


def _write_weights(work: _Work, folder: Path, verdict: Verdict) -> None:
    """Write the networks that are better, and those that they started from for the others."""
    with whole_folder(folder, "segmentation.json") as part:
        for name, card in work.start.cards.items():
            network = verdict.networks.get(name)
            if network is None or not network.better:
                for suffix in (".safetensors", ".json", ".training.yaml"):
                    path = work.start.folder / f"{name}{suffix}"
                    if path.is_file():
                        write_bytes(path.read_bytes(), part / path.name)
                continue
            trained = work.start.networks[name]
            trained.load_state_dict(read_checkpoint(work.output / name)["network"])
            save_network(
                trained,
                part,
                name,
                architecture=card.architecture,
                config=card.config,
                metrics=_metrics(name, network, verdict, work.config),
                date=datetime.date.today().isoformat(),
                data=[*card.data, _sources(verdict)],
                licence=card.licence,
            )
            write_text(dump_config(work.config), part / f"{name}.training.yaml")


def _sources(verdict: Verdict) -> str:
    """Say what the weights were improved on, for their card."""
    edited = f", {verdict.edited} of them with corrected pseudo-labels" if verdict.edited else ""
    return (
        f"improved on {len(verdict.training)} cases of the user with lobe scores{edited}; "
        f"{len(verdict.validation)} other cases were kept for validation"
    )


def _metrics(
    name: NetworkName, network: NetworkVerdict, verdict: Verdict, config: Config
) -> dict[str, object]:
    loop = config.regression.loop if name == "regression" else config.segmentation.loop
    return {
        "steps": loop.steps,
        "started_from": verdict.start,
        "improved_on": verdict.training,
        "validation": plain({"cases": verdict.validation, **asdict(network)}),
    }
