"""Many scans without a window: lesions, lobe scores and a report for each, and one summary table.

In Slicer::

    Slicer --no-splash --no-main-window --python-script DRAMLesionBatch.py --input IN --output OUT

and the same with ``PythonSlicer DRAMLesionBatch.py …`` or any Python with the library's packages.
The thin entry to ``python -m DRAMLesionLib batch``, which does the work.
IN holds one file (NIfTI, NRRD, MetaImage) or one folder with a DICOM series for each scan. OUT gets
a folder for each scan, ``summary.csv`` and ``cohort.html``. A scan that fails is a row with its
reason, and the others go on; a second start does what is left, and again what was made from another
scan, other lobes, weights or options. Exit status: 0 all scans done, 1 some failed, 2 wrong usage,
130 stopped by Ctrl-C, 143 by SIGTERM.
"""

import argparse
import importlib.util
import signal
import sys
import threading
from pathlib import Path

PACKAGES = {
    "torch": "torch",
    "skimage": "scikit-image",
    "safetensors": "safetensors",
    "jinja2": "Jinja2",
    "PIL": "Pillow",
    "filelock": "filelock",
}
"""What the library needs beside what Slicer brings: import name and name of the package."""


def makeImportable() -> None:
    """Find the library: installed, beside the module of the extension, or in the repository."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent, here.parent.parent):
        isThere = (folder / "DRAMLesionLib" / "__init__.py").is_file()
        if importlib.util.find_spec("DRAMLesionLib") is None and isThere:
            sys.path.append(str(folder))


def missingPackages() -> list[str]:
    """Packages to install first."""
    return [package for name, package in PACKAGES.items() if importlib.util.find_spec(name) is None]


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list]:
    """Read the command line, and find the scans; raises SystemExit(2) if something is wrong."""
    from DRAMLesionLib.batch import command
    from DRAMLesionLib.errors import InputError

    parser = argparse.ArgumentParser(
        prog="DRAMLesionBatch.py",
        description="Lesions and lobe scores of many chest CTs. Research use only, not a medical "
        "device.",
    )
    parser.add_argument(
        "--input", dest="scans", type=Path, required=True, help="folder with the scans"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--lobes", type=Path, help="folder with lobe masks named as the scans; estimated without"
    )
    parser.add_argument("--lobe-scheme", default="auto", help="how the masks number the lobes")
    parser.add_argument(
        "--lobe-provider",
        choices=("embedded", "totalsegmentator", "lungmask"),
        default="embedded",
        help="who finds the lobes where there is no mask",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--weights", type=Path, help="folder made by 'python -m Training export'")
    parser.add_argument("--maps", action="store_true", help="write dRAM and probability as well")
    command.add_dicom(parser)
    command.add_options(parser)
    # Slicer's own program cannot start further ones of Python
    parser.set_defaults(workers=1)
    options = parser.parse_args(arguments)
    problem = command.check_options(options)
    if problem:
        parser.error(problem)
    try:
        return options, command.find(options, say)
    except InputError as error:
        parser.error(str(error))


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def stopOnTerminate() -> None:
    """Let SIGTERM, as a batch system sends it, clean up as Ctrl-C does."""

    def stop(_number, _frame):
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def say(text: str) -> None:
    """One line for who watches."""
    from DRAMLesionLib.tables import one_line

    indent = text[: len(text) - len(text.lstrip())]
    sys.stdout.write(f"{indent}{one_line(text)}\n")
    sys.stdout.flush()


def run(options: argparse.Namespace, scans: list) -> int:
    """Do the scans; returns the exit status."""
    from DRAMLesionLib.batch import command
    from DRAMLesionLib.errors import DRAMLesionError, ScansFailed

    try:
        say(command.batch(options, say, scans))
    except ScansFailed as error:
        say(str(error))
        return 1
    except DRAMLesionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def main(arguments: list[str]) -> int:
    """Do everything, and turn whatever happens into an exit status."""
    try:
        makeImportable()
        options, scans = parse(arguments)
        missing = missingPackages()
        if missing:
            words = " ".join(missing)
            sys.stderr.write(f"install first: PythonSlicer -m pip install {words}\n")
            return 1
        stopOnTerminate()
        return run(options, scans)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    except Terminated:
        say("stopped; start again to go on")
        return 143
    except KeyboardInterrupt:
        say("stopped; start again to go on")
        return 130
    except BaseException as error:  # an exception that escapes would leave Slicer waiting for ever
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1


def leave(status: int) -> None:
    """End Slicer, or Python where there is no Slicer application."""
    for number in (signal.SIGTERM, signal.SIGINT):  # all is done: there is nothing left to stop
        signal.signal(number, signal.SIG_DFL)
    try:
        import slicer.util

        isApplication = getattr(slicer, "app", None) is not None
    except Exception:  # outside the application its package cannot be loaded in several ways
        isApplication = False
    if isApplication:
        slicer.util.exit(status)
    else:
        sys.exit(status)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
