"""The commands of the evaluation, for :mod:`Training.__main__`."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from pathlib import Path
from typing import Any

from DRAMLesionLib.weights import BUNDLED, NetworkName, has_network, read_card


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``benchmark``, ``slices`` and ``evaluate`` to the command line."""
    _add_benchmark(commands)
    _add_slices(commands)
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
    from Training.benchmark_sets import make_benchmark, parse_without

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
    command = commands.add_parser("slices", help="Measure weights on 2D slices with masks.")
    command.set_defaults(run=_slices)
    command.add_argument("--images", type=Path, required=True, help="folder of 8-bit PNG slices")
    command.add_argument("--masks", type=Path, required=True, help="masks with the same names")
    command.add_argument("--output", type=Path, required=True, help="folder of the results")
    command.add_argument("--weights", type=Path, default=BUNDLED)
    command.add_argument("--lungs-mm", type=float, default=270.0, help="width of both lungs")
    command.add_argument(
        "--threshold", type=float, help="on the probability; the most probable class if left out"
    )


def _slices(options: argparse.Namespace) -> None:
    from Training.slices import measure_slices, network_finder

    finder, settings = network_finder(options.weights, options.lungs_mm, options.threshold)
    content = measure_slices(options.images, options.masks, options.output, finder, settings, print)
    _print_figures("all pixels", content["all_pixels"])
    _print_figures(
        "mean of slices", {name: m["mean"] for name, m in content["mean_of_slices"].items()}
    )


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("evaluate", help="Measure weights on scans with truth.")
    command.set_defaults(run=_evaluate)
    command.add_argument("--data", type=Path, required=True, help="data set with a truth")
    command.add_argument("--weights", type=Path, default=BUNDLED)
    command.add_argument("--output", type=Path, required=True, help="folder of the results")
    command.add_argument("--workers", type=int, default=2, help="scans at a time")
    command.add_argument(
        "--estimate-lobes", action="store_true", help="estimate the lobes instead of giving them"
    )


def _evaluate(options: argparse.Namespace) -> None:
    from Training.evaluation import evaluate, find_sources
    from Training.evaluation_report import write_evaluation
    from Training.methods.base import Trained

    sources = find_sources(options.data)
    methods = [Trained("dram", options.weights)]
    results = evaluate(sources, methods, options.workers, options.estimate_lobes, print)
    about = {
        "title": options.data.name,
        "scans": len(sources),
        "weights": _checksums(options.weights),
        "lobes": "estimated" if options.estimate_lobes else "given",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    content = write_evaluation(results, options.output, about)
    for name, summary in content["methods"].items():
        keys = ("iou_mean_of_scans", "average_precision", "score_weighted_kappa")
        _print_figures(name, {key: summary[key] for key in keys})
    print(f"wrote {options.output / 'evaluation.html'}")  # noqa: T201


def _checksums(folder: Path) -> str:
    """Name the networks of a folder by the first digits of their checksums."""
    names: tuple[NetworkName, ...] = ("regression", "segmentation", "vessels")
    there = [name for name in names if has_network(folder, name)]
    return ", ".join(f"{name} {read_card(folder, name).sha256[:12]}" for name in there)


def _print_figures(title: str, figures: dict[str, Any]) -> None:
    shown = (f"{name} {'–' if x is None else f'{x:.3f}'}" for name, x in figures.items())
    sys.stdout.write(f"{title}: {', '.join(shown)}\n")
