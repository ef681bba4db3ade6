"""The commands of the evaluation, for :mod:`Training.__main__`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.weights import BUNDLED
from DRAMLesionLib.writing import locked

if TYPE_CHECKING:
    from Training.evaluation.run import Plan

SLICES_FOLDS = Path(__file__).parents[1] / "configs" / "slices-folds.yaml"
"""Settings of the study on slices."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``benchmark``, ``slices``, ``slices-folds`` and ``evaluate`` to the command line."""
    _add_benchmark(commands)
    _add_slices(commands)
    _add_slices_folds(commands)
    _add_evaluate(commands)


def _add_benchmark(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("benchmark", help="Make a set to compare methods on.")
    command.set_defaults(run=_benchmark)
    command.add_argument("--size", required=True, help="small, medium or paper")
    command.add_argument("--output", type=Path, required=True, help="folder of the set")
    _add_scans(command)
    command.add_argument("--workers", type=int, default=2, help="cases at a time")


def _add_scans(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--scans", type=Path, nargs="+", default=[], help="real lungs that get synthetic lesions"
    )
    command.add_argument(
        "--without",
        nargs="*",
        default=[],
        metavar="SCAN=LOBE,LOBE",
        help="lobes that are not free of lesions, left out: lidc-idri-0001=LUL,LLL",
    )


def _benchmark(options: argparse.Namespace) -> None:
    from Training.evaluation.sets import make_benchmark, parse_without

    with locked(options.output, print):
        content = make_benchmark(
            options.output,
            options.size,
            options.scans,
            parse_without(options.without),
            options.workers,
            print,
        )
    sys.stdout.write(f"{len(content['cases'])} cases, checksum {content['digest']}\n")


def _add_slices(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "slices", help="Measure weights or a method on 2D slices with masks."
    )
    command.set_defaults(run=_slices)
    command.add_argument(
        "--images",
        type=Path,
        required=True,
        help="folder of slices: PNG, JPEG, BMP or TIFF, 8 bits",
    )
    command.add_argument(
        "--masks", type=Path, required=True, help="masks of the same names, black where no lesion"
    )
    command.add_argument("--output", type=Path, required=True, help="folder of the results")
    command.add_argument(
        "--weights", type=Path, default=BUNDLED, help="weights, or the folder of a method's run"
    )
    command.add_argument(
        "--method", help="any method instead of the final network: cam, gradcam, decomposition, …"
    )
    command.add_argument(
        "--classes",
        type=Path,
        help="a reader's types of lesion: pictures of the same names, 38 ground glass, "
        "75 consolidation",
    )
    command.add_argument("--row", help="which of the method's rows in the tables, such as 'dRAM'")
    command.add_argument("--lungs-mm", type=float, default=270.0, help="width of both lungs")
    command.add_argument(
        "--threshold", type=float, help="on the probability; the most probable class if left out"
    )


def _slices(options: argparse.Namespace) -> None:
    from Training.methods.base import Trained
    from Training.slices.measure import measure_slices, network_finder
    from Training.slices.methods import method_finder

    if options.method is None:
        finder, settings = network_finder(
            options.weights, options.lungs_mm, options.threshold, options.classes is not None
        )
    elif options.classes is not None:
        message = "--classes is for the final network: methods tell no types on slices"
        raise InputError(message)
    elif options.threshold is not None:
        message = "--threshold is for the final network: methods have thresholds of their own"
        raise InputError(message)
    else:
        trained = Trained(options.method, options.weights)
        finder, settings = method_finder(trained, options.row, options.lungs_mm)
    content = measure_slices(
        options.images, options.masks, options.output, finder, settings, print, options.classes
    )
    _print_figures("all pixels", content["all_pixels"])
    _print_figures(
        "mean of slices", {name: m["mean"] for name, m in content["mean_of_slices"].items()}
    )
    if "types" in content:
        names = ("agreement", "kappa", "mixed")
        _print_figures("types", {name: content["types"][name] for name in names})


def _add_slices_folds(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "slices-folds", help="Train on points of 2D slices with masks, and measure, in folds."
    )
    command.set_defaults(run=_slices_folds)
    command.add_argument("--images", type=Path, required=True, help="folder of slices")
    command.add_argument("--masks", type=Path, required=True, help="masks of the same names")
    command.add_argument("--output", type=Path, required=True, help="folder of runs and results")
    command.add_argument("--config", type=Path, default=SLICES_FOLDS, help="YAML file")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    command.add_argument("--rows", nargs="+", default=[], help="all if left out")
    command.add_argument("--folds", type=int, default=5)


def _slices_folds(options: argparse.Namespace) -> None:
    from Training.config import load_config
    from Training.studies.slice_folds import run_folds

    config = load_config(options.config, options.set)
    with locked(options.output, print):
        run_folds(
            options.images,
            options.masks,
            options.output,
            config,
            print,
            options.rows,
            options.folds,
        )


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "evaluate", help="Train and measure methods, or measure weights, on scans with truth."
    )
    command.set_defaults(run=_evaluate)
    test = command.add_mutually_exclusive_group(required=True)
    test.add_argument("--size", help="make and use a benchmark set: small, medium or paper")
    test.add_argument("--data", type=Path, help="data set with a truth to measure on")
    command.add_argument("--output", type=Path, required=True, help="folder of the results")
    command.add_argument(
        "--train", type=Path, nargs="+", default=[], help="data sets to train methods on first"
    )
    command.add_argument(
        "--validation", type=Path, nargs="+", default=[], help="data sets kept out of the training"
    )
    command.add_argument("--methods", help="to train: cam,dram,supervised (default), gradcam, …")
    command.add_argument(
        "--weights",
        action="append",
        metavar="[LABEL=]DIR",
        help="weights of ours to measure as they are; may be repeated",
    )
    command.add_argument(
        "--config", type=Path, help="YAML file of the training; that of the size if left out"
    )
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    _add_scans(command)
    command.add_argument("--workers", type=int, default=2, help="scans at a time")
    command.add_argument("--device", default="cpu", help="where networks are measured")
    command.add_argument(
        "--estimate-lobes", action="store_true", help="estimate the lobes instead of giving them"
    )


