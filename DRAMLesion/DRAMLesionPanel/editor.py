"""The Segment Editor on the pseudo-label, masked to the lobes."""

from typing import TYPE_CHECKING, Any

import qt
import slicer

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result

_TAG = "DRAMLesionEditor"

EFFECTS = ("Paint", "Draw", "Erase", "Scissors", "Islands", "Margin", "Smoothing")
"""Effects that are offered: those that a correction of a pseudo-label takes.

Threshold, Level tracing and Grow from seeds copy the whole CT when they are chosen, which holds the
window up for seconds; a threshold of the map is the panel's own slider.
"""


class PseudoLabelEditor:
    """A Segment Editor inside the panel, made when it is opened first."""

    def __init__(self, layout: qt.QVBoxLayout):
        self._layout = layout
        self._editor: Any = None
        self.isOpen = False

    @property
    def widget(self) -> Any:
        """The qMRMLSegmentEditorWidget, None before it was opened."""
        return self._editor

    def open(self, result: "Result", lobes: Any) -> None:
        """Edit the pseudo-label of a result: lesion first, inside its lobes, over the CT."""
        from DRAMLesionLib.mrml import segments
        from DRAMLesionLib.mrml.result import refresh_mask

        segments.add_missing(result.get("pseudolabel"), segments.PSEUDOLABEL_SEGMENTS)
        refresh_mask(result, lobes)
        node = self._node()
        if self._editor is None:
            self._editor = slicer.qMRMLSegmentEditorWidget()
            self._editor.setMaximumNumberOfUndoStates(10)
            self._editor.segmentationNodeSelectorVisible = False
            self._editor.sourceVolumeNodeSelectorVisible = False
            # its segments are what the training reads, its surfaces those of the panel's button
            self._editor.addRemoveSegmentButtonsVisible = False
            self._editor.show3DButtonVisible = False
            self._editor.switchToSegmentationsButtonVisible = False
            self._editor.setEffectNameOrder(list(EFFECTS))
            self._editor.unorderedEffectsVisible = False
            self._editor.updateEffectList()
            self._editor.setMRMLSegmentEditorNode(node)  # before the scene, as Slicer does it
            self._editor.setMRMLScene(slicer.mrmlScene)
            self._layout.addWidget(self._editor)
        else:
            self._editor.setMRMLSegmentEditorNode(node)
        segmentation = result.get("pseudolabel")
        segmentation.GetDisplayNode().SetVisibility(True)
        self._editor.setSegmentationNode(segmentation)
        self._editor.setSourceVolumeNode(result.ct)
        # the segment before the mode: a widget that finds no segment writes 'everywhere' back
        node.SetMaskSegmentID("lungs")
        node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
        # the mask is hidden: painting lesion takes voxels from vessel, but not from the mask
        node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteVisibleSegments)
        self._editor.setCurrentSegmentID("lesion")
        self._editor.setVisible(True)
        self.isOpen = True
        self.enter()

    def close(self) -> None:
        """Stop editing; what was edited stays."""
        if self.isOpen:
            self.exit()
            self._editor.setVisible(False)
            self.isOpen = False

    def enter(self) -> None:
        """The user comes to the module."""
        if self.isOpen:
            self._editor.installKeyboardShortcuts()
            self._editor.updateWidgetFromMRML()

    def exit(self) -> None:
        """The user leaves the module."""
        if self.isOpen:
            self._editor.setActiveEffect(None)
            self._editor.uninstallKeyboardShortcuts()
            self._editor.removeViewObservations()

    def sceneCloses(self) -> None:
        """Let go of the nodes of a scene that is about to close.

        The editor node stays: it outlasts the scene, and only with it does the widget leave its
        effect when the scene has been closed.
        """
        self.close()
        if self._editor is not None:
            self._editor.setSegmentationNode(None)

    @staticmethod
    def _node() -> Any:
        node = slicer.mrmlScene.GetSingletonNode(_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag(_TAG)
            node = slicer.mrmlScene.AddNode(node)
        return node
