"""Grids and resampling: every orientation must come back the right way round."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe
from Testing.library import simple_chest as chest
from Testing.library.overlap import dice


def signed_permutations() -> list[np.ndarray]:
    return [
        np.diag(signs)[:, order]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]


def oblique() -> list[np.ndarray]:
    angles = [(0, 0, 17), (12, 0, 0), (0, 25, 0), (10, -20, 30), (40, 35, -15), (5, 60, 5)]
    turns = [Rotation.from_euler("xyz", a, degrees=True).as_matrix() for a in angles]
    return [*turns, turns[3] @ np.diag([-1, 1, 1]), turns[4][:, [2, 0, 1]]]


ORIENTATIONS = signed_permutations() + oblique()


def test_there_are_orientations_enough():
    assert len(ORIENTATIONS) == 56
    for direction in ORIENTATIONS:
        assert np.allclose(direction.T @ direction, np.eye(3))


@pytest.mark.parametrize("direction", ORIENTATIONS, ids=range(len(ORIENTATIONS)))
def test_round_trip_over_the_working_grid_keeps_every_lobe_in_its_place(direction):
    # an anisotropic grid of its own, off centre, so that a swapped axis or half a voxel shows
    spacing, size = np.array([6.0, 7.0, 8.0]), np.array([50, 45, 40])
    own = chest.grid(size, spacing, direction, centre=(8, -5, 11))
    truth = chest.lobes(own)

    work = geometry.working_grid(own, 6.0)
    on_work = geometry.resample(truth, work, "labels")
    expected = chest.values(chest.lobes(work))
    field_of_view = chest.values(geometry.resample(own + 1, work, "nearest")) > 0
    for lobe in Lobe:
        there = (chest.values(on_work) == lobe) & field_of_view
        should = (expected == lobe) & field_of_view
        assert dice(there, should) > 0.88, lobe.name
        place = chest.points(work)
        assert np.abs(place[there].mean(axis=0) - place[should].mean(axis=0)).max() < 5.0

    back = geometry.resample(on_work, own, "labels")
    assert back.GetSize() == own.GetSize()
    assert back.GetDirection() == own.GetDirection()
    for lobe in Lobe:
        assert dice(chest.values(back) == lobe, chest.values(truth) == lobe) > 0.97, lobe.name


@pytest.mark.parametrize("direction", ORIENTATIONS[::8] + oblique(), ids=range(15))
def test_a_ct_is_resampled_without_a_shift(direction):
    own = chest.grid((60, 52, 46), (5.0, 6.0, 7.0), direction)
    x, y, z = np.moveaxis(chest.points(own), -1, 0)
    ramp = chest.changed(own, (2.0 * x - 3.0 * y + 5.0 * z).astype(np.float32))
    work = geometry.working_grid(own, 4.0)
    result = chest.values(geometry.resample(ramp, work, fill=np.nan))
    x, y, z = np.moveaxis(chest.points(work), -1, 0)
    index = (chest.points(work) - own.GetOrigin()) @ direction / np.array(own.GetSpacing())
    inner = ((index > 0) & (index < np.array(own.GetSize()) - 1)).all(axis=-1)
    assert inner.mean() > 0.2
    assert np.allclose(result[inner], (2.0 * x - 3.0 * y + 5.0 * z)[inner], atol=0.05)


def test_working_grid_is_axis_parallel_isotropic_and_covers_the_field_of_view():
    own = chest.grid((60, 52, 46), (0.7, 0.7, 2.5), oblique()[3], centre=(10, 20, 30))
    work = geometry.working_grid(own, 1.5, margin=4.0)
    assert work.GetDirection() == geometry.IDENTITY
    assert work.GetSpacing() == (1.5, 1.5, 1.5)
    corners = [
        own.TransformContinuousIndexToPhysicalPoint(c)
        for c in itertools.product((-0.5, 59.5), (-0.5, 51.5), (-0.5, 45.5))
    ]
    low = np.array(work.TransformContinuousIndexToPhysicalPoint((-0.5,) * 3))
    high = np.array(work.TransformContinuousIndexToPhysicalPoint([n - 0.5 for n in work.GetSize()]))
    assert (low <= np.min(corners, axis=0) - 3.9).all()
    assert (high >= np.max(corners, axis=0) + 3.9).all()
    # no more than a voxel more than needed
    needed = np.ptp(corners, axis=0) + 8.0
    assert ((high - low) - needed < 1.5).all()


def test_edges_of_voxels_meet_so_nothing_moves_when_the_spacing_doubles():
    own = chest.grid((8, 8, 8), (1.0, 1.0, 1.0), centre=(3.5, 3.5, 3.5))
    work = geometry.working_grid(own, 2.0)
    assert work.GetSize() == (4, 4, 4)
    assert work.GetOrigin() == pytest.approx((0.5, 0.5, 0.5))


def test_labels_take_the_largest_share_not_a_value_between():
    source = sitk.GetImageFromArray(np.array([[[1, 1, 5, 5]]], dtype=np.uint8))
    target = sitk.Image(13, 1, 1, sitk.sitkUInt8)
    target.SetSpacing((0.25, 1.0, 1.0))
    # voxel centres at 1 and 2: label 1 up to 1.5, label 5 beyond, never 2, 3 or 4
    found = chest.values(geometry.resample(source, target, "labels"))[0, 0]
    assert found[:6].tolist() == [1] * 6
    assert found[7:].tolist() == [5] * 6
    assert found[6] in (1, 5)


@pytest.mark.parametrize("fill", [0, 9])
@pytest.mark.parametrize("kind", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkUInt32])
def test_labels_equal_the_definition_written_out(fill, kind):
    rng = np.random.default_rng(3)
    blobs = sitk.GetImageFromArray(rng.normal(size=(14, 15, 16)))
    smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(blobs, 1.5))
    levels = np.digitize(smooth, np.quantile(smooth, [0.3, 0.6, 0.8])).astype(np.uint8)
    levels[:3] = fill
    source = sitk.Cast(sitk.GetImageFromArray(levels), kind)
    target = chest.grid((25, 24, 23), (0.6, 0.7, 0.8), oblique()[3], centre=(7, 7, 9))
    found = chest.values(geometry.resample(source, target, "labels", fill=fill))

    # independently: shares from trilinear weights by hand, the outermost voxels reach half a voxel
    index = chest.points(target)[..., ::-1]
    limit = np.array(levels.shape) - 1
    inside = ((index >= -0.5 + 1e-6) & (index <= limit + 0.5 - 1e-6)).all(axis=-1)
    index = np.clip(index, 0, limit)
    base = np.minimum(np.floor(index).astype(int), limit - 1)
    rest = index - base
    share = np.zeros((*found.shape, 10))
    for corner in itertools.product((0, 1), repeat=3):
        weight = np.prod(np.where(corner, rest, 1 - rest), axis=-1)
        label = levels[tuple(np.moveaxis(base + corner, -1, 0))]
        np.put_along_axis(
            share,
            label[..., None].astype(int),
            np.take_along_axis(share, label[..., None].astype(int), -1) + weight[..., None],
            -1,
        )
    expected = np.where(inside, share.argmax(axis=-1), fill)
    ordered = np.sort(share, axis=-1)
    clear = (ordered[..., -1] - ordered[..., -2] > 1e-6) | ~inside
    edge = np.abs(chest.points(target)[..., ::-1] - np.clip(index, 0, limit)).max(-1)
    clear &= np.abs(edge - 0.5) > 1e-6
    assert clear.mean() > 0.9
    assert (found == expected)[clear].all()


def test_an_empty_label_map_stays_empty():
    own = chest.grid((20, 20, 20))
    target = geometry.working_grid(own, 3.0)
    assert not chest.values(geometry.resample(own, target, "labels")).any()


def test_labels_outside_the_target_are_gone():
    own = chest.grid((20, 20, 20), centre=(0, 0, 0)) + 1
    far = chest.grid((20, 20, 20), centre=(500, 0, 0))
    assert not chest.values(geometry.resample(own, far, "labels")).any()


def test_fill_is_outside_the_field_of_view_only():
    own = sitk.Cast(chest.grid((20, 20, 20)), sitk.sitkInt16) + 50
    work = geometry.working_grid(own, 5.0, margin=10.0)
    result = chest.values(geometry.resample(own, work, fill=-1024.0))
    assert set(np.unique(result)) == {-1024.0, 50.0}
    assert (result == 50).sum() == 20**3


def test_antialias_lowers_noise_and_keeps_the_mean():
    rng = np.random.default_rng(0)
    fine = sitk.GetImageFromArray(rng.normal(-800, 100, (60, 60, 60)).astype(np.float32))
    coarse = geometry.working_grid(fine, 3.0)
    plain = chest.values(geometry.resample(fine, coarse))
    smooth = chest.values(geometry.resample(fine, coarse, antialias=True))
    assert smooth.mean() == pytest.approx(-800, abs=3)
    # the mean of 3 x 3 x 3 voxels has noise 100 / sqrt(27) = 19
    assert smooth.std() < 30
    assert plain.std() > 80


def test_same_grid_is_strict_in_place_and_size():
    a = chest.grid((20, 21, 22), (1.0, 1.0, 2.0))
    b = sitk.Image(a)
    assert geometry.same_grid(a, b)
    b.SetOrigin(np.add(a.GetOrigin(), (0.0005, 0, 0)).tolist())
    assert geometry.same_grid(a, b)
    b.SetOrigin(np.add(a.GetOrigin(), (0.01, 0, 0)).tolist())
    assert not geometry.same_grid(a, b)
    # the same box read in the other direction is another grid
    assert not geometry.same_grid(a, sitk.Flip(a, [True, False, False]))
    assert not geometry.same_grid(a, a[:-1, :, :])


def test_same_grid_gives_the_input_back():
    a = sitk.Cast(chest.grid((20, 21, 22)), sitk.sitkInt16) + 7
    linear = geometry.resample(a, a)
    assert linear.GetPixelID() == sitk.sitkFloat32
    assert (chest.values(linear) == 7).all()
    assert geometry.resample(a, a, "nearest").GetPixelID() == sitk.sitkInt16


def test_voxel_volume_and_image_like():
    own = chest.grid((4, 5, 6), (2.0, 2.5, 4.0))
    assert geometry.voxel_ml(own) == pytest.approx(0.02)
    mask = geometry.image_like(np.ones((6, 5, 4), dtype=bool), own)
    assert mask.GetPixelID() == sitk.sitkUInt8
    assert geometry.same_grid(mask, own)
    assert geometry.array(mask).shape == (6, 5, 4)


def test_the_sum_of_voxels_does_not_depend_on_their_type_and_sees_one_of_them():
    values = np.arange(-500, 500, dtype=np.int16).reshape(10, 10, 10)
    whole, real = (sitk.GetImageFromArray(values.astype(t)) for t in (np.int16, np.float32))
    assert geometry.voxel_sum(whole) == geometry.voxel_sum(real)
    whole[3, 4, 5] = 7
    assert geometry.voxel_sum(whole) != geometry.voxel_sum(real)
