"""The whole table by one command: make the set, train each method, measure, write the page.

``OUTPUT/set`` gets the benchmark set, ``OUTPUT/training`` the prepared cases and a folder for each
method, ``OUTPUT/evaluated`` the results by scan, ``OUTPUT/report`` the tables. An ablation that was
measured in ``OUTPUT`` by ``python -m Training ablate`` goes into the page. Each step leaves alone
what it finds done, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.typed import Between, build, read_json
from DRAMLesionLib.weights import NetworkName, has_network, read_card
from DRAMLesionLib.writing import locked, write_text
from Training.config import Config, dump_config, load_config
from Training.dataset.cache import INDEX, CachedCase, read_cache
from Training.dataset.folder import SCANS, case_name, find_cases
from Training.evaluation.kept import Keeper
from Training.evaluation.measure import evaluate
from Training.evaluation.report import write_evaluation
from Training.evaluation.sets import TEST, TRAIN, VALIDATION, make_benchmark
from Training.evaluation.sources import find_sources
from Training.methods import METHODS, OURS, get_method
from Training.methods.base import Trained, Workplace
from Training.stages.prepare import prepare

Report = Callable[[str], None]

SET, TRAINING, EVALUATED, REPORT = "set", "training", "evaluated", "report"
SECONDS, ABLATION = "seconds.json", "ablation"
DEFAULT_METHODS = ("cam", "dram", "supervised")
CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Plan:
    """What to train, and on what to measure it.

    Attributes:
        test: Data set with a truth.
        report: Folder of the tables.
        output: Folder of the training.
        train: Data sets to learn from; none to measure weights alone.
        validation: Data sets whose cases no method trains on.
        methods: Which to train.
        weights: Weights of ours to measure as they are, with a label that may be empty.
        config: All settings.
        workers: Scans at a time.
        estimate_lobes: Whether the lobes are estimated; otherwise the true ones are given.
        device: Where networks compute when they are measured.
        about: What else the page says.
    """

    test: Path
    report: Path
    output: Path
    train: tuple[Path, ...] = ()
    validation: tuple[Path, ...] = ()
    methods: tuple[str, ...] = DEFAULT_METHODS
    weights: tuple[tuple[str, Path], ...] = ()
    config: Config = field(default_factory=Config)
    workers: int = 2
    estimate_lobes: bool = False
    device: str = "cpu"
    about: dict[str, Any] = field(default_factory=dict)


def benchmark_plan(
    size: str,
    output: Path,
    scans: Sequence[Path],
    without: dict[str, Any],
    workers: int,
    config: Path | None,
    overrides: Sequence[str],
    report: Report,
) -> Plan:
    """Make a benchmark set and return the plan for it.

    Args:
        size: See :data:`Training.evaluation.sets.SIZES`.
        output: Folder of it all.
        scans: See :func:`Training.evaluation.sets.make_benchmark`.
        without: The same.
        workers: Cases at a time.
        config: Settings; those of the size if left out.
        overrides: Settings to change, see :func:`Training.config.load_config`.
        report: Called with a line of text for each case.
    """
    with locked(output / SET, report):
        made = make_benchmark(output / SET, size, scans, without, workers, report)
    settings = load_config(config or CONFIGS / f"benchmark-{size}.yaml", overrides)
    about = {
        "title": f"benchmark set '{size}'",
        "set": f"checksum {made['digest'][:16]}, {len(made['cases'])} cases",
        "real lungs": _lungs(made),
    }
    return Plan(
        output / SET / TEST,
        output / REPORT,
        output,
        (output / SET / TRAIN,),
        (output / SET / VALIDATION,),
        config=settings,
        workers=workers,
        about=about,
    )


def _lungs(made: dict[str, Any]) -> str:
    if not made["scans"]:
        return "none: phantoms alone"
    names = ", ".join(made["scans"])
    if made["same_lungs_in_all_parts"]:
        return f"{names}: the same lungs, with other lesions, in training and test"
    return f"{names}: the last third for the test alone"


def run_plan(plan: Plan, report: Report = lambda _: None) -> dict[str, Any]:
    """Train what is not trained yet, measure everything and write the report.

    Returns:
        The content of the report's JSON.

    Raises:
        InputError: If data or settings cannot be used.
        MissingDependencyError: If a method needs something that is not installed.
        Cancelled: If it was stopped.
    """
    started = time.perf_counter()
    sources = find_sources(plan.test)
    trained, training = _train(plan, report) if plan.train else ([], {})
    trained += [Trained(OURS, folder, label, plan.device) for label, folder in plan.weights]
    if not trained:
        message = "there is nothing to measure: name methods to train or weights"
        raise InputError(message)
    memory = Keeper(plan.output / EVALUATED) if plan.train else None
    results = evaluate(sources, trained, plan.workers, plan.estimate_lobes, report, memory)
    about = {
        "title": plan.test.name,
        **plan.about,
        "test scans": len(sources),
        **_about_training(plan, training),
        **{f"weights {label}".strip(): checksums(folder) for label, folder in plan.weights},
        "lobes": "estimated" if plan.estimate_lobes else "given",
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "duration of this run": _duration(time.perf_counter() - started),
    }
    main = get_method(OURS).rows[-1] if any(t.method == OURS for t in trained) else None
    label = next((t.label for t in trained if t.method == OURS), "")
    main = f"{label}: {main}" if label and main else main
    return write_evaluation(results, plan.report, about, main, read_ablation(plan.output))


def read_ablation(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of an ablation that was measured in a folder; none if there was none."""
    path = folder / ABLATION / "ablation.json"
    if not path.is_file():
        return []
    content = read_json(path, dict[str, Any])
    return build(list[dict[str, Any]], content.get("rows"), f"{path}: rows")


