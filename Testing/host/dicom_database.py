"""`slicer.dicomDatabase`: which file holds which image, and the way the module DICOM loads them.

Written after ctkDICOMDatabase.h and DICOMScalarVolumePlugin.py, since the API file does not cover
them: it was read off an application without the module DICOM, as this one is before a database is
opened.
"""

# ruff: noqa: N802  (the application's own names)

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer


class DicomDatabase:
    """A ctkDICOMDatabase that knows the files of some folders.

    Args:
        folders: Searched for DICOM files, not below.
    """

    def __init__(self, *folders: Path):
        import pydicom

        self._files: dict[str, str] = {}
        self._is_open = True
        for path in sorted(path for folder in folders for path in folder.iterdir()):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            self._files[str(header.SOPInstanceUID)] = str(path)

    @property
    def isOpen(self) -> bool:
        """Whether it can be asked."""
        return self._is_open

    def closeDatabase(self) -> None:
        """It must not be asked any more."""
        self._is_open = False

    def fileForInstance(self, uid: str) -> str:
        """The path of an image, '' for an unknown one; it may have gone since.

        Raises:
            ValueError: If it is asked with anything but one text, as PythonQt does.
        """
        if not isinstance(uid, str):
            message = "Called fileForInstance(QString) with wrong arguments"
            raise ValueError(message)
        return self._files.get(uid, "") if self._is_open else ""


def load_series(database: DicomDatabase, name: str = "CT") -> Any:
    """Load all images of a database as one volume, as the module DICOM does."""
    from pydicom import dcmread

    def along(path: str) -> float:
        header = dcmread(path, stop_before_pixels=True)
        a, b = header.ImageOrientationPatient[:3], header.ImageOrientationPatient[3:]
        normal = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
        pairs = zip(normal, header.ImagePositionPatient, strict=True)
        return float(sum(n * p for n, p in pairs))

    files = sorted(database._files.items(), key=lambda pair: along(pair[1]))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(files[0][1])
    for _uid, path in files:
        storage.AddFileName(path)
    storage.SetSingleFile(False)
    assert storage.ReadData(node), "the series cannot be read"
    node.SetName(name)
    node.SetAttribute("DICOM.instanceUIDs", " ".join(uid for uid, _path in files))
    node.CreateDefaultDisplayNodes()
    return node
