"""Every bad CT and lobe mask of the list, each with the message that its user reads."""

from __future__ import annotations

import time

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation

from DRAMLesionLib.errors import InputError, LobeError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe, fit
from DRAMLesionLib.reading import checks, files, headers
from Testing.library import simple_chest as chest
from Testing.library.realdata import DATA, needs_data


@pytest.fixture(scope="module")
def ct() -> sitk.Image:
    return chest.hu(chest.grid())


@pytest.fixture(scope="module")
def lobes() -> sitk.Image:
    return chest.lobes(chest.grid())


def message(image: sitk.Image, name: str = "scan.nii.gz") -> str:
    """Return what :func:`checks.check_ct` complains about."""
    with pytest.raises(InputError) as caught:
        checks.check_ct(image, name)
    text = str(caught.value)
    assert text.startswith(name) or f" {name}" in text
    assert "\n" not in text
    return text


def codes(warnings) -> list[str]:
    assert not any("scan.nii" in w.message or "Somebody" in w.message for w in warnings)
    return [w.code for w in warnings]


def sampled(**grid) -> sitk.Image:
    return chest.hu(chest.grid(**grid))


# --- what has to pass ---------------------------------------------------------------------------


def test_a_good_ct_passes_without_a_word(ct):
    assert checks.check_ct(ct) == []
    assert checks.check_ct(sitk.Cast(ct, sitk.sitkFloat32)) == []
    assert checks.check_ct(sitk.Cast(ct, sitk.sitkFloat64)) == []


def test_every_orientation_passes():
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]):
        direction = np.diag([1, -1, -1])[:, order]
        assert checks.check_ct(sampled(size=(70, 70, 70), direction=direction)) == []
    oblique = Rotation.from_euler("xyz", (20, -15, 30), degrees=True).as_matrix()
    assert checks.check_ct(sampled(size=(80, 80, 70), direction=oblique)) == []


def test_noise_and_padding_outside_the_circle_pass(ct):
    rng = np.random.default_rng(0)
    values = chest.values(ct) + rng.normal(0, 60, ct.GetSize()[::-1])
    x, y, _ = np.moveaxis(chest.points(ct), -1, 0)
    for padding in (-2000, -3024):
        values[x**2 + y**2 > 150**2] = padding
        assert checks.check_ct(chest.changed(ct, values.astype(np.int16))) == []


def test_a_narrow_field_of_view_that_cuts_the_lungs_passes():
    assert checks.check_ct(sampled(size=(46, 30, 50))) == []


def test_a_slab_of_30_mm_with_half_the_lung_consolidated_passes(ct):
    slab = chest.hu(chest.grid((140, 120, 10), (2.5, 2.5, 3.0)))
    y = chest.points(slab)[..., 1]
    values = chest.values(slab)
    values[(values < -500) & (values > -999) & (y > 0)] = 20
    assert checks.check_ct(chest.changed(slab, values)) == []


@needs_data
def test_real_cts_pass_without_a_word():
    paths = [*sorted((DATA / "ct").glob("*.nii.gz")), DATA / "dicom" / "cptac-c3n-00247"]
    assert len(paths) == 5
    for path in paths:
        image, warnings = files.read_ct(path)
        assert warnings == []
        assert checks.check_ct(image, path.name) == []


def test_a_large_ct_is_checked_in_two_seconds_of_processor_time():
    rng = np.random.default_rng(0)
    small = chest.hu(chest.grid((512, 512, 4), (0.7, 0.7, 1.0)))
    values = np.repeat(chest.values(small), 75, axis=0)
    noise = rng.integers(-30, 30, values.shape[1:]).astype(np.int16)
    for k, plane in enumerate(values):
        plane += np.roll(noise, k, axis=0)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.7, 1.0))
    start = time.process_time()
    assert checks.check_ct(image) == []
    assert time.process_time() - start < 2.0


