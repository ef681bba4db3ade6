"""What the user chooses, kept in the scene."""

import json
from enum import Enum
from typing import Annotated, Union

from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class Labelled(Enum):
    """One of several: its value goes into settings and files, its label is what the user reads."""

    def __new__(cls, value: str, label: str) -> "Labelled":
        choice = object.__new__(cls)
        choice._value_ = value
        choice._label = label
        return choice

    def label(self) -> str:
        """What Slicer writes into a combo box."""
        return self._label


class LobesFrom(Labelled):
    """Where the lobes come from."""

    ESTIMATE = "embedded", _("Estimate from the CT")
    SCENE = "scene", _("Segmentation or label map")
    TOTALSEGMENTATOR = "totalsegmentator", _("TotalSegmentator (if installed)")
    LUNGMASK = "lungmask", _("lungmask (if installed)")


class Device(Labelled):
    """Where the networks run."""

    AUTO = "auto", _("Automatic")
    CPU = "cpu", _("Processor (CPU)")
    CUDA = "cuda", _("NVIDIA graphics card (CUDA)")
    MPS = "mps", _("Apple graphics (MPS)")


class HeatMap(Labelled):
    """Which map is shown over the CT."""

    REFINED = "refined", _("Refined dRAM")
    DRAM = "dram", _("dRAM")
    NONE = "none", _("None")


@parameterNodeWrapper
class DRAMLesionParameterNode:
    """The parameters.

    lobeMatches: what the user corrected of the lobes' matches, as JSON by node ID and lobe.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    lobesFrom: LobesFrom
    # the wrapper takes no |, and needs the None
    lobesNode: Union[vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007
    lobeMatches: str
    device: Device
    weightsFolder: str
    heatMap: HeatMap
    heatMapOpacity: Annotated[float, WithinRange(0, 1)] = 0.5
    heatMapFloor: Annotated[float, WithinRange(0, 1)] = 0.15
    trainingFolder: str


def corrections(parameters: DRAMLesionParameterNode) -> dict[str, str]:
    """What the user corrected for the chosen lobe node: segment ID or label by name of the lobe."""
    node = parameters.lobesNode
    stored = json.loads(parameters.lobeMatches or "{}")
    return dict(stored.get(node.GetID(), {})) if node is not None else {}


def correct(parameters: DRAMLesionParameterNode, lobe: str, key: str) -> None:
    """Note that a lobe of the chosen node is another segment, '' for none."""
    stored = json.loads(parameters.lobeMatches or "{}")
    stored[parameters.lobesNode.GetID()] = {**corrections(parameters), lobe: key}
    parameters.lobeMatches = json.dumps(stored)
