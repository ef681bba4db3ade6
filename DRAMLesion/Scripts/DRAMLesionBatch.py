"""Many scans without a window: lesions, lobe scores and a report for each, and one summary table.

In Slicer::

    Slicer --no-splash --no-main-window --python-script DRAMLesionBatch.py --input IN --output OUT

and the same with ``PythonSlicer DRAMLesionBatch.py …`` or any Python with the library's packages.
IN holds one file (NIfTI, NRRD, MetaImage) or one folder with a DICOM series for each scan. OUT gets
a folder for each scan and ``summary.csv``. A scan that fails is a row with its reason, and the
others go on; a second start does what is left. Exit status: 0 all scans done, 1 some failed, 2
wrong usage.
"""

import argparse
import csv
import importlib.util
import io
import json
import os
import sys
from pathlib import Path

PACKAGES = {
    "torch": "torch",
    "skimage": "scikit-image",
    "safetensors": "safetensors",
    "jinja2": "Jinja2",
    "PIL": "Pillow",
}
"""What the library needs beside what Slicer brings: import name and name of the package."""

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
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
        parser.error(f"--input: {options.input} holds no scan ({', '.join(SUFFIXES)}, folders)")
    return options


def caseName(path: Path) -> str | None:
    """What a scan is called: its name without suffix; None for what is no scan."""
    if path.name.startswith("."):
        return None
    if path.is_dir():
        return path.name
    return next((path.name[: -len(s)] for s in SUFFIXES if path.name.lower().endswith(s)), None)


def findScans(folder: Path) -> dict[str, Path]:
    """Scans of a folder by name; of two with one name the first counts."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = caseName(path)
        if name:
            found.setdefault(name, path)
    return found


def isDone(folder: Path) -> bool:
    """Whether an earlier start has finished a scan; its files appear all together."""
    return (folder / "report.json").is_file() and (folder / "lesions.nii.gz").is_file()


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


def writeSummary(rows: list[dict[str, object]], path: Path) -> None:
    """Write the table; it appears whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text.getvalue(), encoding="utf-8")
    part.replace(path)


class Batch:
    """Runs scan after scan, with the networks loaded once."""

    def __init__(self, options: argparse.Namespace):
        self._options = options
        self._pipeline = None
        self._masks = findScans(options.lobes) if options.lobes else {}

    def run(self) -> int:
        """Do all scans; returns the exit status."""
        scans = findScans(self._options.input)
        self._options.output.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, object]] = []
        for number, (name, scan) in enumerate(scans.items(), start=1):
            say(f"{number}/{len(scans)} {name}")
            rows.append(self._row(name, scan))
            say(f"  {rows[-1]['status']} {rows[-1]['reason']}".rstrip())
            writeSummary(rows, self._options.output / "summary.csv")
        failed = sum(row["status"] == "failed" for row in rows)
        say(f"{len(rows) - failed} of {len(rows)} scans done")
        return 1 if failed else 0

    def _row(self, name: str, scan: Path) -> dict[str, object]:
        folder = self._options.output / name
        try:
            if self._options.again or not isDone(folder):
                self._segment(name, scan, folder)
            return summaryRow(name, folder)
        except Exception as error:  # whatever is wrong with one scan, the others go on
            # the table is passed on: errors of the library have a form that names nobody
            text = getattr(error, "stored", str(error))
            reason = " ".join(text.split()) or type(error).__name__
            # folders carry names of people
            reason = reason.replace(f"{self._options.input}{os.sep}", "")
            return {"scan": name, "status": "failed", "reason": reason}

    def _segment(self, name: str, scan: Path, folder: Path) -> None:
        from DRAMLesionLib.lobes import masks
        from DRAMLesionLib.reading import files
        from DRAMLesionLib.report.output import write_result

        image, warnings = files.read_ct(scan)
        lobes, names = None, None
        if name in self._masks:
            lobes, names = masks.read_lobes(self._masks[name])
        result = self._loaded().run(
            image,
            lobes,
            lobe_scheme=self._options.lobe_scheme,
            lobe_names=names,
            warnings=warnings,
        )
        write_result(result, folder, self._options.maps)

    def _loaded(self):
        """The pipeline, made at the first scan."""
        if self._pipeline is None:
            from DRAMLesionLib import LesionPipeline, weights

            options = self._options
            self._pipeline = LesionPipeline(
                options.device, options.weights or weights.BUNDLED, options.lobe_provider
            )
        return self._pipeline


def say(text: str) -> None:
    """One line for who watches."""
    sys.stdout.write(f"{text}\n")
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
        return Batch(options).run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        say("stopped; start again to go on")
        return 130
    except BaseException as error:  # an exception that escapes would leave Slicer waiting for ever
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1


def leave(status: int) -> None:
    """End Slicer, or Python where there is no Slicer application."""
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
