"""What each departure from the paper is worth: one setting at a time goes back to the paper's.

A configuration departs from ``paper.yaml`` in some settings. For each of them the same training is
run again with the paper's value, from the same seed and with the same budget, and measured on the
same scans as ours: settings of the regression by its map, those of the labels and of the final
network by the final network, which then learns from the regression as ours trained it, those of the
vessel network by its Dice with the reference. Settings that are there for the sake of time alone
(widths, sizes) are only timed, in a few steps.

Every variant has a folder of its own below ``OUTPUT/departures`` and is left alone where it is
done, so a stopped run goes on where it was.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.typed import build
from DRAMLesionLib.writing import whole_folder, write_text
from Training.config import Config, LoopConfig, dump_config, load_config, to_plain
from Training.dataset.cache import CachedCase, read_cache
from Training.learning.engine import CHECKPOINT, Experiment, logged, make_fabric, train
from Training.learning.results import csv_table, plain
from Training.metrics import bonferroni, compare_methods
from Training.stages import regression, segmentation, vessels
from Training.studies.ablation import Row, gather, link_cache, measure_row, train_row

NAME = "departures"
PAPER = Path(__file__).parents[1] / "configs" / "paper.yaml"

OURS = "ours"

_FIGURES = ("iou", "iou_by_fraction", "average_precision", "healthy_percent")
_COLUMNS = (
    *("key", "shown_by", "ours", "paper"),
    *(name for figure in (*_FIGURES, "dice") for name in (figure, f"{figure}_paper")),
    *("p", "p_corrected", "time"),
)
_TIMED_STEPS = 3

Report = Callable[[str], None]


@dataclass(frozen=True)
class Departure:
    """A setting in which we may differ from the paper.

    Attributes:
        key: Such as ``regression.local``.
        shown_by: What is compared: the regression's ``map``, the ``final`` network, the ``vessels``
            of the vessel network, or only the ``time`` of a step.
        along: Keys that go back to the paper's value together with it.
    """

    key: str
    shown_by: Literal["map", "final", "vessels", "time"]
    along: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """All settings that go back."""
        return (self.key, *self.along)


DEPARTURES = (
    Departure("vessels.source", "vessels"),
    Departure("vessels.local", "vessels"),
    Departure("vessels.freeze_norm", "vessels"),
    Departure("vessels.vessel_centres", "vessels"),
    Departure("vessels.augmentation", "vessels"),
    Departure("vessels.optimiser", "vessels"),
    Departure("regression.local", "map"),
    Departure("regression.sizes", "map"),
    Departure("regression.freeze_norm", "map"),
    Departure("regression.balance", "map"),
    Departure("regression.weights.equivariance", "map"),
    Departure("regression.weights.entropy", "map"),
    Departure("regression.weights.refinement", "map"),
    Departure("regression.refine_after", "map"),
    Departure("regression.target", "map"),
    Departure("regression.gain", "map"),
    Departure("regression.loss_scale", "map"),
    Departure("regression.scales", "map"),
    Departure("regression.augmentation", "map"),
    Departure("regression.optimiser", "map"),
    Departure("pseudolabels.refined", "final"),
    Departure("pseudolabels.match_scores", "final"),
    Departure("pseudolabels.use_scores", "final"),
    Departure("pseudolabels.fill_vessels", "final"),
    Departure("segmentation.rounds", "final"),
    Departure("segmentation.start", "final"),
    Departure("segmentation.local", "final"),
    Departure("segmentation.freeze_norm", "final"),
    Departure("segmentation.lesion_centres", "final", ("segmentation.centres",)),
    Departure("segmentation.dense_centres", "final"),
    Departure("segmentation.region", "final"),
    Departure("segmentation.augmentation", "final"),
    Departure("segmentation.optimiser", "final"),
    Departure("vessels.patch", "time", ("vessels.border",)),
    Departure("vessels.base_channels", "time"),
    Departure("regression.chunk", "time", ("regression.sizes",)),
    Departure("regression.base_channels", "time"),
    Departure("segmentation.padding", "time", ("segmentation.patch", "segmentation.border")),
    Departure("segmentation.base_channels", "time"),
)


def measure_departures(
    data: Sequence[Path],
    test: Path,
    output: Path,
    config: Config,
    report: Report = lambda _: None,
    cache: Path | None = None,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Train ours and every variant, and compare.

    Args:
        data: Data sets to train on.
        test: Data set with a truth, to measure on.
        output: Folder of the run.
        config: Ours.
        report: Called with lines of text.
        cache: Prepared training data of another run, which is used and not changed.
        only: Keys of :data:`DEPARTURES`; all in which ``config`` differs if left out.

    Returns:
        What ``OUTPUT/departures/departures.json`` says.

    Raises:
        InputError: If a data set cannot be used, or a key is none of those.
    """
    chosen = choose(config, only)
    folder = output / NAME
    folder.mkdir(parents=True, exist_ok=True)
    cases, held_out, truths = gather(data, test, output, config, report, cache)
    ours = Row(OURS, folder / OURS, config, False)
    on_labels = any(d.shown_by == "final" or d.key.startswith(segmentation.NAME) for d in chosen)
    if on_labels or any(d.shown_by == "map" for d in chosen):
        _train(ours, output, report)
    if on_labels:
        _train(replace(ours, context=True), output, report)
    judge = vessels.VesselExperiment([replace(c, validation=True) for c in held_out], config)
    tests = sum(d.shown_by in ("map", "final") for d in chosen)
    found = []
    for departure in chosen:
        place = folder / departure.key
        context = departure.shown_by == "final"
        theirs = Row(place.name, place, with_papers(config, departure), False, context)
        if departure.shown_by == "time":
            pair = [_timed(row, departure, output, ours) for row in (ours, theirs)]
        elif departure.shown_by == "vessels":
            pair = [_vessels(row, cases, judge, report) for row in (ours, theirs)]
        else:
            if context:
                _adopt(ours.folder / regression.NAME, place / regression.NAME)
            _train(theirs, output, report)
            rows = replace(ours, context=context), theirs
            pair = [
                measure_row(row, held_out, truths, report) | {"seconds_a_step": _seconds(row)}
                for row in rows
            ]
        found.append(_compare(departure, config, pair[0], pair[1], tests))
        content = {"departures": found, "scans": len(held_out), "config": dump_config(config)}
        write_text(json.dumps(plain(content), indent=1) + "\n", folder / "departures.json")
        write_text(csv_table(found, _COLUMNS), folder / "departures.csv")
        report(table(found[-1:]))
    report(table(found))
    return content


