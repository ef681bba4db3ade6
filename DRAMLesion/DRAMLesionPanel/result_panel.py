"""The lower half of the panel: scores, heat map, threshold and editing of one result."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from DRAMLesionPanel.editor import PseudoLabelEditor
from DRAMLesionPanel.parameters import DRAMLesionParameterNode, HeatMap
from DRAMLesionPanel.score_table import ScoreTable, scoreLine

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result


class ResultPanel:
    """Shows the result of the chosen CT and lets the user work on it.

    findResult gives that result or None; parameters the parameter node, None while there is none;
    onChanged is called when the reader's scores have changed.
    """

    def __init__(
        self,
        ui: Any,
        findResult: Callable[[], "Result | None"],
        parameters: Callable[[], DRAMLesionParameterNode | None],
        onChanged: Callable[[], None],
    ):
        self._ui, self._findResult, self._parameters = ui, findResult, parameters
        self._onChanged = onChanged
        self._filling = False
        self._shown: str | None = None
        self._heatMap: tuple[Any, ...] | None = None
        self._preview: Any = None
        self.editor = PseudoLabelEditor(ui.editorArea.layout())
        self._table = ScoreTable(ui.scoreTable, self.onReaderScore)
        for text in (_("Lesions of the network"), _("Pseudo-label")):
            ui.tableSourceBox.addItem(text)
        ui.tableSourceBox.connect("currentIndexChanged(int)", self.onTableSource)
        ui.showChartButton.connect("clicked(bool)", self.onShowChart)
        ui.editingSection.connect("contentsCollapsed(bool)", self.onEditingSection)
        ui.thresholdSlider.connect("valueChanged(double)", self.onThreshold)
        ui.editButton.connect("toggled(bool)", self.onEdit)
        ui.updateScoresButton.connect("clicked(bool)", self.onUpdateScores)

    def sceneCloses(self) -> None:
        """Let go of everything in a scene that is about to close."""
        self._preview = None
        self._heatMap = None
        self.editor.sceneCloses()
        self._ui.editButton.checked = False
        self._ui.show3DButton.setSegmentationNode(None)
        self.forget()

    def forget(self) -> None:
        """Show the result anew at the next update, whatever was shown before."""
        self._shown = self._preview = None

    def update(self) -> None:
        """Show the result of the chosen CT, if it is another than before."""
        result, ui = self._findResult(), self._ui
        for widget in (ui.scoreTable, ui.editingSection, ui.teachingSection):
            widget.enabled = result is not None
        for widget in (ui.show3DButton, ui.showChartButton, ui.tableSourceBox):
            widget.enabled = result is not None
        if result is None:
            self._showNothing()
            return
        if self._shown != result.node.GetID():
            self._preview = None
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
        self._updateHeatMap(result)
        self._updateTracking()

    def _showNothing(self) -> None:
        ui = self._ui
        self.forget()
        self._table.clear()
        ui.editButton.checked = False
        ui.resultLabel.text = _("No result for this CT yet.")
        for label in (ui.warningsLabel, ui.readerMessageLabel):
            label.text, label.visible = "", False
        ui.show3DButton.setSegmentationNode(None)

    def _show(self, result: "Result") -> None:
        from DRAMLesionLib.mrml.result import PSEUDOLABEL

        ui = self._ui
        self._showNumbers(result)
        ui.warningsLabel.text = "\n".join(f"⚠ {text}" for text in result.warnings)
        ui.warningsLabel.visible = bool(result.warnings)
        ui.readerMessageLabel.visible = False
        ui.mapLabel.visible = result.map_role == HeatMap.DRAM.value
        ui.editButton.checked = False
        self._set(ui.tableSourceBox, "currentIndex", int(result.source == PSEUDOLABEL))
        self._set(ui.thresholdSlider, "value", result.threshold)
        ui.show3DButton.setSegmentationNode(result.get("segmentation"))

    def _set(self, widget: Any, name: str, value: Any) -> None:
        """Set a widget without acting as if the user had done it."""
        self._filling = True
        setattr(widget, name, value)
        self._filling = False

    def _showNumbers(self, result: "Result") -> None:
        self._table.show(result)
        self._ui.resultLabel.text = _("{score}. Lobes: {source}.").format(
            score=scoreLine(result.rows), source=result.report.get("lobes_source", "")
        )

    # --- views ------------------------------------------------------------------------------------

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

    def showInViews(self, fit: bool = False) -> None:
        """Show CT and heat map in the slice views, and as segments what the table counts."""
        from DRAMLesionLib.mrml import display
        from DRAMLesionLib.mrml.result import PSEUDOLABEL

        result, parameters = self._findResult(), self._parameters()
        if result is None:
            return
        chosen = parameters.heatMap
        volume = None if chosen == HeatMap.NONE else result.get(chosen.value)
        if fit:
            display.show_lung_window(result.ct)
        display.show_in_slices(result.ct, volume, parameters.heatMapOpacity, fit)
        display.show_source(
            result.get("segmentation"), result.get("pseudolabel"), result.source == PSEUDOLABEL
        )

    def onShowChart(self, _checked: bool = False) -> None:
        result = self._findResult()
        if result is not None:
            slicer.modules.plots.logic().ShowChartInLayout(result.get("chart"))

    # --- scores -----------------------------------------------------------------------------------

    def onTableSource(self, index: int) -> None:
        from DRAMLesionLib.mrml.result import NETWORK, PSEUDOLABEL

        result = self._findResult()
        if self._filling or result is None:
            return
        with slicer.util.tryWithErrorDisplay(_("Counting failed."), waitCursor=True):
            result.update_scores(PSEUDOLABEL if index else NETWORK)
            self._showNumbers(result)
            self.showInViews()

    def onUpdateScores(self, _checked: bool = False) -> None:
        self.onTableSource(self._ui.tableSourceBox.currentIndex)

    def onReaderScore(self, lobe: str, text: str) -> None:
        from DRAMLesionLib.lobes import Lobe

        result, label = self._findResult(), self._ui.readerMessageLabel
        if result is None:
            return
        label.text = ""
        try:
            result.set_reader_score(Lobe[lobe], text)
        except ValueError as error:
            label.text = str(error)
        label.visible = bool(label.text)
        self._table.show(result)
        self._onChanged()

    # --- threshold and pseudo-label ---------------------------------------------------------------

    def onEditingSection(self, collapsed: bool) -> None:
        """Sort the voxels before the slider is touched: that is the only slow step."""
        result = self._findResult()
        if not collapsed and result is not None and not result.is_edited("pseudolabel"):
            self._preparePreview(result)
        self._updateTracking()

    def _isPreviewReady(self) -> bool:
        return self._preview is not None and self._preview.current

    def _updateTracking(self) -> None:
        """Follow the slider during a drag only where no question can come up in the middle."""
        isSafe = self._isPreviewReady() and not self.editor.isOpen
        self._ui.thresholdSlider.tracking = isSafe

    def _preparePreview(self, result: "Result") -> bool:
        from DRAMLesionLib.mrml.preview import ThresholdPreview

        if not self._isPreviewReady():
            self._preview = None
            with slicer.util.tryWithErrorDisplay(_("No preview."), waitCursor=True):
                self._preview = ThresholdPreview(result)
        return self._preview is not None

    def onThreshold(self, value: float) -> None:
        result = self._findResult()
        if self._filling or result is None:
            return
        if not self._isPreviewReady() and not self._mayReplacePseudoLabel(result):
            self._set(self._ui.thresholdSlider, "value", result.threshold)
            return
        if self._preparePreview(result):
            self._preview.move(value)
            self._countPseudoLabel(result)
        self._updateTracking()

    def _mayReplacePseudoLabel(self, result: "Result") -> bool:
        if not result.is_edited("pseudolabel"):
            return True
        return slicer.util.confirmOkCancelDisplay(
            _("The pseudo-label was edited by hand. Replace it by the one of this threshold?"),
            _("Edited by hand"),
        )

    def _countPseudoLabel(self, result: "Result") -> None:
        """Show that table and views have the pseudo-label now."""
        self._showNumbers(result)
        if self._ui.tableSourceBox.currentIndex != 1:
            self._set(self._ui.tableSourceBox, "currentIndex", 1)
            self.showInViews()

    def onEdit(self, checked: bool) -> None:
        from DRAMLesionLib.mrml.result import PSEUDOLABEL

        result = self._findResult()
        if checked and result is not None:
            failure = _("The editor cannot be opened.")
            with slicer.util.tryWithErrorDisplay(failure, waitCursor=True):
                self.editor.open(result)
                result.update_scores(PSEUDOLABEL)
                self._countPseudoLabel(result)
        else:
            self.editor.close()
        self._updateTracking()
