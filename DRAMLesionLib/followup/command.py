"""The command ``compare``: its options and its way. Nothing heavy is loaded before it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from DRAMLesionLib.pipeline import LesionPipeline

Progress = Callable[[str, float], None]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what names the two scans, and the folder for the results."""
    for which in ("earlier", "later"):
        parser.add_argument(
            which,
            type=Path,
            metavar=which.upper(),
            help=f"the {which} CT, or a folder with its results of segment",
        )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    for which in ("earlier", "later"):
        parser.add_argument(
            f"--{which}-ct",
            type=Path,
            metavar="CT",
            help=f"the CT of the {which} results, which keep none",
        )


def compare(options: argparse.Namespace, progress: Progress) -> str:
    """Compare two scans and write page, tables and JSON.

    Raises:
        DRAMLesionError: If the two cannot be compared.
    """
    from DRAMLesionLib.followup import compare as comparing
    from DRAMLesionLib.followup import output, page
    from DRAMLesionLib.followup.timepoint import Given, read, with_results

    output.check_output(options.output)
    both = (
        Given(options.earlier, options.earlier_ct, "earlier"),
        Given(options.later, options.later_ct, "later"),
    )
    for given in both:
        given.check()

    @cache
    def pipeline() -> LesionPipeline:
        from DRAMLesionLib.pipeline import LesionPipeline
        from DRAMLesionLib.weights import BUNDLED

        return LesionPipeline(options.device, options.weights or BUNDLED, options.lobe_provider)

    progress("read", 0.0)
    scans = [read(given) for given in both]
    comparing.check_pair(*scans)
    # a CT that has to be segmented takes longer than all the rest
    shares = [0.1 if given.is_results else 0.7 for given in both]
    whole = sum(shares) + 0.4
    done = 0.02
    times = []
    for given, scan, share in zip(both, scans, shares, strict=True):
        part = _part(progress, given.which, done, share / whole)
        times.append(with_results(given, scan, pipeline, part))
        done += share / whole
    comparison, found = comparing.compare(
        times[0], times[1], _part(progress, "compare", done, 0.95 - done)
    )
    progress("write", 0.95)
    written = output.write_comparison(comparison, times[0], times[1], found, options.output)
    lines = [f"note: {warning.message}" for warning in comparison.warnings]
    lines.append(page.findings(comparison))
    return "\n".join([*lines, *(f"wrote {path}" for path in written)])


def _part(progress: Progress, stage: str, start: float, share: float) -> Callable[[float], None]:
    """Return what tells the progress of a stage that begins at ``start``."""
    return lambda fraction: progress(stage, start + share * fraction)
