"""Command line of the training: ``python -m Training STAGE --config FILE --data DIR --output DIR``.

Each stage can be stopped and started again at any moment; ``all`` runs what is missing. Exit status
0 done, 1 could not be done (one line on standard error), 2 wrong usage, 130 stopped.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from DRAMLesionLib.errors import Cancelled, DRAMLesionError, InputError
from DRAMLesionLib.memory import is_out_of_memory
from DRAMLesionLib.writing import check_writable, clean, locked, write_text
from Training.commands.evaluation import add_commands as add_evaluation
from Training.commands.improvement import add_commands as add_improvement
from Training.config import Config, dump_config, load_config
from Training.dataset.folder import find_labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a stage; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        with _terminable():
            options.run(options)
    except (KeyboardInterrupt, Cancelled) as stop:
        print(str(stop) or "stopped; the next run goes on from here", file=sys.stderr)
        return 130
    except (DRAMLesionError, OSError, MemoryError, RuntimeError) as error:
        line = _line(error)
        if line is None:
            raise
        print(f"training: {line}", file=sys.stderr)
        return 1
    return 0


def _line(error: Exception) -> str | None:
    """Say in one line what ended a command; None for a mistake of the program."""
    if isinstance(error, DRAMLesionError):
        return str(error)
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        reason = error.strerror or str(error)
        return f"cannot read or write{where}: {reason}; the next run goes on where this one was"
    if not is_out_of_memory(error) and not _KILLED_LOADER.search(str(error)):
        return None
    return (
        "the memory did not do: use smaller batches, patches or chunks, fewer workers, or a "
        "computer with more; the next run goes on where this one was"
    )


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep the output of a command for it; under torchrun one process does so for all."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    check_writable(folder)
    with locked(folder, print):
        for path in folder.rglob("*"):
            if path.is_dir():
                clean(path)
        yield


def prepare(options: argparse.Namespace, config: Config) -> None:
    """Verify the data set and cache what the training reads."""
    from Training.stages.prepare import prepare as run

    run(options.data, options.output, config, print)


def vessels(options: argparse.Namespace, config: Config) -> None:
    """Train the vessel network and, where it is to be used, ask it about every scan."""
    from Training.dataset.cache import PREPARED, VESSELS, read_cache
    from Training.learning.engine import make_fabric, train
    from Training.stages.vessels import NAME, VesselExperiment, find_vessels

    cases = read_cache(options.output / "cache", (*PREPARED, VESSELS))
    fabric = make_fabric(config)
    train(VesselExperiment(cases, config), options.output / NAME, config, fabric)
    if config.regression.vessels == "network" and fabric.is_global_zero:
        find_vessels(cases, options.output, config, print)


def regression(options: argparse.Namespace, config: Config) -> None:
    """Train the regression network."""
    from Training.dataset.cache import PREPARED, VESSELS, VESSELS_BY_NETWORK, read_cache
    from Training.learning.engine import make_fabric, train
    from Training.stages.regression import NAME, RegressionExperiment

    arrays = (*PREPARED, VESSELS_BY_NETWORK if config.regression.vessels == "network" else VESSELS)
    experiment = RegressionExperiment(read_cache(options.output / "cache", arrays), config)
    train(experiment, options.output / NAME, config, make_fabric(config))


def pseudolabels(options: argparse.Namespace, config: Config) -> None:
    """Turn dRAMs into labels."""
    from Training.dataset.cache import PREPARED, read_cache
    from Training.stages.rounds import label

    cases = read_cache(options.output / "cache", PREPARED)
    label(cases, options.output, config, print, find_labels(options.data))


def segmentation(options: argparse.Namespace, config: Config) -> None:
    """Train the final network."""
    from Training.dataset.cache import LABELS, PREPARED, read_cache
    from Training.learning.engine import make_fabric
    from Training.stages.rounds import train_final

    cases = read_cache(options.output / "cache", (*PREPARED, LABELS))
    given = find_labels(options.data)
    train_final(cases, options.output, config, make_fabric(config), print, given)


def _train_method(options: argparse.Namespace) -> None:
    """Prepare the data and train one of the methods that are compared, on all of it."""
    from Training.dataset.cache import read_cache
    from Training.methods import get_method
    from Training.methods.base import Workplace

    config, method = load_config(options.config, options.set), get_method(options.name)
    _refuse_several()
    with _alone(options.output):
        write_text(dump_config(config), options.output / "config.yaml")
        prepare(options, config)
        cases = read_cache(options.output / "cache")
        work = Workplace(options.data, cases, options.output, config, print)
        print(f"the trained method is in {method.train(work)}")


def export(options: argparse.Namespace, config: Config) -> None:
    """Write the weights that the library loads."""
    from Training.dataset.cache import read_cache
    from Training.stages.export import export as run

    run(read_cache(options.output / "cache"), options.output, config, print)


def everything(options: argparse.Namespace, config: Config) -> None:
    """Run all stages; each leaves alone what it finds done."""
    prepare(options, config)
    if config.vessels.enabled:
        vessels(options, config)
    for stage in (regression, pseudolabels, segmentation, export):
        stage(options, config)


STAGES: dict[str, Callable[[argparse.Namespace, Config], None]] = {
    "prepare": prepare,
    "vessels": vessels,
    "regression": regression,
    "pseudolabels": pseudolabels,
    "segmentation": segmentation,
    "export": export,
    "all": everything,
}
DEFAULT = Path(__file__).with_name("configs") / "default.yaml"
_KILLED_LOADER = re.compile(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)")
"""What torch says when the system has ended one of its workers, as it does for want of memory."""

TRAINING = (vessels, regression, segmentation)
"""Stages that several processes share."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m Training",
        description="Learn to segment lesions from lobe-wise severity scores.",
    )
    commands = parser.add_subparsers(title="stages", required=True)
    for name, stage in STAGES.items():
        command = commands.add_parser(name, help=(stage.__doc__ or "").strip())
        command.set_defaults(run=_run_stage, stage=stage)
        command.add_argument("--config", type=Path, default=DEFAULT, help="YAML file")
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
        command.add_argument(
            "--data", type=Path, action="append", required=True, help="data set; may be repeated"
        )
        command.add_argument("--output", type=Path, required=True, help="folder of the training")
    command = commands.add_parser("method", help="Train one of the methods that are compared.")
    command.set_defaults(run=_train_method)
    command.add_argument("name", help="such as decomposition or attention_fusion")
    command.add_argument("--config", type=Path, default=DEFAULT, help="YAML file")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    command.add_argument(
        "--data", type=Path, action="append", required=True, help="data set; may be repeated"
    )
    command.add_argument("--output", type=Path, required=True, help="folder of the training")
    command = commands.add_parser("phantoms", help="Make a data set of phantoms.")
    command.set_defaults(run=_make_phantoms)
    command.add_argument("--output", type=Path, required=True, help="folder of the data set")
    command.add_argument("--count", type=int, required=True)
    command.add_argument("--first-seed", type=int, default=0)
    command.add_argument("--spacing", type=float, default=1.5, help="voxel edge in mm")
    command.add_argument("--healthy-share", type=float, default=0.15)
    command.add_argument(
        "--expiration-share", type=float, default=0.0, help="share of the CTs in expiration"
    )
    command.add_argument("--workers", type=int, default=2)
    _add_comparisons(commands)
    _add_synthesis(commands)
    add_improvement(commands)
    add_evaluation(commands)
    return parser


