"""The real MRML scene with the module logics that the application would give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk

from .terminology import write_terminologies

_LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
}

# Corner colours of the maps, from dark to light; the application reads them from files with 256.
_COLOR_MAPS = {
    "Inferno": "000004 1f0c48 550f6d 88226a ba3655 e35933 f98e09 f9c932 fcffa4",
    "Viridis": "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725",
    "Plasma": "0d0887 4c02a1 7e03a8 aa2395 cc4778 e66c5c f89540 fdc527 f0f921",
    "Magma": "000004 1d1147 51127c 832681 b73779 e75263 fc8961 fec488 fcfdbf",
    "Cividis": "00224e 213b6e 4c556c 6c6e72 7f7c75 9c9374 bcae6c dcca5b fee838",
    "DivergingBlueRed": "3b4cc0 6788ee 9abbff c9d7f0 dddddd f2cbb7 f7a889 e26952 b40426",
}

SLICE_VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


class SceneSetup:
    """A fresh scene with logics, colour nodes, views and subject hierarchy.

    Attributes:
        scene: the vtkMRMLScene.
        application_logic: the vtkSlicerApplicationLogic.
        logics: module logic by module name.
        slice_logics: vtkMRMLSliceLogic by view name.
        view_node: the vtkMRMLViewNode of the 3D view.
    """

    def __init__(self, temporary_path: str):
        self.temporary_path = temporary_path
        self.scene = slicer.vtkMRMLScene()
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.application_logic.SetMRMLScene(self.scene)
        self.application_logic.SetTemporaryPath(temporary_path)
        self.scene.SetRootDirectory(temporary_path)
        self.application_logic.SetHomeDirectory(temporary_path)
        self.application_logic.SetShareDirectory(temporary_path)
        self._add_cache()
        self.logics: dict[str, Any] = {}
        for name, class_name in _LOGICS.items():
            self._add_logic(name, class_name)
        self._add_color_maps()
        self._add_views()
        self._observe_nodes()

    def _add_cache(self) -> None:
        """Without a cache folder the scene reads no bundles."""
        self._cache, self._data_io = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        folder = Path(self.temporary_path) / "cache"
        folder.mkdir(exist_ok=True)
        self._cache.SetRemoteCacheDirectory(str(folder))
        self._cache.SetMRMLScene(self.scene)
        self._data_io.SetCacheManager(self._cache)
        self.scene.SetCacheManager(self._cache)
        self.scene.SetDataIOManager(self._data_io)

    def _add_logic(self, name: str, class_name: str) -> None:
        logic = getattr(slicer, class_name)()
        if name == "Terminologies":
            share = Path(self.temporary_path) / "terminologies"
            write_terminologies(share)
            logic.SetModuleShareDirectory(str(share))
        logic.SetMRMLApplicationLogic(self.application_logic)
        logic.SetMRMLScene(self.scene)
        self.application_logic.SetModuleLogic(name, logic)
        self.logics[name] = logic

    def _add_color_maps(self) -> None:
        for name, corners in _COLOR_MAPS.items():
            colors = np.array(
                [[int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)] for c in corners.split()]
            )
            node = slicer.vtkMRMLColorTableNode()
            node.SetTypeToFile()
            node.SetName(name)
            node.SetSingletonTag(f"File{name}.txt")
            node.SetHideFromEditors(False)
            node.SaveWithSceneOff()
            node.SetNumberOfColors(256)
            at = np.linspace(0, len(colors) - 1, 256)
            for index, position in enumerate(at):
                rgb = [np.interp(position, range(len(colors)), colors[:, c]) for c in range(3)]
                node.SetColor(index, f"{index}", *rgb, 1.0)
            self.scene.AddNode(node)

    def _add_views(self) -> None:
        self.slice_logics = {}
        collection = vtk.vtkCollection()
        # before the layout logic, which would make the slice nodes itself: AddSliceNode leaves the
        # events of a node that it finds switched off
        for name, orientation in SLICE_VIEWS.items():
            logic = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLApplicationLogic(self.application_logic)
            logic.SetMRMLScene(self.scene)
            logic.AddSliceNode(name)
            logic.GetSliceNode().SetOrientation(orientation)
            self.slice_logics[name] = logic
            collection.AddItem(logic)
        self.application_logic.SetSliceLogics(collection)
        self.layout_logic = slicer.vtkMRMLLayoutLogic()
        self.layout_logic.SetMRMLScene(self.scene)
        self.layout_node = self.layout_logic.GetLayoutNode()
        self.layout_node.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self.view_node = self.scene.GetFirstNodeByClass("vtkMRMLViewNode")
        interaction = self.scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        for node in (
            self.view_node,
            *(logic.GetSliceNode() for logic in self.slice_logics.values()),
        ):
            node.SetInteractionNode(interaction)

    def _observe_nodes(self) -> None:
        """File every data node in the subject hierarchy, as the application's plugins do."""

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def added(_scene: Any, _event: str, node: Any) -> None:
            if _is_data(node) and not self.scene.IsImporting():
                self._file(node)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removed(_scene: Any, _event: str, node: Any) -> None:
            if node is not None and _is_data(node) and not self.scene.IsClosing():
                hierarchy = self.subject_hierarchy
                item = hierarchy.GetItemByDataNode(node)
                if item:
                    hierarchy.RemoveItem(item, False, False)

        def imported(_scene: Any, _event: str) -> None:
            for index in range(self.scene.GetNumberOfNodes()):
                node = self.scene.GetNthNode(index)
                if _is_data(node) and not self.subject_hierarchy.GetItemByDataNode(node):
                    self._file(node)

        scene = slicer.vtkMRMLScene
        self._tags = [
            self.scene.AddObserver(scene.NodeAddedEvent, added),
            self.scene.AddObserver(scene.NodeAboutToBeRemovedEvent, removed),
            self.scene.AddObserver(scene.EndImportEvent, imported),
        ]

    def _file(self, node: Any) -> None:
        hierarchy = self.subject_hierarchy
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    @property
    def subject_hierarchy(self) -> Any:
        """The vtkMRMLSubjectHierarchyNode."""
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def close(self) -> None:
        """Let go of the scene."""
        for tag in self._tags:
            self.scene.RemoveObserver(tag)
        self.scene.Clear(True)
        self.layout_logic.SetMRMLScene(None)
        for logic in self.slice_logics.values():
            logic.SetMRMLScene(None)
        # The other logics keep their scene: taking it away makes some of them look for its nodes

    def let_go(self) -> None:
        """Drop all MRML objects, those first that know the others by bare pointers.

        Python's garbage collector would take them apart in any order.
        """
        self.scene.SetCacheManager(None)
        self.scene.SetDataIOManager(None)
        kept = vars(self)
        for name in ("layout_logic", "slice_logics", "logics", "application_logic"):
            kept.pop(name)
        for name in ("view_node", "layout_node", "scene", "_data_io", "_cache"):
            kept.pop(name)


def _is_data(node: Any) -> bool:
    """Whether the application's subject hierarchy shows a node."""
    if node.GetHideFromEditors() or node.IsA("vtkMRMLAbstractViewNode"):
        return False
    kinds = (
        "vtkMRMLDisplayableNode",
        "vtkMRMLTableNode",
        "vtkMRMLTextNode",
        "vtkMRMLPlotChartNode",
        "vtkMRMLPlotSeriesNode",
    )
    return any(node.IsA(kind) for kind in kinds) and not node.IsA("vtkMRMLCameraNode")
