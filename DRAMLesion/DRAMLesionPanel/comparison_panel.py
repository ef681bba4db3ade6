"""The section that compares two CTs of one patient: what has changed between them."""

import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from DRAMLesionPanel.logic import DRAMLesionLogic
from DRAMLesionPanel.parameters import DRAMLesionParameterNode, LobesFrom
from DRAMLesionPanel.process import LibraryProcess, ProcessEnd
from DRAMLesionPanel.run import temporaryFolder
from DRAMLesionPanel.steps import Steps
from DRAMLesionPanel.telling import sentence, tell, telling

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result

PAGE = "comparison.html"


class ComparisonPanel:
    """Chooses two CTs, compares them in the background, and offers the page.

    A CT whose result is in the scene is compared by that, as it is now; any other is segmented
    first. The scene does not change.
    """

    def __init__(
        self,
        layout: qt.QVBoxLayout,
        logic: DRAMLesionLogic,
        parameters: Callable[[], DRAMLesionParameterNode | None],
    ):
        self._logic, self._parameters = logic, parameters
        self._folder: Path | None = None
        self._steps: Steps | None = None
        self._process: LibraryProcess | None = None
        self._cancelled = False
        self._files: dict[str, str] = {}
        self._build(layout)
        self.update()

    def _build(self, layout: qt.QVBoxLayout) -> None:
        self.section = ctk.ctkCollapsibleButton()
        self.section.text = _("Two points in time")
        self.section.collapsed = True
        form = qt.QFormLayout(self.section)
        self.earlierSelector, self.laterSelector = _selector(), _selector()
        form.addRow(_("Earlier CT:"), self.earlierSelector)
        form.addRow(_("Later CT:"), self.laterSelector)
        self.compareButton = qt.QPushButton()
        self.progressBar = qt.QProgressBar()
        self.progressBar.maximum = 100
        self.progressBar.visible = False
        self.statusLabel = qt.QLabel()
        self.statusLabel.wordWrap = True
        self.openButton = qt.QPushButton(_("Open comparison"))
        self.saveButton = qt.QPushButton(_("Save comparison …"))
        for widget in (
            *(self.compareButton, self.progressBar, self.statusLabel),
            *(self.openButton, self.saveButton),
        ):
            form.addRow(widget)
        layout.addWidget(self.section)
        for selector in (self.earlierSelector, self.laterSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self._onChosen)
        self.compareButton.connect("clicked(bool)", self.onCompare)
        self.openButton.connect("clicked(bool)", self.onOpen)
        self.saveButton.connect("clicked(bool)", self.onSave)

    @property
    def running(self) -> bool:
        return self._folder is not None

    @property
    def selectors(self) -> tuple[Any, Any]:
        """Earlier and later."""
        return self.earlierSelector, self.laterSelector

    # --- what can be done -------------------------------------------------------------------------

    def update(self) -> None:
        """Say whether the chosen CTs can be compared."""
        button = self.compareButton
        if self.running:
            button.text, button.enabled = _("Cancel the comparison"), not self._cancelled
            button.toolTip = _("Stop; nothing is kept.")
        else:
            reason = self._whyNot()
            button.text, button.enabled = _("Compare"), not reason
            button.toolTip = reason or _(
                "Lay the later CT over the earlier one, and say what has changed. CTs without a "
                "result are segmented first."
            )
        for each in (self.openButton, self.saveButton):
            each.enabled = bool(self._files)

    def _whyNot(self) -> str:
        cts = [selector.currentNode() for selector in self.selectors]
        if None in cts:
            return _("Choose the earlier and the later CT.")
        if cts[0].GetID() == cts[1].GetID():
            return _("Choose two different CTs.")
        problems = (self._logic.inputProblem(ct) for ct in cts)
        return sentence(next((problem for problem in problems if problem), ""))

    def _onChosen(self, _node: Any = None) -> None:
        if not self.running:
            self._files = {}
            self.statusLabel.text = ""
        self.update()

    # --- comparing --------------------------------------------------------------------------------

    def onCompare(self, _checked: bool = False) -> None:
        if self.running:
            self._cancelled = True
            if self._process is not None:
                self._process.cancel()
            self.update()
            return
        self._files, self._cancelled = {}, False
        with telling(_("The CTs were not compared.")):
            self._folder = temporaryFolder()
            self.statusLabel.text = _("Writing the CTs …")
            self.progressBar.value, self.progressBar.visible = 0, True
            cts = [selector.currentNode() for selector in self.selectors]
            self._steps = Steps(self._prepare(cts, self._folder), self._prepared)
        self.update()

    def _prepare(self, cts: list[Any], folder: Path) -> Generator[None, None, None]:
        """Write what the background process reads."""
        words = ["compare"]
        options: list[str] = []
        for which, ct in zip(("earlier", "later"), cts, strict=True):
            path = folder / f"{which}.nrrd"
            yield from _writeCt(ct, path)
            result = _resultOf(ct)
            if result is None:
                words.append(str(path))
                continue
            yield from _writeResult(result, path, folder / which)
            words.append(str(folder / which))
            options += [f"--{which}-ct", str(path)]
        parameters = self._parameters()
        options += ["-o", str(folder / "comparison"), "--json-progress"]
        if parameters is not None:
            options += ["--device", parameters.device.value]
            if parameters.lobesFrom != LobesFrom.SCENE:
                options += ["--lobe-provider", parameters.lobesFrom.value]
            options += ["--weights", parameters.weightsFolder] if parameters.weightsFolder else []
        self._process = LibraryProcess([*words, *options], self._onProgress, self._finished)

    def _prepared(self, error: Exception | None) -> None:
        if error is None and not self._cancelled and self._process is not None:
            self._process.start()
            return
        self._end("")
        if error is not None:
            tell(_("The CTs were not compared."), error)

    def _onProgress(self, stage: str, fraction: float) -> None:
        texts = {
            "read": _("Reading the CTs …"),
            "earlier": _("The earlier CT …"),
            "later": _("The later CT …"),
            "compare": _("Laying one over the other …"),
            "write": _("Writing the page …"),
        }
        self.statusLabel.text = texts.get(stage, stage)
        self.progressBar.value = round(100 * fraction)

    def _finished(self, end: ProcessEnd) -> None:
        if self._cancelled:
            self._end(_("Cancelled."))
        elif not end.succeeded:
            self._end(_("The CTs were not compared: {reason}").format(reason=end.reason))
        else:
            folder = self._folder / "comparison" if self._folder is not None else Path()
            with telling(_("The comparison cannot be read.")):
                paths = sorted(folder.iterdir())
                self._files = {path.name: path.read_text(encoding="utf-8") for path in paths}
            self._end(_("The comparison is there.") if self._files else "")

    def _end(self, text: str) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = self._steps = self._process = None
        self.progressBar.visible = False
        self.statusLabel.text = text
        self.update()

    def abandon(self) -> None:
        """Stop without a word: the scene or the application is closing."""
        if self._steps is not None:
            self._steps.stop()
        if self._process is not None:
            self._process.abandon()
        self._files = {}
        self._end("")

    # --- what came of it --------------------------------------------------------------------------

    def onOpen(self, _checked: bool = False) -> None:
        from DRAMLesionLib import writing

        with telling(_("The comparison cannot be opened.")):
            folder = tempfile.mkdtemp(prefix="DRAMLesionReport-", dir=slicer.app.temporaryPath)
            path = Path(folder) / PAGE
            writing.write_text(self._files[PAGE], path)
            if not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path))):
                raise OSError(_("No browser could be started for {path}.").format(path=path))

    def onSave(self, _checked: bool = False) -> None:
        from DRAMLesionLib import writing
        from DRAMLesionLib.followup.output import MARKER, check_output

        folder = qt.QFileDialog.getExistingDirectory(
            slicer.util.mainWindow(), _("Folder for page and tables of the comparison")
        )
        if not folder:
            return
        with telling(_("The comparison was not saved.")):
            check_output(Path(folder))
            with writing.whole_results(folder, MARKER) as part:
                for name, text in self._files.items():
                    writing.write_text(text, part / name)
            slicer.util.showStatusMessage(_("Saved {path}.").format(path=folder), 5000)