def _add_comparison(
    commands: argparse._SubParsersAction, name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text)
    command.add_argument("--config", type=Path, default=DEFAULT, help="YAML file")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    command.add_argument(
        "--data", type=Path, action="append", default=[], help="to train on; may be repeated"
    )
    command.add_argument("--cache", type=Path, help="prepared training data instead of --data")
    command.add_argument("--test", type=Path, required=True, help="data set with a truth")
    command.add_argument("--output", type=Path, required=True, help="folder of the comparison")
    return command


def _add_comparisons(commands: argparse._SubParsersAction) -> None:
    ablation = _add_comparison(commands, "ablate", "Measure what each part of the method adds.")
    ablation.set_defaults(run=_ablate)
    departures = _add_comparison(
        commands, "departures", "Measure what each departure from the paper's settings is worth."
    )
    departures.set_defaults(run=_measure_departures)
    departures.add_argument(
        "--only", nargs="+", default=[], metavar="KEY", help="such as regression.local"
    )


def _ablate(options: argparse.Namespace) -> None:
    from Training.studies.ablation import ablate

    config = _comparison_config(options)
    with _alone(options.output):
        ablate(options.data, options.test, options.output, config, print, options.cache)


def _measure_departures(options: argparse.Namespace) -> None:
    from Training.studies.departures import measure_departures

    config = _comparison_config(options)
    with _alone(options.output):
        measure_departures(
            options.data, options.test, options.output, config, print, options.cache, options.only
        )


def _comparison_config(options: argparse.Namespace) -> Config:
    if not options.data and options.cache is None:
        message = "give the data to train on with --data, or a prepared cache with --cache"
        raise InputError(message)
    _refuse_several()
    return load_config(options.config, options.set)


def _add_synthesis(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("synthesis", help="Set synthetic lesions into real lungs.")
    command.set_defaults(run=_make_synthetic)
    command.add_argument(
        "--scans", type=Path, nargs="+", required=True, help="lungs without lesions"
    )
    command.add_argument(
        "--without",
        nargs="*",
        default=[],
        metavar="SCAN=LOBE,LOBE",
        help="lobes that are not free of lesions, left out: lidc-idri-0001=LUL,LLL",
    )
    command.add_argument("--output", type=Path, required=True, help="folder of the data set")
    command.add_argument("--count", type=int, required=True)
    command.add_argument("--first-seed", type=int, default=0)
    command.add_argument("--spacing", type=float, default=1.5, help="voxel edge in mm")
    command.add_argument("--healthy-share", type=float, default=0.25)
    command.add_argument("--workers", type=int, default=2)


def _run_stage(options: argparse.Namespace) -> None:
    config = load_config(options.config, options.set)
    if options.stage not in TRAINING:
        _refuse_several()
    with _alone(options.output):
        if os.environ.get("RANK", "0") == "0":
            write_text(dump_config(config), options.output / "config.yaml")
        options.stage(options, config)


def _refuse_several() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        names = ", ".join(stage.__name__ for stage in TRAINING)
        message = f"torchrun is for the stages {names}; run the others in a single process"
        raise InputError(message)


def _make_phantoms(options: argparse.Namespace) -> None:
    from Training.stages.phantoms import make_phantoms

    with _alone(options.output):
        make_phantoms(
            options.output,
            options.count,
            options.first_seed,
            options.spacing,
            options.healthy_share,
            options.expiration_share,
            options.workers,
            print,
        )


def _make_synthetic(options: argparse.Namespace) -> None:
    from Training.evaluation.sets import parse_without
    from Training.synthesis.make import make_synthetic

    with _alone(options.output):
        make_synthetic(
            options.output,
            options.scans,
            options.count,
            options.first_seed,
            options.spacing,
            options.healthy_share,
            parse_without(options.without),
            options.workers,
            print,
        )


if __name__ == "__main__":
    sys.exit(main())
