"""Reading and writing files as the application's I/O manager does it for slicer.util."""

# ruff: noqa: N802  (the application's own names)

from __future__ import annotations

from pathlib import Path
from typing import Any

import vtk

_SEGMENTATIONS = (".seg.nrrd", ".seg.nhdr", ".seg.vtm")
_VOLUMES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")


def _ends_with(path: str, endings: tuple[str, ...]) -> bool:
    return path.lower().endswith(endings)


class IoManager:
    """`slicer.app.coreIOManager()`: volumes, segmentations, tables, texts and scenes."""

    def __init__(self, scene: Any, volumes_logic: Any):
        self._scene, self._volumes = scene, volumes_logic

    def fileType(self, path: str) -> str:
        """The reader for a file, by its ending."""
        path = str(path)
        if _ends_with(path, _SEGMENTATIONS):
            return "SegmentationFile"
        if _ends_with(path, (".mrml", ".mrb")):
            return "SceneFile"
        if _ends_with(path, (".csv", ".tsv")):
            return "TableFile"
        return "VolumeFile" if _ends_with(path, _VOLUMES) else "NoFile"

    def fileWriterFileType(self, node: Any) -> str:
        """The writer for a node."""
        for kind in ("Segmentation", "Volume", "Table", "Text", "Transform", "Model", "Markups"):
            if node.IsA(f"vtkMRML{kind}Node"):
                return f"{kind}File"
        return "NoFile"

    def loadNodes(
        self, file_type: str, properties: dict[str, Any], loaded: Any = None, messages: Any = None
    ) -> bool:
        """Load one file into the scene; says why not in `messages`."""
        path = str(properties["fileName"])
        node = None
        if file_type == "SceneFile":
            return self._load_scene(path, bool(properties.get("clear", False)))
        if Path(path).is_file():
            node = self._load(file_type, path, properties)
        if node is None:
            if messages is not None:
                messages.AddMessage(vtk.vtkCommand.ErrorEvent, f"cannot read {path}")
            return False
        if properties.get("name"):
            node.SetName(properties["name"])
        if loaded is not None:
            loaded.AddItem(node)
        return True

    def _load(self, file_type: str, path: str, properties: dict[str, Any]) -> Any:
        name = properties.get("name") or Path(path).name.split(".")[0]
        if file_type == "VolumeFile":
            options = 1 if properties.get("labelmap") else 0
            return self._volumes.AddArchetypeVolume(path, name, options)
        kinds = {"SegmentationFile": "Segmentation", "TableFile": "Table", "TextFile": "Text"}
        if file_type not in kinds:
            return None
        node = self._scene.AddNewNodeByClass(f"vtkMRML{kinds[file_type]}Node", name)
        node.AddDefaultStorageNode(path)
        if not node.GetStorageNode().ReadData(node):
            self._scene.RemoveNode(node)
            return None
        if file_type == "SegmentationFile":
            node.CreateDefaultDisplayNodes()
        return node

    def _load_scene(self, path: str, clear: bool) -> bool:
        if path.lower().endswith(".mrb"):
            return bool(self._scene.ReadFromMRB(path, clear))
        self._scene.SetURL(path)
        return bool(self._scene.Connect() if clear else self._scene.Import())

    def saveNodes(self, file_type: str, properties: dict[str, Any], messages: Any = None) -> bool:
        """Write a node or the scene."""
        path = str(properties["fileName"])
        if file_type == "SceneFile":
            return self._save_scene(path)
        node = self._scene.GetNodeByID(properties["nodeID"])
        storage = node.GetStorageNode()
        if storage is None:
            node.AddDefaultStorageNode(path)
            storage = node.GetStorageNode()
        storage.SetFileName(path)
        return bool(storage.WriteData(node))

    def _save_scene(self, path: str) -> bool:
        if path.lower().endswith(".mrb"):
            return bool(self._scene.WriteToMRB(path))
        if path.lower().endswith(".mrml"):
            self._scene.SetURL(path)
            self._scene.SetRootDirectory(str(Path(path).parent))
            return bool(self._scene.Commit())
        return bool(self._scene.SaveSceneToSlicerDataBundleDirectory(path))