# --- geometry -----------------------------------------------------------------------------------


def test_2d(ct):
    assert "scan.nii.gz is a single slice (70 x 60 voxels); give the whole 3D" in message(
        ct[:, :, 9]
    )


def test_single_slice(ct):
    assert "single slice (70 x 60 x 1 voxels)" in message(ct[:, :, 9:10])


def test_4d(ct):
    assert "has 4 dimensions" in message(sitk.JoinSeries([ct, ct]))


def test_vector_and_colour(ct):
    assert "has 3 values a voxel, like a colour picture" in message(sitk.Compose([ct, ct, ct]))


def test_sheared_direction(ct):
    bad = sitk.Image(ct)
    bad.SetDirection((1, 0.2, 0, 0, 1, 0, 0, 0, 1))
    assert "has a sheared grid: its axes are not at right angles" in message(bad)


def test_direction_rounded_to_four_digits_passes():
    turn = Rotation.from_euler("xyz", (3, 2, 5), degrees=True).as_matrix().round(4)
    assert checks.check_ct(sampled(size=(75, 65, 50), direction=turn)) == []


def test_too_short():
    assert "covers only 15.0 mm along one axis; at least 20 mm" in message(
        sampled(size=(70, 60, 5), spacing=(5, 5, 3))
    )


def test_slices_too_thick():
    assert "has slices 12.0 mm apart; lesions cannot be measured beyond 10 mm" in message(
        sampled(size=(70, 60, 20), spacing=(5, 5, 12))
    )


def test_slices_thick():
    (warning,) = checks.check_ct(sampled(size=(70, 60, 30), spacing=(5, 5, 8)), "scan.nii.gz")
    assert warning.code == "thick-slices"
    assert "slices 8.0 mm apart: small lesions can be missed" in warning.message


@pytest.mark.parametrize("factor", [0.001, 0.1, 100.0])
def test_spacing_in_other_units(ct, factor):
    bad = sitk.Image(ct)
    bad.SetSpacing([s * factor for s in ct.GetSpacing()])
    assert "wrong or not in millimetres; convert it again from DICOM" in message(bad)


def test_geometry_that_was_never_set():
    header = sitk.Image(512, 512, 60, sitk.sitkInt16)
    assert codes(headers.check_geometry(header)) == ["default-geometry"]
    header.SetOrigin((-200, -200, 0))
    assert headers.check_geometry(header) == []


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_or_infinite(ct, value):
    values = chest.values(ct).astype(np.float32)
    values[20, 30, 40] = value
    assert "voxels that are not a number or infinite; replace them" in message(
        chest.changed(ct, values)
    )


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda v: (v + 1024).astype(np.uint16), "rescale intercept (-1024) is missing"),
        (lambda v: (v + 1000).astype(np.int16), "rescale intercept (-1024) is missing"),
        (lambda v: np.clip((v + 1250) * 255.0 / 1500, 0, 255).astype(np.uint8), "8-bit greys"),
        (lambda v: (np.clip(v, -1200, 300) + 1200) / 1500.0, "as if normalised"),
        (lambda v: (np.clip(v, -1000, 1000)) / 1000.0, "as if normalised"),
        (lambda v: np.clip(v, -160, 240), "without any air, as if a window was applied"),
        (lambda v: np.where(v == -1000, -2000, v + 1024), "as if the rescale intercept is missing"),
        (lambda v: v - 1024, "hardly any is near water"),
        (lambda v: v * 10, "hardly any is near water"),
    ],
)
def test_not_hu(ct, change, finding):
    text = message(chest.changed(ct, change(chest.values(ct).astype(np.int16))))
    assert "scan.nii.gz is not in Hounsfield units: its values go from" in text
    assert finding in text
    assert "with the rescale slope and intercept applied" in text


def test_every_voxel_the_same(ct):
    assert "is empty: every voxel is -1024; is the file complete?" in message(ct * 0 - 1024)


