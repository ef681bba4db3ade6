"""The command ``improve``, for :mod:`Training.__main__`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from DRAMLesionLib.weights import BUNDLED
from DRAMLesionLib.writing import locked
from Training.config import load_config

OWN_SETTINGS = "improve.yaml"
"""Settings in a data set, which take the place of the default ones."""

DEFAULT = Path(__file__).parents[1] / "configs" / "improve.yaml"


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``improve`` to the command line."""
    command = commands.add_parser("improve", help="Improve weights on a reader's own cases.")
    command.set_defaults(run=_improve)
    command.add_argument("data", type=Path, help="data set of the reader")
    command.add_argument("--output", type=Path, required=True, help="folder of the improvement")
    command.add_argument(
        "--weights", type=Path, default=BUNDLED, help="to start from; the bundled ones if left out"
    )
    command.add_argument(
        "--config", type=Path, help=f"YAML file; {OWN_SETTINGS} of the data set if that is there"
    )
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    command.add_argument(
        "--json-progress", action="store_true", help="one JSON object a line on standard output"
    )


def _improve(options: argparse.Namespace) -> None:
    from Training.improvement.improve import improve

    own = options.data / OWN_SETTINGS
    path = options.config or (own if own.is_file() else DEFAULT)
    config = load_config(path, options.set)
    tell = _nothing if options.json_progress else _line
    with locked(options.output, tell):
        improve(
            options.data,
            options.output,
            options.weights,
            config,
            tell,
            _progress if options.json_progress else _no_progress,
        )


def _line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _progress(stage: str, fraction: float) -> None:
    _line(json.dumps({"stage": stage, "fraction": round(fraction, 4)}))


def _nothing(_text: str) -> None:
    """Take the place of a report that nobody reads."""


def _no_progress(_stage: str, _fraction: float) -> None:
    """Take the place of a progress that nobody reads."""