def _selector() -> Any:
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.hideChildNodeTypes = ["vtkMRMLLabelMapVolumeNode"]
    selector.noneEnabled = True
    selector.addEnabled = selector.removeEnabled = selector.renameEnabled = False
    selector.setMRMLScene(slicer.mrmlScene)
    return selector


def _resultOf(ct: Any) -> "Result | None":
    from DRAMLesionLib.mrml.result import Result

    result = Result.find(ct)
    return result if result is not None and result.complete else None


def _writeCt(ct: Any, path: Path) -> Generator[None, None, None]:
    from DRAMLesionLib import writing
    from DRAMLesionLib.mrml import volumes
    from DRAMLesionLib.reading import checks

    image = volumes.image_from_volume(ct)
    yield
    checks.check_ct(image, ct.GetName())
    yield
    writing.write_image(image, path, compressed=False)
    yield


def _writeResult(result: "Result", ct: Path, folder: Path) -> Generator[None, None, None]:
    """Write lesions and lobes as they are now, as `segment` does."""
    import SimpleITK as sitk

    from DRAMLesionLib import writing
    from DRAMLesionLib.report.model import LESION_LABELS

    folder.mkdir()
    grid = sitk.ReadImage(str(ct))
    lesions = result.lesions_and_vessels()
    lesions[lesions > max(LESION_LABELS)] = 0
    for name, values in (("lesions", lesions), ("lobes", result.lobes())):
        image = sitk.GetImageFromArray(values)
        image.CopyInformation(grid)
        writing.write_image(image, folder / f"{name}.nii.gz")
        yield
    writing.write_json(result.report, folder / "report.json")
    yield
