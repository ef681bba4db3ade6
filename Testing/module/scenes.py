"""What the module's tests put into a scene."""

from __future__ import annotations

import numpy as np

# 30° about the axial axis, anisotropic, shifted: nothing that a wrong axis order would survive
OBLIQUE = np.array(
    [
        [-0.8 * 0.866, 0.9 * 0.5, 0.0, 100.0],
        [-0.8 * 0.5, -0.9 * 0.866, 0.0, 50.0],
        [0.0, 0.0, 2.5, -300.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)

# 20° about the R-L axis and a shift, in RAS
RIGID = np.array(
    [
        [1.0, 0.0, 0.0, 10.0],
        [0.0, np.cos(np.pi / 9), -np.sin(np.pi / 9), 20.0],
        [0.0, np.sin(np.pi / 9), np.cos(np.pi / 9), -30.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def put_under(matrix: np.ndarray, node) -> None:
    """Let a new linear transform, 4 x 4 in RAS, move a node."""
    import slicer

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())


def make_ct(name: str = "CT"):
    import slicer
    import vtk

    array = np.zeros((20, 30, 40), np.int16)
    array[5:15, 5:20, 10:30] = 100
    matrix = slicer.util.vtkMatrixFromArray(OBLIQUE)
    assert isinstance(matrix, vtk.vtkMatrix4x4)
    return slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=name), array


def segmentation_of(ct, mask):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Lesions")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    identifier = node.GetSegmentation().AddEmptySegment("lesion", "Lesion", [1.0, 0.2, 0.2])
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identifier, ct)
    return node, identifier


def make_chart():
    import slicer
    import vtk

    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Scores")
    values = np.array([3.0, 20, 8, 0, 31])
    slicer.util.updateTableFromArray(table, [values], ["Lesion %"])
    names = vtk.vtkStringArray()  # updateTableFromArray takes numbers only
    names.SetName("Lobe")
    for lobe in ("LUL", "LLL", "RUL", "RML", "RLL"):
        names.InsertNextValue(lobe)
    table.AddColumn(names)
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "Lesion %")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetYColumnName("Lesion %")
    series.SetLabelColumnName("Lobe")
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeBar)
    series.SetColor(0.8, 0.3, 0.1)
    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", "Lesion by lobe")
    chart.SetTitle("Lesion by lobe")
    chart.SetYAxisTitle("%")
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    slicer.modules.plots.logic().ShowChartInLayout(chart)
    return chart