def test_slices_lost_on_the_way(ct):
    values = chest.values(ct)
    values[40:] = 0
    assert "is damaged: 10 of its 50 slices hold nothing but one value" in message(
        chest.changed(ct, values)
    )


def noisy(ct: sitk.Image, sigma: float = 15.0) -> np.ndarray:
    """Return the voxels of a CT with the noise of a scanner."""
    rng = np.random.default_rng(0)
    values = chest.values(ct) + rng.normal(0, sigma, ct.GetSize()[::-1])
    return np.clip(values, -1024, 3071).astype(np.int16)


@pytest.mark.parametrize("axis", [0, 1, 2], ids=str)
@pytest.mark.parametrize("value", [-1024, -3024])
def test_black_slices_inside_are_damage_and_at_the_ends_are_not(ct, value, axis):
    # the same chest, stored axially, coronally and sagittally
    order = np.roll([0, 1, 2], axis).tolist()
    turned = sitk.PermuteAxes(ct, order)
    along = geometry.height_axis(turned)
    values = noisy(turned)
    slices = np.moveaxis(values, 2 - along, 0)
    slices[:3] = slices[45:] = value
    assert checks.check_ct(chest.changed(turned, values)) == []
    slices[24:28] = value
    assert "is damaged: 4 of its 50 slices hold nothing, between others that do" in message(
        chest.changed(turned, values)
    )


def test_repeated_slices_are_told_and_many_are_damage(ct):
    values = noisy(ct)
    values[21] = values[20]
    (warning,) = checks.check_ct(chest.changed(ct, values))
    assert warning.code == "repeated-slices"
    assert warning.message.startswith("1 of the CT's 50 slices are copies of the one beside them")
    values[22:26] = values[20]
    assert "is damaged: 5 of its 50 slices are copies of the one beside them" in message(
        chest.changed(ct, values)
    )


def test_slices_of_thin_steps_made_of_thick_ones_are_told():
    fine = chest.grid((70, 60, 100), (5, 5, 2.5))
    values = np.repeat(noisy(chest.hu(chest.grid())), 2, axis=0)
    (warning,) = checks.check_ct(chest.changed(fine, values))
    assert warning.code == "repeated-slices"


@pytest.mark.parametrize("bottom", [-900, -800, -700, -600, -501])
def test_lungs_that_were_cut_off(ct, bottom):
    values = np.clip(noisy(ct), bottom, 3000)
    text = message(chest.changed(ct, values))
    assert f"% of its values are exactly {bottom}, as if cut off there" in text
    # a cut can be smeared by resampling
    smooth = ndimage.zoom(values.astype(np.float32), 0.9, order=1)
    image = sitk.GetImageFromArray(smooth)
    image.SetSpacing((5, 5, 5))
    assert f"exactly {bottom}, as if cut off there" in message(image)


def test_lungs_that_were_cut_off_below_padding(ct):
    values = np.clip(noisy(ct), -600, 3000)
    values[:, :4] = -1024
    assert "exactly -600, as if cut off there" in message(chest.changed(ct, values))


@pytest.mark.parametrize("top", [-200, 0, 60])
def test_tissue_that_was_cut_off(ct, top):
    text = message(chest.changed(ct, np.clip(noisy(ct), -1024, top)))
    assert f"% of its values are exactly {top}, as if cut off there" in text


def test_bone_that_was_cut_off_is_told(ct):
    (warning,) = checks.check_ct(chest.changed(ct, np.clip(noisy(ct), -1000, 300)), "scan.nii.gz")
    assert warning.code == "clipped"
    assert warning.message.startswith("The CT's values end at 300 HU, where ")


@pytest.mark.parametrize(("low", "high"), [(-1000, 3071), (-1024, 3071), (-950, 2000)])
def test_what_a_scanner_cuts_off_itself_passes(ct, low, high):
    values = noisy(ct)
    values[20:24, 30, 30] = 3071
    assert checks.check_ct(chest.changed(ct, np.clip(values, low, high))) == []


