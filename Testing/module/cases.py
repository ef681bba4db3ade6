"""CTs, weights and finished runs for the module's tests, made once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from DRAMLesionLib import __main__ as command_line
from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.phantom import make_phantom
from Testing.library.small_weights import dense_voxels, write_weights

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "DRAMLesion" / "DRAMLesion.py"
PICTURES = ROOT / "Testing" / "pictures"

# turned about the axis of the body, anisotropic, shifted: no wrong axis order would survive
_C, _S = np.cos(0.25), np.sin(0.25)
TURN = np.array([[_C, -_S, 0.0], [_S, _C, 0.0], [0.0, 0.0, 1.0]])


def write_dense_weights(folder: Path) -> Path:
    """Write networks that call dense lung lesion: small, and with maps that are not empty."""
    regression = RegressionNetwork(base_channels=1, attention=False).eval()
    segmentation = dense_voxels()
    with torch.no_grad():
        own = regression.unet.state_dict()
        for name, tensor in segmentation.state_dict().items():
            if "head" not in name:
                own[name].copy_(tensor)
        regression.unet.head.weight.zero_()
        regression.unet.head.weight[0, 0] = 40.0
        regression.unet.head.bias[0] = -40.0 * float(window(torch.tensor(-720.0)))
    return write_weights(
        folder,
        regression,
        segmentation,
        chunk_size=32,
        source="nothing: set by hand",
        metrics={"steps": 0},
    )


@dataclass(frozen=True)
class FinishedRun:
    """A CT and what the command line made of it.

    Attributes:
        ct: The CT.
        lobes: Its lobes.
        weights: Folder of the networks.
        folder: Folder with the files of the run.
    """

    ct: sitk.Image
    lobes: sitk.Image
    weights: Path
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        """Content of report.json."""
        return json.loads((self.folder / "report.json").read_text())

    def array(self, name: str) -> np.ndarray:
        """Voxels of a file of the run."""
        return sitk.GetArrayFromImage(sitk.ReadImage(str(self.folder / f"{name}.nii.gz")))

    @property
    def images(self) -> dict[str, np.ndarray]:
        """Voxels of the files that become nodes."""
        names = ("lesions", "vessels", "lobes", "dram", "dram_refined")
        return {name: self.array(name) for name in names}


def finished_run(folder: Path) -> FinishedRun:
    """Make a turned phantom with lesions, and run the command line on it."""
    phantom = make_phantom(seed=3, spacing=4.0)
    ct, lobes = (_turned(image) for image in (phantom.ct, phantom.lobes))
    networks = write_dense_weights(folder / "weights")
    sitk.WriteImage(ct, str(folder / "ct.nrrd"))
    sitk.WriteImage(lobes, str(folder / "lobes.nrrd"))
    words = ["segment", str(folder / "ct.nrrd"), "-o", str(folder / "result"), "--maps"]
    words += ["--lobes", str(folder / "lobes.nrrd"), "--lobe-scheme", "dram"]
    words += ["--weights", str(networks), "--device", "cpu", "--json-progress"]
    assert command_line.main(words) == 0
    return FinishedRun(ct, lobes, networks, folder / "result")


def _turned(image: sitk.Image) -> sitk.Image:
    turned = sitk.Image(image)
    turned.SetDirection((TURN @ np.array(image.GetDirection()).reshape(3, 3)).ravel().tolist())
    turned.SetOrigin((12.0, -34.0, 56.0))
    return turned


def add_volume(image: sitk.Image, name: str = "CT") -> Any:
    """Put an image into the scene."""
    import slicer

    from DRAMLesionLib.mrml import volumes

    matrix = slicer.util.vtkMatrixFromArray(volumes.ras_matrix(image))
    array = sitk.GetArrayFromImage(image)
    node = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=name)
    node.CreateDefaultDisplayNodes()
    return node


def add_lobes(image: sitk.Image, ct: Any, name: str = "My lobes") -> Any:
    """Put lobes into the scene as a segmentation with names that must be recognised."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    values = sitk.GetArrayFromImage(image)
    names = ("left upper lobe", "LLL", "lung_upper_lobe_right", "Segment_3", "RightLowerLobe")
    for label, text in enumerate(names, start=1):
        identifier = node.GetSegmentation().AddEmptySegment(f"s{label}", text)
        mask = (values == label).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identifier, ct)
    return node


def add_result(run: FinishedRun, ct: Any, keep: tuple[str, ...] = ()) -> Any:
    """Put what the command line made into the scene, as the module does after a run."""
    from DRAMLesionLib.mrml import result

    return result.show(ct, run.images, run.report, keep)
