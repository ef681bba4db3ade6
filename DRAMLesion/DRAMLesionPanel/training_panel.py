"""The last section of the panel: a scored and corrected case goes into a training set."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from DRAMLesionPanel.logic import DRAMLesionLogic
from DRAMLesionPanel.parameters import DRAMLesionParameterNode
from DRAMLesionPanel.paths import onPathChanged
from DRAMLesionPanel.telling import sentence, telling

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result

_CASE_NAME = "caseName"


class TrainingPanel:
    """Chooses folder and name, says what is missing, and writes the case."""

    def __init__(
        self,
        ui: Any,
        logic: DRAMLesionLogic,
        findResult: Callable[[], "Result | None"],
        parameters: Callable[[], DRAMLesionParameterNode | None],
    ):
        self._ui, self._logic = ui, logic
        self._findResult, self._parameters = findResult, parameters
        self._named: str | None = None
        self._proposed = ""
        self._written: tuple[Any, ...] | None = None
        onPathChanged(ui.trainingPathEdit, self.onFolderChanged)
        ui.caseNameEdit.connect("textChanged(QString)", self._onNameChanged)
        ui.addToTrainingButton.connect("clicked(bool)", self.onAdd)

    def update(self) -> None:
        """Say whether the case of the chosen CT can be written."""
        result = self._findResult()
        if result is None:
            self._named = None  # the next scene uses the same IDs again
        elif self._named != result.node.GetID():
            self._named = result.node.GetID()
            self._proposeName(result)
        self._checkCanAdd(result)

    def _proposeName(self, result: "Result") -> None:
        """The name under which the case was written before, or one that is free."""
        known = result.node.GetParameter(_CASE_NAME)
        self._proposed = known or self._freeName()
        self._ui.caseNameEdit.text = self._proposed

    def _freeName(self) -> str:
        from DRAMLesionLib.mrml import training_set

        return training_set.next_case_name(self._parameters().trainingFolder or None)

    def _state(self, result: "Result | None") -> tuple[Any, ...]:
        """What the message about a written case is about."""
        if result is None or self._parameters() is None:
            return ()
        case = (self._parameters().trainingFolder, self._ui.caseNameEdit.text)
        scores = tuple(result.reader_scores.values())
        return (result.node.GetID(), *case, scores, result.threshold)

    def _checkCanAdd(self, result: "Result | None") -> None:
        if self._written != self._state(result):
            self._ui.trainingMessageLabel.text = ""
        reason = sentence(self._whyNot(result))
        self._ui.addToTrainingButton.enabled = not reason
        self._ui.addToTrainingButton.toolTip = reason or _(
            "Write CT, lobes, pseudo-label and the reader's scores into the training folder."
        )

    def _whyNot(self, result: "Result | None") -> str:
        from DRAMLesionLib.mrml import training_set

        if result is None:
            return _("There is no result yet.")
        if not self._parameters().trainingFolder:
            return _("Choose the training folder.")
        if all(score is None for score in result.reader_scores.values()):
            return _("Type your own scores (0 to 5) into the last column of the table.")
        return training_set.check_case_name(self._ui.caseNameEdit.text)

    def onFolderChanged(self, path: str) -> None:
        if self._parameters() is None:
            return
        self._parameters().trainingFolder = path.strip()
        result = self._findResult()
        isProposal = self._ui.caseNameEdit.text == self._proposed
        if result is not None and isProposal and not result.node.GetParameter(_CASE_NAME):
            self._proposeName(result)

    def _onNameChanged(self, _text: str) -> None:
        self._checkCanAdd(self._findResult())

    def onAdd(self, _checked: bool = False) -> None:
        from DRAMLesionLib.mrml import training_set

        result, parameters = self._findResult(), self._parameters()
        folder, name = parameters.trainingFolder, self._ui.caseNameEdit.text
        self._logic.saveSettings(parameters)
        self._ui.trainingPathEdit.addCurrentPathToHistory()
        failure = _("The case was not written.")
        isThere = False
        with telling(failure) as attempt:
            isThere = training_set.has_case(folder, name)
        question = _("{folder} has a case {name} already. Replace it?")
        if not attempt.done or (
            isThere
            and not slicer.util.confirmOkCancelDisplay(
                question.format(folder=folder, name=name), _("Training set")
            )
        ):
            return
        with telling(failure, waitCursor=True):
            written = self._logic.addToTrainingSet(result, folder, name)
            result.node.SetParameter(_CASE_NAME, name)
            message = _("Wrote {count} files of {name}.").format(count=len(written), name=name)
            if not any(path.parent.name == training_set.PSEUDOLABELS for path in written):
                message += " " + _(
                    "The pseudo-label was not changed by hand: the training computes its own."
                )
            self._ui.trainingMessageLabel.text = message
            self._written = self._state(result)
