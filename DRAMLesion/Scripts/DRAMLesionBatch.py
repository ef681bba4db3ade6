"""Many scans without a window: lesions, lobe scores and a report for each, and one summary table.

In Slicer::

    Slicer --no-splash --no-main-window --python-script DRAMLesionBatch.py --input IN --output OUT

and the same with ``PythonSlicer DRAMLesionBatch.py …`` or any Python with the library's packages.
IN holds one file (NIfTI, NRRD, MetaImage) or one folder with a DICOM series for each scan. OUT gets
a folder for each scan and ``summary.csv``. A scan that fails is a row with its reason, and the
others go on; a second start does what is left, and again what was made from another scan, other
lobes, weights or options. Exit status: 0 all scans done, 1 some failed, 2 wrong usage, 130 stopped
by Ctrl-C, 143 by SIGTERM.
"""

import argparse
import importlib.util
import json
import os
import re
import signal
import sys
import tempfile
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

LOBES = ("LUL", "LLL", "RUL", "RML", "RLL", "total")
FIELDS = ("volume_ml", "lesion_ml", "lesion_percent", "score")
COLUMNS = (
    "scan",
    "status",
    "reason",
    *(f"{lobe}_{field}" for lobe in LOBES for field in FIELDS),
    "lobes_source",
    "warnings",
    "version",
)


FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[\\/](?:[^\\/\s:]+[\\/])*(?=[^\\/\s:])")
"""The folders of an absolute path, as far as it has no blanks."""


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


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; raises SystemExit(2) if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="DRAMLesionBatch.py",
        description="Lesions and lobe scores of many chest CTs. Research use only, not a medical "
        "device.",
    )
    parser.add_argument("--input", type=Path, required=True, help="folder with the scans")
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
    parser.add_argument("--again", action="store_true", help="do finished scans again as well")
    options = parser.parse_args(arguments)
    for name in ("input", "lobes"):
        folder = getattr(options, name)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{name}: {folder} is no folder")
    if not findScans(options.input):
        from DRAMLesionLib.paths import SUFFIXES

        parser.error(f"--input: {options.input} holds no scan ({', '.join(SUFFIXES)}, folders)")
    return options


def findScans(folder: Path, segmentations: bool = False) -> dict[str, list[Path]]:
    """Scans of a folder by name; more than one of a name cannot be told apart."""
    from DRAMLesionLib.paths import case_name, image_suffix

    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and image_suffix(path) == ".seg.nrrd" and not segmentations:
            say(f"{path.name} is left out: it is a segmentation")
            continue
        name = case_name(path)
        if name:
            found.setdefault(name, []).append(path)
    return found


