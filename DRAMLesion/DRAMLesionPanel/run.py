"""A run on one CT: what it needs, and the two ways to do it, in the background and in process."""

import json
import logging
import shutil
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from DRAMLesionPanel.process import LibraryProcess, ProcessEnd
from DRAMLesionPanel.steps import Steps
from DRAMLesionPanel.telling import isExpected, reasonOf

if TYPE_CHECKING:
    import SimpleITK as sitk

    from DRAMLesionLib.mrml.result import Result

DONE, CANCELLED, FAILED = "done", "cancelled", "failed"

LOADING = "load"
"""Stage after those of the library: the files become nodes."""

MAPS = ("dram", "dram_refined")
IMAGES = ("lesions", "vessels", "lobes", *MAPS)
"""What becomes nodes: the names are those of the files and of the pipeline's results."""

READING_S = 0.03
"""How long the window waits at a time for the files to be read."""

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
    image: "sitk.Image | None"
    lobes: "sitk.Image | None" = None
    provider: str = "embedded"
    device: str = "auto"
    weights: str = ""
    keep: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write CT and lobes as files that the library reads.

        Raises OutputError if they cannot be written.
        """
        from DRAMLesionLib import writing

        writing.write_image(self.image, folder / "ct.nrrd", compressed=False)
        if self.lobes is not None:
            writing.write_image(self.lobes, folder / "lobes.nrrd")

    def release(self) -> None:
        """Let go of the voxels, which are in files now."""
        self.image = self.lobes = None

    def arguments(self, folder: Path) -> list[str]:
        """Arguments of the library's command line."""
        words = ["segment", str(folder / "ct.nrrd"), "-o", str(folder / "result")]
        words += ["--device", self.device, "--maps", "--json-progress"]
        words += ["--lobe-provider", self.provider]
        if self.lobes is not None:  # asked before they are released
            words += ["--lobes", str(folder / "lobes.nrrd"), "--lobe-scheme", "dram"]
        if self.weights:
            words += ["--weights", self.weights]
        return words


def temporaryFolder() -> Path:
    """A new folder for the files of one run; those of a Slicer that was killed are removed."""
    from DRAMLesionLib import writing

    return writing.temporary_folder(Path(slicer.app.temporaryPath))


class BackgroundRun:
    """A run in a process of its own.

    onProgress is called with stage and share done, onFinished once with DONE, CANCELLED or FAILED
    and the reason. Whatever happens, the temporary folder is removed, and the scene changes only
    when everything has succeeded.
    """

    def __init__(self, request: Request, onProgress: Progress, onFinished: Finished):
        self._request, self._onProgress, self._onFinished = request, onProgress, onFinished
        self._cancelled = False
        self._loading: Steps | None = None
        self._folder = temporaryFolder()
        self._process = LibraryProcess(
            request.arguments(self._folder), onProgress, self._processFinished
        )

    def start(self) -> None:
        try:
            self._request.write(self._folder)
            self._request.release()
            self._process.start()
        except BaseException:
            self._cleanUp()
            raise

    @property
    def running(self) -> bool:
        return self._process.running or (self._loading is not None and self._loading.running)

    def cancel(self) -> None:
        """Stop; a result that is being loaded already is loaded to its end."""
        self._cancelled = True
        self._process.cancel()

    def abandon(self) -> None:
        """Stop without a word: the scene or the application is closing."""
        self._process.abandon()
        if self._loading is not None:
            self._loading.stop()
        self._cleanUp()

    def _cleanUp(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, outcome: str, reason: str = "") -> None:
        self._cleanUp()
        self._onFinished(outcome, reason)

    def _processFinished(self, end: ProcessEnd) -> None:
        if self._cancelled:
            self._end(CANCELLED)
        elif not end.succeeded:
            logging.error("DRAMLesion: the run has failed: %s\n%s", end, end.text)
            self._end(FAILED, end.reason)
        else:
            self._onProgress(LOADING, 1.0)
            self._loading = Steps(self._load(), self._loaded)

    def _load(self) -> Generator[None, None, None]:
        ct = self._request.ct
        if ct.GetScene() is None:
            raise _removed()
        for _step in loadResult(ct, self._folder / "result", self._request.keep):
            if ct.GetScene() is None:
                raise _removed()
            yield

    def _loaded(self, error: Exception | None) -> None:
        if error is None:
            self._end(DONE)
            return
        if not isExpected(error):
            text = "".join(traceback.format_exception(error))
            logging.error("DRAMLesion: the result could not be loaded\n%s", text)
        self._end(FAILED, reasonOf(error))


def _removed() -> Exception:
    from DRAMLesionLib.errors import InputError

    return InputError(_("The CT was removed from the scene during the run."))


class Reading(threading.Thread):
    """Reads the files of a run, beside the window's own thread.

    Attributes:
        images: Voxels by name; the maps as images that their nodes take over.
        report: Content of report.json.
        page: Content of report.html.
        error: What went wrong, None if nothing.
    """

    def __init__(self, folder: Path):
        super().__init__(name="DRAMLesion reads a result", daemon=True)
        self._folder = folder
        self.images: dict[str, Any] = {}
        self.report: dict[str, Any] = {}
        self.page = ""
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            for name in IMAGES:
                self.images[name] = self._read(name)
            self.report = json.loads((self._folder / "report.json").read_text(encoding="utf-8"))
            page = self._folder / "report.html"
            self.page = page.read_text(encoding="utf-8") if page.is_file() else ""
        except Exception as error:  # whatever it is, it is told where the thread is waited for
            self.error = error

    def _read(self, name: str) -> Any:
        import numpy as np
        import SimpleITK as sitk

        from DRAMLesionLib.mrml import volumes

        image = sitk.ReadImage(str(self._folder / f"{name}.nii.gz"))
        if name not in MAPS:
            return sitk.GetArrayFromImage(image)
        taken = volumes.new_image(image.GetSize()[::-1])
        np.copyto(volumes.view(taken), sitk.GetArrayViewFromImage(image))
        return taken


def loadResult(ct: Any, folder: Path, keep: list[str]) -> Iterator[None]:
    """Put the files that a run has written into the scene, step by step."""
    from DRAMLesionLib.mrml import result

    reading = Reading(folder)
    reading.start()
    while reading.is_alive():
        # the application's own thread holds Python's lock: the other gets it only while this waits
        reading.join(READING_S)
        yield
    if reading.error is not None:
        raise reading.error
    yield from result.show_in_steps(ct, reading.images, reading.report, keep, reading.page)


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
    from DRAMLesionLib.report import pictures
    from DRAMLesionLib.report.data import to_json
    from DRAMLesionLib.report.html import to_html

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
    shots = pictures.key_slices(made.ct, made.lobes, made.lesions, made.maps.dram)
    page = to_html(made.report, shots)
    return result.show(request.ct, images, to_json(made.report), request.keep, page)