def test_padding_slices_are_no_damage(ct):
    values = chest.values(ct)
    values[45:] = -1024
    assert checks.check_ct(chest.changed(ct, values)) == []


# --- no lung ------------------------------------------------------------------------------------


def no_lung(ct: sitk.Image) -> np.ndarray:
    values = chest.values(ct)
    values[chest.values(chest.lobes(ct)) > 0] = 45
    return values


def test_water_phantom(ct):
    text = message(chest.changed(ct, no_lung(ct)))
    assert "no lung is to be seen in scan.nii.gz: 0 ml" in text
    assert "give a CT of the chest" in text


def test_abdomen_with_bowel_gas_on_a_mattress(ct):
    values = no_lung(ct)
    x, y, z = np.moveaxis(chest.points(ct), -1, 0)
    values[((x + 30) / 60) ** 2 + ((y + 40) / 25) ** 2 + (z / 50) ** 2 < 1] = -1000
    # foam has the density of lung, but lies outside
    values[(y > 117) & (np.abs(x) < 150)] = -850
    rng = np.random.default_rng(0)
    values = values + rng.normal(0, 20, values.shape)
    assert "no lung is to be seen" in message(chest.changed(ct, values.astype(np.int16)))


def test_head_with_sinuses_and_air_cells(ct):
    x, y, z = np.moveaxis(chest.points(ct), -1, 0)
    radius = np.sqrt((x / 75) ** 2 + (y / 95) ** 2 + (z / 120) ** 2)
    values = np.where(radius < 1, 35, -1000)
    values[(radius < 1) & (radius > 0.92)] = 1200
    values[(np.abs(x) < 20) & (np.abs(y + 60) < 15) & (np.abs(z + 50) < 20)] = -1000
    # mastoid cells, a mix of bone and air that averages to the density of lung
    values[(np.abs(np.abs(x) - 55) < 12) & (np.abs(y - 30) < 12) & (np.abs(z + 60) < 12)] = -500
    assert "no lung is to be seen" in message(chest.changed(ct, values.astype(np.int16)))


def test_less_than_20_mm_of_lung(ct, lobes):
    values = chest.values(lobes)
    values[3 + 22 :] = 0
    values[:22] = 0
    thin = chest.changed(lobes, values)
    with pytest.raises(InputError, match="the CT shows only 15 mm of lung from foot to head"):
        fit.check_lung_extent(thin, ct)
    with pytest.raises(InputError, match=r"no lung was found in scan.nii: is it a chest CT"):
        fit.check_lung_extent(lobes * 0, ct, "scan.nii")


def test_height_of_lung_is_measured_from_foot_to_head_in_any_orientation():
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        own = chest.grid((75, 75, 75), direction=np.eye(3)[:, order])
        found = fit._height(chest.lobes(own))
        assert found == pytest.approx(200, abs=10.1)


# --- lobes on their CT --------------------------------------------------------------------------


def test_lobes_on_the_grid_of_the_ct_pass_without_a_word(ct, lobes):
    fitted, reasons, warnings = fit.fit_lobes(lobes, ct)
    assert geometry.same_grid(fitted, ct)
    assert (chest.values(fitted) == chest.values(lobes)).all()
    assert reasons == {}
    assert warnings == []
    assert fit.check_lung_extent(fitted, ct) == []


def test_lobes_on_another_grid_are_resampled_with_a_warning(ct, lobes):
    turn = Rotation.from_euler("xyz", (5, -8, 10), degrees=True).as_matrix()[:, [1, 0, 2]]
    other = chest.lobes(chest.grid((110, 120, 90), (3.0, 3.5, 3.0), turn))
    fitted, reasons, warnings = fit.fit_lobes(other, ct)
    assert geometry.same_grid(fitted, ct)
    assert reasons == {}
    assert codes(warnings) == ["lobes-resampled"]
    assert "another grid than the CT (110 x 120 x 90 voxels of 3 x 3.5 x 3 mm)" in (
        warnings[0].message
    )
    for lobe in Lobe:
        a, b = chest.values(fitted) == lobe, chest.values(lobes) == lobe
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9


