"""Command line of the library.

``python -m DRAMLesionLib segment|batch|compare|dicom|lobes|phantom``.

Exit status 0 done, 1 could not be done (one line on standard error), 2 wrong usage, 130 stopped by
Ctrl-C, 143 by SIGTERM. Heavy imports happen inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from DRAMLesionLib import __version__
from DRAMLesionLib.batch import command as batch
from DRAMLesionLib.errors import Cancelled, DRAMLesionError
from DRAMLesionLib.followup import command as followup
from DRAMLesionLib.memory import told
from DRAMLesionLib.tables import one_line

Progress = Callable[[str, float], None]

SCHEMES = ("auto", "dram", "lungmask", "totalsegmentator", "totalsegmentator-v1", "rtsunet")
PROVIDERS = ("embedded", "totalsegmentator", "lungmask")
DEVICES = ("auto", "cpu", "cuda", "mps")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words of the command line; those of the process if left out.

    Returns:
        The exit status.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if problem := options.check(options):
        parser.error(problem)
    _stop_on_terminate()
    progress = _JsonProgress() if options.json_progress else _TerminalProgress()
    try:
        message = options.command(options, progress)
    except _Terminated:
        return _failed(progress, f"stopped; {options.stopped}", 143)
    except KeyboardInterrupt:
        return _failed(progress, f"stopped; {options.stopped}", 130)
    except Cancelled as error:
        return _failed(progress, str(error), 1)
    except (DRAMLesionError, OSError, MemoryError, RuntimeError) as error:
        reason = one_line(told(error))
        if not reason:
            raise
        return _failed(progress, f"dramlesion: {reason}", 1)
    progress.end()
    if not options.json_progress:
        print(message)
    return 0


def _failed(progress: _JsonProgress | _TerminalProgress, line: str, status: int) -> int:
    progress.end()
    print(line, file=sys.stderr)
    return status


def segment(options: argparse.Namespace, progress: Progress) -> str:
    """Take one CT all the way and write images, table and report."""
    from DRAMLesionLib.interchange.source import check_installed
    from DRAMLesionLib.interchange.write import dicom_writer
    from DRAMLesionLib.lobes import masks
    from DRAMLesionLib.pipeline import LesionPipeline
    from DRAMLesionLib.reading import files
    from DRAMLesionLib.report.output import check_output, write_result
    from DRAMLesionLib.weights import BUNDLED

    check_output(options.output)
    if options.dicom:
        check_installed()
    progress("read", 0.0)
    pipeline = LesionPipeline(options.device, options.weights or BUNDLED, options.lobe_provider)
    ct, warnings = files.read_ct(options.ct, options.series)
    check_output(options.output, ct.GetNumberOfPixels(), options.maps, options.dicom is not None)
    to_dicom = None
    if options.dicom:
        to_dicom = dicom_writer(options.ct, ct, options.dicom, options.series)
    lobes, names = masks.read_lobes(options.lobes) if options.lobes else (None, None)
    result = pipeline.run(
        ct,
        lobes,
        # the files take the last tenth
        lambda stage, fraction: progress(stage, 0.02 + 0.88 * fraction),
        lobe_scheme=options.lobe_scheme,
        lobe_names=names,
        warnings=warnings,
    )
    written = write_result(
        result,
        options.output,
        options.maps,
        lambda f: progress("write", 0.9 + 0.1 * f),
        others=to_dicom and (lambda part: to_dicom(result, part)),
    )
    lines = [f"note: {warning.message}" for warning in result.report.warnings]
    total = result.report.row("total")
    if total.lesion_percent is not None:
        score = "–" if total.score is None else f"{total.score} of {total.max_score}"
        lines.append(f"lesions: {total.lesion_percent:.1f} % of the lungs, score {score}")
    lines += [f"wrote {path}" for path in written]
    return "\n".join(lines)


def many(options: argparse.Namespace, progress: Progress) -> str:
    """Take all CTs of a folder the whole way."""
    if options.json_progress:
        return batch.batch(options, lambda _: None, progress=progress)
    return batch.batch(options, _say)


def dicom(options: argparse.Namespace, progress: Progress) -> str:
    """Write the DICOM files of a result that is there."""
    from DRAMLesionLib.interchange.source import check_installed, listed, source_of, source_of_files
    from DRAMLesionLib.interchange.write import write_dicom_of
    from DRAMLesionLib.reading import files
    from DRAMLesionLib.report.output import DICOM, check_output

    check_installed()
    check_output(options.output)
    progress("read", 0.0)
    ct, _ = files.read_ct(options.ct, options.series)
    check_output(options.output, ct.GetNumberOfPixels(), dicom=True)
    if options.slices:
        source = source_of_files(listed(options.slices), ct)
    else:
        source = source_of(options.ct, ct, options.series)
    progress("write", 0.2)
    write_dicom_of(
        options.result,
        ct,
        source,
        options.output,
        options.kind,
        not options.untyped,
        options.edited,
        lambda fraction: progress("write", 0.2 + 0.8 * fraction),
    )
    return "\n".join(f"wrote {options.output / name}" for name in DICOM)


def lobes(options: argparse.Namespace, progress: Progress) -> str:
    """Find the lobes of a CT and write them as a label map."""
    from DRAMLesionLib import writing
    from DRAMLesionLib.lobes import Lobe
    from DRAMLesionLib.lobes.providers import provide_lobes
    from DRAMLesionLib.reading import checks, files

    writing.check_image_writable(options.output)
    progress("read", 0.0)
    ct, warnings = files.read_ct(options.ct, options.series)
    # compressed to a tenth at least
    writing.check_image_writable(options.output, 0.1 * ct.GetNumberOfPixels())
    warnings = [*warnings, *checks.check_ct(ct, str(options.ct))]
    estimate = provide_lobes(
        ct, options.lobe_provider, lambda fraction: progress("lobes", 0.05 + 0.9 * fraction)
    )
    writing.write_image(estimate.lobes, options.output)
    lines = [f"note: {warning.message}" for warning in (*warnings, *estimate.warnings)]
    if estimate.confidence:
        sure = ", ".join(f"{Lobe(n).name} {c:.2f}" for n, c in estimate.confidence.items())
        lines.append(f"confidence: {sure}")
    return "\n".join([*lines, f"wrote {options.output}"])


def phantom(options: argparse.Namespace, progress: Progress) -> str:
    """Make a phantom chest CT with its truth."""
    from DRAMLesionLib import writing
    from DRAMLesionLib.phantom import make_phantom

    # a body of 50 litres, and two bytes and a half for the CT and the truth of a voxel
    writing.check_writable(options.output, 2.5 * 5e7 / options.spacing**3)
    made = make_phantom(
        seed=options.seed,
        spacing=options.spacing,
        progress=lambda fraction: progress("phantom", 0.9 * fraction),
    )
    made.write(options.output)
    return f"wrote {options.output}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m DRAMLesionLib",
        description="COVID-19 lesions on chest CT by dense regression activation maps. "
        "Research use only, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True)

    command = _command(commands, "segment", segment, "lesions, vessels, lobes, scores and a report")
    _add_ct(command)
    command.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    command.add_argument(
        "--lobes",
        type=Path,
        help="label map, segmentation or DICOM SEG of the lobes; estimated if left out",
        metavar="FILE",
    )
    _add_way(command)

    command = _command(commands, "batch", many, "results of many CTs, a summary and a page of all")
    _add_batch(command)

    command = _command(
        commands, "compare", followup.compare, "what has changed between two CTs of one patient"
    )
    followup.add_options(command)
    _add_provider(command)
    _add_networks(command)

    command = _command(commands, "dicom", dicom, "the DICOM files of a result that is there")
    _add_dicom(command)

    command = _command(commands, "lobes", lobes, "the five lobes as a label map")
    _add_ct(command)
    command.add_argument("-o", "--output", type=Path, required=True, help="label map to write")

    command = _command(commands, "phantom", phantom, "a synthetic chest CT with its truth")
    command.add_argument("-o", "--output", type=Path, required=True, help="folder for the phantom")
    command.add_argument("--seed", type=int, default=0, help="which phantom (default 0)")
    command.add_argument(
        "--spacing", type=_spacing, default=1.5, metavar="MM", help="voxel size (default 1.5 mm)"
    )
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: Callable[[argparse.Namespace, Progress], str],
    text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=f"Write {text}.")
    command.set_defaults(command=function, check=lambda _: "", stopped="nothing was written")
    command.add_argument(
        "--json-progress",
        action="store_true",
        help="print progress as one JSON object a line instead of a bar",
    )
    return command


def _add_batch(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "scans",
        type=Path,
        metavar="SCANS",
        help="folder with a file (NIfTI, NRRD, MetaImage) or a DICOM folder for each CT",
    )
    command.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    command.add_argument(
        "--lobes",
        type=Path,
        help="folder with lobe masks that are named as the CTs; estimated where there is none",
        metavar="DIR",
    )
    _add_provider(command)
    _add_way(command)
    batch.add_options(command)
    command.set_defaults(check=batch.check_options, stopped="start again to go on")


def _add_dicom(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "result", type=Path, metavar="RESULT", help="folder that segment has written for the CT"
    )
    _add_scan(command)
    command.add_argument("-o", "--output", type=Path, required=True, help="folder for the files")
    command.add_argument(
        "--slices",
        type=Path,
        metavar="FILE",
        help="text file with the path of each DICOM image, one a line, where CT is no DICOM folder",
    )
    command.add_argument(
        "--kind",
        choices=("binary", "labelmap"),
        default="binary",
        help="how segmentations are stored",
    )
    command.add_argument(
        "--untyped", action="store_true", help="lesions are 1, whatever their type"
    )
    command.add_argument(
        "--edited",
        nargs="+",
        choices=("lesions", "lobes"),
        default=(),
        help="what a person has changed in the result",
    )


def _add_way(command: argparse.ArgumentParser) -> None:
    """Add what says how a CT is taken the whole way, and what is written."""
    command.add_argument(
        "--lobe-scheme", choices=SCHEMES, default="auto", help="how --lobes numbers the lobes"
    )
    _add_networks(command)
    command.add_argument(
        "--maps", action="store_true", help="write dRAM, refined dRAM, lesion probability as well"
    )
    batch.add_dicom(command)


def _add_networks(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", choices=DEVICES, default="auto", help="where networks run")
    command.add_argument(
        "--weights", type=Path, metavar="DIR", help="folder with weights; bundled ones if left out"
    )


def _add_ct(command: argparse.ArgumentParser) -> None:
    _add_scan(command)
    _add_provider(command)


def _add_scan(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "ct",
        type=Path,
        metavar="CT",
        help="chest CT: NIfTI, NRRD, MetaImage or a folder with one DICOM series",
    )
    command.add_argument(
        "--series", metavar="UID", help="which DICOM series, where the folder holds several"
    )


def _add_provider(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lobe-provider",
        choices=PROVIDERS,
        default="embedded",
        help="who finds the lobes; the last two must be installed by you",
    )


def _spacing(text: str) -> float:
    value = float(text)
    if not 0.3 <= value <= 10.0:
        message = "the voxel size lies between 0.3 and 10 mm"
        raise argparse.ArgumentTypeError(message)
    return value


def _say(text: str) -> None:
    """Print a line; what scans are called may hold anything."""
    indent = text[: len(text) - len(text.lstrip())]
    print(f"{indent}{one_line(text)}", flush=True)


class _JsonProgress:
    """One JSON object a line on standard output, for programs that show their own bar."""

    def __call__(self, stage: str, fraction: float) -> None:
        print(json.dumps({"stage": stage, "fraction": round(fraction, 4)}), flush=True)

    def end(self) -> None:
        """Nothing is left open."""


class _TerminalProgress:
    """A bar with the stage and the time left on standard error; silent where that is a file."""

    _WIDTH = 24

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._shown = False

    def __call__(self, stage: str, fraction: float) -> None:
        if not sys.stderr.isatty():
            return
        elapsed = time.monotonic() - self._start
        left = f"{_minutes(elapsed * (1 - fraction) / fraction)} left" if fraction > 0.03 else ""
        full = round(self._WIDTH * fraction)
        bar = "█" * full + "░" * (self._WIDTH - full)
        sys.stderr.write(f"\r\x1b[K{bar} {100 * fraction:3.0f} % {stage}  {left}")
        sys.stderr.flush()
        self._shown = True

    def end(self) -> None:
        """Clear the bar."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def _stop_on_terminate() -> None:
    """Let SIGTERM, by which the Slicer module cancels a run, clean up as Ctrl-C does."""

    def stop(_number: int, _frame: object) -> None:
        raise _Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


if __name__ == "__main__":
    sys.exit(main())
