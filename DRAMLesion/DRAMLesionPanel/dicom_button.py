"""The button DICOM …: the shown result as segmentations and a structured report for the archive."""

import importlib.util
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from DRAMLesionPanel.process import LibraryProcess, ProcessEnd
from DRAMLesionPanel.run import temporaryFolder
from DRAMLesionPanel.steps import Steps
from DRAMLesionPanel.telling import sentence, tell, telling

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result

INSTANCES = "DICOM.instanceUIDs"
"""Attribute of a volume with the identifiers of the images that it was read from."""


class DicomButton:
    """Writes the result that findResult gives; onCounted is called when its table was counted."""

    def __init__(
        self,
        ui: Any,
        findResult: "Callable[[], Result | None]",
        onCounted: "Callable[[Result], None]",
    ):
        self._button, self._label = ui.dicomButton, ui.dicomLabel
        self._findResult, self._onCounted = findResult, onCounted
        self._steps: Steps | None = None
        self._process: LibraryProcess | None = None
        self._folder: Path | None = None
        self._output = Path()
        self._cancelled = False
        self._about = ""
        self._text = str(self._button.text)
        self._button.connect("clicked(bool)", self.onClicked)

    @property
    def running(self) -> bool:
        return self._folder is not None

    def update(self, result: "Result | None") -> None:
        """Offer it where the CT came from DICOM; its message is about one result."""
        about = result.node.GetID() if result is not None else ""
        if about != self._about:
            self._about = about
            self._say("")
        self._show(result)

    def _show(self, result: "Result | None") -> None:
        button = self._button
        if self.running:
            button.text, button.enabled = _("Cancel DICOM"), not self._cancelled
            button.toolTip = _("Stop; no DICOM file is written.")
            return
        reason = _whyNot(result)
        button.text = self._text
        button.enabled = not reason
        button.toolTip = reason or _(
            "Save what the table counts as DICOM segmentations and a structured report. They carry "
            "the patient's names, as the CT does."
        )

    def _say(self, text: str) -> None:
        self._label.text = text
        self._label.visible = bool(text)

    # --- writing ----------------------------------------------------------------------------------

    def onClicked(self, _checked: bool = False) -> None:
        if self.running:
            self._cancel()
            return
        result = self._findResult()
        if result is None:
            return
        files: list[str] = []
        with telling(_("No DICOM files were written."), waitCursor=True):
            files = imageFiles(result.ct)
        output = files and qt.QFileDialog.getExistingDirectory(
            slicer.util.mainWindow(), _("Folder for the DICOM files (they name the patient)")
        )
        if output and self._mayReplace(Path(output)):
            self._start(result, files, Path(output))

    def _mayReplace(self, output: Path) -> bool:
        from DRAMLesionLib.report.output import DICOM

        there = [name for name in DICOM if (output / name).exists()]
        return not there or slicer.util.confirmOkCancelDisplay(
            _("{folder} holds {names} already. Replace them?").format(
                folder=output, names=", ".join(there)
            ),
            _("DICOM"),
        )

    def _start(self, result: "Result", files: list[str], output: Path) -> None:
        self._say("")
        self._cancelled, self._output = False, output
        with telling(_("No DICOM files were written.")):
            self._folder = temporaryFolder()
            work = self._prepare(result, self._folder, files)
            self._steps = Steps(work, self._prepared)
        self._show(result)

    def _prepare(
        self, result: "Result", folder: Path, files: list[str]
    ) -> Generator[None, None, None]:
        """Write what the background process reads; the result stays free for the user meanwhile."""
        from DRAMLesionLib.mrml import exchange

        steps = exchange.write_result(result, folder, files, self._output)
        words: list[str] = []
        while not words:
            if not result.complete:
                raise _removed()
            try:
                next(steps)
            except StopIteration as end:
                words = end.value
            else:
                yield
        self._onCounted(result)
        self._process = LibraryProcess(words, self._onProgress, self._finished)

    def _prepared(self, error: Exception | None) -> None:
        self._steps = None
        if error is None and self._process is not None and not self._cancelled:
            try:
                self._process.start()
                return
            except OSError as reason:
                error = reason
        self._end()
        if error is not None:
            tell(_("No DICOM files were written."), error)

    def _onProgress(self, _stage: str, fraction: float) -> None:
        if not self._cancelled:
            self._button.text = _("Cancel DICOM ({percent} %)").format(
                percent=round(100 * fraction)
            )

    def _cancel(self) -> None:
        self._cancelled = True
        if self._steps is not None:
            self._steps.stop()
            self._steps = None
            self._end()
        elif self._process is not None:
            self._process.cancel()
            self._show(self._findResult())

    def _finished(self, end: ProcessEnd) -> None:
        wasCancelled = self._cancelled
        self._end()
        if wasCancelled:
            self._say(_("Cancelled; no DICOM file was written."))
        elif end.succeeded:
            self._say(
                _(
                    "Wrote two segmentations and a report to {folder}; they name the patient."
                ).format(folder=self._output)
            )
        else:
            text = _("No DICOM files were written.") + f"\n\n{sentence(end.reason)}"
            slicer.util.errorDisplay(text, windowTitle=_("DRAMLesion"))

    def _end(self) -> None:
        """Be as before, whatever has happened."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = self._process = self._steps = None
        self._show(self._findResult())

    def abandon(self) -> None:
        """Stop without a word: the scene or the application is closing."""
        if self._steps is not None:
            self._steps.stop()
        if self._process is not None:
            self._process.abandon()
        if self.running:
            self._end()


# --- the CT in the DICOM database -----------------------------------------------------------------


def _whyNot(result: "Result | None") -> str:
    """Why a result has no DICOM files, '' if it can have some."""
    if result is None:
        return _("There is no result yet.")
    instances = _instances(result.ct)
    if not instances:
        return _(
            "This CT did not come from DICOM: load the series with the module DICOM to save its "
            "result for the archive."
        )
    database = _database()
    if database is None:
        return _("Slicer's DICOM database is not open: open it in the module DICOM.")
    if not database.fileForInstance(instances[0]):
        return _(
            "This CT is not in Slicer's DICOM database: import the series in the module DICOM."
        )
    if importlib.util.find_spec("highdicom") is None:
        return _("highdicom is not installed: it comes with Slicer 5.12 and newer.")
    return ""


def imageFiles(ct: Any) -> list[str]:
    """Paths of the images that a CT was read from.

    Raises InputError if some are not there.
    """
    from DRAMLesionLib.errors import InputError

    database, instances = _database(), _instances(ct)
    found = [database.fileForInstance(uid) for uid in instances] if database is not None else []
    gone = [path for path in found if not path or not Path(path).is_file()]
    if not found or gone:
        raise InputError(
            _(
                "{count} of the {all} DICOM images of {name} are no longer where they were: import "
                "the series again in the module DICOM"
            ).format(count=len(gone), all=len(instances), name=ct.GetName())
        )
    return found


def _removed() -> Exception:
    from DRAMLesionLib.errors import InputError

    return InputError(_("a part of the result was removed from the scene meanwhile"))


def _instances(ct: Any) -> list[str]:
    return (ct.GetAttribute(INSTANCES) or "").split()


def _database() -> Any:
    """Slicer's DICOM database, None if there is none or it is closed.

    `slicer.dicomDatabase` is made by the module DICOM, which can be switched off.
    """
    database = getattr(slicer, "dicomDatabase", None)
    return database if database is not None and database.isOpen else None
