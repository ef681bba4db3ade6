"""The phantom: same seed same patient, truth that fits its images, lesions of their scores."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from DRAMLesionLib.errors import Cancelled, OutputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions.severity import (
    SCORE_COUNTS_TRAINING,
    SCORE_INTERVALS,
    fraction_to_score,
    score_to_interval,
)
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom import (
    LesionType,
    Phantom,
    PhantomConfig,
    draw_fraction,
    draw_scores,
    insert_lesions,
    make_phantom,
)
from DRAMLesionLib.phantom.fields import Grid, centred_grid, lattice, to_grid
from DRAMLesionLib.phantom.patient import Tube
from DRAMLesionLib.phantom.tree import grow
from DRAMLesionLib.phantom.tubes import distance_to_tube, splat_segments

IMAGES = ("ct", "lobes", "vessels", "airways", "lesions")
SCORES = {Lobe.LUL: 1, Lobe.LLL: 5, Lobe.RUL: 2, Lobe.RML: 3, Lobe.RLL: 4}
COARSE = 3.0


@pytest.fixture(scope="module")
def sick() -> Phantom:
    return make_phantom(7, COARSE, scores=SCORES)


@pytest.fixture(scope="module")
def healthy() -> Phantom:
    return make_phantom(3, COARSE, scores=dict.fromkeys(Lobe, 0))


@pytest.fixture(scope="module")
def arrays(sick: Phantom) -> dict[str, np.ndarray]:
    return {name: geometry.array(getattr(sick, name)) for name in IMAGES}


def volumes_ml(phantom: Phantom) -> dict[Lobe, float]:
    lobes = geometry.array(phantom.lobes)
    return {
        lobe: np.count_nonzero(lobes == lobe) * geometry.voxel_ml(phantom.lobes) for lobe in Lobe
    }


# the whole phantom


def test_same_seed_same_voxels(sick: Phantom) -> None:
    again = make_phantom(7, COARSE, scores=SCORES)
    for name in IMAGES:
        first, second = (geometry.array(getattr(p, name)) for p in (sick, again))
        np.testing.assert_array_equal(first, second, err_msg=name)
    assert sick.fractions == again.fractions


def test_other_seed_other_patient(sick: Phantom, healthy: Phantom) -> None:
    assert volumes_ml(sick) != volumes_ml(healthy)


def test_lesions_do_not_change_the_patient(sick: Phantom) -> None:
    without = make_phantom(7, COARSE, scores={})
    for name in ("lobes", "vessels", "airways"):
        np.testing.assert_array_equal(
            geometry.array(getattr(sick, name)), geometry.array(getattr(without, name))
        )
    changed = geometry.array(sick.ct) != geometry.array(without.ct)
    assert changed[geometry.array(sick.lesions) > 0].mean() > 0.95


def test_spacing_does_not_change_the_patient(sick: Phantom) -> None:
    other = make_phantom(7, (2.2, 2.2, 2.0), scores=SCORES)
    fine, coarse = volumes_ml(other), volumes_ml(sick)
    for lobe in Lobe:
        assert coarse[lobe] == pytest.approx(fine[lobe], rel=0.04)
    lobes = geometry.array(geometry.resample(other.lobes, sick.lobes, "nearest"))
    both, either = lobes > 0, geometry.array(sick.lobes) > 0
    assert 2 * (both & either).sum() / (both.sum() + either.sum()) > 0.97
    lesions = geometry.array(geometry.resample(other.lesions, sick.lobes, "nearest")) > 0
    truth = geometry.array(sick.lesions) > 0
    assert 2 * (lesions & truth).sum() / (lesions.sum() + truth.sum()) > 0.85


def test_thick_slices_are_averages() -> None:
    thick = make_phantom(7, (3.5, 3.5, 7.0), scores=SCORES)
    assert thick.ct.GetSpacing() == (3.5, 3.5, 7.0)
    assert all(geometry.same_grid(thick.ct, getattr(thick, name)) for name in IMAGES)
    for lobe, score in SCORES.items():
        assert abs(fraction_to_score(thick.fractions[lobe]) - score) <= 1


def test_images_share_an_axis_parallel_grid(sick: Phantom) -> None:
    for name in IMAGES:
        image = getattr(sick, name)
        assert geometry.same_grid(image, sick.ct)
        assert image.GetDirection() == geometry.IDENTITY
    assert sick.ct.GetPixelID() == sitk.sitkInt16
    assert {getattr(sick, name).GetPixelID() for name in IMAGES[1:]} == {sitk.sitkUInt8}


@pytest.mark.parametrize("phantom", ["sick", "healthy"])
def test_lungs_of_a_human(phantom: str, request: pytest.FixtureRequest) -> None:
    volume = volumes_ml(request.getfixturevalue(phantom))
    assert 2000 < sum(volume.values()) < 8000
    assert all(v > 150 for v in volume.values())
    assert volume[Lobe.RML] == min(volume.values())


def test_hounsfield_units(healthy: Phantom) -> None:
    ct, lobes = geometry.array(healthy.ct), geometry.array(healthy.lobes)
    assert ct.min() >= -1024
    assert 400 < np.percentile(ct[ct > 250], 90) < 1500
    inner = ndimage.binary_erosion(lobes > 0, iterations=3)
    assert -920 < np.median(ct[inner]) < -800
    assert np.median(ct[geometry.array(healthy.airways) == 1]) < -850
    assert np.median(ct[geometry.array(healthy.vessels) > 0]) > -650
    front_half = np.arange(ct.shape[1])[None, :, None] < np.nonzero(inner)[1].mean()
    assert np.median(ct[inner & front_half]) < np.median(ct[inner & ~front_half])


def test_left_is_left(sick: Phantom, arrays: dict[str, np.ndarray]) -> None:
    lobes, ct = arrays["lobes"], arrays["ct"]
    columns = np.arange(ct.shape[2])[None, None, :]
    middle = np.average(np.broadcast_to(columns, ct.shape)[lobes > 0])
    for lobe in Lobe:
        assert (np.nonzero(lobes == lobe)[2].mean() > middle) == lobe.is_left
    for upper, lower in ((Lobe.LUL, Lobe.LLL), (Lobe.RUL, Lobe.RLL)):
        high, low = np.nonzero(lobes == upper), np.nonzero(lobes == lower)
        assert high[0].mean() > low[0].mean()
        assert high[1].mean() < low[1].mean()


def test_liver_right_heart_left(healthy: Phantom) -> None:
    lobes, ct = geometry.array(healthy.lobes), geometry.array(healthy.ct)
    volume = volumes_ml(healthy)
    assert volume[Lobe.LUL] + volume[Lobe.LLL] < 0.95 * (
        volume[Lobe.RUL] + volume[Lobe.RML] + volume[Lobe.RLL]
    )
    # around the lowest part of the lungs the liver fills more of the right half
    k, _, i = np.nonzero(lobes > 0)
    low = slice(k.min(), k.min() + (k.max() - k.min()) // 6)
    middle = (i.min() + i.max()) // 2
    organ = np.abs(ndimage.uniform_filter(ct[low].astype(float), 3) - 55.0) < 25.0
    assert organ[:, :, i.min() : middle].mean() > organ[:, :, middle : i.max()].mean()


def test_truth_fits_together(sick: Phantom, arrays: dict[str, np.ndarray]) -> None:
    lobes, lesions = arrays["lobes"], arrays["lesions"]
    vessels, airways = arrays["vessels"], arrays["airways"]
    assert set(np.unique(lobes)) == {0, *map(int, Lobe)}
    assert set(np.unique(lesions)) <= {0, *map(int, LesionType)}
    assert set(np.unique(vessels)) == {0, 1, 2}
    assert set(np.unique(airways)) == {0, 1, 2}
    assert not np.any((lesions > 0) & (lobes == 0))
    assert not np.any((vessels > 0) & (airways > 0))
    assert not np.any((vessels > 0) & (lobes == 0))
    assert not np.any((lesions > 0) & (airways == 1))
    for lobe in Lobe:
        share = np.count_nonzero(lesions[lobes == lobe]) / np.count_nonzero(lobes == lobe)
        assert sick.fractions[lobe] == pytest.approx(share)


def test_types_have_their_density(sick: Phantom, arrays: dict[str, np.ndarray]) -> None:
    free = (arrays["vessels"] == 0) & (arrays["airways"] == 0)
    mean = {t: arrays["ct"][(arrays["lesions"] == t) & free].mean() for t in LesionType}
    lung = arrays["ct"][(arrays["lobes"] > 0) & (arrays["lesions"] == 0) & free].mean()
    assert lung + 100 < mean[LesionType.GROUND_GLASS] < -300
    assert mean[LesionType.GROUND_GLASS] < mean[LesionType.MIXED] < mean[LesionType.CONSOLIDATION]


@pytest.mark.parametrize("first", [0, 3])
def test_fraction_inside_the_interval(first: int) -> None:
    scores = {lobe: (first + n) % 6 for n, lobe in enumerate(Lobe)}
    phantom = make_phantom(20 + first, 4.0, scores=scores)
    assert phantom.scores == scores
    for lobe, fraction in phantom.fractions.items():
        lower, upper = SCORE_INTERVALS[scores[lobe]]
        assert lower <= fraction <= upper
        assert fraction_to_score(fraction) == scores[lobe]


def test_airways_are_connected(arrays: dict[str, np.ndarray]) -> None:
    labels, count = ndimage.label(arrays["airways"] > 0, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    assert count >= 1
    assert sizes.max() > 0.9 * sizes.sum()


def test_config_changes_the_noise() -> None:
    quiet, loud = (
        make_phantom(5, 4.0, PhantomConfig(noise_hu=(n, n), motion_probability=0.0), scores={})
        for n in (5.0, 120.0)
    )
    np.testing.assert_array_equal(geometry.array(quiet.lobes), geometry.array(loud.lobes))
    difference = geometry.array(loud.ct).astype(float) - geometry.array(quiet.ct)
    inside = geometry.array(quiet.lobes) > 0
    assert 10 < difference[inside].std() < 120


def test_in_expiration_lungs_are_denser_and_most_so_at_the_back() -> None:
    breaths = [
        make_phantom(5, 4.0, PhantomConfig(expiration_probability=share), scores={})
        for share in (0.0, 1.0)
    ]
    inspiration, expiration = (geometry.array(phantom.ct) for phantom in breaths)
    np.testing.assert_array_equal(*(geometry.array(phantom.lobes) for phantom in breaths))
    np.testing.assert_array_equal(inspiration, geometry.array(make_phantom(5, 4.0, scores={}).ct))
    inside = geometry.array(breaths[0].lobes) > 0
    denser = expiration.astype(float) - inspiration
    rows = np.nonzero(inside)[1]
    front, back = np.percentile(rows, [20, 80])
    assert np.median(denser[inside]) > 20
    assert denser[inside][rows > back].mean() > denser[inside][rows < front].mean() + 5


def test_progress_rises_and_can_stop() -> None:
    seen: list[float] = []
    make_phantom(1, 6.0, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    def stop(fraction: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        make_phantom(1, 6.0, progress=stop)


@pytest.mark.parametrize("spacing", [0.0, -1.0, (1.0, 1.0), 50.0])
def test_impossible_spacing(spacing: object) -> None:
    with pytest.raises(ValueError, match="spacing"):
        make_phantom(0, spacing)  # type: ignore[arg-type]


def test_impossible_score() -> None:
    with pytest.raises(ValueError, match="severity score"):
        make_phantom(0, 6.0, scores={Lobe.RUL: 6})


# files


def test_write(sick: Phantom, tmp_path) -> None:
    folder = tmp_path / "ein Ordner ü"
    sick.write(folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [*(f"{name}.nii.gz" for name in IMAGES), "truth.json"]
    )
    for name in IMAGES:
        image = sitk.ReadImage(str(folder / f"{name}.nii.gz"))
        assert geometry.same_grid(image, sick.ct)
        np.testing.assert_array_equal(geometry.array(image), geometry.array(getattr(sick, name)))
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    assert truth["seed"] == 7
    assert truth["lobes"]["LLL"] == {
        "label": 2,
        "score": 5,
        "lesion_fraction": sick.fractions[Lobe.LLL],
    }


def test_write_whole_or_not_at_all(sick: Phantom, tmp_path, monkeypatch) -> None:
    write = sitk.WriteImage

    def full_disk(image: sitk.Image, name: str, **more: object) -> None:
        if "lesions" in name:
            raise OSError(28, "No space left on device")
        write(image, name, **more)

    monkeypatch.setattr(sitk, "WriteImage", full_disk)
    with pytest.raises(OutputError, match="the disk is full"):
        sick.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_phantom_is_frozen(sick: Phantom) -> None:
    with pytest.raises(AttributeError):
        sick.seed = 1  # type: ignore[misc]
    assert {f.name for f in fields(Phantom)} >= {*IMAGES, "fractions", "scores", "seed", "spacing"}


# lesions in any lung


def plain_lung() -> tuple[np.ndarray, np.ndarray]:
    """Two boxes of lung, one lobe each, in soft tissue, with a vessel through the left one."""
    ct = np.full((50, 50, 60), 40.0, dtype=np.float32)
    lobes = np.zeros(ct.shape, dtype=np.uint8)
    lobes[5:45, 5:45, 5:28] = Lobe.RLL
    lobes[5:45, 5:45, 32:55] = Lobe.LLL
    ct[lobes > 0] = -870.0
    ct[5:45, 24:26, 44:46] = 40.0
    return ct, lobes


@pytest.mark.parametrize("score", range(1, 6))
@pytest.mark.parametrize("seed", [0, 1])
def test_insert_into_a_plain_lung(score: int, seed: int) -> None:
    ct, lobes = plain_lung()
    before = ct.copy()
    scores = {Lobe.LLL: score}
    rng = np.random.default_rng(seed)
    result, types = insert_lesions(ct, lobes, None, None, (2.0, 2.0, 2.0), rng, scores)
    np.testing.assert_array_equal(ct, before)
    assert result.dtype == np.float32
    assert types.dtype == np.uint8
    lower, upper = score_to_interval(score)
    here = lobes == Lobe.LLL
    assert lower <= np.count_nonzero(types[here]) / np.count_nonzero(here) <= upper
    assert not types[~here].any()
    np.testing.assert_array_equal(result[lobes == Lobe.RLL], -870.0)
    air = here & (before < -800)
    raised = result[air & (types > 0)] - before[air & (types > 0)]
    assert raised.min() > -60
    assert raised.mean() > 100
    np.testing.assert_allclose(result[5:45, 24:26, 44:46], 40.0, atol=60)


def test_insert_is_reproducible_and_nothing_for_healthy() -> None:
    ct, lobes = plain_lung()
    scores = {Lobe.LLL: 3, Lobe.RLL: 2}
    first, second = (
        insert_lesions(ct, lobes, None, None, (2.0,) * 3, np.random.default_rng(5), scores)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    same, types = insert_lesions(ct, lobes, None, None, (2.0,) * 3, np.random.default_rng(5), {})
    np.testing.assert_array_equal(same, ct)
    assert not types.any()


def test_bronchi_stay_full_of_air() -> None:
    ct, lobes = plain_lung()
    airways = np.zeros(lobes.shape, dtype=np.uint8)
    airways[10:40, 34:37, 40:43] = 1
    ct[airways == 1] = -990.0
    result, types = insert_lesions(
        ct, lobes, None, airways, (2.0,) * 3, np.random.default_rng(2), {Lobe.LLL: 5}
    )
    np.testing.assert_allclose(result[airways == 1], -990.0)
    assert not types[airways == 1].any()


def test_lesions_prefer_back_and_pleura() -> None:
    depth, behind = [], []
    for seed in range(6):
        ct, lobes = plain_lung()
        _, types = insert_lesions(
            ct, lobes, None, None, (3.0,) * 3, np.random.default_rng(seed), {Lobe.LLL: 2}
        )
        here = lobes == Lobe.LLL
        distance = ndimage.distance_transform_edt(here)
        depth.append(distance[types > 0].mean() - distance[here].mean())
        behind.append(np.nonzero(types)[1].mean() - np.nonzero(here)[1].mean())
    assert np.mean(depth) < 0
    assert np.mean(behind) > 0


def test_shapes_must_agree() -> None:
    ct, lobes = plain_lung()
    with pytest.raises(ValueError, match="shape"):
        insert_lesions(ct, lobes[1:], None, None, (2.0,) * 3, np.random.default_rng(0), {})


def test_scores_follow_the_table_and_go_together() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([list(draw_scores(rng).values()) for _ in range(4000)])
    shares = np.bincount(drawn.ravel(), minlength=6) / drawn.size
    wanted = np.array(SCORE_COUNTS_TRAINING) / sum(SCORE_COUNTS_TRAINING)
    np.testing.assert_allclose(shares, wanted, atol=0.02)
    assert np.corrcoef(drawn[:, 0], drawn[:, 4])[0, 1] > 0.4


@pytest.mark.parametrize("score", range(6))
def test_drawn_fraction_has_the_score(score: int) -> None:
    rng = np.random.default_rng(score)
    fractions = [draw_fraction(rng, score) for _ in range(200)]
    assert {fraction_to_score(f) for f in fractions} == {score}


# the parts


def test_splines_reproduce_a_plane() -> None:
    grid = centred_grid((-20, -15, -10), (20, 15, 10), (1.5, 1.1, 0.9))
    nodes = lattice(grid, 4.0)
    z, y, x = nodes.mesh()
    values = to_grid(2.0 * x - y + 0.5 * z + 3.0, nodes, grid)
    z, y, x = grid.mesh()
    np.testing.assert_allclose(values, 2.0 * x - y + 0.5 * z + 3.0, atol=1e-3)


def test_splines_do_not_depend_on_the_part() -> None:
    grid = centred_grid((-20, -15, -10), (20, 15, 10), (1.5, 1.5, 1.5))
    nodes = lattice(grid, 4.0)
    values = np.random.default_rng(0).normal(size=nodes.shape)
    part = (slice(3, 9), slice(2, 11), slice(5, 6))
    whole = to_grid(values, nodes, grid)
    np.testing.assert_array_equal(whole[part], to_grid(values, nodes, grid.part(part)))


def test_box_finds_the_voxels() -> None:
    grid = Grid(np.arange(5.0), np.arange(6.0), np.arange(7.0))
    box = grid.box((1.5, -3.0, 2.0), (3.0, 0.5, 9.0))
    assert box == (slice(2, 5), slice(0, 1), slice(2, 4))


def test_distance_to_a_straight_tube() -> None:
    grid = Grid(np.arange(-10.0, 11.0), np.arange(-10.0, 11.0), np.arange(-10.0, 11.0))
    tube = Tube(np.array([[0.0, 0.0, -30.0], [0.0, 0.0, 30.0]]), np.array([2.0, 2.0]))
    distance = distance_to_tube(tube, grid, 50.0)
    _, y, x = grid.mesh()
    wanted = np.broadcast_to(np.hypot(x, y) - 2.0, grid.shape)
    np.testing.assert_allclose(distance, wanted, atol=1e-5)


@pytest.mark.parametrize("step", [0.7, 1.5, 3.0])
def test_thin_pipes_keep_their_volume(step: float) -> None:
    grid = centred_grid((-30, -30, -30), (30, 30, 30), (step,) * 3)
    start, end = np.array([[-15.0, 3.0, 2.0]]), np.array([[12.0, -9.0, 8.0]])
    radius = np.array([0.25])
    share = splat_segments(grid, start, 0.5 * (start + end), end, radius, radius)
    length = np.linalg.norm(end - start)
    assert share.sum() * step**3 == pytest.approx(np.pi * 0.25**2 * length, rel=0.01)


def test_tree_reaches_every_point() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-20.0, 20.0, (300, 3))
    tree = grow(
        rng,
        np.array([0.0, 0.0, 40.0]),
        np.array([0.0, 0.0, -1.0]),
        points,
        lambda places: np.ones(len(places), dtype=bool),
    )
    assert tree.leaves[np.all(tree.start == [0, 0, 40], axis=1)].sum() == 300
    ends = tree.end[tree.leaves == 1]
    nearest = np.linalg.norm(points[:, None] - ends[None], axis=2).min(axis=1)
    # the way to the last point wanders a little
    assert np.median(nearest) < 1.5
    assert np.all(tree.leaves <= tree.parent_leaves)
