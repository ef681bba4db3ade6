"""The module's own test, for any real Slicer: `slicer.selfTests["DRAMLesion"]()`.

It closes the scene. docs/slicer-check.md has what it cannot see. Whatever needs packages that are
not installed is left out, and said so.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from DRAMLesionPanel import dependencies
from DRAMLesionPanel.logic import DRAMLesionLogic, makePhantom


class DRAMLesionTest(ScriptedLoadableModuleTest):
    """A small phantom, from its lobes to a case in a training set."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_input()
        if dependencies.missing():
            self.delayDisplay(f"Left out, since not installed: {dependencies.missing()}")
            return
        self.setUp()
        self.test_result()

    def test_input(self) -> None:
        """CT and lobes become what the library is given, and a transform is part of it."""
        import numpy as np

        from DRAMLesionLib.lobes import Lobe
        from DRAMLesionLib.mrml import lobes, volumes

        self.delayDisplay("A phantom and its lobes")
        ct = makePhantom(spacing=4.0)
        self._check(DRAMLesionLogic().inputProblem(ct) == "", "the phantom is a chest CT")
        before = volumes.ijk_to_world(ct)
        matrix = np.eye(4)
        matrix[:3, 3] = (10, 20, 30)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        slicer.util.updateTransformMatrixFromArray(transform, matrix)
        ct.SetAndObserveTransformNodeID(transform.GetID())
        image = volumes.image_from_volume(ct)
        moved = volumes.ras_matrix(image)
        self._check(np.allclose(moved, matrix @ before), "a transform moves the CT")
        ct.SetAndObserveTransformNodeID(None)
        node = slicer.util.getNode("DRAMLesionPhantom lobes")
        found = lobes.match(node)
        self._check(set(found) == set(Lobe), "all lobes are recognised")
        labels = lobes.lobe_image(node, found, ct)
        self._check(labels.GetSize() == image.GetSize(), "lobes lie on the CT's grid")

    def test_result(self) -> None:
        """A run in this process; threshold, scores, saving and loading, a training case."""
        if dependencies.missing():  # asked here, too: unittest's loader does not call runTest
            self.skipTest(f"not installed: {dependencies.missing()}")
        self.delayDisplay("A run, which takes a while")
        ct = makePhantom(spacing=4.0)
        node = slicer.util.getNode("DRAMLesionPhantom lobes")
        result = DRAMLesionLogic().process(ct, node, device="cpu")
        self._check(result.complete, "every node is there")
        self._check(result.edited() == [], "nothing counts as edited")
        self._checkThreshold(result)
        self._checkPoints(result)
        self._checkMovesWithCt(result)
        self._checkSurfacesAndChart(result)
        self._checkPanel(result)
        folder = Path(tempfile.mkdtemp(dir=slicer.app.temporaryPath))
        try:
            self._checkSavedScene(result, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.delayDisplay("Test passed")

    def _checkThreshold(self, result: Any) -> None:
        import numpy as np

        from DRAMLesionLib.mrml.preview import ThresholdPreview

        preview = ThresholdPreview(result)
        preview.move(0.2)
        refined = slicer.util.arrayFromVolume(result.get("refined"))
        expected = (refined > np.float32(0.2)) & (result.lobes() > 0)
        found = result.pseudolabel() == 2
        self._check((found == expected).all(), "the pseudo-label follows the threshold")
        self._check(preview.current and result.edited() == [], "and is not taken for an edit")

    def _checkPoints(self, result: Any) -> None:
        import numpy as np

        from DRAMLesionLib.mrml import clicks, volumes

        before, lobes = result.pseudolabel(), result.lobes()
        outside = np.argwhere((lobes == 5) & (before == 0))
        voxel = tuple(int(index) for index in outside[len(outside) // 2])
        place = (volumes.ijk_to_world(result.ct) @ (*voxel[::-1], 1))[:3]
        points = clicks.points_node(result, "lesionPoints")
        points.AddControlPointWorld(vtk.vtkVector3d(*place))
        follower = clicks.Follower(result)
        follower.follow()
        after = result.pseudolabel()
        self._check(after[voxel] == 2, "a lesion point is inside the pseudo-label")
        same = (after == before)[lobes != 5].all()
        self._check(bool(same), "and nothing changes outside of its lobe")
        clicks.remove_last(result)
        follower.follow()
        self._check((result.pseudolabel() == before).all(), "taken back, it leaves no trace")

    def _checkMovesWithCt(self, result: Any) -> None:
        """A transform above the CT takes the result along, hardened or taken away."""
        import numpy as np

        from DRAMLesionLib.mrml import volumes

        lobes = result.lobes()
        matrix = np.eye(4)
        matrix[:3, 3] = (30, 0, 0)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        slicer.util.updateTransformMatrixFromArray(transform, matrix)
        for change in ("put under", "taken out", "put under", "hardened"):
            if change == "hardened":
                result.ct.HardenTransform()
            else:
                parent = transform.GetID() if change == "put under" else None
                result.ct.SetAndObserveTransformNodeID(parent)
            result.follow_ct()
            places = [volumes.ijk_to_world(node) for node in (result.ct, result.get("refined"))]
            self._check(np.allclose(*places), f"the map lies on the CT that was {change}")
            self._check((result.lobes() == lobes).all(), f"and the lobes ({change})")
        self._check(result.edited() == [], "nothing counts as edited")

    def _checkSurfacesAndChart(self, result: Any) -> None:
        from DRAMLesionLib.mrml import surfaces

        result.update_scores("pseudolabel")
        for _share in surfaces.make_surfaces(result):
            slicer.app.processEvents()
        made = result.get("segmentation").GetClosedSurfaceInternalRepresentation("lobe_RUL")
        self._check(made.GetNumberOfPoints() > 100, "a lobe has a surface")
        chart = result.chart()
        names = [chart.GetNthPlotSeriesNode(number).GetName()[:3] for number in range(5)]
        self._check(sorted(names) == ["LLL", "LUL", "RLL", "RML", "RUL"], "the legend names lobes")

    def _checkPanel(self, result: Any) -> None:
        """The panel itself, where there is a window: editor, two CTs, what is offered."""
        if slicer.app.layoutManager() is None:
            self.delayDisplay("Left out, since there is no window: the panel")
            return
        slicer.util.selectModule("DRAMLesion")
        widget = slicer.modules.DRAMLesionWidget
        ui, ct = widget.ui, result.ct
        ui.inputVolumeSelector.setCurrentNode(ct)
        ui.editButton.checked = True
        node = widget.results.editor.widget.mrmlSegmentEditorNode()
        single = slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
        mask = (node.GetMaskMode(), node.GetMaskSegmentID())
        ui.editButton.checked = False
        self._check(mask == (single, "lungs"), "the editor is masked to the lobes")
        why = str(ui.dicomButton.toolTip)
        isGrey = not ui.dicomButton.enabled and "did not come from DICOM" in why
        self._check(isGrey, "a phantom has no DICOM files, and the button says so")
        other = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, ct, "another CT")
        ui.inputVolumeSelector.setCurrentNode(other)
        shown = result.get("segmentation").GetDisplayNode().GetVisibility()
        self._check(not shown, "another CT hides this result")
        ui.inputVolumeSelector.setCurrentNode(ct)
        shown = result.get("segmentation").GetDisplayNode().GetVisibility()
        self._check(bool(shown), "and the CT itself shows it again")
        ui.inputVolumeSelector.setCurrentNode(result.get("dram"))
        chosen = ui.inputVolumeSelector.currentNode()
        self._check(chosen is not result.get("dram"), "a map is not offered as CT")
        ui.inputVolumeSelector.setCurrentNode(ct)

    def _checkSavedScene(self, result: Any, folder: Path) -> None:
        from DRAMLesionLib.lobes import Lobe
        from DRAMLesionLib.mrml.result import Result

        result.set_reader_score(Lobe.RUL, "3")
        name, label = result.ct.GetName(), result.pseudolabel()
        slicer.util.saveScene(str(folder / "scene.mrb"))
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(str(folder / "scene.mrb"))
        loaded = Result.find(slicer.util.getNode(name))
        self._check(loaded is not None and loaded.complete, "the result is found again")
        self._check((loaded.pseudolabel() == label).all(), "with its pseudo-label")
        self._check(loaded.reader_scores[Lobe.RUL] == 3, "and the reader's score")
        written = DRAMLesionLogic().addToTrainingSet(loaded, str(folder / "set"), "case-1")
        self._check(all(path.is_file() for path in written), "a training case is written")

    def _check(self, holds: bool, what: str) -> None:
        if not holds:
            message = f"not so: {what}"
            raise AssertionError(message)
