"""Below the training set: its cases, and better weights from them without leaving the room."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from DRAMLesionPanel import cards, dependencies
from DRAMLesionPanel.case_table import CaseTable
from DRAMLesionPanel.improvement_files import Case, Figures, ImprovementFiles, Verdict
from DRAMLesionPanel.logic import DRAMLesionLogic
from DRAMLesionPanel.parameters import DRAMLesionParameterNode
from DRAMLesionPanel.process import LibraryProcess, ProcessEnd, libraryFolder
from DRAMLesionPanel.score_table import NOTHING
from DRAMLesionPanel.telling import sentence, telling

LEAST_CASES = 2
_PICTURE_PX = 380


class ImprovementPanel:
    """Shows the cases of the training folder; trains in the background, and offers better weights.

    onWeights is called with the folder of new weights when the user takes them. The training is
    about the folder and not about the scene: it goes on when a scene is closed.
    """

    def __init__(
        self,
        ui: Any,
        logic: DRAMLesionLogic,
        parameters: Callable[[], DRAMLesionParameterNode | None],
        onWeights: Callable[[str], None],
    ):
        self._logic, self._parameters, self._onWeights = logic, parameters, onWeights
        self._process: LibraryProcess | None = None
        self._cancelled = False
        self._running = ""
        self._files: ImprovementFiles | None = None
        self._cases: list[Any] = []
        self._problem = ""
        self._unfinished = ""
        self._verdict: Verdict | None = None
        self._weights: Path | None = None
        self._build(ui.teachingSection.layout())
        ui.addToTrainingButton.connect("clicked(bool)", self.refresh)
        ui.teachingSection.connect("contentsCollapsed(bool)", self.refresh)

    def _build(self, layout: qt.QFormLayout) -> None:
        self.caseTable = qt.QTableWidget()
        self.improveButton = qt.QPushButton()
        self.progressBar = qt.QProgressBar()
        self.statusLabel, self.verdictLabel = _label(), _label()
        self.curvesLabel, self.pictureLabel = _label(), _label()
        self.useButton = qt.QPushButton(_("Use these weights"))
        self.curvesLabel.openExternalLinks = True
        self.progressBar.maximum = 100
        self.progressBar.visible = False
        self._table = CaseTable(self.caseTable)
        # in a widget of its own, so that a collapsed section hides and shows one
        self.area = qt.QWidget()
        column = qt.QVBoxLayout(self.area)
        column.setContentsMargins(0, 0, 0, 0)
        layout.addRow(self.area)
        for widget in (
            *(self.caseTable, self.improveButton, self.progressBar, self.statusLabel),
            *(self.verdictLabel, self.pictureLabel, self.useButton, self.curvesLabel),
        ):
            column.addWidget(widget)
        self.improveButton.connect("clicked(bool)", self.onImprove)
        self.useButton.connect("clicked(bool)", self.onUse)

    # --- what is there ----------------------------------------------------------------------------

    def update(self) -> None:
        """Look at the folder again if another one was chosen."""
        folder = self._folder()
        if folder != (str(self._files.data) if self._files is not None else ""):
            if not self.running:
                self.statusLabel.text = ""  # it was about another folder
            self.refresh()
        else:
            self._checkCanImprove()

    def _folder(self) -> str:
        parameters = self._parameters()
        return (
            str(Path(parameters.trainingFolder)) if parameters and parameters.trainingFolder else ""
        )

    def refresh(self, _checked: bool = False) -> None:
        """Read the training folder: cases, sides, and what an improvement has left there."""
        from DRAMLesionLib.errors import DRAMLesionError
        from DRAMLesionLib.mrml import training_set

        folder = self._folder()
        self._files = ImprovementFiles(folder) if folder else None
        self._cases, self._problem, self._unfinished = [], "", ""
        self._verdict = self._weights = None
        validation: list[str] = []
        if self._files is not None:
            try:
                self._cases = training_set.list_cases(folder)
                validation = self._files.split().validation
            except (DRAMLesionError, OSError) as error:
                self._problem = sentence(str(error))
        self._table.show(self._cases, validation)
        self._readOutcome()
        self._checkCanImprove()

    def _readOutcome(self) -> None:
        """What an improvement has left; where that is damaged, another one makes it anew."""
        from DRAMLesionLib.errors import DRAMLesionError

        damage = ""
        if self._files is not None:
            try:
                unfinished = self._files.unfinished()
                self._unfinished = unfinished.weights if unfinished is not None else ""
                self._verdict = self._files.verdict()
            except (DRAMLesionError, OSError) as error:
                damage = sentence(str(error))
        self._showVerdict()
        if damage:
            self.verdictLabel.text, self.verdictLabel.visible = damage, True

    def _startWeights(self) -> Path:
        from DRAMLesionLib import weights

        parameters = self._parameters()
        chosen = parameters.weightsFolder if parameters is not None else ""
        return Path(chosen).resolve() if chosen else weights.BUNDLED

    def _canResume(self) -> bool:
        return bool(self._unfinished) and Path(self._unfinished) == self._startWeights()

    def _whyNot(self) -> str:
        """Why nothing can be trained, '' if it can."""
        parameters = self._parameters()
        if parameters is None or self._files is None:
            return _("Choose the training folder.")
        if self._problem:
            return self._problem
        if not (libraryFolder() / "Training" / "__main__.py").is_file():
            return _("The folder Training is missing beside DRAMLesionLib: install it completely.")
        usable = sum(not case.is_broken for case in self._cases)
        if usable < LEAST_CASES:
            return _(
                "At least two cases without problems are needed, one to train on and one for "
                "validation; there are {count}."
            ).format(count=usable)
        return cards.problem(parameters.weightsFolder)

    def _checkCanImprove(self) -> None:
        button = self.improveButton
        if self.running:
            button.text, button.enabled = _("Cancel the training"), not self._cancelled
            button.toolTip = _("Stop; the training goes on from there when it is resumed.")
            return
        reason = self._whyNot()
        button.text = _("Resume") if self._canResume() else _("Improve the weights")
        button.enabled = not reason
        button.toolTip = reason or _(
            "Train on these cases in the background, and compare the weights before and after on "
            "the cases that are kept for validation."
        )

    # --- training ---------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._process is not None

    def onImprove(self, _checked: bool = False) -> None:
        if self._process is not None:
            self._cancelled = True
            self.statusLabel.text = _("Cancelling …")
            self._process.cancel()
            self._checkCanImprove()
            return
        if self._files is None:
            return
        isReady = False
        with telling(_("The packages could not be installed.")):
            isReady = dependencies.ensure(training=True)
        if not isReady:
            self.statusLabel.text = _("Packages are missing; nothing was done.")
            return
        words = ["improve", str(self._files.data), "--output", str(self._files.folder)]
        words += ["--weights", str(self._startWeights()), "--json-progress"]
        self._logic.saveSettings(self._parameters())  # so that it can be resumed after a restart
        self._cancelled, self._running = False, str(self._files.data)
        self._showRunning(True)
        self._process = LibraryProcess(words, self._onProgress, self._onFinished, "Training")
        with telling(_("The training was not started.")) as attempt:
            self._process.start()
        if not attempt.done:
            self._process = None
            self._showRunning(False)
        self._checkCanImprove()

    def _showRunning(self, running: bool) -> None:
        self.progressBar.value = 0
        self.progressBar.visible = running
        self.statusLabel.text = _("Starting …") if running else ""

    def _onProgress(self, stage: str, fraction: float) -> None:
        self.progressBar.value = round(100 * fraction)
        if not self._cancelled:
            self.statusLabel.text = stageText(stage)

    def _onFinished(self, end: ProcessEnd) -> None:
        self._process = None
        self._showRunning(False)
        if self._cancelled:
            self.statusLabel.text = _("Cancelled; Resume goes on from there.")
        elif end.succeeded:
            self.statusLabel.text = _("Trained on {folder}.").format(folder=self._running)
        else:
            reason = sentence(end.reason)
            self.statusLabel.text = _("Not done: {reason}").format(reason=reason)
            slicer.util.errorDisplay(reason, windowTitle=_("DRAMLesion"))
        self._cancelled = False
        if self._parameters() is not None:
            self.refresh()

    def abandon(self) -> None:
        """Stop without a word: the application is closing. The training can be resumed."""
        if self._process is not None:
            self._process.abandon()
            self._process = None

    # --- the outcome ------------------------------------------------------------------------------

    def _showVerdict(self) -> None:
        verdict, files = self._verdict, self._files
        isThere = verdict is not None and files is not None
        for label in (self.verdictLabel, self.pictureLabel, self.useButton):
            label.visible = isThere
        curves = ""
        if files is not None and files.hasCurves():
            curves = _("Curves of the training for TensorBoard: {folder}")
            curves = curves.format(folder=_link(files.folder))
        self.curvesLabel.text = curves
        self.curvesLabel.visible = bool(curves)
        self.verdictLabel.text = self.pictureLabel.text = ""
        if verdict is None or files is None:
            return
        self._weights = files.weights(verdict)
        self.verdictLabel.text = _verdictText(verdict, self._weights is not None)
        self.pictureLabel.text = "".join(_pictureText(case, files) for case in verdict.cases)
        self.useButton.enabled = self._weights is not None
        self.useButton.toolTip = (
            _("Take the new weights for the next Apply.")
            if self._weights is not None
            else _("New weights are offered only if they are better on the validation cases.")
        )

    def onUse(self, _checked: bool = False) -> None:
        if self._weights is not None:
            self._onWeights(str(self._weights))


def stageText(stage: str) -> str:
    """What a stage of the training does, in words."""
    texts = {
        "prepare": _("Preparing the cases …"),
        "vessels": _("Finding the vessels …"),
        "regression": _("Training on the scores …"),
        "pseudolabels": _("Making labels that keep to the scores …"),
        "segmentation": _("Training on the labels …"),
        "measure": _("Comparing before and after …"),
    }
    return texts.get(stage, stage)


def _label() -> qt.QLabel:
    label = qt.QLabel()
    label.wordWrap = True
    return label


def _link(folder: Path) -> str:
    url = qt.QUrl.fromLocalFile(str(folder)).toString()
    return f'<a href="{html.escape(url)}">{html.escape(folder.name)}</a>'


def _verdictText(verdict: Verdict, hasWeights: bool) -> str:
    """The verdict as HTML: a sentence, a table of each network, what it was trained on, notes."""
    if hasWeights:
        first = _("The new weights are better.")
    elif verdict.better:
        first = _("The new weights were better, but they are no longer there.")
    else:
        first = _("No better weights: nothing changes.")
    names = {"segmentation": _("Segmentation"), "regression": _("Activation map (dRAM)")}
    rows = [f"<tr><td></td><td>{_('before')}&nbsp;</td><td>{_('after')}</td></tr>"]
    for name, network in verdict.networks.items():
        state = (
            _("better, taken")
            if network.better
            else _("not better, kept as it was")
            if network.trained
            else _("not trained")
        )
        title = f"{names.get(name, name)}: {state}"
        rows.append(f"<tr><td colspan=3><b>{html.escape(title)}</b></td></tr>")
        rows += [
            f"<tr><td>{html.escape(text)}&nbsp;</td><td>{before}&nbsp;</td><td>{after}</td></tr>"
            for text, before, after in _figureRows(network.before, network.after)
        ]
    about = _(
        "Started from {start}; trained on {training} ({edited} with corrected pseudo-labels), "
        "measured on {validation}, which are never trained on."
    ).format(
        start=verdict.start,
        training=", ".join(verdict.training),
        edited=verdict.edited,
        validation=", ".join(verdict.validation),
    )
    notes = "".join(f"<br>⚠ {html.escape(note)}" for note in verdict.notes)
    return f"<b>{first}</b><table>{''.join(rows)}</table>{html.escape(about)}{notes}"


def _figureRows(before: Figures, after: Figures) -> list[tuple[str, str, str]]:
    rows = []
    if before.dice_cases:
        text = _("Dice with corrected labels ({count} cases)").format(count=before.dice_cases)
        rows.append((text, _number(before.dice, 3), _number(after.dice, 3)))
    of = _("{count} of {all}")
    scored = [of.format(count=f.in_interval, all=f.scored) for f in (before, after)]
    rows.append((_("Lobes with the reader's score"), *scored))
    if before.clear_lobes:
        text = _("Lesion % of lobes scored 0 ({count})").format(count=before.clear_lobes)
        rows.append((text, _number(before.clear_percent, 2), _number(after.clear_percent, 2)))
    return rows


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _pictureText(case: Case, files: ImprovementFiles) -> str:
    """A case's picture before and after, with its figures, as HTML."""
    path = files.picture(case)
    if path is None:
        return ""
    text = _("{case}, before | after: found in red, the corrected label in blue").format(
        case=case.case
    )
    url = qt.QUrl.fromLocalFile(str(path)).toString()
    return f'<p>{html.escape(text)}<br><img src="{html.escape(url)}" width="{_PICTURE_PX}"></p>'
