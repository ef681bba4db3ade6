"""A run on one CT: what it needs, and the two ways to do it, in the background and in process."""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from DRAMLesionPanel.process import LibraryProcess

if TYPE_CHECKING:
    import SimpleITK as sitk

    from DRAMLesionLib.mrml.result import Result

DONE, CANCELLED, FAILED = "done", "cancelled", "failed"

LOADING = "load"
"""Stage after those of the library: the files become nodes."""

IMAGES = ("lesions", "vessels", "lobes", "dram", "dram_refined")
"""What becomes nodes: the names are those of the files and of the pipeline's results."""

Progress = Callable[[str, float], None]
Finished = Callable[[str, str], None]


@dataclass
class Request:
    """What to do.

    ct: the volume node.
    image: its voxels in world space.
    lobes: label map with the library's own numbers, None where they are to be found.
    provider: who finds them: embedded, totalsegmentator or lungmask.
    device: auto, cpu, cuda or mps.
    weights: folder, '' for the bundled ones.
    keep: segmentations edited by hand that must stay.
    """

    ct: Any
    image: "sitk.Image"
    lobes: "sitk.Image | None" = None
    provider: str = "embedded"
    device: str = "auto"
    weights: str = ""
    keep: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write CT and lobes as files that the library reads."""
        import SimpleITK as sitk

        sitk.WriteImage(self.image, str(folder / "ct.nrrd"))
        if self.lobes is not None:
            sitk.WriteImage(self.lobes, str(folder / "lobes.nrrd"), useCompression=True)

    def arguments(self, folder: Path) -> list[str]:
        """Arguments of the library's command line."""
        words = ["segment", str(folder / "ct.nrrd"), "-o", str(folder / "result")]
        words += ["--device", self.device, "--maps", "--json-progress"]
        words += ["--lobe-provider", self.provider]
        if self.lobes is not None:
            words += ["--lobes", str(folder / "lobes.nrrd"), "--lobe-scheme", "dram"]
        if self.weights:
            words += ["--weights", self.weights]
        return words


def temporaryFolder() -> Path:
    """A new folder for the files of one run."""
    return Path(tempfile.mkdtemp(prefix="DRAMLesion-", dir=slicer.app.temporaryPath))


class BackgroundRun:
    """A run in a process of its own.

    onProgress is called with stage and share done, onFinished once with DONE, CANCELLED or FAILED
    and the reason. Whatever happens, the temporary folder is removed, and the scene changes only
    when everything has succeeded.
    """

    def __init__(self, request: Request, onProgress: Progress, onFinished: Finished):
        self._request, self._onProgress, self._onFinished = request, onProgress, onFinished
        self._cancelled = False
        self._folder = temporaryFolder()
        self._process = LibraryProcess(
            request.arguments(self._folder), onProgress, self._processFinished
        )

    def start(self) -> None:
        try:
            self._request.write(self._folder)
            self._process.start()
        except BaseException:
            self._cleanUp()
            raise

    @property
    def running(self) -> bool:
        return self._process.running

    def cancel(self) -> None:
        self._cancelled = True
        self._process.cancel()

    def abandon(self) -> None:
        """Stop without a word: the scene or the application is closing."""
        self._process.abandon()
        self._cleanUp()

    def _cleanUp(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _processFinished(self, status: int | None, text: str) -> None:
        outcome, reason = FAILED, _("The result could not be read.")
        try:
            outcome, reason = self._outcome(status, text)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            # what a slot raises is printed and nothing else: the panel would wait for ever
            self._cleanUp()
            self._onFinished(outcome, reason)

    def _outcome(self, status: int | None, text: str) -> tuple[str, str]:
        from DRAMLesionLib.errors import DRAMLesionError

        if self._cancelled:
            return CANCELLED, ""
        if status != 0:
            logging.error("DRAMLesion: the run ended with status %s\n%s", status, text)
            return FAILED, _reason(status, text)
        ct = self._request.ct
        if ct.GetScene() is None:
            return FAILED, _("The CT was removed from the scene during the run.")
        self._onProgress(LOADING, 1.0)
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            loadResult(ct, self._folder / "result", self._request.keep)
        except (DRAMLesionError, ValueError, OSError, RuntimeError) as error:
            return FAILED, str(error)
        finally:
            slicer.app.restoreOverrideCursor()
        return DONE, ""


def _reason(status: int | None, text: str) -> str:
    """What went wrong, in the words of the library where it has said something."""
    lines = [line for line in text.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("dramlesion: ")]
    if own:
        return own[-1].removeprefix("dramlesion: ")
    if status is None:
        crash = _("The process stopped unexpectedly; perhaps the memory was not enough.")
        return "\n".join([crash, *lines[-3:]])
    return "\n".join(lines[-3:]) or _("The process ended with status {status}.").format(
        status=status
    )


def loadResult(ct: Any, folder: Path, keep: list[str]) -> "Result":
    """Put the files that a run has written into the scene."""
    import SimpleITK as sitk

    from DRAMLesionLib.mrml import result

    images = {
        name: sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}.nii.gz")))
        for name in IMAGES
    }
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return result.show(ct, images, report, keep)


def runInProcess(
    request: Request,
    progress: Progress | None = None,
    cancel: Callable[[], bool] | None = None,
) -> "Result":
    """The same run in this process, for scripts: the same files are read, so the same comes out."""
    import SimpleITK as sitk

    from DRAMLesionLib import LesionPipeline, weights
    from DRAMLesionLib.mrml import result
    from DRAMLesionLib.reading import files
    from DRAMLesionLib.report.data import to_json

    pipeline = LesionPipeline(request.device, request.weights or weights.BUNDLED, request.provider)
    folder = temporaryFolder()
    try:
        request.write(folder)
        image, warnings = files.read_ct(folder / "ct.nrrd")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    made = pipeline.run(
        image,
        request.lobes,
        progress,
        cancel,
        lobe_scheme="dram",
        name=request.ct.GetName(),
        warnings=warnings,
    )
    images = {name: sitk.GetArrayFromImage(getattr(made, name)) for name in IMAGES}
    return result.show(request.ct, images, to_json(made.report), request.keep)
