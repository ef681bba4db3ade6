"""Release check: ``python -m Testing.release [--without STEP …] [--keep FOLDER]``.

HEAD is cloned into a new folder, and a new environment is made by what the README says alone. Each
target of the Makefile and each command of the README runs there, on phantoms made on the spot; all
have to succeed. It takes the better part of an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from Testing.release.promises import ROOT, make_targets, readme_commands
from Training.commands.improvement import DEFAULT, OWN_SETTINGS
from Training.config import dump_config, load_config

QUICK = {
    "bench": ["ONLY=lobes"],
    "fuzz": ["COUNT=300"],
    "chaos": ["KILLS=6"],
}
"""What makes the long targets short."""

NOT_RUN = {"clean", "release-check"}
WITHOUT_APPLICATION = {"Slicer"}
"""Commands that need what no test machine has; the same script runs under plain Python."""

_LIMIT_S = 5400.0

_SERIES = """
import sys
from pathlib import Path
import SimpleITK as sitk
from Testing.library.interchange.test_dicom_results import STUDY
from Testing.library.simple_chest import write_series
ct = sitk.ReadImage(sys.argv[1])
values = sitk.GetArrayFromImage(ct)
places = {"spacing": ct.GetSpacing(), "origin": ct.GetOrigin()}
write_series(Path(sys.argv[2]), values, **places, **STUDY)
"""
_PAIR = """
import sys
from pathlib import Path
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.phantom.breathing import Breath, breathe
phantom = make_phantom(7, 3.0)
phantom.write(Path(sys.argv[1]) / "earlier")
breathe(phantom, Breath(12.0), noise_hu=15.0).write(Path(sys.argv[1]) / "later")
"""
"""What the README's commands are about, and no command of ours makes."""


@dataclass(frozen=True)
class Step:
    """A command, and how it went."""

    command: str
    ok: bool
    seconds: float