def _evaluate(options: argparse.Namespace) -> None:
    from Training.evaluation.run import run_plan

    plan = _plan(options)
    content = run_plan(plan, print)
    for name, summary in content["methods"].items():
        keys = ("iou_mean_of_scans", "average_precision", "score_weighted_kappa")
        _print_figures(name, {key: summary[key] for key in keys})
    print(f"wrote {plan.report / 'evaluation.html'}")  # noqa: T201


def _plan(options: argparse.Namespace) -> Plan:
    """Return what the options ask for; makes the benchmark set if they name one."""
    from Training.config import load_config
    from Training.evaluation.run import DEFAULT_METHODS, REPORT, Plan, benchmark_plan
    from Training.evaluation.sets import parse_without

    _check_together(options)
    if options.size is not None:
        plan = benchmark_plan(
            options.size,
            options.output,
            options.scans,
            parse_without(options.without),
            options.workers,
            options.config,
            options.set,
            print,
        )
    else:
        plan = Plan(
            options.data,
            options.output / REPORT if options.train else options.output,
            options.output,
            tuple(options.train),
            tuple(options.validation),
            config=load_config(options.config, options.set),
            workers=options.workers,
        )
    methods = tuple(options.methods.split(",")) if options.methods else DEFAULT_METHODS
    weights = [_labelled(text) for text in options.weights or []]
    if not plan.train and not weights:
        weights = [("", BUNDLED)]
    return replace(
        plan,
        methods=methods,
        weights=tuple(weights),
        device=options.device,
        estimate_lobes=options.estimate_lobes,
    )


def _check_together(options: argparse.Namespace) -> None:
    """Refuse options that would be ignored."""
    if options.size is not None and (options.train or options.validation):
        message = "--size brings its own data: leave --train and --validation out"
        raise InputError(message)
    if options.size is None and (options.scans or options.without):
        message = "--scans and --without belong to --size: a data set of --data is taken as it is"
        raise InputError(message)
    if options.data is not None and not options.train and (options.methods or options.validation):
        message = "--methods and --validation need --train, the data sets to train on"
        raise InputError(message)


def _labelled(text: str) -> tuple[str, Path]:
    """Return label and folder of ``LABEL=DIR``; without a label it is empty."""
    label, _, folder = text.rpartition("=")
    return label, Path(folder)


def _print_figures(title: str, figures: dict[str, Any]) -> None:
    shown = (f"{name} {'–' if x is None else f'{x:.3f}'}" for name, x in figures.items())
    sys.stdout.write(f"{title}: {', '.join(shown)}\n")
