"""DRAMLesion: lesions of COVID-19 on chest CT, lobe scores, pseudo-labels and training cases."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


def _makeImportable() -> None:
    """Let Python find this module's parts and the library.

    An installed extension has all of them beside this file, the repository has the library one
    folder up.
    """
    here = Path(__file__).resolve().parent
    for package, folders in (("DRAMLesionPanel", [here]), ("DRAMLesionLib", [here, here.parent])):
        for folder in folders:
            if importlib.util.find_spec(package) is None and (folder / package).is_dir():
                sys.path.append(str(folder))


_makeImportable()

from DRAMLesionPanel import cards, dependencies  # noqa: E402
from DRAMLesionPanel.comparison_panel import ComparisonPanel  # noqa: E402
from DRAMLesionPanel.improvement_panel import ImprovementPanel  # noqa: E402
from DRAMLesionPanel.lobe_matches import LobeMatches  # noqa: E402
from DRAMLesionPanel.logic import DRAMLesionLogic, makePhantom  # noqa: E402
from DRAMLesionPanel.parameters import HeatMap, LobesFrom, correct, corrections  # noqa: E402
from DRAMLesionPanel.paths import onPathChanged  # noqa: E402
from DRAMLesionPanel.points_panel import PointsPanel  # noqa: E402
from DRAMLesionPanel.result_panel import ResultPanel  # noqa: E402
from DRAMLesionPanel.run import CANCELLED, DONE, LOADING  # noqa: E402
from DRAMLesionPanel.self_test import DRAMLesionTest  # noqa: E402
from DRAMLesionPanel.telling import sentence, telling  # noqa: E402
from DRAMLesionPanel.training_panel import TrainingPanel  # noqa: E402
from DRAMLesionPanel.watching import Watched  # noqa: E402

CITATION = """Xie W, Jacobs C, van Ginneken B. <i>Dense Regression Activation Maps For Lesion
Segmentation in CT scans of COVID-19 patients.</i>
<a href="https://arxiv.org/abs/2105.11748">arXiv:2105.11748</a>."""


SOME_LOBES = 3
"""A segmentation with so many lobes shows what the lobes of a result show, too."""


class DRAMLesion(ScriptedLoadableModule):
    """The module as Slicer lists it."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("DRAMLesion")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Plots", "Segmentations", "Terminologies"]
        self.parent.contributors = ["DRAMLesion contributors"]
        self.parent.helpText = _(
            "<p>Finds ground glass, consolidation and mixed lesions of COVID-19 on a chest CT, "
            "says which share of each lobe is diseased, and scores the lobes from 0 to 5. The "
            "networks were trained on lobe scores alone. Pseudo-labels can be corrected, scored "
            "and added to a training set.</p><p><b>Research use only. Not a medical device.</b> "
            "Everything is computed on this computer; nothing is sent anywhere.</p><p>Choose a "
            "CT, press Apply. The README of the extension has a tutorial.</p>"
        )
        self.parent.acknowledgementText = _("<p>Please cite: {citation}</p>").format(
            citation=CITATION
        )
        slicer.app.connect("startupCompleted()", self._onStartupCompleted)

    def _onStartupCompleted(self) -> None:
        """Register what other modules offer on our behalf; nothing is computed or loaded."""
        registerSampleData(self.resourcePath("Icons/DRAMLesionPhantom.png"))
        terminologies = slicer.modules.terminologies.logic()
        terminologies.LoadTerminologyFromFile(
            self.resourcePath("Terminologies/DRAMLesion.term.json")
        )


