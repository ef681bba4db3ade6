"""What Slicer 5.12.3 offers to Python: the file read off the running application, made searchable.

The stand-in asks it before it hands out a member, and the scan of a module's source (`scan.py`)
asks it for every attribute that the module uses.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("slicer_api.json")

# PythonQt answers to these although its `dir` does not list them: `name` is `objectName` (seen in
# the probes of the file); `exec_` is what the application's own slicer.util calls, and `raise_`
# what scripts call, since `raise` is a word of Python.
UNLISTED = {"name": "objectName", "exec_": "exec", "raise_": "raise"}


APPLICATION = "slicer.qSlicerApplication"
# The file lists the members of slicer.app by name only; these of them are signals
APPLICATION_SIGNALS = ("startupCompleted()", "aboutToQuit()", "mrmlSceneChanged(vtkMRMLScene*)")


class SlicerApi:
    """The API file by class name: `qt.QLabel`, `ctk.ctkSliderWidget`, `slicer.qMRMLWidget`."""

    def __init__(self, path: Path = FILE):
        self._content: dict[str, Any] = json.loads(path.read_text())
        self._classes: dict[str, Any] = dict(self._content["classes"])
        signals = [f"b'{text}'" for text in APPLICATION_SIGNALS]
        self._classes[APPLICATION] = {"members": self._content["slicer.app"], "signals": signals}

    @property
    def class_names(self) -> list[str]:
        """Names of all classes that the file covers."""
        return list(self._content["classes"])

    def covers(self, name: str) -> bool:
        """Whether the file says what class `name` offers."""
        return name in self._classes

    @cache  # noqa: B019  (one instance for the whole run)
    def members(self, name: str) -> frozenset[str]:
        """All members of a covered class, those of QWidget included where it is a widget."""
        entry = self._classes[name]
        own = frozenset(entry["members"])
        base = entry.get("extends")
        return own | self.members(base) if base else own

    @cache  # noqa: B019
    def properties(self, name: str) -> frozenset[str] | None:
        """The members that are properties; None where the file does not tell them apart."""
        entry = self._classes[name]
        if entry.get("properties") is None:
            return None
        base = entry.get("extends")
        inherited = (self.properties(base) or frozenset()) if base else frozenset()
        return frozenset(entry["properties"]) | inherited

    @cache  # noqa: B019
    def signals(self, name: str) -> frozenset[str]:
        """Signal signatures, such as `clicked(bool)`."""
        entry = self._classes[name]
        own = frozenset(text[2:-1] for text in entry.get("signals", []))
        base = entry.get("extends")
        return own | self.signals(base) if base else own

    @property
    def application(self) -> frozenset[str]:
        """Attributes of `slicer.app`."""
        return frozenset(self._content["slicer.app"])

    @property
    def slicer_names(self) -> frozenset[str]:
        """Attributes of `slicer` that are no vtk*, q* or ctk* class."""
        return frozenset(self._content["slicer names"])

    @property
    def util(self) -> dict[str, str]:
        """Signatures of the functions of `slicer.util`."""
        return self._content["slicer.util"]

    @property
    def packaging(self) -> dict[str, str]:
        """Signatures of the functions of `slicer.packaging`."""
        return self._content["slicer.packaging"]

    @property
    def parameter_node_wrapper(self) -> frozenset[str]:
        """Names in `slicer.parameterNodeWrapper`."""
        return frozenset(self._content["parameterNodeWrapper"])

    @property
    def colors(self) -> list[str]:
        """Names of the colour nodes in a new scene."""
        return self._content["colors"]

    @property
    def modules(self) -> frozenset[str]:
        """Lower-case names of the application's own modules."""
        return frozenset(self._content["modules"])

    @property
    def effects(self) -> list[str]:
        """Names of the Segment Editor's effects."""
        return self._content["effects"]


@cache
def slicer_api() -> SlicerApi:
    """The API file, read once."""
    return SlicerApi()
