"""Lesion types: eq. 6 and the vote by hand, statistics, the reference table and its errors."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from DRAMLesionLib.errors import InputError, WeightsError
from DRAMLesionLib.lesions.types import (
    Components,
    LesionType,
    ReferenceTable,
    TypeConfig,
    classify_lesions,
    find_components,
    kl_divergence,
    reference_rows,
    types_by_density,
    vote_types,
)

GGO, CONS, MIXED = (int(t) for t in LesionType)


def image(values: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> sitk.Image:
    result = sitk.GetImageFromArray(values)
    result.SetSpacing(spacing)
    return result


def component(volume: float, mean: float, sd: float) -> Components:
    none = np.zeros((0, 0, 0), dtype=np.int32)
    box = (slice(0, 0),) * 3
    return Components(none, box, np.array([volume]), np.array([mean]), np.array([sd]))


def table(*rows: tuple[float, float, float, int]) -> ReferenceTable:
    return ReferenceTable.from_components(rows, "made for a test")


# -- eq. 6 ----------------------------------------------------------------------------------------


def test_divergence_of_equal_gaussians_is_zero():
    assert kl_divergence(-500.0, 80.0, -500.0, 80.0) == pytest.approx(0.0)


def test_divergence_by_hand():
    # log(2 / 1) + (1 + 3^2) / (2 * 4) - 1/2
    assert kl_divergence(0.0, 1.0, 3.0, 2.0) == pytest.approx(math.log(2.0) + 1.25 - 0.5)
    # the other way round: log(1 / 2) + (4 + 9) / 2 - 1/2
    assert kl_divergence(3.0, 2.0, 0.0, 1.0) == pytest.approx(-math.log(2.0) + 6.5 - 0.5)


def test_divergence_agrees_with_torch():
    torch = pytest.importorskip("torch")
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(-620.0, 95.0), normal(-80.0, 160.0))
    assert kl_divergence(-620.0, 95.0, -80.0, 160.0) == pytest.approx(float(expected), rel=1e-5)


# -- the vote -------------------------------------------------------------------------------------


def test_shortlist_takes_the_nearest_in_volume_only():
    rows = [(1.0 + 0.1 * n, 0.0, 50.0, CONS) for n in range(10)]
    # the perfect match in HU is 11th in volume and must not vote
    rows.append((50.0, -600.0, 50.0, GGO))
    assert vote_types(component(1.0, -600.0, 50.0), table(*rows)) == [CONS]


def test_voters_are_the_nearest_by_divergence():
    near = [(1.0, -600.0 + n, 50.0, GGO) for n in range(3)]
    far = [(1.0, 0.0, 50.0, CONS)] * 7
    # five voters: three of ground glass with weights 5, 4, 3 against two with 2, 1
    assert vote_types(component(1.0, -600.0, 50.0), table(*near, *far)) == [GGO]


def test_ranks_weigh_the_votes():
    # divergences grow with the distance of the mean: ranks 1 and 2 (5 + 4 = 9) beat 3 others
    # (3 + 2 + 1 = 6) that would win by counting heads
    rows = [(1.0, -500.0, 50.0, MIXED), (1.0, -490.0, 50.0, MIXED)]
    rows += [(1.0, -400.0 + n, 50.0, CONS) for n in range(3)]
    assert vote_types(component(1.0, -500.0, 50.0), table(*rows)) == [MIXED]
    # ranks 1 and 4 (5 + 2 = 7) against 2, 3 and 5 (4 + 3 + 1 = 8)
    rows = [(1.0, -500.0, 50.0, MIXED), (1.0, -470.0, 50.0, MIXED)]
    rows += [(1.0, m, 50.0, CONS) for m in (-490.0, -480.0, -460.0)]
    assert vote_types(component(1.0, -500.0, 50.0), table(*rows)) == [CONS]


def test_numbers_of_the_vote_are_parameters():
    rows = [(1.0, -500.0, 50.0, GGO), (1.0, -480.0, 50.0, CONS), (1.0, -480.0, 50.0, CONS)]
    unknown = component(1.0, -500.0, 50.0)
    assert vote_types(unknown, table(*rows), TypeConfig(voters=1)) == [GGO]
    assert vote_types(unknown, table(*rows), TypeConfig(voters=3)) == [GGO]  # 3 against 2 + 1
    assert vote_types(unknown, table(*rows[1:], rows[0]), TypeConfig(shortlist=2)) == [CONS]


def test_tie_goes_to_the_smaller_value():
    rows = [(1.0, -480.0, 50.0, CONS), (1.0, -490.0, 50.0, CONS), (1.0, -500.0, 50.0, GGO)]
    # ranks: ground glass 3, consolidation 2 + 1
    assert vote_types(component(1.0, -500.0, 50.0), table(*rows)) == [GGO]


def test_table_smaller_than_the_shortlist():
    assert vote_types(component(3.0, 0.0, 10.0), table((1.0, -600.0, 80.0, GGO))) == [GGO]


def test_spread_of_zero_is_no_infinite_distance():
    rows = [(0.001, 10.0, 0.0, CONS), (0.001, -600.0, 0.0, GGO)]
    assert vote_types(component(0.001, -590.0, 0.0), table(*rows)) == [GGO]


def test_many_components_vote_as_one_by_one():
    rng = np.random.default_rng(7)
    known = table(
        *zip(
            rng.lognormal(0.0, 2.0, 60),
            rng.uniform(-800.0, 50.0, 60),
            rng.uniform(10.0, 250.0, 60),
            rng.integers(1, 4, 60),
            strict=True,
        )
    )
    volume, mean, sd = (
        rng.lognormal(0, 2, 5000),
        rng.uniform(-800, 50, 5000),
        rng.uniform(0, 250, 5000),
    )
    none = np.zeros((0, 0, 0), dtype=np.int32)
    together = vote_types(Components(none, (slice(0, 0),) * 3, volume, mean, sd), known)
    for n in range(0, 5000, 397):
        assert vote_types(component(volume[n], mean[n], sd[n]), known) == together[n]


# -- components -----------------------------------------------------------------------------------


def test_statistics_against_scipy():
    rng = np.random.default_rng(3)
    mask = ndimage.gaussian_filter(rng.normal(size=(30, 40, 50)), 2) > 0.08
    hu = rng.normal(-500.0, 200.0, mask.shape).astype(np.float32)
    found = find_components(
        image(hu, (0.7, 0.7, 2.0)), image(mask.astype(np.uint8), (0.7, 0.7, 2.0))
    )
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    assert len(found.volume_ml) == count > 5
    ours = np.zeros(mask.shape, dtype=int)
    ours[found.box] = found.labels
    for label in range(1, count + 1):
        place = ours[labels == label][0] - 1
        assert np.array_equal(ours == place + 1, labels == label)
        voxels = hu[labels == label].astype(float)
        assert found.volume_ml[place] == pytest.approx(len(voxels) * 0.7 * 0.7 * 2.0 / 1000.0)
        assert found.mean_hu[place] == pytest.approx(voxels.mean())
        assert found.sd_hu[place] == pytest.approx(voxels.std(), abs=1e-6)


def test_corners_connect():
    mask = np.zeros((3, 3, 3), dtype=np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = 1
    assert len(find_components(image(mask.astype(np.int16)), image(mask)).volume_ml) == 1


def test_vessels_count_for_the_volume_but_not_for_the_density():
    mask = np.zeros((4, 6, 6), dtype=np.uint8)
    mask[1:3, 1:5, 1:5] = 1
    vessel = np.zeros_like(mask)
    vessel[1:3, 2, :] = 1
    hu = np.where(vessel, 40, -600).astype(np.int16)
    found = find_components(image(hu), image(mask), image(vessel))
    assert found.volume_ml == pytest.approx([0.032])
    assert found.mean_hu == pytest.approx([-600.0])
    assert found.sd_hu == pytest.approx([0.0])
    # a component that is all vessel still has a density
    found = find_components(image(hu), image(mask), image(mask))
    assert found.mean_hu == pytest.approx([hu[mask > 0].mean()])


# -- classification -------------------------------------------------------------------------------


def test_each_component_gets_one_type():
    mask = np.zeros((12, 40, 40), dtype=np.uint8)
    mask[2:10, 2:12, 2:12] = 1
    mask[2:10, 20:30, 2:12] = 1
    mask[2:10, 20:30, 20:30] = 7
    hu = np.full(mask.shape, -850, dtype=np.int16)
    rng = np.random.default_rng(0)
    hu[:, :15, :15] = rng.normal(-620, 60, hu[:, :15, :15].shape)
    hu[:, 15:, :15] = rng.normal(20, 40, hu[:, 15:, :15].shape)
    hu[:, 15:, 15:25] = -600
    hu[:, 15:, 25:] = 0
    rows = [(0.8, -620.0 + n, 70.0, GGO) for n in range(5)]
    rows += [(0.8, 10.0 + n, 60.0, CONS) for n in range(5)]
    rows += [(0.8, -300.0 + n, 280.0, MIXED) for n in range(5)]
    result = sitk.GetArrayFromImage(
        classify_lesions(image(hu), image(mask), table(*rows), config=TypeConfig(shortlist=15))
    )
    assert result.dtype == np.uint8
    assert np.all(result[2:10, 2:12, 2:12] == GGO)
    assert np.all(result[2:10, 20:30, 2:12] == CONS)
    assert np.all(result[2:10, 20:30, 20:30] == MIXED)
    assert np.all(result[mask == 0] == 0)


def test_empty_mask_and_one_voxel():
    hu = np.full((4, 5, 6), -600, dtype=np.int16)
    mask = np.zeros(hu.shape, dtype=np.uint8)
    assert not sitk.GetArrayFromImage(classify_lesions(image(hu), image(mask))).any()
    mask[2, 2, 2] = 1
    result = sitk.GetArrayFromImage(
        classify_lesions(image(hu), image(mask), table((1.0, -600.0, 80.0, GGO)))
    )
    assert result.sum() == result[2, 2, 2] == GGO


def test_result_keeps_the_grid():
    ct = image(np.zeros((3, 4, 5), dtype=np.int16), (0.5, 0.6, 2.0))
    ct.SetOrigin((10.0, -20.0, 30.0))
    ct.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    lesions = sitk.Cast(ct == 0, sitk.sitkUInt8)
    result = classify_lesions(ct, lesions, table((1.0, 0.0, 10.0, CONS)))
    assert result.GetDirection() == ct.GetDirection()
    assert result.GetOrigin() == ct.GetOrigin()
    assert sitk.GetArrayFromImage(result).min() == CONS


def test_other_grid_is_refused():
    hu, mask = np.zeros((3, 4, 5), dtype=np.int16), np.zeros((3, 4, 6), dtype=np.uint8)
    with pytest.raises(InputError, match="lesion mask lies on another grid"):
        classify_lesions(image(hu), image(mask))
    with pytest.raises(InputError, match="vessel mask lies on another grid"):
        classify_lesions(image(hu), image(mask[:, :, :5]), exclude=image(mask))


# -- the reference table --------------------------------------------------------------------------


def test_rows_from_a_known_scan():
    types = np.zeros((6, 30, 10), dtype=np.uint8)
    types[1:5, 1:5, 1:9] = GGO
    types[1:5, 10:14, 1:9] = CONS
    types[1:5, 20:24, 1:5] = GGO  # half and half: confluent, so mixed
    types[1:5, 20:24, 5:9] = CONS
    hu = np.select([types == GGO, types == CONS], [-600, 0], -850).astype(np.int16)
    rows = reference_rows(image(hu), image(types))
    assert [row[3] for row in rows] == [GGO, CONS, MIXED]
    assert [row[1] for row in rows] == pytest.approx([-600.0, 0.0, -300.0])
    assert [row[2] for row in rows] == pytest.approx([0.0, 0.0, 300.0])
    assert [row[0] for row in rows] == pytest.approx([0.128] * 3)


@pytest.mark.parametrize(
    ("ground_glass", "consolidation", "expected"),
    [
        (100, 0, GGO),
        (85, 15, GGO),
        (84, 16, MIXED),
        (41, 59, MIXED),
        (40, 60, CONS),
        (0, 100, CONS),
    ],
)
def test_shares_decide_the_type_of_a_reference(ground_glass, consolidation, expected):
    types = np.array([GGO] * ground_glass + [CONS] * consolidation, dtype=np.uint8)[None, None]
    rows = reference_rows(image(np.zeros(types.shape, dtype=np.int16)), image(types))
    assert [row[3] for row in rows] == [expected]


def test_mixed_voxels_make_a_mixed_reference():
    types = np.array([GGO] * 50 + [MIXED] * 50, dtype=np.uint8)[None, None]
    rows = reference_rows(image(np.zeros(types.shape, dtype=np.int16)), image(types))
    assert [row[3] for row in rows] == [MIXED]


def test_density_tells_the_types_of_voxels():
    hu = np.full((5, 20, 9), -600, dtype=np.int16)
    hu[:, 10:] = 0
    hu[2, 4, 4] = 40  # noise
    lesions = np.ones(hu.shape, dtype=np.uint8)
    lesions[:, :, 0] = 0
    types = sitk.GetArrayFromImage(types_by_density(image(hu), image(lesions)))
    assert np.all(types[:, :9, 1:] == GGO)
    assert np.all(types[:, 11:, 1:] == CONS)
    assert not types[:, :, 0].any()


def test_rows_refuse_values_that_are_no_type():
    types = np.full((2, 2, 2), 4, dtype=np.uint8)
    with pytest.raises(InputError, match="map of lesion types"):
        reference_rows(image(np.zeros((2, 2, 2), dtype=np.int16)), image(types))


def test_table_survives_saving(tmp_path):
    before = table((0.5, -611.26, 71.0, GGO), (1234.5678, 12.0, 0.0, CONS), (3.0, -300.0, 250.0, 3))
    before.save(tmp_path / "table.json")
    after = ReferenceTable.load(tmp_path / "table.json")
    assert len(after) == 3
    assert after.source == "made for a test"
    assert after.types.tolist() == [GGO, CONS, MIXED]
    assert after.volume_ml == pytest.approx(before.volume_ml, rel=1e-5)
    assert after.mean_hu == pytest.approx(before.mean_hu, abs=0.06)
    assert after.sd_hu == pytest.approx(before.sd_hu, abs=0.06)


def test_shipped_table_knows_all_types():
    shipped = ReferenceTable.load()
    counts = np.bincount(shipped.types, minlength=4)[1:]
    assert counts.min() >= 20
    means = [shipped.mean_hu[shipped.types == t].mean() for t in (GGO, MIXED, CONS)]
    assert -800 < means[0] < means[1] < means[2] < 100


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((0.0, -600.0, 80.0, GGO), "volume above 0"),
        ((1.0, -600.0, -1.0, GGO), "standard deviation"),
        ((1.0, -600.0, 80.0, 4), "a type of 1, 2, 3"),
        ((1.0, -600.0, 80.0), "four numbers"),
        ((1.0, math.nan, 80.0, GGO), "four numbers"),
        ((1.0, "dense", 80.0, GGO), "four numbers"),
    ],
)
def test_impossible_rows_are_named(row, message):
    with pytest.raises(WeightsError, match=f"reference lesion 2.*{message}"):
        ReferenceTable.from_components([(1.0, -600.0, 80.0, GGO), row], "test")


def test_table_without_rows_is_refused():
    with pytest.raises(WeightsError, match="at least one component"):
        ReferenceTable.from_components([], "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1, 2]", "is no table of reference lesions"),
        (json.dumps({"format": "other"}), "is no table of reference lesions"),
        (json.dumps({"format": "dramlesion-lesion-types", "version": 99}), "version 99"),
        (json.dumps({"format": "dramlesion-lesion-types", "version": 1}), "no list 'components'"),
        (
            json.dumps({"format": "dramlesion-lesion-types", "version": 1, "components": [3]}),
            "four numbers",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path, text, message):
    file = tmp_path / "own.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        ReferenceTable.load(file)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(
        WeightsError, match=r"cannot read the table of reference lesions none\.json"
    ):
        ReferenceTable.load(tmp_path / "none.json")
