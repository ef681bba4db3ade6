"""The table of paper 003 on slices with masks, in folds: ``python -m Training slices-folds``.

Every slice is found by a network that has not seen it. Points are sampled from the masks with a
fixed seed; all rows have the same slices, points and steps. There is no choice of a step by
validation, so nothing of the held-out slices enters a network (the paper stops early on 5 slices).

``OUTPUT`` gets a run for each row and fold and ``folds.json``, which is written anew after each
fold: a stopped command goes on, and what is done until then can be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.writing import write_text
from Training import metrics
from Training.config import Config, PointsConfig, dump_config
from Training.evaluation.counting import LEVEL, count_error, game
from Training.learning.engine import make_fabric, train
from Training.learning.results import plain
from Training.slices.measure import Found, compare
from Training.slices.pictures import Slice, read_slices
from Training.slices.points import SlicePointsExperiment, points_finder

RESULT = "folds.json"
FOLDS = 5

ROWS: dict[str, dict[str, Any]] = {
    "PL": {"loss": "points", "consistency": 0.0},
    "CB flip": {"loss": "points", "rotate": False},
    "CB flip + rotation": {"loss": "points", "rotate": True},
    "LCFCN": {"loss": "lcfcn", "consistency": 0.0},
    "CB LCFCN": {"loss": "lcfcn", "rotate": False},
    "supervised": {"loss": "masks", "consistency": 0.0},
}
"""Rows of the paper's tables 2 and 7 by what they change in the settings."""

_FIGURES = ("dice", "iou", "ppv", "sensitivity", "specificity")

Report = Callable[[str], None]


def run_folds(
    images: Path,
    masks: Path,
    output: Path,
    config: Config,
    report: Report = lambda _: None,
    rows: Sequence[str] = (),
    folds: int = FOLDS,
) -> dict[str, Any]:
    """Train and measure the rows on all folds.

    Args:
        images: See :func:`Training.slices.pictures.read_slices`.
        masks: See there.
        output: Folder of the study.
        config: All settings; those of ``points`` hold.
        report: Called with lines of text.
        rows: Which of :data:`ROWS`; all if left out.
        folds: How many.

    Returns:
        The content of ``folds.json``.

    Raises:
        InputError: If slices cannot be used, there are too few, or a row is not known.
        Cancelled: If it was stopped; the next call goes on from there.
    """
    names = list(rows) or list(ROWS)
    if unknown := sorted(set(names) - ROWS.keys()):
        message = f"there is no row {unknown[0]!r}; known: {', '.join(ROWS)}"
        raise InputError(message)
    slices = read_slices(images, masks, report)
    if not 2 <= folds <= len(slices):
        message = f"{len(slices)} slices cannot be parted into {folds} folds"
        raise InputError(message)
    parts = part(len(slices), folds, config.seed)
    found: dict[str, dict[int, Found]] = {name: {} for name in names}
    content: dict[str, Any] = {}
    fabric = make_fabric(config)
    for number, held_out in enumerate(parts, start=1):
        seen = [one for n, one in enumerate(slices) if n not in held_out]
        for name in names:
            run = output / name.replace(" ", "-") / f"fold-{number}"
            settings = row_settings(name, config.points)
            train(SlicePointsExperiment(seen, settings, config.seed), run, config, fabric)
            finder = points_finder(run)
            found[name] |= {n: finder(slices[n].grey) for n in held_out}
            content = {
                "folds": f"{number} of {folds}",
                "trained_on": f"{len(seen)} slices of {images.parent.name} in each fold",
                "config": dump_config(config),
                "rows": {row: measure(slices, done) for row, done in found.items() if done},
            }
            write_text(json.dumps(plain(content), indent=1) + "\n", output / RESULT)
            report(f"fold {number} of {folds}, {name}: {_line(content['rows'][name])}")
    report(table(content["rows"]))
    return content


def row_settings(name: str, config: PointsConfig) -> PointsConfig:
    """Return the settings of a row."""
    return replace(config, **ROWS[name])


def part(count: int, folds: int, seed: int) -> list[list[int]]:
    """Return the slices that each fold holds out: all of them once, sorted."""
    order = np.random.default_rng(seed).permutation(count)
    return [sorted(int(n) for n in order[fold::folds]) for fold in range(folds)]


def measure(slices: Sequence[Slice], found: dict[int, Found]) -> dict[str, Any]:
    """Return the figures of a row: over all pixels, as means over slices, and of counting.

    Args:
        slices: All of them.
        found: What was found in those that were held out so far, by number.
    """
    numbers = sorted(found)
    chosen, results = [slices[n] for n in numbers], [found[n] for n in numbers]
    compared = compare(chosen, results)
    pairs = [(what.mask, one.truth) for what, one in zip(results, chosen, strict=True)]
    return {
        "slices": len(numbers),
        "all_pixels": compared["all_pixels"],
        "mean_of_slices": {
            name: compared["mean_of_slices"][name]["mean"]
            for name in (*_FIGURES, "average_precision")
        },
        "counting": {
            "MAE": float(np.mean([count_error(*pair) for pair in pairs])),
            f"GAME({LEVEL})": float(np.mean([game(*pair) for pair in pairs])),
        },
        "dice_by_slice": {
            one.name: metrics.dice(*pair) for one, pair in zip(chosen, pairs, strict=True)
        },
    }


def table(rows: dict[str, Any]) -> str:
    """Return the rows as a table of Markdown: over all pixels, means over slices in brackets."""
    names = ["Dice", "IoU", "PPV", "sensitivity", "specificity", "MAE", f"GAME({LEVEL})"]
    lines = [f"| loss | {' | '.join(names)} | slices |", "|---" * (len(names) + 2) + "|"]
    for name, row in rows.items():
        cells = [
            f"{_number(row['all_pixels'][key])} ({_number(row['mean_of_slices'][key])})"
            for key in _FIGURES
        ]
        cells += [f"{value:.2f}" for value in row["counting"].values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['slices']} |")
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    return f"Dice {_number(row['all_pixels']['dice'])} over {row['slices']} slices"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
