"""CTs and lobe masks in the volume formats, and what can be wrong in the header of each."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.lobes import Lobe, fit, masks
from DRAMLesionLib.lobes.schemes import to_lobes
from DRAMLesionLib.reading import checks, files
from Testing.fuzz import chest
from Testing.fuzz.damage import Rng, change_bytes, pick, replace_file
from Testing.fuzz.kinds import Change, Kind, Reading
from Testing.fuzz.text_headers import change_meta, change_nrrd, split_meta, split_nrrd

_NUMBERS = (0.0, -1.0, float("nan"), float("inf"), 1e30, 1e-30, 3e9, -3e9)
_COUNTS = (0, -1, 1, 2, 5, 8, 255, 1200, 30000, -32768)
_TYPES = (0, 1, 2, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1536, 1792, 2304, -7)


def read_ct(path: Path) -> Reading:
    """Read and check a CT as library and training do."""
    image, warnings = files.read_ct(path)
    warnings = [*warnings, *checks.check_ct(image)]
    content = {"voxels": sitk.GetArrayFromImage(image).astype(float), "mm": chest.corners(image)}
    return Reading(content, frozenset(w.code for w in warnings))


def read_lobes(path: Path) -> Reading:
    """Read a lobe mask and bring it to its CT as the pipeline does."""
    labels, names = masks.read_lobes(path)
    lobes, _, warnings = fit.fit_lobes(to_lobes(labels, names=names), chest.ct())
    warnings = [*warnings, *fit.check_lung_extent(lobes, chest.ct())]
    return Reading({"lobes": sitk.GetArrayFromImage(lobes)}, frozenset(w.code for w in warnings))


def write_segmentation(path: Path) -> None:
    """Write the lobes as Slicer writes a segmentation."""
    image = sitk.Image(chest.lobes())
    for index, lobe in enumerate(Lobe):
        image.SetMetaData(f"Segment{index}_ID", f"Segment_{index}")
        image.SetMetaData(f"Segment{index}_Name", lobe.full_name)
        image.SetMetaData(f"Segment{index}_LabelValue", str(int(lobe)))
        image.SetMetaData(f"Segment{index}_Layer", "0")
    sitk.WriteImage(image, str(path), useCompression=True)


def _write(image: Callable[[], sitk.Image], name: str, packed: bool) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        sitk.WriteImage(image(), str(folder / name), useCompression=packed)

    return write


def _in(name: str, read: Callable[[Path], Reading]) -> Callable[[Path], Reading]:
    return lambda folder: read(folder / name)


def change_nifti(path: Path, rng: Rng) -> Change:
    """Change a NIfTI file, plain or compressed."""
    data, packed = path.read_bytes(), path.name.endswith(".gz")
    if packed and rng.random() < 0.35:
        changed, change = change_bytes(data, rng, 10, checked=True)
    else:
        content = gzip.decompress(data) if packed else data
        if rng.random() < 0.25:
            changed, change = change_bytes(content, rng, 352, checked=False)
        else:
            changed, change = _nifti_field(content, rng)
        if packed:
            changed = gzip.compress(changed, 1, mtime=0)
    path.write_bytes(changed)
    return change


def _nifti_field(data: bytes, rng: Rng) -> tuple[bytes, Change]:
    field = pick(rng, list(_NIFTI))
    place, form, change = _NIFTI[field]
    before = list(struct.unpack_from(f"<{form}", data, place))
    after, guarded = change(list(before), rng)
    changed = bytearray(data)
    struct.pack_into(f"<{form}", changed, place, *after)
    return bytes(changed), Change(f"{field}: {before} -> {after}", guarded)


def _dims(values: list, rng: Rng) -> tuple[list, bool]:
    if rng.random() < 0.3:
        values[0] = pick(rng, _COUNTS)
    else:
        at = int(rng.integers(1, 5))
        values[at] = pick(rng, (*_COUNTS, values[at] + 1, values[at] - 1, 3 * values[at]))
        values[at] = int(np.clip(values[at], -32768, 32767))
    return values, True


def _one_of(*choices: object, guarded: bool = True) -> Callable[[list, Rng], tuple[list, bool]]:
    def change(values: list, rng: Rng) -> tuple[list, bool]:
        values[int(rng.integers(len(values)))] = pick(rng, choices)
        return values, guarded

    return change


def _scaled(values: list, rng: Rng) -> tuple[list, bool]:
    """Change one number of a geometry that is told twice."""
    at = int(rng.integers(len(values)))
    values[at] = pick(rng, (*_NUMBERS, values[at] * 2.0 + 9.0, -values[at]))
    return values, True


def _pixdim(values: list, rng: Rng) -> tuple[list, bool]:
    spacings, guarded = _scaled(values[1:4], rng)
    return [values[0], *spacings, *values[4:]], guarded


def _no_codes(values: list, rng: Rng) -> tuple[list, bool]:
    return pick(rng, ([0, 0], [0, values[1]], [values[0], 0], [-3, 99], [0, 0])), True


def _slope(values: list, rng: Rng) -> tuple[list, bool]:
    return [pick(rng, _NUMBERS), *values[1:]], True


_NIFTI: dict[str, tuple[int, str, Callable[[list, Rng], tuple[list, bool]]]] = {
    "sizeof_hdr": (0, "i", _one_of(0, -1, 347, 540, 1543569408)),
    "dim": (40, "8h", _dims),
    "dim again": (40, "8h", _dims),
    "intent_code": (68, "h", _one_of(1005, 1006, 1007, 2003, -5, guarded=False)),
    "datatype": (70, "h", _one_of(*_TYPES)),
    "bitpix": (72, "h", _one_of(0, 1, 4, 7, 8, 24, 32, 64, 2048, -16)),
    "pixdim": (76, "8f", _pixdim),
    "vox_offset": (108, "f", _one_of(*_NUMBERS, 0.0, 100.0, 348.0, 351.5, 360.0, 1e6)),
    "slope": (112, "2f", _slope),
    "intercept": (116, "f", _one_of(float("nan"), float("inf"), 1e38, -1e38, 1e6)),
    "units": (123, "b", _one_of(1, 3, 127, -1)),
    "qform and sform code": (252, "2h", _no_codes),
    "quaternion": (256, "6f", _scaled),
    "sform": (280, "12f", _scaled),
    "magic": (344, "4s", _one_of(b"ni1\0", b"n+2\0", b"\0\0\0\0", b"n+9\0", guarded=False)),
}


def change_nrrd_file(path: Path, rng: Rng) -> Change:
    """Change a NRRD file."""
    data = path.read_bytes()
    header, voxels = split_nrrd(data)
    if rng.random() < 0.4:
        changed, change = change_bytes(data, rng, len(header), b"gzip" in header)
    else:
        header, change = change_nrrd(header, rng)
        changed = header + voxels
    path.write_bytes(changed)
    return change


def change_meta_file(path: Path, rng: Rng) -> Change:
    """Change a MetaImage file."""
    data = path.read_bytes()
    header, voxels = split_meta(data)
    if voxels and rng.random() < 0.4:
        changed, change = change_bytes(data, rng, len(header), b"CompressedData = True" in header)
    else:
        header, change = change_meta(header, rng)
        changed = header + voxels
    path.write_bytes(changed)
    return change


def _single(name: str, change: Callable[[Path, Rng], Change]) -> Callable[[Path, Rng], Change]:
    def changed(folder: Path, rng: Rng) -> Change:
        if rng.random() < 0.03:
            return replace_file(folder / name, rng)
        return change(folder / name, rng)

    return changed


def _pair(header: str, voxels: str, change: Callable[[Path, Rng], Change], packed: bool):
    """Return the change of a header whose voxels lie in a file beside it."""

    def changed(folder: Path, rng: Rng) -> Change:
        how = rng.random()
        if how < 0.05:
            return replace_file(folder / pick(rng, (header, voxels)), rng)
        if how < 0.45:
            data, done = change_bytes((folder / voxels).read_bytes(), rng, 0, packed)
            (folder / voxels).write_bytes(data)
            return done
        return change(folder / header, rng)

    return changed


def _volume(name: str, image, packed: bool, change, read, file: str) -> Kind:
    return Kind(name, _write(image, file, packed), _single(file, change), _in(file, read))


def _segmentation() -> Kind:
    file = "lobes.seg.nrrd"
    return Kind(
        "lobes-seg",
        lambda folder: write_segmentation(folder / file),
        _single(file, change_nrrd_file),
        _in(file, read_lobes),
    )


def _detached(name: str, header: str, voxels: str, change, packed: bool, **more) -> Kind:
    return Kind(
        name,
        _write(chest.ct, header, packed),
        _pair(header, voxels, change, packed),
        _in(header, read_ct),
        **more,
    )


def _write_packed_pair(folder: Path) -> None:
    sitk.WriteImage(chest.ct(), str(folder / "ct.hdr"))
    voxels = folder / "ct.img"
    (folder / "ct.img.gz").write_bytes(gzip.compress(voxels.read_bytes(), 1, mtime=0))
    voxels.unlink()


_MASKS = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)


def _write_masks(folder: Path) -> None:
    for lobe, name in zip(Lobe, _MASKS, strict=True):
        sitk.WriteImage(chest.lobes() == int(lobe), str(folder / f"{name}.nii.gz"))


def _change_mask(folder: Path, rng: Rng) -> Change:
    path = folder / f"{pick(rng, _MASKS)}.nii.gz"
    return replace_file(path, rng) if rng.random() < 0.1 else change_nifti(path, rng)


KINDS = (
    _volume("ct-nifti", chest.ct, False, change_nifti, read_ct, "ct.nii"),
    _volume("ct-nifti-gz", chest.ct, True, change_nifti, read_ct, "ct.nii.gz"),
    _volume("ct-nrrd", chest.ct, False, change_nrrd_file, read_ct, "ct.nrrd"),
    _volume("ct-nrrd-gz", chest.ct, True, change_nrrd_file, read_ct, "ct.nrrd"),
    _volume("ct-meta", chest.ct, False, change_meta_file, read_ct, "ct.mha"),
    _volume("ct-meta-z", chest.ct, True, change_meta_file, read_ct, "ct.mha"),
    _detached("ct-meta-raw", "ct.mhd", "ct.raw", change_meta_file, False),
    _detached("ct-meta-zraw", "ct.mhd", "ct.zraw", change_meta_file, True),
    _detached("ct-nrrd-raw", "ct.nhdr", "ct.raw", change_nrrd_file, False),
    _detached("ct-pair", "ct.hdr", "ct.img", change_nifti, False),
    Kind(
        "ct-pair-gz",
        _write_packed_pair,
        _pair("ct.hdr", "ct.img.gz", change_nifti, True),
        _in("ct.hdr", read_ct),
    ),
    _volume("lobes-nifti", chest.lobes, True, change_nifti, read_lobes, "lobes.nii.gz"),
    _volume("lobes-nrrd", chest.lobes, True, change_nrrd_file, read_lobes, "lobes.nrrd"),
    _volume("lobes-meta", chest.lobes, True, change_meta_file, read_lobes, "lobes.mha"),
    _segmentation(),
    Kind("lobes-folder", _write_masks, _change_mask, read_lobes),
)
