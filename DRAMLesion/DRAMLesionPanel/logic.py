"""What the module does, without any widget: for the panel and for scripts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from DRAMLesionPanel import memory
from DRAMLesionPanel.parameters import Device, DRAMLesionParameterNode
from DRAMLesionPanel.run import BackgroundRun, Finished, Progress, Request, runInProcess

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result


_INITIALIZED = "DRAMLesion.Initialized"


class DRAMLesionLogic(ScriptedLoadableModuleLogic):
    """Segments the lesions of chest CTs that are in the scene.

    From a script, in this process::

        result = DRAMLesionLogic().process(slicer.util.getNode("CT"))
        print([(row.name, row.lesion_percent, row.score) for row in result.rows])
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._checked: tuple[Any, str] = (None, "")

    def getParameterNode(self) -> DRAMLesionParameterNode:
        node = super().getParameterNode()
        parameters = DRAMLesionParameterNode(node)
        # not told by its parameters: an older wrapper of the same node may have filled in defaults
        if node.GetAttribute(_INITIALIZED) is None:
            node.SetAttribute(_INITIALIZED, "1")
            self._applySettings(parameters)
        return parameters

    def _applySettings(self, parameters: DRAMLesionParameterNode) -> None:
        """Begin a scene with what the user chose last."""
        names = [device.value for device in Device]
        device = str(slicer.util.settingsValue("DRAMLesion/Device", Device.AUTO.value))
        parameters.device = Device(device) if device in names else Device.AUTO
        weights = str(slicer.util.settingsValue("DRAMLesion/WeightsFolder", ""))
        parameters.weightsFolder = weights if Path(weights).is_dir() else ""
        parameters.trainingFolder = str(slicer.util.settingsValue("DRAMLesion/TrainingFolder", ""))

    def saveSettings(self, parameters: DRAMLesionParameterNode) -> None:
        """Remember choices for the next scene."""
        settings = slicer.app.userSettings()
        for name, value in (
            ("Device", parameters.device.value),
            ("WeightsFolder", parameters.weightsFolder),
            ("TrainingFolder", parameters.trainingFolder),
        ):
            settings.setValue(f"DRAMLesion/{name}", value)

    def inputProblem(self, ct: Any) -> str:
        """Why a volume cannot be a chest CT, as far as its header tells; '' if nothing is wrong."""
        from DRAMLesionLib.errors import DRAMLesionError
        from DRAMLesionLib.mrml import volumes

        if ct.GetImageData() is None:
            return _("{name} holds no voxels.").format(name=ct.GetName())
        try:
            matrix = volumes.ijk_to_world(ct)
        except DRAMLesionError as error:
            return str(error)
        # asked at every move of a slider: looked at again only when something has changed
        key = (ct.GetName(), volumes.shape(ct), matrix.tobytes())
        if self._checked[0] != key:
            self._checked = (key, self._geometryProblem(ct, matrix))
        return self._checked[1]

    @staticmethod
    def _geometryProblem(ct: Any, matrix: Any) -> str:
        import SimpleITK as sitk

        from DRAMLesionLib.errors import DRAMLesionError
        from DRAMLesionLib.mrml import volumes
        from DRAMLesionLib.reading.headers import check_geometry

        try:
            header = sitk.Image(volumes.shape(ct)[::-1], sitk.sitkUInt8)
            volumes.set_geometry(header, matrix)
            check_geometry(header, ct.GetName())
        except DRAMLesionError as error:
            return str(error)
        return ""

    def memoryHint(self, ct: Any) -> str:
        """What to know if the memory of this computer will not do; '' if it will."""
        needed = memory.neededBytes(ct.GetImageData().GetNumberOfPoints())
        total = memory.totalBytes()
        if total is None or needed < 0.8 * total:
            return ""
        return _(
            "This CT needs about {needed:.0f} GB of memory, this computer has {total:.0f} GB: "
            "close other programs, or crop the CT to the chest (module Crop Volume)."
        ).format(needed=needed / 1e9, total=total / 1e9)

    def request(
        self,
        ct: Any,
        lobesNode: Any = None,
        lobeMatches: Mapping[str, str] | None = None,
        device: str = "auto",
        weightsFolder: str = "",
        lobeProvider: str = "embedded",
        keep: list[str] | None = None,
    ) -> Request:
        """Check everything and say what is to be done.

        lobeMatches tells by the name of a lobe (RUL) which segment ID or label of lobesNode it is;
        they are recognised if it is left out. keep names segmentations that were edited by hand
        (segmentation, pseudolabel) and must stay as they are.

        Raises DRAMLesionError with the library's message if the CT or the lobes are not fit.
        """
        from DRAMLesionLib.lobes import Lobe, fit
        from DRAMLesionLib.mrml import lobes, volumes
        from DRAMLesionLib.reading import checks

        image = volumes.image_from_volume(ct)
        checks.check_ct(image, ct.GetName())
        lobeImage = None
        if lobesNode is not None:
            if lobeMatches is None:
                matches = lobes.match(lobesNode)
            else:
                matches = {Lobe[name]: key for name, key in lobeMatches.items()}
            lobeImage = lobes.lobe_image(lobesNode, matches, ct)
            fit.fit_lobes(lobeImage, image, lobesNode.GetName())
        return Request(ct, image, lobeImage, lobeProvider, device, weightsFolder, list(keep or []))

    def process(
        self,
        ct: Any,
        *what: Any,
        progress: Progress | None = None,
        cancel: Callable[[], bool] | None = None,
        **named: Any,
    ) -> "Result":
        """Run in this process and wait; `request` says what there is to choose besides the CT.

        Raises DRAMLesionError; the scene is then as it was before.
        """
        return runInProcess(self.request(ct, *what, **named), progress, cancel)

    def start(self, request: Request, onProgress: Progress, onFinished: Finished) -> BackgroundRun:
        """Run in the background."""
        run = BackgroundRun(request, onProgress, onFinished)
        run.start()
        return run

    def addToTrainingSet(self, result: "Result", folder: str, name: str) -> list[Path]:
        """Write a case for ``python -m Training``; returns the files.

        The pseudo-label is written only if a person has changed it: the training takes one that
        it finds for better than what it would compute itself.

        Raises DRAMLesionError if it cannot be written; nothing is left behind then.
        """
        import SimpleITK as sitk

        from DRAMLesionLib.mrml import clicks, training_set, volumes

        ct = volumes.image_from_volume(result.ct)

        def onCt(values: Any) -> sitk.Image:
            image = sitk.GetImageFromArray(values)
            image.CopyInformation(ct)
            return image

        label = onCt(result.pseudolabel()) if result.pseudolabel_is_chosen else None
        return training_set.add_case(
            folder,
            name,
            ct,
            onCt(result.lobes()),
            label,
            result.reader_scores,
            clicks.points_of(result),
        )


def makePhantom(seed: int = 7, spacing: float = 2.0) -> Any:
    """Make a synthetic chest CT, and put it with its lobes into the scene; returns the CT."""
    import SimpleITK as sitk

    from DRAMLesionLib.mrml import segments, volumes
    from DRAMLesionLib.phantom import make_phantom

    phantom = make_phantom(seed=seed, spacing=spacing)
    ct = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "DRAMLesionPhantom")
    slicer.util.updateVolumeFromArray(ct, sitk.GetArrayFromImage(phantom.ct))
    ct.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(volumes.ras_matrix(phantom.ct)))
    ct.CreateDefaultDisplayNodes()
    lobes = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "DRAMLesionPhantom lobes")
    lobes.CreateDefaultDisplayNodes()
    lobes.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    values = sitk.GetArrayFromImage(phantom.lobes)
    segments.put_layer(lobes, segments.LOBE_SEGMENTS, values, ct)
    return ct