def _train(plan: Plan, report: Report) -> tuple[list[Trained], dict[str, float]]:
    """Train the methods; return where they are and how long each took."""
    folder, config = plan.output / TRAINING, plan.config
    # not the whole output: methods may be trained side by side by several commands
    with locked(folder, report):
        work = prepare_workplace(plan, folder, report)
    trained = []
    for name in METHODS:
        if name not in plan.methods:
            continue
        report(f"training {name}")
        start = time.perf_counter()
        try:
            with locked(folder / name, report):
                where = get_method(name).train(work)
        finally:
            # read anew: another command may have added to it
            seconds = _read_seconds(folder)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
            write_text(json.dumps(seconds, indent=1) + "\n", folder / SECONDS)
        trained.append(Trained(name, where, device=plan.device))
    write_text(dump_config(config), folder / "config.yaml")
    seconds = _read_seconds(folder)
    return trained, {name: seconds[name] for name in METHODS if name in plan.methods}


def prepare_workplace(plan: Plan, folder: Path, report: Report) -> Workplace:
    """Prepare the cases of a plan, those for validation set apart by the plan and not by name.

    Raises:
        InputError: If a method is unknown, a case is broken, or is in training and test.
    """
    for name in plan.methods:
        get_method(name)
    data = (*plan.train, *plan.validation)
    _check_apart(data, plan.test)
    prepare(data, folder, plan.config, report)
    kept = {case.name for case in find_cases(plan.validation)[0]} if plan.validation else set()
    cases = [
        CachedCase(case.name, case.folder, case.name in kept if kept else case.validation)
        for case in read_cache(folder / "cache")
    ]
    index = [{"name": case.name, "validation": case.validation} for case in cases]
    write_text(json.dumps({"cases": index}, indent=1) + "\n", folder / "cache" / INDEX)
    return Workplace(data, cases, folder, plan.config, report)


def _check_apart(data: Sequence[Path], test: Path) -> None:
    learnt = {case.name for case in find_cases(data)[0]}
    if both := sorted(learnt & {case_name(path) or "" for path in (test / SCANS).iterdir()}):
        message = f"{len(both)} cases are in training and in test, such as {both[0]}"
        raise InputError(message)


def _read_seconds(folder: Path) -> dict[str, float]:
    path = folder / SECONDS
    try:
        seconds = read_json(path, dict[str, Annotated[float, Between(0)]])
    except InputError:  # damaged, it is worth no more than a missing one
        return {}
    return seconds


def _about_training(plan: Plan, training: dict[str, float]) -> dict[str, Any]:
    if not training:
        return {}
    regression, final = plan.config.regression, plan.config.segmentation
    steps = regression.loop.steps + final.loop.steps
    count = len(find_cases(plan.train)[0])
    return {
        "training scans": count,
        "budget": (
            f"{steps} optimiser steps for each method (ours: {regression.loop.steps} + "
            f"{final.loop.steps}), {regression.loop.batch} lobe chunks of "
            f"{regression.chunk.size}³ or {final.loop.batch} patches of {final.patch}³ a step, "
            f"width {final.base_channels}; the paper's widths are 32"
        ),
        "training time": ", ".join(f"{name} {_duration(s)}" for name, s in training.items()),
    }


def checksums(folder: Path) -> str:
    """Name the networks of a folder by the first digits of their checksums."""
    names: tuple[NetworkName, ...] = ("regression", "segmentation", "vessels")
    there = [name for name in names if has_network(folder, name)]
    return ", ".join(f"{name} {read_card(folder, name).sha256[:12]}" for name in there)


def machine() -> str:
    """Describe the machine without naming it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{platform.machine()}, {cores} of {os.cpu_count()} cores{gpu}, torch {torch.__version__}"
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"
