"""The command ``batch``: its options, and what it says. Nothing heavy is loaded before it runs."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from DRAMLesionLib.batch.settings import (
    PAGE,
    SUMMARY,
    Progress,
    Scan,
    Settings,
    Shard,
    Tell,
    find_scans,
)
from DRAMLesionLib.errors import InputError, ScansFailed
from DRAMLesionLib.paths import SUFFIXES

if TYPE_CHECKING:
    from DRAMLesionLib.batch.run import Runner


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what says who does the scans, and which of them."""
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="processes on this computer; as many as memory and cores allow if left out",
    )
    who.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler whose workers do the scans, such as tcp://host:8786",
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="do part I of N, as a task of a job array; all parts together make one summary",
    )
    parser.add_argument("--again", action="store_true", help="do finished scans again as well")


def add_dicom(parser: argparse.ArgumentParser) -> None:
    """Add what asks for DICOM results."""
    parser.add_argument(
        "--dicom",
        nargs="?",
        choices=("binary", "labelmap"),
        const="binary",
        help="write DICOM segmentations and a structured report as well, for CTs that are DICOM "
        "series; they carry the patient's names as the CT does",
    )


def check_options(options: argparse.Namespace) -> str:
    """Say what is wrong with the words of a command line; nothing if they are right."""
    for word, folder in (("scans", options.scans), ("--lobes", options.lobes)):
        if folder is not None and not folder.is_dir():
            return f"{word}: {folder} is no folder"
    if options.shard and options.scheduler:
        return "--shard is for job arrays without a scheduler: leave one of the two out"
    return ""


def batch(
    options: argparse.Namespace,
    tell: Tell,
    scans: list[Scan] | None = None,
    progress: Progress | None = None,
) -> str:
    """Do the scans of a folder.

    Args:
        options: What the parser of the command line gave.
        tell: Called with a line for who watches.
        scans: Those of the folder; looked for if left out.
        progress: See :func:`~DRAMLesionLib.batch.run.run_batch`.

    Returns:
        The last line, if all scans are done.

    Raises:
        ScansFailed: If some are not.
        DRAMLesionError: If the batch as a whole cannot be done.
    """
    from DRAMLesionLib.batch.run import run_batch

    if options.dicom:
        from DRAMLesionLib.interchange.source import check_installed

        check_installed()
    found = find(options, tell) if scans is None else scans
    settings = _settings(options)
    runner = _runner(options, len(found), tell)
    outcome = run_batch(found, settings, runner, tell, options.shard, progress)
    if outcome.problem or outcome.count("failed"):
        where = outcome.problem or f"see {SUMMARY} and {PAGE} for what is wrong with the others"
        message = f"{outcome.line}; {where}"
        raise ScansFailed(message)
    return f"{outcome.line}; {options.output / SUMMARY}, {options.output / PAGE}"


def find(options: argparse.Namespace, tell: Tell) -> list[Scan]:
    """Return the scans of the folder that the command line names.

    Raises:
        InputError: If there are none.
    """
    # workers elsewhere have other working folders
    lobes = options.lobes.absolute() if options.lobes else None
    found = find_scans(options.scans.absolute(), lobes, tell)
    if not found:
        message = f"{options.scans} holds no scan ({', '.join(SUFFIXES)}, folders)"
        raise InputError(message)
    return found


def _settings(options: argparse.Namespace) -> Settings:
    from DRAMLesionLib.report.origin import weight_sums
    from DRAMLesionLib.weights import BUNDLED

    weights = options.weights.absolute() if options.weights else None
    private = (options.scans, options.lobes, options.weights)
    return Settings(
        output=options.output.absolute(),
        weights=weights,
        weight_sums=weight_sums(weights or BUNDLED),
        lobe_scheme=options.lobe_scheme,
        lobe_provider=options.lobe_provider,
        device=options.device,
        maps=options.maps,
        dicom=options.dicom,
        again=options.again,
        private=tuple(folder for folder in private if folder),
    )


def _runner(options: argparse.Namespace, scans: int, tell: Tell) -> Runner:
    from DRAMLesionLib.batch import local

    if options.scheduler:
        from DRAMLesionLib.batch.cluster import Cluster

        return Cluster(options.scheduler, tell)
    own = -(-scans // options.shard.count) if options.shard else scans
    workers = options.workers or local.default_workers(own, options.device)
    if workers == 1:
        return local.one_by_one
    return local.Processes(workers, gpus=options.device in ("auto", "cuda"))


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        message = "at least one worker is needed"
        raise argparse.ArgumentTypeError(message)
    return value


def _shard(text: str) -> Shard:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        message = f"{text} is no part such as 1/4: the parts of N are 1/N to N/N"
        raise argparse.ArgumentTypeError(message)
    return Shard(int(found[1]), int(found[2]))
