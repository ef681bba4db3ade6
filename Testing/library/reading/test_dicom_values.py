"""From stored numbers to HU: rescales that are missing, unlike each other, or beyond belief."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from DRAMLesionLib.reading import files
from Testing.library import simple_chest as chest
from Testing.library.reading.dicom_edits import edit, image_paths, replace
from Testing.library.simple_chest import message, same


def stored_as(slope, intercept):
    """Return a change of the stored numbers that leaves HU what they are."""

    def change(ds):
        values = ds.pixel_array.astype(float) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
        ds.PixelData = np.round((values - intercept) / slope).astype(np.uint16).tobytes()

    return change


@pytest.mark.parametrize("absent", [["RescaleSlope", "RescaleIntercept"], ["RescaleSlope"]])
def test_some_slices_without_rescale_are_refused(tmp_path, volume, absent):
    chest.write_series(tmp_path, volume)
    some = image_paths(tmp_path)[20:25]
    edit(some, lambda ds: [delattr(ds, name) for name in absent])
    text = message(tmp_path)
    assert "5 of 50 images lack the rescale slope or intercept, so their HU are unknown" in text
    assert some[2].name in text
    assert text.endswith("export the series again from the scanner or archive")


def test_slope_missing_everywhere_is_told(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)
    edit(image_paths(tmp_path), lambda ds: delattr(ds, "RescaleSlope"))
    found, warnings = files.read_ct(tmp_path)
    assert same(found, ct)
    assert [w.code for w in warnings] == ["rescale-incomplete"]
    assert "lack the rescale slope: 1 was taken" in warnings[0].message


@pytest.mark.parametrize("slope", [1.0, 0.5, 2.0])
def test_each_slice_is_read_with_its_own_rescale(tmp_path, ct, volume, slope):
    chest.write_series(tmp_path, volume)
    edit(image_paths(tmp_path)[10:14], stored_as(slope, -2048))
    found, warnings = files.read_ct(tmp_path)
    assert np.abs(chest.values(found) - chest.values(ct)).max() <= slope / 2
    assert [w.code for w in warnings] == ["mixed-rescale"]
    assert "2 different rescales or bit depths" in warnings[0].message


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (1, -2048), (2, -1024), (0.1, -1024)])
def test_a_rescale_that_makes_hu_jump_is_refused(tmp_path, volume, slope, intercept):
    chest.write_series(tmp_path, volume)
    wrong = image_paths(tmp_path)[30:33]

    def change(ds):
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept

    edit(wrong, change)
    text = message(tmp_path)
    assert "rescale or bit depth change between slices, and HU jump there by" in text
    assert wrong[0].name in text


@pytest.mark.parametrize(
    ("slope", "intercept"), [("1", "-1e38"), ("1e-30", "-1024"), ("0", "-1024"), ("-1", "0"),
                             ("1", "-1e6"), ("1e5", "-1024"), ("nan", "-1024")],
)  # fmt: skip
@pytest.mark.parametrize("number", [1, 50])
def test_a_rescale_beyond_belief_is_refused(tmp_path, volume, slope, intercept, number):
    chest.write_series(tmp_path, volume)
    with pydicom.config.disable_value_validation():
        edit(
            image_paths(tmp_path)[:number],
            lambda ds: (
                setattr(ds, "RescaleSlope", slope),
                setattr(ds, "RescaleIntercept", intercept),
            ),
        )
    text = message(tmp_path)
    assert f"{number} of 50 images have a rescale that gives no Hounsfield units (slope " in text


def test_a_decimal_comma_in_the_rescale_is_refused(tmp_path, volume):
    chest.write_series(tmp_path, volume, RescaleIntercept="-1024.0")
    replace(image_paths(tmp_path)[3:4], b"-1024.0 ", b"-1024,0 ")
    assert "1 of 50 images have a rescale that gives no Hounsfield units" in message(tmp_path)


def test_a_table_instead_of_a_rescale_is_refused(tmp_path, volume):
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "HU"
    table.LUTData = np.arange(4096, dtype=np.uint16).tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    chest.write_series(tmp_path, volume)
    edit(image_paths(tmp_path)[7:9], lambda ds: setattr(ds, "ModalityLUTSequence", [table]))
    text = message(tmp_path)
    assert "2 of 50 images turn their values into others by a table (Modality LUT)" in text


def test_monochrome1_is_only_shown_the_other_way_round(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume, PhotometricInterpretation="MONOCHROME1")
    found, warnings = files.read_ct(tmp_path)
    assert same(found, ct)
    assert warnings == []


def test_monochrome1_in_some_slices(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)
    some = image_paths(tmp_path)[10:20]
    edit(some, lambda ds: setattr(ds, "PhotometricInterpretation", "MONOCHROME1"))
    found, warnings = files.read_ct(tmp_path)
    assert same(found, ct)
    assert [w.code for w in warnings] == ["mixed-rescale"]


def test_32_bits_allocated(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)

    def widen(ds):
        values = ds.pixel_array.astype(np.uint32)
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 32, 32, 31
        ds.PixelData = values.tobytes()

    edit(image_paths(tmp_path), widen)
    assert np.array_equal(chest.values(files.read_ct(tmp_path)[0]), chest.values(ct))


def test_32_bits_claimed_but_16_stored_is_damage(tmp_path, volume):
    chest.write_series(tmp_path, volume)
    one = image_paths(tmp_path)[12:13]
    edit(one, lambda ds: setattr(ds, "BitsAllocated", 32))
    assert f"1 DICOM image(s) are cut short or damaged ({one[0].name})" in message(tmp_path)


def test_too_few_bits_for_what_is_stored(tmp_path, volume):
    chest.write_series(tmp_path, volume)

    def narrow(ds):
        ds.BitsStored, ds.HighBit = 8, 7

    edit(image_paths(tmp_path)[25:26], narrow)
    assert "1 of 50 images have a rescale that gives no Hounsfield units" in message(tmp_path)
    chest.write_series(tmp_path / "high", volume)
    edit(image_paths(tmp_path / "high")[25:26], lambda ds: setattr(ds, "HighBit", 3))
    assert "1 of 50 images have an impossible bit depth" in message(tmp_path / "high")


def test_maps_of_materials_are_no_ct(tmp_path, volume):
    chest.write_series(tmp_path, volume, RescaleType="MGML")
    assert "material maps, not in HU" in message(tmp_path)
