"""The commands of the evaluation, for :mod:`Training.__main__`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from DRAMLesionLib.weights import BUNDLED


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``slices`` to the command line."""
    _add_slices(commands)


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


def _print_figures(title: str, figures: dict[str, Any]) -> None:
    shown = (f"{name} {'–' if x is None else f'{x:.3f}'}" for name, x in figures.items())
    sys.stdout.write(f"{title}: {', '.join(shown)}\n")