def main() -> int:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(prog="python -m Testing.release")
    parser.add_argument("--without", nargs="*", default=[], help="targets of make to leave out")
    parser.add_argument("--keep", type=Path, help="where clone and log stay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="release-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        steps = check(folder, set(options.without))
    for step in steps:
        print(f"{'ok    ' if step.ok else 'FAILED'} {step.seconds:7.0f} s  {step.command}")
    failed = sum(not step.ok for step in steps)
    print(f"{len(steps) - failed} of {len(steps)} succeeded")
    return 1 if failed else 0


def check(folder: Path, without: set[str]) -> list[Step]:
    """Clone HEAD into a folder and run all that is promised there."""
    clone, log = folder / "clone", folder / "log.txt"
    run = _Runner(clone, log)
    git = shutil.which("git") or "git"
    run.in_folder(folder, [git, "clone", "--quiet", str(ROOT), str(clone)])
    if not run.steps[-1].ok:
        return run.steps
    # demo first: it is what makes the environment of a newcomer
    targets = ["demo", *sorted(make_targets() - NOT_RUN - {"demo"})]
    for target in targets:
        if target not in without:
            run.step(["make", target, *QUICK.get(target, [])])
    stand_ins = _stand_ins(run, folder)
    for number, words in enumerate(readme_commands(clone / "README.md"), start=1):
        if words[0] != "make" and words[0] not in WITHOUT_APPLICATION:
            written = _in_minutes(_with_outputs(words, folder, number))
            run.step([stand_ins.get(word, word) for word in written])
    return run.steps


def _stand_ins(run: _Runner, folder: Path) -> dict[str, str]:
    """Make what the README's placeholders stand for."""
    clone = run.folder
    phantom = clone / "demo-output" / "phantom"
    data, scans = folder / "DATA", folder / "SCANS"
    run.step(
        [
            *("python", "-m", "Training", "phantoms", "--output", str(data), "--count", "3"),
            *("--first-seed", "40", "--spacing", "4", "--healthy-share", "0"),
        ]
    )
    if data.is_dir():
        # half an hour of improving is not what is checked here
        few = [f"{stage}.loop.steps=2" for stage in ("regression", "segmentation")]
        (data / OWN_SETTINGS).write_text(dump_config(load_config(DEFAULT, few)), encoding="utf-8")
    scans.mkdir()
    for path in sorted((data / "scans").glob("*.nii.gz"))[:2]:
        shutil.copy(path, scans)
    masks = folder / "totalsegmentator.nii.gz"
    _as_totalsegmentator(run, phantom / "lobes.nii.gz", masks)
    series, result, pair = folder / "SERIES", folder / "RESULT", folder / "PAIR"
    run.step(["python", "-c", _SERIES, str(phantom / "ct.nii.gz"), str(series)])
    segment = ("python", "-m", "DRAMLesionLib", "segment")
    run.step([*segment, str(series), "--output", str(result)])
    run.step(["python", "-c", _PAIR, str(pair)])
    return {
        "SERIES": str(series),
        "RESULT": str(result),
        "EARLIER": str(pair / "earlier" / "ct.nii.gz"),
        "LATER": str(pair / "later" / "ct.nii.gz"),
        "CT": str(phantom / "ct.nii.gz"),
        "SCANS": str(scans),
        "DATA": str(data),
        "DATA/improvement": str(data / "improvement"),
        "RUN": str(folder / "RUN"),
        "RUN/weights": str(folder / "RUN" / "weights"),
        "lobes.nii.gz": str(masks),
    }


def _as_totalsegmentator(run: _Runner, lobes: Path, path: Path) -> None:
    """Number the lobes of a phantom as TotalSegmentator does, which the README's command says."""
    code = (
        "import sys, SimpleITK as s; lobes = s.ReadImage(sys.argv[1]); "
        "s.WriteImage(s.ChangeLabel(lobes, {n: n + 9 for n in range(1, 6)}), sys.argv[2])"
    )
    run.step(["python", "-c", code, str(lobes), str(path)])


def _with_outputs(words: list[str], folder: Path, number: int) -> list[str]:
    """Give each command that writes an output of its own."""
    places = {
        "OUT": str(folder / f"OUT-{number}"),
        "phantom": str(folder / f"phantom-{number}"),
        "lobes.nii.gz": str(folder / f"lobes-{number}.nii.gz"),
    }
    changed = list(words)
    for n, word in enumerate(words[1:], start=1):
        if words[n - 1] in ("-o", "--output") and word in places:
            changed[n] = places[word]
    return changed


def _in_minutes(words: list[str]) -> list[str]:
    """Give a training the smallest settings: a day of it is not what is checked here."""
    if words[:3] == ["python", "-m", "Training"] and words[3] in ("prepare", "all"):
        return [*words, "--config", "Training/configs/tiny.yaml"]
    return words


class _Runner:
    """Runs commands as a newcomer would, in the clone and with its environment."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.steps, self._log = folder, list[Step](), log

    def step(self, words: list[str]) -> None:
        """Run a command in the clone."""
        self.in_folder(self.folder, words)

    def in_folder(self, folder: Path, words: list[str]) -> None:
        """Run a command; what it prints goes into the log."""
        venv = self.folder / ".venv" / "bin"
        environment = {k: v for k, v in os.environ.items() if k not in _OURS}
        environment["PATH"] = f"{venv}{os.pathsep}{environment['PATH']}"
        # outside Slicer its Python is any with the packages
        words = ["python" if word == "PythonSlicer" else word for word in words]
        started = time.monotonic()
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(words)}\n")
            log.flush()
            try:
                done = subprocess.run(  # noqa: S603 - our own commands
                    words,
                    cwd=folder,
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=_LIMIT_S,
                    check=False,
                )
                ok = done.returncode == 0
            except (OSError, subprocess.TimeoutExpired) as error:
                log.write(f"{error}\n")
                ok = False
        step = Step(" ".join(words)[:120], ok, time.monotonic() - started)
        self.steps.append(step)
        print(f"{'ok' if step.ok else 'FAILED'}: {step.command}", flush=True)


_OURS = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "OMP_NUM_THREADS", "JOBS", "ONLY"}
"""Settings of this process that a newcomer has not."""

if __name__ == "__main__":
    sys.exit(main())
