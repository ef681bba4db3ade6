"""The lower half of the panel: scores, heat map, threshold and editing of one result."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from DRAMLesionPanel import legend, views
from DRAMLesionPanel.dicom_button import DicomButton
from DRAMLesionPanel.editor import PseudoLabelEditor
from DRAMLesionPanel.parameters import DRAMLesionParameterNode, HeatMap
from DRAMLesionPanel.report_buttons import ReportButtons
from DRAMLesionPanel.score_table import ScoreTable, scoreLine
from DRAMLesionPanel.steps import Steps
from DRAMLesionPanel.study_list import StudyList
from DRAMLesionPanel.surfaces import SurfacesButton
from DRAMLesionPanel.telling import sentence, tell, telling

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result


class ResultPanel:
    """Shows the result of the chosen CT and lets the user work on it.

    findResult gives that result or None; parameters the parameter node, None while there is none;
    onChanged is called when scores or pseudo-label have changed.
    """

    def __init__(
        self,
        ui: Any,
        findResult: "Callable[[], Result | None]",
        parameters: Callable[[], DRAMLesionParameterNode | None],
        onChanged: Callable[[], None],
    ):
        self._ui, self._findResult, self._parameters = ui, findResult, parameters
        self._onChanged = onChanged
        self._filling = False
        self._shown: str | None = None
        self._isActive = False
        self._viewed: tuple[Any, ...] | None = None
        self._heatMap: tuple[Any, ...] | None = None
        self._preview: Any = None
        self._preparing: Steps | None = None
        self._replacing = False
        self.editor = PseudoLabelEditor(ui.editorArea.layout())
        self.surfaces = SurfacesButton(ui.show3DButton, findResult)
        self._table = ScoreTable(ui.scoreTable, self.onReaderScore, self.onRow)
        self._report = ReportButtons(ui, findResult)
        self.dicom = DicomButton(ui, findResult, self._counted)
        self._study = StudyList(ui.studyLabel, ui.studyTable, self.onStudyRow)
        for text in (_("Lesions of the network"), _("Pseudo-label")):
            ui.tableSourceBox.addItem(text)
        ui.tableSourceBox.connect("currentIndexChanged(int)", self.onTableSource)
        ui.showChartButton.connect("clicked(bool)", self.onShowChart)
        ui.editingSection.connect("contentsCollapsed(bool)", self.onEditingSection)
        ui.thresholdSlider.connect("valueChanged(double)", self.onThreshold)
        ui.editButton.connect("toggled(bool)", self.onEdit)
        ui.updateScoresButton.connect("clicked(bool)", self.onUpdateScores)

    def enter(self) -> None:
        """The user comes to the module: from now on the views show what the panel shows."""
        self._isActive = True
        self.update()
        self.editor.enter()

    def exit(self) -> None:
        """The user leaves the module, and the views to others."""
        self._isActive = False
        self.editor.exit()

    def sceneCloses(self) -> None:
        """Let go of everything in a scene that is about to close."""
        self._heatMap = self._viewed = None
        self.surfaces.show(None)
        self.dicom.abandon()
        self.editor.sceneCloses()
        self._ui.editButton.checked = False
        self.forget()

    def forget(self) -> None:
        """Show the result anew at the next update, whatever was shown before."""
        self._shown = None
        self._dropPreview()

    def update(self) -> None:
        """Show the result of the chosen CT, if it is another than before."""
        result, ui = self._findResult(), self._ui
        for widget in (ui.editingSection, ui.tableSourceBox):
            widget.enabled = result is not None
        ui.showChartButton.enabled = result is not None
        self._report.update(result)
        self.dicom.update(result)
        if result is None:
            self._showNothing()
        elif self._shown != result.node.GetID():
            self._dropPreview()
            try:
                self._show(result)
            except ImportError as error:
                self._showNothing()
                ui.resultLabel.text = _(
                    "This result cannot be shown yet: {name} is not installed. Apply installs what "
                    "is missing, and asks before."
                ).format(name=error.name)
                return
            self._shown = result.node.GetID()
        self._followViews(result)
        if result is not None:
            self._updateHeatMap(result)
            self._updateTracking()

    def _showNothing(self) -> None:
        ui = self._ui
        self.forget()
        self._table.clear()
        self._study.show(None)
        self.surfaces.show(None)
        ui.editButton.checked = False
        ui.resultLabel.text = self._whyNothing()
        for label in (ui.warningsLabel, ui.readerMessageLabel, ui.legendLabel):
            label.text, label.visible = "", False

    def _whyNothing(self) -> str:
        from DRAMLesionLib.mrml.result import Result

        parameters = self._parameters()
        part = Result.find(parameters.inputVolume) if parameters is not None else None
        if part is None:
            return _("No result for this CT yet.")
        if part.missing:
            return _(
                "A part of the result of this CT was removed from the scene: {parts}. Apply "
                "computes it anew."
            ).format(parts=", ".join(part.missing))
        if not part.fits:
            return _("The CT was changed since its result was computed: Apply computes it anew.")
        return _("The result of this CT is not complete: Apply computes it anew.")

    def _show(self, result: "Result") -> None:
        from DRAMLesionLib.mrml.result import PSEUDOLABEL

        ui = self._ui
        self._showNumbers(result)
        ui.warningsLabel.text = "\n".join(f"⚠ {sentence(text)}" for text in result.warnings)
        ui.warningsLabel.visible = bool(result.warnings)
        ui.readerMessageLabel.visible = False
        ui.mapLabel.visible = result.map_role == HeatMap.DRAM.value
        ui.editButton.checked = False
        self._set(ui.tableSourceBox, "currentIndex", int(result.source == PSEUDOLABEL))
        self._set(ui.thresholdSlider, "value", result.threshold)
        self.surfaces.show(result)

    def _set(self, widget: Any, name: str, value: Any) -> None:
        """Set a widget without acting as if the user had done it."""
        self._filling = True
        setattr(widget, name, value)
        self._filling = False

    def _showNumbers(self, result: "Result") -> None:
        self._table.show(result)
        self._study.show(result.ct)
        self._ui.legendLabel.text = legend.describe(result)
        self._ui.legendLabel.visible = True
        self._ui.resultLabel.text = _("{score}. Lobes: {source}.").format(
            score=scoreLine(result.rows), source=result.report.get("lobes_source", "")
        )

    # --- views ------------------------------------------------------------------------------------

    def _followViews(self, result: "Result | None") -> None:
        """Another CT or another result: the views show it, too."""
        parameters = self._parameters()
        if parameters is None or not self._isActive:
            return
        ct = parameters.inputVolume
        now = (ct and ct.GetID(), result and result.node.GetID())
        if now != self._viewed:
            self._viewed = now
            views.follow(result, ct, parameters)

    def ctMoved(self) -> None:
        """The CT was put under a transform, taken out of it, or hardened: its results go along."""
        result = self._findResult()
        if result is None:
            return
        if result.follow_ct():
            self.surfaces.show(result)
        with telling(_("Counting failed.")):
            if result.recount_if_scaled():
                self._dropPreview()
                self._showNumbers(result)

    def _updateHeatMap(self, result: "Result") -> None:
        from DRAMLesionLib.mrml import display

        parameters = self._parameters()
        state = (parameters.heatMap, parameters.heatMapOpacity, parameters.heatMapFloor)
        before, self._heatMap = self._heatMap, state
        if before == state:
            return
        for role in ("dram", "refined"):
            display.hide_below(result.get(role), parameters.heatMapFloor)
        if before is not None:
            self.showInViews()

    def showInViews(self) -> None:
        """Show CT and heat map in the slice views, and as segments what the table counts."""
        result, parameters = self._findResult(), self._parameters()
        if result is not None:
            views.showResult(result, parameters)

    def showNew(self) -> None:
        """A run has ended: show its result, and of it the place with most lesion."""
        result, parameters = self._findResult(), self._parameters()
        if result is None:
            return
        self._viewed = (result.ct.GetID(), result.node.GetID())
        views.hideOthers(result)
        views.showResult(result, parameters, fit=True)
        views.goToWorst(result, "total")
        if self._ui.show3DButton.checked:
            self.surfaces.sourceChanged()

    def onRow(self, name: str) -> None:
        result = self._findResult()
        if result is not None:
            views.goToWorst(result, name)

    def onStudyRow(self, ct: Any) -> None:
        self._parameters().inputVolume = ct

    def onShowChart(self, _checked: bool = False) -> None:
        result = self._findResult()
        if result is not None:
            slicer.modules.plots.logic().ShowChartInLayout(result.chart())

    # --- scores -----------------------------------------------------------------------------------

    def onTableSource(self, index: int) -> None:
        from DRAMLesionLib.mrml.result import NETWORK, PSEUDOLABEL

        result = self._findResult()
        if self._filling or result is None:
            return
        with telling(_("Counting failed."), waitCursor=True):
            result.update_scores(PSEUDOLABEL if index else NETWORK)
            self._showNumbers(result)
            self.showInViews()
        self.surfaces.sourceChanged()
        self._onChanged()

    def onUpdateScores(self, _checked: bool = False) -> None:
        self.onTableSource(self._ui.tableSourceBox.currentIndex)

    def _counted(self, result: "Result") -> None:
        """The table was counted anew, though nobody has asked for it: show its numbers."""
        if self._shown == result.node.GetID():
            self._showNumbers(result)
            self._onChanged()

    def onReaderScore(self, lobe: str, text: str) -> None:
        from DRAMLesionLib.lobes import Lobe

        result, label = self._findResult(), self._ui.readerMessageLabel
        if result is None:
            return
        label.text = ""
        try:
            result.set_reader_score(Lobe[lobe], text)
        except ValueError as error:
            label.text = sentence(str(error))
        label.visible = bool(label.text)
        self._table.show(result)
        self._onChanged()

    # --- threshold and pseudo-label ---------------------------------------------------------------

    def onEditingSection(self, collapsed: bool) -> None:
        """Sort the voxels before the slider is touched: that is the only slow step."""
        result = self._findResult()
        if not collapsed and result is not None and not self._isPreviewReady():
            self._dropPreview()
            self._preparing = Steps(self._prepareInSteps(result), self._prepared)
        self._updateTracking()

    def _prepareInSteps(self, result: "Result") -> Generator[None, None, None]:
        from DRAMLesionLib.mrml.preview import ThresholdPreview

        # none of an edited one, which is replaced only if the user says so, at a move of the slider
        self._preview = yield from ThresholdPreview.in_steps(result)

    def _prepared(self, _error: Exception | None) -> None:
        """If it has failed, the slider tries again and tells."""
        self._preparing = None
        self._updateTracking()

    def _dropPreview(self) -> None:
        """Begin anew: another result is shown, or another threshold is asked for."""
        self._preview, self._replacing = None, False
        if self._preparing is not None:
            self._preparing.stop()
            self._preparing = None

    def _isPreviewReady(self) -> bool:
        return self._preview is not None and self._preview.current

    def _updateTracking(self) -> None:
        """Follow the slider during a drag only where no question can come up in the middle."""
        isSafe = self._isPreviewReady() and not self.editor.isOpen
        self._ui.thresholdSlider.tracking = isSafe

    def _preparePreview(self, result: "Result", isEdited: bool | None) -> bool:
        from DRAMLesionLib.mrml.preview import ThresholdPreview

        if not self._isPreviewReady():
            self._dropPreview()
            with telling(_("No preview."), waitCursor=True):
                self._preview = ThresholdPreview(result, isEdited)
        return self._preview is not None

    def onThreshold(self, value: float) -> None:
        result = self._findResult()
        if self._filling or result is None or self._isReplacing:
            return
        isEdited = None
        if not self._isPreviewReady():
            isEdited = result.is_edited("pseudolabel")
            if isEdited:
                self._replaceEdited(result)
                return
        if self._preparePreview(result, isEdited):
            self._move(result, value)
        self._updateTracking()

    def _move(self, result: "Result", value: float) -> None:
        self._preview.move(value)
        self._countPseudoLabel(result)
        self.surfaces.voxelsChanged()
        self._onChanged()

    @property
    def _isReplacing(self) -> bool:
        """Whether an edited pseudo-label is being replaced: by where the slider is at the end."""
        return self._replacing and self._preparing is not None

    def _replaceEdited(self, result: "Result") -> None:
        if not self._mayReplacePseudoLabel():
            self._set(self._ui.thresholdSlider, "value", result.threshold)
            return
        self._dropPreview()
        self._replacing = True
        self._preparing = Steps(self._replaceInSteps(result), self._replaced)

    def _replaceInSteps(self, result: "Result") -> Generator[None, None, None]:
        from DRAMLesionLib.mrml.preview import ThresholdPreview

        self._preview = yield from ThresholdPreview.in_steps(result, may_replace=True)
        yield
        self._move(result, self._ui.thresholdSlider.value)

    def _replaced(self, error: Exception | None) -> None:
        self._replacing, self._preparing = False, None
        if error is not None:
            tell(_("No preview."), error)
        self._updateTracking()

    @staticmethod
    def _mayReplacePseudoLabel() -> bool:
        return slicer.util.confirmOkCancelDisplay(
            _("The pseudo-label was edited by hand. Replace it by the one of this threshold?"),
            _("Edited by hand"),
        )

    def pointsFollowed(self, result: "Result") -> None:
        """The pseudo-label has followed the reader's points: so do table, views and surfaces."""
        self._countPseudoLabel(result)
        self.surfaces.voxelsChanged()
        self._onChanged()
        self._updateTracking()

    def _countPseudoLabel(self, result: "Result") -> None:
        """Show that table and views have the pseudo-label now."""
        self._showNumbers(result)
        if self._ui.tableSourceBox.currentIndex != 1:
            self._set(self._ui.tableSourceBox, "currentIndex", 1)
            self.showInViews()
            self.surfaces.sourceChanged()

    def onEdit(self, checked: bool) -> None:
        from DRAMLesionLib.mrml.result import PSEUDOLABEL

        result = self._findResult()
        if checked and result is not None:
            with telling(_("The editor cannot be opened."), waitCursor=True) as attempt:
                lobes = result.lobes()
                self.editor.open(result, lobes)
                result.update_scores(PSEUDOLABEL, lobes)
                self._countPseudoLabel(result)
            if not attempt.done:
                self._ui.editButton.checked = False
        else:
            self.editor.close()
        self._updateTracking()
