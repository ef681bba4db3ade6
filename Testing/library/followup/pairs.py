"""Pairs with a known change: phantoms of one seed, and boxes of lesion in a box of lung."""

import datetime

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib import writing
from DRAMLesionLib.followup.model import Timepoint
from DRAMLesionLib.followup.registration import Registration
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.report.data import to_json
from DRAMLesionLib.report.model import Report, tabulate

WEIGHTS = ({"name": "segmentation.safetensors", "sha256": "ab12", "summary": "phantoms"},)


def report_of(ct, lobes, lesions, **changes):
    """The report that a run would give for label images on the CT's grid."""
    rows, totals = tabulate(geometry.array(lobes), geometry.array(lesions), geometry.voxel_ml(ct))
    fields = {
        "rows": rows,
        "totals": totals,
        "total_score": totals[-1].score,
        "lobes_source": "given",
        "grid": {
            "size": ct.GetSize(),
            "spacing_mm": ct.GetSpacing(),
            "voxels": geometry.voxel_sum(ct),
        },
        "version": "1.2.3",
        "created": datetime.date(2026, 1, 1).isoformat(),
        "parameters": {"segmentation": {"threshold": 0.5}},
        "weights": WEIGHTS,
    }
    return Report(**{**fields, **changes})


def timepoint(phantom, **changes):
    """A phantom with its truth as the result."""
    report = report_of(phantom.ct, phantom.lobes, phantom.lesions, **changes)
    return Timepoint(phantom.ct, phantom.lobes, phantom.lesions, report)


def write_results(folder, scan):
    """Write what ``segment`` would, as far as a comparison reads it; return the folder."""
    folder.mkdir()
    writing.write_image(scan.lobes, folder / "lobes.nii.gz")
    writing.write_image(scan.lesions, folder / "lesions.nii.gz")
    writing.write_json(to_json(scan.report), folder / "report.json")
    return folder


SIZE, SPACING = (60, 60, 60), 2.0


def box_scan(*boxes, size=SIZE, spacing=SPACING, hu=-600):
    """Lung of -850 HU everywhere, left upper lobe and right upper lobe, with boxes of lesion.

    A box is ((i, j, k) of its first voxel, edge in voxels, label).
    """
    ct = np.full(size[::-1], -850, np.int16)
    lesions = np.zeros(size[::-1], np.uint8)
    for (i, j, k), edge, label in boxes:
        part = np.s_[k : k + edge, j : j + edge, i : i + edge]
        ct[part], lesions[part] = hu, label
    lobes = np.full(size[::-1], Lobe.RUL, np.uint8)
    lobes[:, :, size[0] // 2 :] = Lobe.LUL
    images = []
    for values in (ct, lobes, lesions):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing([spacing] * 3)
        images.append(image)
    return Timepoint(*images, report_of(*images))


def unmoved(scan, shift=(0.0, 0.0, 0.0), expansion=1.0):
    """A registration that moves every point by one vector."""
    grid = geometry.working_grid(scan.ct, 3.0)
    values = np.full(grid.GetSize()[::-1], expansion, np.float32)
    move = sitk.TranslationTransform(3, shift)
    return Registration(move, move, 1.0, 1.0, 0.0, geometry.image_like(values, grid))


def breathed(ct, breath):
    """The registration that a breath's formula gives."""
    grid = geometry.working_grid(ct, 6.0)
    z, y, x = np.indices(grid.GetSize()[::-1]) * 6.0
    points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1) + grid.GetOrigin()
    moved = (breath.after(points) - points).reshape(*x.shape, 3)
    field = sitk.GetImageFromArray(moved, isVector=True)
    field.CopyInformation(grid)
    expansion = sitk.DisplacementFieldJacobianDeterminant(field)
    move = sitk.DisplacementFieldTransform(sitk.Image(field))
    affine = sitk.AffineTransform(3)
    return Registration(move, affine, 0.99, 0.9, 0.0, sitk.Cast(expansion, sitk.sitkFloat32))
