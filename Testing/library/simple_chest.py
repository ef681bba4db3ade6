"""A chest made of ellipsoids, known at every point of space, to be sampled on any grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.reading import files

IDENTITY = np.eye(3)


def grid(size=(70, 60, 50), spacing=(5.0, 5.0, 5.0), direction=IDENTITY, centre=(0, 0, 0)):
    """Return an empty image with the given middle point (LPS mm)."""
    image = sitk.Image([int(n) for n in size], sitk.sitkUInt8)
    image.SetSpacing([float(s) for s in spacing])
    image.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
    half = np.asarray(direction) @ ((np.array(size) - 1) / 2 * np.array(spacing))
    image.SetOrigin((np.asarray(centre, dtype=float) - half).tolist())
    return image


def points(image: sitk.Image) -> np.ndarray:
    """Return the LPS position of every voxel, (k, j, i, 3)."""
    k, j, i = np.indices(image.GetSize()[::-1])
    index = np.stack([i, j, k], axis=-1) * np.array(image.GetSpacing())
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return index @ direction.T + np.array(image.GetOrigin())


def lobes(image: sitk.Image) -> sitk.Image:
    """Sample the true lobes on a grid."""
    x, y, z = np.moveaxis(points(image), -1, 0)
    lung = ((np.abs(x) - 75) / 55) ** 2 + (y / 80) ** 2 + (z / 100) ** 2 < 1
    below_oblique = z < y
    result = np.zeros(lung.shape, dtype=np.uint8)
    result[lung & (x > 0)] = Lobe.LUL
    result[lung & (x > 0) & below_oblique] = Lobe.LLL
    result[lung & (x < 0)] = Lobe.RUL
    result[lung & (x < 0) & (z < 15)] = Lobe.RML
    result[lung & (x < 0) & below_oblique] = Lobe.RLL
    return _like(result, image)


def hu(image: sitk.Image) -> sitk.Image:
    """Sample the CT on a grid: body, lungs, spine, a heart on the left side."""
    x, y, z = np.moveaxis(points(image), -1, 0)
    result = np.full(x.shape, -1000, dtype=np.int16)
    result[(x / 160) ** 2 + (y / 115) ** 2 < 1] = 40
    lung = sitk.GetArrayFromImage(lobes(image)) > 0
    result[lung] = (-870 + 0.6 * y[lung]).astype(np.int16)
    result[(x / 20) ** 2 + ((y - 90) / 18) ** 2 < 1] = 400
    result[((x - 40) / 35) ** 2 + ((y + 40) / 30) ** 2 + ((z + 40) / 40) ** 2 < 1] = 60
    return _like(result, image)


def values(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def _like(array: np.ndarray, image: sitk.Image) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(image)
    return result


def changed(image: sitk.Image, array: np.ndarray) -> sitk.Image:
    """Return other voxels on the same grid."""
    return _like(array, image)


def write_series(
    folder: Path,
    volume: np.ndarray,
    *,
    spacing=(5.0, 5.0, 5.0),
    origin=(-172.5, -147.5, -122.5),
    orientation=(1, 0, 0, 0, 1, 0),
    step=None,
    uid=None,
    prefix="img",
    positions=None,
    rescale=True,
    **tags,
) -> str:
    """Write a CT volume (k, j, i) in HU as DICOM slices; ``step`` is the move to the next slice."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = uid or generate_uid()
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    step = np.cross(row, column) * spacing[2] if step is None else np.array(step)
    for k, plane in enumerate(volume):
        place = np.array(origin) + k * step if positions is None else np.array(positions[k])
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.SeriesInstanceUID, ds.StudyInstanceUID = uid, "1.2.3"
        ds.PatientName, ds.PatientID = "Somebody^Real", "12345"
        ds.Modality, ds.SeriesDescription = "CT", "chest"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.InstanceNumber = len(volume) - k  # never to be trusted
        ds.ImagePositionPatient = [f"{v:.6g}" for v in place]
        ds.ImageOrientationPatient = [f"{v:.8g}" for v in orientation]
        ds.PixelSpacing = [spacing[1], spacing[0]]
        ds.Rows, ds.Columns = plane.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        if rescale:
            ds.RescaleIntercept, ds.RescaleSlope = -1024, 1
        for key, value in tags.items():
            setattr(ds, key, value)
        ds.PixelData = np.clip(plane.astype(np.int32) + 1024, 0, 65535).astype(np.uint16).tobytes()
        ds.save_as(
            folder / f"{prefix}{(k * 7) % len(volume):03d}-{k:03d}.dcm", enforce_file_format=True
        )
    return uid


def message(path, **options) -> str:
    """Return what reading a CT complains about, as one line that starts with the path."""
    with pytest.raises(InputError) as caught:
        files.read_ct(path, **options)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert "itk" not in text.lower().replace(str(path).lower(), "")
    return text


def same(a: sitk.Image, b: sitk.Image) -> bool:
    """Tell whether two images have equal voxels at equal places."""
    return (
        bool(np.array_equal(values(a), values(b)))
        and np.allclose(a.GetOrigin(), b.GetOrigin(), atol=1e-3)
        and np.allclose(a.GetSpacing(), b.GetSpacing(), atol=1e-4)
        and np.allclose(a.GetDirection(), b.GetDirection(), atol=1e-6)
    )