def choose(config: Config, only: Sequence[str] = ()) -> list[Departure]:
    """Return the departures of a configuration, or those asked for.

    Raises:
        InputError: If a key is unknown, or the configuration has the paper's value there.
    """
    there = {d.key: d for d in DEPARTURES if _differs(config, d)}
    for key in only:
        if key not in there:
            message = (
                f"{key} is no departure of this configuration from the paper that can be "
                f"measured; there are: {', '.join(there)}"
            )
            raise InputError(message)
    return [d for key, d in there.items() if not only or key in only]


def with_papers(config: Config, departure: Departure) -> Config:
    """Return a configuration with one departure taken back."""
    values, paper = to_plain(config), to_plain(load_config(PAPER))
    for key in departure.keys:
        *parents, last = key.split(".")
        inner, source = values, paper
        for parent in parents:
            inner, source = inner[parent], source[parent]
        inner[last] = source[last]
    return build(Config, values, departure.key)


def _differs(config: Config, departure: Departure) -> bool:
    return _value(config, departure.key) != _value(load_config(PAPER), departure.key)


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return to_plain(value)


def _train(row: Row, output: Path, report: Report) -> None:
    """Train what a row shows, with labels that no other row sees."""
    cache = row.folder / "cache"
    link_cache(output / "cache", cache, without=(f"{segmentation.NAME}/labels.npy",))
    report(f"{row.name}: training")
    train_row(row, read_cache(cache), report)


def _adopt(source: Path, target: Path) -> None:
    """Copy the run of the regression, so that only labels and final network differ."""
    if not target.is_dir():
        with whole_folder(target, CHECKPOINT) as part:
            shutil.copytree(source, part, dirs_exist_ok=True)


def _vessels(
    row: Row, cases: Sequence[CachedCase], judge: vessels.VesselExperiment, report: Report
) -> dict[str, Any]:
    """Train the vessel network of a row; return its Dice with the reference on held-out cubes."""
    report(f"{row.name}: training")
    fabric, folder = make_fabric(row.config), row.folder / vessels.NAME
    network = train(vessels.VesselExperiment(cases, row.config), folder, row.config, fabric)
    found = judge.validate(network, fabric.device)
    if not found:
        message = (
            "no lobe of the scans to measure on is free of lesions: vessels cannot be compared"
        )
        raise InputError(message)
    return {"dice": found["dice"], "seconds_a_step": _median_seconds(folder)}


