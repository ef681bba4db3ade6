"""What the user chooses, kept in the scene."""

import json
from enum import Enum
from typing import Annotated, Union

from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class LobesFrom(Enum):
    """Where the lobes come from."""

    ESTIMATE = "embedded"
    SCENE = "scene"
    TOTALSEGMENTATOR = "totalsegmentator"
    LUNGMASK = "lungmask"

    def label(self) -> str:
        return {
            LobesFrom.ESTIMATE: _("Estimate from the CT"),
            LobesFrom.SCENE: _("Segmentation or label map"),
            LobesFrom.TOTALSEGMENTATOR: _("TotalSegmentator (if installed)"),
            LobesFrom.LUNGMASK: _("lungmask (if installed)"),
        }[self]


class Device(Enum):
    """Where the networks run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"

    def label(self) -> str:
        return {
            Device.AUTO: _("Automatic"),
            Device.CPU: _("Processor (CPU)"),
            Device.CUDA: _("NVIDIA graphics card (CUDA)"),
            Device.MPS: _("Apple graphics (MPS)"),
        }[self]


class HeatMap(Enum):
    """Which map is shown over the CT."""

    REFINED = "refined"
    DRAM = "dram"
    NONE = "none"

    def label(self) -> str:
        return {
            HeatMap.REFINED: _("Refined dRAM"),
            HeatMap.DRAM: _("dRAM"),
            HeatMap.NONE: _("None"),
        }[self]


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