def test_lobes_in_a_file_cropped_to_them_fit_to_the_voxel(ct, lobes):
    fitted, _, warnings = fit.fit_lobes(lobes[5:65, 8:52, 3:46], ct)
    assert (chest.values(fitted) == chest.values(lobes)).all()
    assert warnings == []


def test_lobes_elsewhere_in_space_are_refused(ct, lobes):
    far = sitk.Image(lobes)
    far.SetOrigin((1000, 0, 0))
    with pytest.raises(LobeError, match=r"m\.nii and the CT do not overlap in space: .* give the"):
        fit.fit_lobes(far, ct, "m.nii")


def test_lobes_partly_outside_the_ct(ct, lobes):
    _, reasons, warnings = fit.fit_lobes(lobes, ct[:, :, 25:])
    assert reasons == {}
    assert codes(warnings) == ["lobes-outside"]
    assert "% of the lobe mask lie outside the CT's field of view" in warnings[0].message


def test_missing_and_tiny_lobes_are_not_assessable_and_the_others_go_on(ct, lobes):
    values = chest.values(lobes)
    values[values == Lobe.RML] = 0
    middle = np.argwhere(values == Lobe.LLL)
    values[values == Lobe.LLL] = 0
    values[tuple(middle[:8].T)] = Lobe.LLL
    fitted, reasons, warnings = fit.fit_lobes(chest.changed(lobes, values), ct)
    assert reasons == {
        Lobe.LLL: "only 1.0 ml of it in the lobe mask",
        Lobe.RML: "not in the lobe mask",
    }
    assert codes(warnings) == ["lobes-missing"]
    assert warnings[0].message == (
        "Not assessable: left lower lobe: only 1.0 ml of it in the lobe mask; "
        "right middle lobe: not in the lobe mask."
    )
    assert set(np.unique(chest.values(fitted))) == {0, Lobe.LUL, Lobe.RUL, Lobe.RLL}


def test_an_empty_lobe_mask_is_refused(ct, lobes):
    with pytest.raises(LobeError, match="has no lobe of at least 5 ml within the CT"):
        fit.fit_lobes(lobes * 0, ct)
    other = chest.grid((50, 50, 50), (4, 4, 4))
    with pytest.raises(LobeError, match="is empty: it has no lobe in it"):
        fit.fit_lobes(other, ct)


def test_a_flat_lobe_mask_is_refused(ct, lobes):
    with pytest.raises(LobeError, match="m is a single slice"):
        fit.fit_lobes(lobes[:, :, 20:21], ct, "m")


def test_lobes_cut_off_by_the_edge_of_the_ct(ct, lobes):
    (warning,) = fit.check_lung_extent(lobes[:, :, 22:], ct[:, :, 22:])
    assert warning.code == "cut-off"
    assert warning.message.startswith(
        "Cut off by the edge of the CT: left upper lobe, left lower lobe, right middle lobe, right"
    )


def test_flipped_lobes_are_found_out(ct, lobes):
    flipped = sitk.Flip(lobes, [True, False, False])
    flipped.CopyInformation(lobes)
    found = fit.check_lung_extent(flipped, ct)
    assert codes(found) == ["lobes-misplaced"]
    assert "the left upper lobe is not to the patient's left of" in found[0].message


def test_lobes_that_do_not_lie_on_lung(ct, lobes):
    moved = chest.changed(lobes, np.roll(chest.values(lobes), 12, axis=1))
    body = chest.changed(ct, no_lung(ct))
    assert codes(fit.check_lung_extent(moved, body)) == ["lobes-off-lung"]