def summaryRow(name: str, folder: Path) -> dict[str, object]:
    """The row of a finished scan."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    row: dict[str, object] = {"scan": name, "status": "done", "reason": ""}
    for entry in (*report["lobes"], *report["totals"]):
        if entry["name"] in LOBES:
            for field in FIELDS:
                value = entry[field]
                row[f"{entry['name']}_{field}"] = "" if value is None else value
    row["lobes_source"] = report["lobes_source"]
    row["warnings"] = " | ".join(warning["message"] for warning in report["warnings"])
    row["version"] = report["version"]
    return row


def writeSummary(rows: list[dict[str, object]], path: Path) -> str:
    """Write the table, whole or not at all; says why that failed, '' if it did not."""
    from DRAMLesionLib import tables, writing
    from DRAMLesionLib.errors import DRAMLesionError

    try:
        writing.write_text(tables.csv_text(COLUMNS, rows), path)
    except DRAMLesionError as error:
        return str(error)
    return ""


class Batch:
    """Runs scan after scan, with the networks loaded once."""

    def __init__(self, options: argparse.Namespace):
        from DRAMLesionLib.weights import BUNDLED

        self._options = options
        self._weights = options.weights or BUNDLED
        self._pipeline = None
        self._masks = findScans(options.lobes, segmentations=True) if options.lobes else {}

    def run(self) -> int:
        """Do all scans; returns the exit status."""
        from DRAMLesionLib import writing
        from DRAMLesionLib.errors import OutputError

        try:
            with writing.locked(self._options.output, say):
                return self._all()
        except OutputError as error:
            sys.stderr.write(f"{error}\n")
            return 1

    def _all(self) -> int:
        found = findScans(self._options.input)
        # of two scans of one name neither is right: both get a row, by the names of their files
        scans = {
            (name if len(paths) == 1 else path.name): (name, path, len(paths))
            for name, paths in found.items()
            for path in paths
        }
        rows: list[dict[str, object]] = []
        problem = ""
        for number, (title, (name, scan, count)) in enumerate(scans.items(), start=1):
            say(f"{number}/{len(scans)} {title}")
            if count == 1:
                rows.append(self._row(name, scan))
            else:
                reason = f"{count} scans are called {name}: rename all but one"
                rows.append({"scan": title, "status": "failed", "reason": reason})
            say(f"  {rows[-1]['status']} {rows[-1]['reason']}".rstrip())
            problem = writeSummary(rows, self._options.output / "summary.csv")
            if problem:
                say(f"  {problem}")
        failed = sum(row["status"] == "failed" for row in rows)
        say(f"{len(rows) - failed} of {len(rows)} scans done")
        return 1 if failed or problem else 0

    def _row(self, name: str, scan: Path) -> dict[str, object]:
        from DRAMLesionLib.memory import told

        folder = self._options.output / name
        try:
            self._segment(name, scan, folder)
            return summaryRow(name, folder)
        except Exception as error:  # whatever is wrong with one scan, the others go on
            # the table is passed on: errors of the library have a form that names nobody
            text = getattr(error, "stored", "") or told(error) or f"{type(error).__name__}: {error}"
            reason = self._withoutFolders(" ".join(text.split()))
            return {"scan": name, "status": "failed", "reason": reason}

    def _withoutFolders(self, reason: str) -> str:
        """Folders carry names of people: of a path its last part is left."""
        options = self._options
        places = (options.input, options.output, options.lobes, self._weights)
        roots = [place for place in places if place] + [Path.home(), Path(tempfile.gettempdir())]
        for root in sorted({str(p) for r in roots for p in (r, r.absolute())}, key=len)[::-1]:
            if len(root) > 1:
                reason = reason.replace(f"{root}{os.sep}", "").replace(root, Path(root).name)
        return re.sub(
            r"(?<![\w.])(?:[A-Za-z]:)?(?:[\\/][^\\/\s:]+)*[\\/]([^\\/\s:]+)", r"\1", reason
        )

    def _segment(self, name: str, scan: Path, folder: Path) -> None:
        from DRAMLesionLib.errors import InputError
        from DRAMLesionLib.lobes import masks
        from DRAMLesionLib.reading import files
        from DRAMLesionLib.report import origin, output

        options = self._options
        given = self._masks.get(name, [])
        if len(given) > 1:
            message = f"{len(given)} lobe masks are called {name}: rename all but one"
            raise InputError(message)
        mask = given[0] if given else None
        chosen = {
            "lobe_scheme": options.lobe_scheme,
            "lobe_provider": options.lobe_provider,
            "maps": options.maps,
        }
        made = origin.origin_of(scan, mask, self._weights, chosen)
        if not options.again and origin.is_made_from(folder, made):
            return
        output.check_output(folder)
        image, warnings = files.read_ct(scan)
        output.check_output(folder, image.GetNumberOfPixels(), options.maps)
        lobes, names = masks.read_lobes(mask) if mask else (None, None)
        result = self._loaded().run(
            image,
            lobes,
            lobe_scheme=options.lobe_scheme,
            lobe_names=names,
            warnings=warnings,
        )
        output.write_result(result, folder, options.maps, origin=made)

    def _loaded(self):
        """The pipeline, made at the first scan."""
        if self._pipeline is None:
            from DRAMLesionLib import LesionPipeline

            options = self._options
            self._pipeline = LesionPipeline(options.device, self._weights, options.lobe_provider)
        return self._pipeline


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


def main(arguments: list[str]) -> int:
    """Do everything, and turn whatever happens into an exit status."""
    try:
        makeImportable()
        options = parse(arguments)
        missing = missingPackages()
        if missing:
            words = " ".join(missing)
            sys.stderr.write(f"install first: PythonSlicer -m pip install {words}\n")
            return 1
        stopOnTerminate()
        return Batch(options).run()
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