def _timed(row: Row, departure: Departure, output: Path, ours: Row) -> dict[str, Any]:
    """Return the time of a step with everything on, from a few steps that are thrown away."""
    stage = departure.key.partition(".")[0]
    settings = getattr(row.config, stage)
    loop = LoopConfig(
        steps=_TIMED_STEPS,
        batch=settings.loop.batch,
        log_every=1,
        validate_every=0,
        tensorboard=False,
    )
    at_once: dict[str, dict[str, Any]] = {
        regression.NAME: {"refine_after": 0},
        segmentation.NAME: {"start": "scratch", "rounds": 1},
        vessels.NAME: {},
    }
    config = replace(row.config, **{stage: replace(settings, loop=loop, **at_once[stage])})
    experiment: Experiment
    if stage == segmentation.NAME:
        labelled = read_cache(ours.folder / "cache")
        experiment = segmentation.SegmentationExperiment(labelled, config, ours.folder)
    elif stage == vessels.NAME:
        experiment = vessels.VesselExperiment(read_cache(output / "cache"), config)
    else:
        experiment = regression.RegressionExperiment(read_cache(output / "cache"), config)
    with tempfile.TemporaryDirectory() as name:
        train(experiment, Path(name), config, make_fabric(config))
        return {"seconds_a_step": _median_seconds(Path(name))}


def _seconds(row: Row) -> float:
    return _median_seconds(row.folder / (segmentation.NAME if row.context else regression.NAME))


def _median_seconds(run: Path) -> float:
    return median(entry["seconds"] for entry in logged(run, "train"))


def _compare(
    departure: Departure,
    config: Config,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    tests: int,
) -> dict[str, Any]:
    """Return what departing has brought: ours less the paper's.

    ``tests`` is the number of departures that are tested, which p is corrected for.
    """
    result: dict[str, Any] = {
        "key": departure.key,
        "ours": _value(config, departure.key),
        "paper": _value(load_config(PAPER), departure.key),
        "shown_by": departure.shown_by,
        "time": ours["seconds_a_step"] / theirs["seconds_a_step"],
    }
    if departure.shown_by == "vessels":
        result |= {"dice": ours["dice"], "dice_paper": theirs["dice"]}
        result["dice_change"] = ours["dice"] - theirs["dice"]
    elif departure.shown_by != "time":
        for name in _FIGURES:
            result |= {name: ours[name], f"{name}_paper": theirs[name]}
            result[f"{name}_change"] = _less(ours[name], theirs[name])
        pair = {"ours": ours["iou_of_scans"], "paper": theirs["iou_of_scans"]}
        result["p"] = compare_methods(pair)[0].p
        result["p_corrected"] = bonferroni(result["p"], tests)
    return result


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def table(content: Sequence[dict[str, Any]]) -> str:
    """Return the departures as lines of text: ours, the paper's value there, and the change.

    p is corrected for the number of departures that are tested. Vessel networks are compared by
    Dice instead of IoU.
    """
    lines = [
        f"{'departure':32s}{'shown by':>9s}  {'IoU ours, paper':>16s}{'change':>8s}{'p':>7s}"
        f"  {'by fraction':>12s}{'change':>8s}  {'precision':>12s}{'change':>8s}"
        f"  {'healthy %':>12s}  {'time':>6s}"
    ]
    for row in content:
        cells = [f"{row['key']:32s}{row['shown_by']:>9s}"]
        if row["shown_by"] == "vessels":
            cells.append(f"  {_two(row, 'dice'):>16s}{row['dice_change']:+8.3f}" + " " * 57)
        elif row["shown_by"] != "time":
            cells.append(
                f"  {_two(row, 'iou'):>16s}{row['iou_change']:+8.3f}{row['p_corrected']:7.3f}"
            )
            for name in ("iou_by_fraction", "average_precision"):
                cells.append(f"  {_two(row, name):>12s}{row[f'{name}_change']:+8.3f}")
            cells.append(f"  {_two(row, 'healthy_percent', 2):>12s}")
        else:
            cells.append(" " * 81)
        lines.append("".join(cells) + f"  x{row['time']:5.2f}")
    return "\n".join(lines)


def _two(row: dict[str, Any], name: str, digits: int = 3) -> str:
    values = row[name], row[f"{name}_paper"]
    return ", ".join("–" if value is None else f"{value:.{digits}f}" for value in values)
