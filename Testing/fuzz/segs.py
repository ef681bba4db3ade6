"""A DICOM segmentation of the lobes: attributes of the file, its frames and segments, and bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.lobes.terminology import LOBE_TERMS
from DRAMLesionLib.reading.dicom_seg import SEGMENTATION
from Testing.fuzz import chest
from Testing.fuzz.damage import Rng, change_bytes, pick, replace_file
from Testing.fuzz.kinds import Change, Kind
from Testing.fuzz.volumes import read_lobes

_FILE = "lobes.dcm"

_WRONG: dict[str, tuple[object, ...]] = {
    "Rows": (0, 1, 27, 29, 60000),
    "Columns": (0, 1, 37, 39, 60000),
    "NumberOfFrames": (b"0", b"1", b"-1", b"99999999"),
    "BitsAllocated": (0, 8, 16),
    "SamplesPerPixel": (0, 3),
    "SegmentationType": (None, b"FRACTIONAL", b"LABELMAP", b"\xff"),
    "SOPClassUID": (None, b"1.2.840.10008.5.1.4.1.1.2", b"1.2.3"),
    "PerFrameFunctionalGroupsSequence": (None,),
    "SharedFunctionalGroupsSequence": (None,),
    "SegmentSequence": (None,),
}
"""What the file itself must not say without a word; None takes it away."""

_PLACES: tuple[object, ...] = (
    None,
    ["0", "0"],
    ["nan", "0", "0"],
    ["0", "0", "1e30"],
    ["0", "0", "1.7"],
)


def _write(folder: Path) -> None:
    image = chest.lobes()
    pixels = sitk.GetArrayFromImage(image)
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = SEGMENTATION, "1.2.3.11", "SEG"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.1", "1.2.2", "1.2.9"
    ds.SegmentationType, ds.SamplesPerPixel = "BINARY", 1
    ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME2", 0
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit = 0
    _, ds.Rows, ds.Columns = pixels.shape
    ds.SegmentSequence = Sequence([_segment(lobe) for lobe in Lobe])
    ds.SharedFunctionalGroupsSequence = Sequence([_shared(image)])
    frames, masks = [], []
    for lobe in Lobe:
        for k in np.flatnonzero((pixels == int(lobe)).any(axis=(1, 2))):
            frames.append(_frame(lobe, image.TransformIndexToPhysicalPoint((0, 0, int(k)))))
            masks.append(pixels[k] == int(lobe))
    ds.PerFrameFunctionalGroupsSequence, ds.NumberOfFrames = Sequence(frames), len(frames)
    packed = np.packbits(np.stack(masks).ravel(), bitorder="little").tobytes()
    ds.PixelData = packed + b"\0" * (len(packed) % 2)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(folder / _FILE, enforce_file_format=True)


def _segment(lobe: Lobe) -> Dataset:
    term = LOBE_TERMS[lobe]
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel = int(lobe), lobe.full_name
    item.SegmentedPropertyCategoryCodeSequence = [_code("123037004", "Anatomical Structure")]
    kind = _code(term.type.value, term.type.meaning)
    kind.SegmentedPropertyTypeModifierCodeSequence = [
        _code(term.modifier.value, term.modifier.meaning)
    ]
    item.SegmentedPropertyTypeCodeSequence = [kind]
    return item


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", meaning
    return code


def _shared(image: sitk.Image) -> Dataset:
    measures, orientation, item = Dataset(), Dataset(), Dataset()
    width, height, distance = image.GetSpacing()
    measures.PixelSpacing = [height, width]
    measures.SliceThickness = measures.SpacingBetweenSlices = distance
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    item.PixelMeasuresSequence, item.PlaneOrientationSequence = [measures], [orientation]
    return item


def _frame(lobe: Lobe, place: tuple[float, ...]) -> Dataset:
    position, segment, item = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [f"{x:.4f}" for x in place]
    segment.ReferencedSegmentNumber = int(lobe)
    item.PlanePositionSequence = [position]
    item.SegmentIdentificationSequence = [segment]
    return item


def _change(folder: Path, rng: Rng) -> Change:
    path = folder / _FILE
    how = pick(rng, ("file", "bytes", "attribute", "frame", "segment", "spacing"))
    if how == "file":
        return replace_file(path, rng)
    if how == "bytes":
        data = path.read_bytes()
        ds = pydicom.dcmread(path)
        # flipped bits are another sound mask: no checksum guards them
        changed, change = change_bytes(data, rng, len(data) - len(ds.PixelData), checked=False)
        path.write_bytes(changed)
        return change
    ds = pydicom.dcmread(path)
    done = {
        "attribute": _change_attribute,
        "frame": _change_frame,
        "segment": _change_segment,
        "spacing": _change_spacing,
    }[how](ds, rng)
    ds.save_as(path, enforce_file_format=False)
    return done


def _change_attribute(ds: Dataset, rng: Rng) -> Change:
    name = pick(rng, list(_WRONG))
    value = pick(rng, _WRONG[name])
    if value is None:
        del ds[name]
    elif isinstance(value, bytes):
        tag = pydicom.tag.Tag(name)
        vr = pydicom.datadict.dictionary_VR(tag)
        raw = value if len(value) % 2 == 0 else value + b" "
        ds[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    else:
        setattr(ds, name, value)
    return Change(f"{name} = {value!r}", guarded=True)


def _change_frame(ds: Dataset, rng: Rng) -> Change:
    frame = pick(rng, ds.PerFrameFunctionalGroupsSequence)
    how = pick(rng, ("place", "owner", "away"))
    if how == "away":
        del frame[pick(rng, ("PlanePositionSequence", "SegmentIdentificationSequence"))]
        return Change("a frame without its place or segment", guarded=True)
    if how == "owner":
        number = pick(rng, (0, 99, 65535))
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = number
        return Change(f"a frame of segment {number}", guarded=True)
    place = pick(rng, _PLACES)
    if place is None:
        del frame.PlanePositionSequence[0].ImagePositionPatient
    else:
        frame.PlanePositionSequence[0].ImagePositionPatient = list(place)
    return Change(f"a frame at {place}", guarded=True)


def _change_segment(ds: Dataset, rng: Rng) -> Change:
    item = pick(rng, ds.SegmentSequence)
    how = pick(rng, ("number", "code", "name", "away"))
    if how == "number":
        item.SegmentNumber = pick(rng, (0, 1, 5, 9, 65535))
        return Change(f"a segment with number {item.SegmentNumber}", guarded=True)
    if how == "code":
        del item.SegmentedPropertyTypeCodeSequence
        return Change("a segment without code", guarded=True)
    if how == "name":
        # its code tells which lobe it is
        item.SegmentLabel = pick(rng, ("", "x" * 5000, "\u00fc\t\r\n", "Segment_1"))
        return Change("a segment with another name", guarded=False)
    ds.SegmentSequence.remove(item)
    return Change("a segment not described", guarded=True)


def _change_spacing(ds: Dataset, rng: Rng) -> Change:
    shared = ds.SharedFunctionalGroupsSequence[0]
    if rng.random() < 0.5:
        value = pick(rng, (["0", "0"], ["nan", "4.5"], ["4.5"], ["-4.5", "4.5"]))
        shared.PixelMeasuresSequence[0].PixelSpacing = list(value)
        return Change(f"pixel spacing {value}", guarded=True)
    value = pick(rng, ([0] * 6, [1, 0, 0], [1, 0, 0, 1, 0, 0], ["nan", 0, 0, 0, 1, 0]))
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(value)
    return Change(f"orientation {value}", guarded=True)


KINDS = (Kind("lobes-dicom-seg", _write, _change, lambda folder: read_lobes(folder / _FILE)),)
