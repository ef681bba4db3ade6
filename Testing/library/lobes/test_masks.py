"""Lobe masks as people have them: overlapping layers, renamed segments, folders, no orientation."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, LobeError, ScanWarning
from DRAMLesionLib.lobes import Lobe, fit, masks
from DRAMLesionLib.lobes.schemes import to_lobes
from DRAMLesionLib.lobes.terminology import LOBE_TERMS
from DRAMLesionLib.reading.notes import UNPLACED, add_notes, notes
from DRAMLesionLib.reading.segments import flatten_layers, segment_names
from Testing.library import simple_chest as chest

NAMES = [(lobe.full_name, int(lobe), 0) for lobe in Lobe]


@pytest.fixture(scope="module")
def ct() -> sitk.Image:
    return chest.hu(chest.grid())


@pytest.fixture(scope="module")
def lobes() -> np.ndarray:
    return chest.values(chest.lobes(chest.grid()))


def write(path: Path, ct: sitk.Image, layers: list[np.ndarray], segments: list[tuple]) -> Path:
    """Write layers (k, j, i) as a Slicer segmentation; segments are name, label, layer and tags."""
    image = sitk.GetImageFromArray(np.stack(layers, axis=-1).astype(np.uint8), isVector=True)
    image.CopyInformation(ct)
    for index, (name, label, layer, *tags) in enumerate(segments):
        image.SetMetaData(f"Segment{index}_Name", name)
        image.SetMetaData(f"Segment{index}_LabelValue", str(label))
        image.SetMetaData(f"Segment{index}_Layer", str(layer))
        image.SetMetaData(f"Segment{index}_Tags", tags[0] if tags else "")
    sitk.WriteImage(image, str(path), True)
    return path


def fitted(path: Path, ct: sitk.Image, scheme: str = "auto") -> tuple[np.ndarray, list[str]]:
    """Return the lobes on the CT, and the codes of what is told about them."""
    found, names = masks.read_lobes(path)
    result, _, warnings = fit.fit_lobes(to_lobes(found, scheme, names), ct)
    assert not any(str(path) in warning.message for warning in warnings)
    return chest.values(result), [warning.code for warning in warnings]


# --- segments that overlap ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["right lung", "lungs", "infiltrated", "Segment_7"])
@pytest.mark.parametrize("first", [True, False], ids=["before the lobes", "after the lobes"])
def test_no_other_segment_overwrites_a_lobe(tmp_path, ct, lobes, name, first):
    other = (name, 1, 1)
    segments = [other, *NAMES] if first else [*NAMES, other]
    path = write(tmp_path / "a.seg.nrrd", ct, [lobes, lobes > 0], segments)
    found, codes = fitted(path, ct)
    assert np.array_equal(found, lobes)
    assert codes == []


def test_lobes_known_by_their_code_alone_are_not_overwritten_either(tmp_path, ct, lobes):
    coded = [
        (f"S{lobe}", int(lobe), 0, f"TerminologyEntry:{LOBE_TERMS[lobe].entry()}|") for lobe in Lobe
    ]
    path = write(tmp_path / "a.seg.nrrd", ct, [lobes, lobes > 0], [*coded, ("lungs", 1, 1)])
    assert np.array_equal(fitted(path, ct)[0], lobes)


def test_lobes_that_overlap_each_other_are_told(tmp_path, ct, lobes):
    wide = lobes == Lobe.RML
    shared = np.zeros_like(wide)
    shared[np.nonzero(lobes == Lobe.RUL)[0][:1], :, :] = True
    shared &= lobes == Lobe.RUL
    layers = [np.where(lobes == Lobe.RML, 0, lobes), wide | shared]
    segments = [
        (name, 1 if label == Lobe.RML else label, int(label == Lobe.RML))
        for name, label, _ in NAMES
    ]
    path = write(tmp_path / "a.seg.nrrd", ct, layers, segments)
    found, codes = fitted(path, ct)
    assert codes == ["segments-overlap"]
    assert np.array_equal(found, np.where(shared, Lobe.RML, lobes))
    (note,) = notes(masks.read_lobes(path)[0])
    volume = shared.sum() * 0.125
    assert f"'right upper lobe' and 'right middle lobe', by {volume:.2g} ml in all" in note.message


def test_more_than_255_segments(tmp_path, ct, lobes):
    many = [(f"piece {n}", n, 1) for n in range(1, 256)]
    pieces = np.zeros_like(lobes)
    pieces[0].flat[:255] = np.arange(1, 256)
    path = write(tmp_path / "a.seg.nrrd", ct, [lobes, pieces], [*many, *NAMES])
    found, codes = fitted(path, ct)
    assert np.array_equal(found, lobes)
    assert codes == []
    assert len(segment_names(masks.read_lobes(path)[0])) == 260


def test_layers_that_are_not_there(ct, lobes):
    image = sitk.GetImageFromArray(np.stack([lobes, lobes], axis=-1), isVector=True)
    for layer in ("2", "-1", "x"):
        image.SetMetaData("Segment0_LabelValue", "1")
        image.SetMetaData("Segment0_Layer", layer)
        with pytest.raises(InputError, match=rf"a is damaged: its segment 0 lies in layer {layer}"):
            flatten_layers(image, "a")


@pytest.mark.parametrize("value", ["²", "x", "", "-1", "1" * 5000])
def test_label_values_that_are_none(value):
    image = sitk.Image(3, 3, 3, sitk.sitkUInt8)
    image.SetMetaData("Segment0_LabelValue", value)
    image.SetMetaData("Segment0_Name", "RUL")
    assert segment_names(image) == {}


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Right upper lobe edited", "RUL_copy", "right upper lobe mask", "Segment RUL new"]
)
def test_words_that_editors_add(tmp_path, ct, lobes, name):
    segments = [(name, *rest) if rest[0] == Lobe.RUL else (n, *rest) for n, *rest in NAMES]
    path = write(tmp_path / "a.seg.nrrd", ct, [lobes, lobes * 0], segments)
    found, codes = fitted(path, ct)
    assert np.array_equal(found, lobes)
    assert codes == []


def test_a_name_that_says_no_lobe_is_named(tmp_path, ct, lobes):
    segments = [("oben rechts", *r) if r[0] == Lobe.RUL else (n, *r) for n, *r in NAMES]
    path = write(tmp_path / "a.seg.nrrd", ct, [lobes, lobes * 0], segments)
    found, codes = fitted(path, ct)
    assert np.array_equal(found, np.where(lobes == Lobe.RUL, 0, lobes))
    assert codes == ["segments-unknown", "lobes-missing"]
    (note,) = notes(to_lobes(masks.read_lobes(path)[0]))
    assert note.message.startswith(
        "No segment was recognised as right upper lobe. Of the others, 'oben rechts', none has a "
    )


def test_other_organs_beside_five_lobes_are_nothing_to_tell(tmp_path, ct, lobes):
    organs = np.zeros_like(lobes)
    organs[:2] = 1
    path = write(tmp_path / "a.seg.nrrd", ct, [lobes, organs], [*NAMES, ("heart", 1, 1)])
    assert fitted(path, ct)[1] == []


# --- folders of masks ---------------------------------------------------------------------------


def folder_of(folder: Path, ct: sitk.Image, lobes: np.ndarray, **origins: tuple) -> Path:
    """Write one mask a lobe, some with another origin."""
    folder.mkdir(exist_ok=True)
    for lobe in Lobe:
        mask = chest.changed(ct, (lobes == lobe).astype(np.uint8))
        mask.SetOrigin(np.add(ct.GetOrigin(), origins.get(lobe.name, (0, 0, 0))).tolist())
        sitk.WriteImage(mask, str(folder / f"{lobe.name}.nii.gz"))
    return folder


def test_masks_with_rounded_origins_lie_on_one_grid(tmp_path, ct, lobes):
    found, codes = fitted(folder_of(tmp_path, ct, lobes, RUL=(1e-4, 0, -1e-4)), ct)
    assert np.array_equal(found, lobes)
    assert codes == []


def test_a_mask_with_another_origin_is_brought_to_the_others(tmp_path, ct, lobes):
    found, codes = fitted(folder_of(tmp_path, ct, lobes, RUL=(0, 0, -10.0)), ct)
    moved = np.roll(lobes == Lobe.RUL, -2, axis=0)
    expected = np.where(lobes == Lobe.RUL, 0, lobes)
    # where the moved mask meets another, the later lobe goes first
    expected = np.where(moved & (expected <= Lobe.RUL), Lobe.RUL, expected)
    assert np.array_equal(found, expected)
    assert codes == ["lobes-other-grids", "segments-overlap"]


def test_two_masks_of_one_lobe(tmp_path, ct, lobes):
    folder_of(tmp_path, ct, lobes)
    sitk.WriteImage(ct * 0, str(tmp_path / "right_upper_lobe.nrrd"))
    with pytest.raises(LobeError, match="has several masks of the right upper lobe, RUL"):
        masks.read_lobes(tmp_path)


def test_masks_in_a_subfolder_or_a_link_to_one(tmp_path, ct, lobes):
    folder_of(tmp_path / "real", ct, lobes)
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "lobes").symlink_to(tmp_path / "real")
    with pytest.raises(LobeError, match="but its subfolder lobes does: give that"):
        masks.read_lobes(tmp_path / "given")
    assert np.array_equal(fitted(tmp_path / "given" / "lobes", ct)[0], lobes)


# --- masks that do not say where they lie -------------------------------------------------------


def without_orientation(path: Path, image: sitk.Image) -> Path:
    """Write a NIfTI file with neither of its two orientations set."""
    sitk.WriteImage(image, str(path))
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<2h", content, 252, 0, 0)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


def test_a_mask_without_orientation_is_laid_on_its_ct_with_a_warning(tmp_path):
    # stored to the right and to the front, as most NIfTI files are
    ct = chest.hu(chest.grid(direction=np.diag([-1, -1, 1])))
    lobes = chest.lobes(ct)
    path = without_orientation(tmp_path / "a.nii.gz", lobes)
    found, codes = fitted(path, ct, "dram")
    assert np.array_equal(found, chest.values(lobes))
    assert codes == [UNPLACED]
    _, _, (warning,) = fit.fit_lobes(to_lobes(masks.read_lobes(path)[0], "dram"), ct)
    assert "does not say how its axes lie in the body: since it has the size" in warning.message
    # by anatomy alone it must not be read
    with pytest.raises(LobeError, match="fit more than one lobe scheme; name the scheme"):
        fitted(path, ct)


def test_a_mask_without_orientation_and_of_another_size_is_refused(tmp_path, ct):
    lobes = chest.lobes(ct)[5:, :, :]
    path = without_orientation(tmp_path / "a.nii.gz", lobes)
    with pytest.raises(LobeError, match="cannot be laid on the CT, whose size it has not"):
        fitted(path, ct, "dram")


def test_a_folder_of_masks_without_orientation(tmp_path):
    ct = chest.hu(chest.grid(direction=np.diag([-1, -1, 1])))
    lobes = chest.lobes(ct)
    for lobe in Lobe:
        without_orientation(tmp_path / f"{lobe.name}.nii.gz", lobes == int(lobe))
    found, codes = fitted(tmp_path, ct)
    assert np.array_equal(found, chest.values(lobes))
    assert codes == [UNPLACED]


def test_notes_keep_their_order_and_are_attached_once(ct):
    image = sitk.Image(ct)
    told = [ScanWarning(f"code-{n % 3}", f"{n}: something") for n in range(12)]
    add_notes(image, told)
    add_notes(image, told[3:5])
    assert notes(image) == told


def test_names_that_are_no_utf8(tmp_path, ct, lobes):
    path = write(tmp_path / "a.seg.nrrd", ct, [lobes, lobes > 0], [*NAMES, ("Lunge q", 1, 1)])
    path.write_bytes(path.read_bytes().replace(b"Lunge q", b"L\xfcnge q"))
    found, codes = fitted(path, ct)
    assert np.array_equal(found, lobes)
    assert codes == []
    assert "L?nge q" in masks.read_lobes(path)[1].values()
