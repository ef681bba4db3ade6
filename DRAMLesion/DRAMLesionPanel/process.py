"""Command lines of library and training in a process of their own: the window stays usable."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

GRACE_MS = 5000
"""How long a cancelled run may clean up before it is killed."""


def pythonSlicer() -> str:
    """Path of Slicer's Python interpreter."""
    name = "PythonSlicer.exe" if sys.platform == "win32" else "PythonSlicer"
    inHome = Path(slicer.app.slicerHome) / "bin" / name
    return str(inHome) if inHome.is_file() else (shutil.which("PythonSlicer") or str(inHome))


def libraryFolder() -> Path:
    """Folder that holds DRAMLesionLib."""
    import DRAMLesionLib

    return Path(DRAMLesionLib.__file__).resolve().parents[1]


_LAUNCHER = re.compile(r"error: \[.*\] (exit abnormally|failed to start)")
"""What Slicer's launcher, which PythonSlicer is, says of its child before it ends with status 1."""

_OWN = ("dramlesion: ", "training: ")
"""What library and training put before the line that says why they stop."""


@dataclass(frozen=True)
class ProcessEnd:
    """How a process ended.

    status: its exit status; None if it did not start, crashed or was killed.
    text: what it said on standard error.
    started: whether it began at all.
    """

    status: int | None
    text: str = ""
    started: bool = True

    @property
    def succeeded(self) -> bool:
        return self.status == 0

    @property
    def reason(self) -> str:
        """Why it failed, in the words of the library where it has said something."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        said = [line.partition(": ")[2] for line in lines if line.startswith(_OWN)]
        launcher = [match.group(1) for line in lines if (match := _LAUNCHER.match(line))]
        if not self.started or "failed to start" in launcher:
            return _("{program} cannot be started: is Slicer installed completely?").format(
                program=pythonSlicer()
            )
        if said:
            return said[-1]
        rest = [line for line in lines if not _LAUNCHER.match(line)]
        if self.status is None or launcher:
            return "\n".join([_crash(), *rest[-3:]])
        if any(line.startswith("Traceback (most recent call last)") for line in lines):
            return _("A fault of the program: {error}. The log has the details.").format(
                error=rest[-1]
            )
        return "\n".join(rest[-3:]) or _("The process ended with status {status}.").format(
            status=self.status
        )


def _crash() -> str:
    return _(
        "The computation was ended from outside or crashed. Where memory is short, the system ends "
        "the largest program: close other programs, or crop the CT to the chest."
    )


class LibraryProcess:
    """One run of ``PythonSlicer -m DRAMLesionLib``, or of another module beside it.

    onProgress is called with the stage's name and the share done (0 to 1), onFinished once with how
    the process ended.
    """

    def __init__(
        self,
        arguments: list[str],
        onProgress: Callable[[str, float], None],
        onFinished: Callable[[ProcessEnd], None],
        module: str = "DRAMLesionLib",
    ):
        self._arguments = ["-m", module, *arguments]
        self._onProgress, self._onFinished = onProgress, onFinished
        self._output, self._errors = b"", b""
        self._process = None

    def start(self) -> None:
        # its parent keeps it: to delete it before its signal has been handled is fatal, and the
        # signal of a failed run is not handled as long as the message about it is open
        process = qt.QProcess(slicer.app)
        process.connect("readyReadStandardOutput()", self._readOutput)
        process.connect("readyReadStandardError()", self._readErrors)
        process.connect("finished(int,QProcess::ExitStatus)", self._finish)
        process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        process.setWorkingDirectory(str(libraryFolder()))  # -m finds the library there
        self._process = process
        process.start(pythonSlicer(), self._arguments)

    @property
    def running(self) -> bool:
        return self._process is not None

    def cancel(self) -> None:
        """Ask the process and its children to stop; kill them if they take too long."""
        process = self._process
        if process is None:
            return
        stopTree(int(process.processId()))
        qt.QTimer.singleShot(GRACE_MS, lambda: self._kill(process))

    def _kill(self, process: qt.QProcess) -> None:
        if self._process is process:
            stopTree(int(process.processId()), kill=True)
            process.kill()

    def abandon(self) -> None:
        """Stop at once and tell nobody: the scene or the application is closing."""
        process, self._process = self._process, None
        if process is None:
            return
        self._onProgress, self._onFinished = _nothing, _nothing
        stopTree(int(process.processId()), kill=True)
        process.kill()
        process.waitForFinished(2000)
        process.deleteLater()

    def _readOutput(self) -> None:
        if self._process is None:
            return
        self._output += _bytes(self._process.readAllStandardOutput())
        *lines, self._output = self._output.split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                step = json.loads(line)
                self._onProgress(str(step["stage"]), float(step["fraction"]))

    def _readErrors(self) -> None:
        if self._process is not None:
            self._errors += _bytes(self._process.readAllStandardError())

    def _failed(self, error: int) -> None:
        if error == qt.QProcess.FailedToStart:
            self._end(ProcessEnd(None, started=False))

    def _finish(self, exitCode: int, exitStatus: int) -> None:
        self._readOutput()
        self._readErrors()
        text = self._errors.decode("utf-8", "replace").strip()
        isNormal = exitStatus == qt.QProcess.NormalExit
        self._end(ProcessEnd(exitCode if isNormal else None, text))

    def _end(self, end: ProcessEnd) -> None:
        if self._process is not None:
            self._process.deleteLater()
            self._process = None
            self._onFinished(end)


def _nothing(*_arguments) -> None:
    """Takes the place of a callback that is not wanted any more."""


def _bytes(raw) -> bytes:
    return raw if isinstance(raw, bytes) else bytes(raw.data())


def stopTree(pid: int, kill: bool = False) -> None:
    """Stop a process and all its descendants: PythonSlicer starts a child of its own."""
    if pid <= 0:
        return
    if sys.platform == "win32":
        command = ["taskkill", "/T", "/F", "/PID", str(pid)]
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603
        return
    wanted = signal.SIGKILL if kill else signal.SIGTERM
    for each in [*_descendants(pid), pid]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, wanted)


def _descendants(pid: int) -> list[int]:
    """Descendants of a process, the youngest generation first."""
    try:
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        pairs = [tuple(int(word) for word in line.split()) for line in listed.splitlines()]
    except (OSError, subprocess.CalledProcessError, ValueError):
        pairs = _parentsFromProc()
    found, generation = [], {pid}
    while generation:
        generation = {child for child, parent in pairs if parent in generation}
        found = [*generation, *found]
    return found


def _parentsFromProc() -> list[tuple[int, int]]:
    pairs = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = stat.read_text(errors="replace")
            pairs.append((int(stat.parent.name), int(text.rpartition(")")[2].split()[1])))
    return pairs