def registerSampleData(thumbnail: str) -> None:
    """Offer a phantom in the Sample Data module; it is computed here, nothing is downloaded."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="DRAMLesion",
        sampleName="DRAMLesionPhantom",
        uris=[],
        fileNames=[],
        nodeNames=[],
        thumbnailFileName=thumbnail,
        customDownloader=showPhantom,
    )


def showPhantom(_source: Any = None) -> list[Any]:
    """Make the phantom and show it; what a click on it in the Sample Data module does."""
    made = []
    slicer.util.showStatusMessage(_("Making a synthetic chest CT …"))
    with telling(_("No phantom was made."), waitCursor=True) as attempt:
        made.append(makePhantom())
        if slicer.app.layoutManager() is not None:
            slicer.util.setSliceViewerLayers(background=made[0], fit=True)
    isMade = _("The synthetic chest CT is there.")
    slicer.util.showStatusMessage(isMade if attempt.done else _("No phantom was made."), 3000)
    return made


class DRAMLesionWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.run = None
        self.results: Any = None
        self.points: Any = None
        self.improvement: Any = None
        self.comparison: Any = None
        self._parameterNode = None
        self._guiTag = None
        self._lobeKeys = {}
        self._watched = Watched(self, self._onInputChanged)
        self._statusOf: tuple[Any, ...] | None = None

    # --- setting up, coming and going -------------------------------------------------------------

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/DRAMLesion.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = DRAMLesionLogic()
        self.lobeMatches = LobeMatches(self.ui.lobeMatchArea.layout(), self.onLobeCorrected)
        self.training = TrainingPanel(self.ui, self.logic, self._result, self._parameters)
        self.results = ResultPanel(self.ui, self._result, self._parameters, self.training.update)
        self.points = PointsPanel(self.ui, self, self._result, self.results.pointsFollowed)
        self.improvement = ImprovementPanel(
            self.ui, self.logic, self._parameters, self.onBetterWeights
        )
        self.comparison = ComparisonPanel(self.layout, self.logic, self._parameters)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(
            slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartImport
        )
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self._onNodeAdded)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._onNodeRemoved)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        onPathChanged(self.ui.weightsPathEdit, self.onWeightsChanged)
        self.initializeParameterNode()

    def cleanup(self):
        self._abandonRun()
        if self.results is not None:  # a panel whose setup failed is cleaned up, too
            self.results.surfaces.stop()
            self.results.dicom.abandon()
            self.results.forget()
            self.results.editor.close()
        if self.points is not None:
            self.points.sceneCloses()
        if self.improvement is not None:
            self.improvement.abandon()
        if self.comparison is not None:
            self.comparison.abandon()
        self._forgetParameterNode()
        self.removeObservers()

    def enter(self):
        if self._parameterNode is None:
            self.initializeParameterNode()
        elif self._parameterNode.inputVolume is None:
            self._parameterNode.inputVolume = _firstCt()
        self._onParameters()
        self.results.enter()

    def exit(self):
        if self.points is not None:  # a module whose setup failed is left, too
            self.points.exit()
        if self.results is not None:
            self.results.exit()

    def onSceneStartClose(self, caller=None, event=None):
        self._abandonRun()
        self.comparison.abandon()
        self.points.sceneCloses()
        self.results.sceneCloses()
        self._forgetParameterNode()

    def onSceneEndClose(self, caller=None, event=None):
        self.initializeParameterNode()

    def onSceneStartImport(self, caller=None, event=None):
        # the selectors lose their nodes and find them again: while they are connected, the choices
        # would be lost with that
        self._forgetParameterNode()

    def onSceneEndImport(self, caller=None, event=None):
        self.initializeParameterNode()

    def _onNodeAdded(self, caller=None, event=None) -> None:
        """Of a result, perhaps, which is neither a CT nor lobes to choose."""
        if not _sceneChanges():
            self._hideResultNodes()

    def _onNodeRemoved(self, caller=None, event=None) -> None:
        """What the panel shows may be gone."""
        if not _sceneChanges():
            self._onParameters()

    def _hideResultNodes(self) -> None:
        from DRAMLesionLib.mrml.result import result_node_ids

        hidden = tuple(result_node_ids())
        own = (self.ui.inputVolumeSelector, self.ui.lobesNodeSelector)
        for selector in (*own, *self.comparison.selectors):
            offered = selector.sortFilterProxyModel()
            if tuple(offered.hiddenNodeIDs) != hidden:
                offered.hiddenNodeIDs = hidden

    def _forgetParameterNode(self) -> None:
        self._watched.clear()
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            node = self._parameterNode.parameterNode
            self.removeObserver(node, vtk.vtkCommand.ModifiedEvent, self._onParameters)
            self._parameterNode = None

    def initializeParameterNode(self):
        self._forgetParameterNode()
        self._hideResultNodes()
        self._parameterNode = self.logic.getParameterNode()
        if self._parameterNode.inputVolume is None:
            self._parameterNode.inputVolume = _firstCt()
        self._guiTag = self._parameterNode.connectParametersToGui(self._connected())
        self.ui.weightsPathEdit.currentPath = self._parameterNode.weightsFolder
        self.ui.trainingPathEdit.currentPath = self._parameterNode.trainingFolder
        # the node itself: the mixin would keep its wrapper, and with it the wrapper's observers
        node = self._parameterNode.parameterNode
        self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onParameters)
        self.results.forget()
        self._onParameters()

    def _connected(self) -> dict[str, Any]:
        """Widget of each parameter that one widget shows.

        Not by `connectGui`, which some versions of Slicer cannot disconnect again.
        """
        ui = self.ui
        return {
            "inputVolume": ui.inputVolumeSelector,
            "lobesFrom": ui.lobesFromBox,
            "lobesNode": ui.lobesNodeSelector,
            "device": ui.deviceBox,
            "heatMap": ui.heatMapBox,
            "heatMapOpacity": ui.opacitySlider,
            "heatMapFloor": ui.floorSlider,
        }

    # --- input ------------------------------------------------------------------------------------

    def _onParameters(self, caller=None, event=None) -> None:
        if self._parameterNode is None:
            return
        self._watched.watch(self._parameterNode.inputVolume, self._parameterNode.lobesNode)
        self._updateInput()
        self._checkCanApply()
        self.results.ctMoved()
        self.results.update()
        self.points.update()
        self.training.update()
        self.improvement.update()
        self.comparison.update()
        self._updateStatus()

    def _onInputChanged(self) -> None:
        """The chosen CT or lobes are not what they were: voxels, name, transform, segments."""
        if not _sceneChanges():
            self._onParameters()

    def _updateStatus(self) -> None:
        """Take the status line away when it is about something else."""
        now = self._situation()
        if self._statusOf is None:  # written while a scene was imported
            self._statusOf = now
        if self.run is None and self._statusOf != now:
            self._showStatus("")

    def _situation(self) -> tuple[Any, ...] | None:
        """What the status line is about; None while there are no parameters."""
        parameters, result = self._parameterNode, self._result()
        if parameters is None:
            return None
        chosen = (parameters.inputVolume, parameters.lobesNode, result and result.node)
        return (
            *(node.GetID() if node is not None else "" for node in chosen),
            parameters.lobesFrom,
            parameters.device,
            parameters.weightsFolder,
        )

    def _showStatus(self, text: str) -> None:
        self.ui.statusLabel.text = text
        self._statusOf = self._situation()

    def _parameters(self) -> Any:
        return self._parameterNode

    def _updateInput(self) -> None:
        parameters, ui = self._parameterNode, self.ui
        fromScene = parameters.lobesFrom == LobesFrom.SCENE
        for widget in (ui.lobesNodeLabel, ui.lobesNodeSelector):
            widget.visible = fromScene
        ui.lobeMatchArea.visible = fromScene and parameters.lobesNode is not None
        self._lobeKeys = {}
        if fromScene and parameters.lobesNode is not None:
            self._lobeKeys = self.lobeMatches.show(parameters.lobesNode, corrections(parameters))
        ct = parameters.inputVolume
        hasVoxels = ct is not None and ct.GetImageData() is not None
        ui.memoryHintLabel.text = self.logic.memoryHint(ct) if hasVoxels else ""
        ui.memoryHintLabel.visible = bool(ui.memoryHintLabel.text)
        self._updateCard()

    def _updateCard(self) -> None:
        folder = self._parameterNode.weightsFolder
        try:
            text = cards.describe(folder) if folder else _("The weights that come with DRAMLesion.")
        except ValueError as error:
            text = sentence(str(error))
        self.ui.weightsCardLabel.text = text

    def _whyNot(self) -> str:
        """Why a run cannot start, '' if it can."""
        parameters = self._parameterNode
        if parameters.inputVolume is None:
            return _("Choose a CT.")
        problem = self.logic.inputProblem(parameters.inputVolume)
        if problem:
            return sentence(problem)
        if parameters.lobesFrom == LobesFrom.SCENE:
            if parameters.lobesNode is None:
                return _("Choose the segmentation or label map with the lobes.")
            if not self._lobeKeys:
                return _("No lobe was recognised: choose the segment of each lobe.")
            if len(set(self._lobeKeys.values())) < len(self._lobeKeys):
                return _("One segment is chosen for several lobes.")
        elif parameters.lobesFrom != LobesFrom.ESTIMATE:
            package = parameters.lobesFrom.value
            if importlib.util.find_spec(package) is None:
                package = {"totalsegmentator": "TotalSegmentator"}.get(package, package)
                return _("{package} is not installed: choose other lobes.").format(package=package)
        return cards.problem(parameters.weightsFolder)

    def _checkCanApply(self) -> None:
        button = self.ui.applyButton
        if self.run is not None:
            button.text, button.toolTip = _("&Cancel"), _("Stop; the scene stays as it is.")
            button.enabled = True
            return
        reason = self._whyNot()
        button.text = _("&Apply")
        button.enabled = not reason
        button.toolTip = reason or _("Find the lesions of this CT.")
        self.ui.inputHintLabel.text = reason if self._parameterNode.inputVolume else ""
        self.ui.inputHintLabel.visible = bool(self.ui.inputHintLabel.text)

    def onLobeCorrected(self, lobe: str, key: str) -> None:
        correct(self._parameterNode, lobe, key)

    def onWeightsChanged(self, path: str) -> None:
        if self._parameterNode is not None:
            self._parameterNode.weightsFolder = path.strip()

    def onBetterWeights(self, folder: str) -> None:
        self.ui.weightsPathEdit.currentPath = folder

    # --- run --------------------------------------------------------------------------------------

    def onApply(self, _checked=False):
        if self.run is not None:
            self.ui.statusLabel.text = _("Cancelling …")
            self.run.cancel()
            return
        isReady = False
        with telling(_("The packages could not be installed.")):
            isReady = dependencies.ensure()
        if not isReady:
            self._showStatus(_("Packages are missing; nothing was done."))
            return
        keep = self._askAboutEdits()
        if keep is None:
            return
        parameters = self._parameterNode
        self.logic.saveSettings(parameters)
        if parameters.weightsFolder:
            self.ui.weightsPathEdit.addCurrentPathToHistory()
        fromScene = parameters.lobesFrom == LobesFrom.SCENE
        with telling(_("This CT cannot be used."), waitCursor=True):
            request = self.logic.request(
                parameters.inputVolume,
                parameters.lobesNode if fromScene else None,
                self._lobeKeys if fromScene else None,
                parameters.device.value,
                parameters.weightsFolder,
                LobesFrom.ESTIMATE.value if fromScene else parameters.lobesFrom.value,
                keep,
            )
            self._start(request)
        self._checkCanApply()

    def _start(self, request: Any) -> None:
        self._showRunning(True)
        run = None
        try:
            run = self.logic.start(request, self.onProgress, self.onFinished)
        finally:
            if run is None:
                self._showRunning(False)
        # a program that cannot be started has told so already
        self.run = run if run.running else None

    def _askAboutEdits(self) -> list[str] | None:
        """Ask whether segments edited by hand stay; None if the run is not to start."""
        from DRAMLesionLib.mrml.result import Result

        # also of a result that lost a node: what is left of it may have been edited
        result = Result.find(self._parameterNode.inputVolume)
        edited = []
        if result is not None:
            with telling(_("Not started."), waitCursor=True) as attempt:
                edited = result.edited()
            if not attempt.done:
                return None
        if not edited:
            return []
        names = ", ".join(result.get(role).GetName() for role in edited)
        box = qt.QMessageBox(slicer.util.mainWindow())
        box.icon = qt.QMessageBox.Question
        box.windowTitle = _("Edited by hand")
        box.text = _("Edited by hand: {names}. Keep it, or replace it by the new result?").format(
            names=names
        )
        keep = box.addButton(_("Keep"), qt.QMessageBox.AcceptRole)
        replace = box.addButton(_("Replace"), qt.QMessageBox.DestructiveRole)
        box.addButton(_("Cancel"), qt.QMessageBox.RejectRole)
        box.setDefaultButton(keep)
        box.exec_()
        if box.clickedButton() == keep:
            return edited
        return [] if box.clickedButton() == replace else None

    def _showRunning(self, running: bool) -> None:
        ui = self.ui
        ui.progressBar.value = 0
        ui.progressBar.visible = running
        for widget in (ui.inputsSection, ui.advancedSection):
            widget.enabled = not running
        if running:
            ui.statusLabel.text = _("Starting …")

    def onProgress(self, stage: str, fraction: float) -> None:
        self.ui.progressBar.value = round(100 * fraction)
        self.ui.statusLabel.text = stageText(stage)
        if stage == LOADING:  # the event loop stands still while the files are read
            self.ui.statusLabel.repaint()

    def onFinished(self, outcome: str, reason: str) -> None:
        self.run = None
        self._showRunning(False)
        self.results.forget()
        if outcome == DONE:
            status = _("Done.")
            self.ui.resultsSection.collapsed = False
            if self._parameterNode is not None:  # it is forgotten while a scene is imported
                self._hideGivenLobes()
                self._chooseHeatMap()
                self.results.showNew()
        elif outcome == CANCELLED:
            status = _("Cancelled; the scene is as it was.")
        else:
            status = _("Not done: {reason}").format(reason=reason)
            slicer.util.errorDisplay(sentence(reason), windowTitle=_("DRAMLesion"))
        self._showStatus(status)
        self._onParameters()

    def _chooseHeatMap(self) -> None:
        """Show the dRAM where the refined one is empty."""
        result = self._result()
        isRefined = self._parameterNode.heatMap == HeatMap.REFINED
        if result is not None and isRefined and result.map_role == HeatMap.DRAM.value:
            self._parameterNode.heatMap = HeatMap.DRAM

    def _hideGivenLobes(self) -> None:
        """Hide segmentations with lobes that are no result: the result shows lobes of its own."""
        from DRAMLesionLib.mrml import display, lobes
        from DRAMLesionLib.mrml.result import result_node_ids

        own = result_node_ids()
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            isGiven = node is self._parameterNode.lobesNode
            if node.GetID() not in own and (isGiven or len(lobes.match(node)) >= SOME_LOBES):
                display.hide(node)

    def _abandonRun(self) -> None:
        if self.run is not None:
            self.run.abandon()
            self.run = None
            self._showRunning(False)
            self._showStatus("")

    def _result(self) -> Any:
        """The complete result of the chosen CT, None if there is none."""
        if self._parameterNode is None or self._parameterNode.inputVolume is None:
            return None
        from DRAMLesionLib.mrml.result import Result

        result = Result.find(self._parameterNode.inputVolume)
        return result if result is not None and result.complete else None


def _sceneChanges() -> bool:
    """Whether many nodes come or go at once: the end of that is heard of, too."""
    scene = slicer.mrmlScene
    return bool(scene.IsBatchProcessing() or scene.IsClosing() or scene.IsImporting())


def _firstCt() -> Any:
    """A volume to begin with: the first that is no label map and no result."""
    from DRAMLesionLib.mrml.result import result_node_ids

    hidden = result_node_ids()
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetClassName() == "vtkMRMLScalarVolumeNode" and node.GetID() not in hidden:
            return node
    return None


def stageText(stage: str) -> str:
    """What a stage does, in words."""
    texts = {
        "read": _("Reading …"),
        "check": _("Checking the CT …"),
        "lobes": _("Finding the lobes …"),
        "vessels": _("Finding the vessels …"),
        "dRAM": _("Computing the activation map (dRAM) …"),
        "segmentation": _("Segmenting the lesions …"),
        "lesion types": _("Telling ground glass from consolidation …"),
        "scores": _("Scoring the lobes …"),
        "write": _("Writing the result …"),
        "load": _("Loading the result …"),
    }
    return texts.get(stage, stage)


__all__ = ["DRAMLesion", "DRAMLesionLogic", "DRAMLesionTest", "DRAMLesionWidget"]
