"""Lesion types: eq. 6 and the vote by hand, surroundings, the reference table and its errors."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, WeightsError
from DRAMLesionLib.lesions.types import (
    LesionType,
    ReferenceTable,
    TypeConfig,
    classify_lesions,
    kl_divergence,
    reference_rows,
    surroundings,
    type_of_lesion,
    vote_table,
)
from DRAMLesionLib.phantom import PhantomConfig, make_phantom

GGO, CONS, MIXED = (int(t) for t in LesionType)
CONFIG = TypeConfig()


def image(values: np.ndarray, spacing: tuple[float, float, float] = (1.5, 1.5, 1.5)) -> sitk.Image:
    result = sitk.GetImageFromArray(values)
    result.SetSpacing(spacing)
    return result


def table(*rows: tuple[float, float, int]) -> ReferenceTable:
    return ReferenceTable.from_rows(rows, "made for a test")


def vote(mean: float, sd: float, references: ReferenceTable, **numbers: float) -> int:
    """What is voted for surroundings of this mean (a multiple of 10) and deviation."""
    votes = vote_table(references, TypeConfig(**numbers))
    return int(votes[round((mean + 1000) / 10), round(sd / 10)])


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


def test_voters_are_the_nearest_by_divergence():
    near = [(-600.0 + n, 50.0, GGO) for n in range(3)]
    far = [(0.0, 50.0, CONS)] * 7
    # five voters: three of ground glass with weights 5, 4, 3 against two with 2, 1
    assert vote(-600, 50, table(*far, *near)) == GGO
    # the spread decides where the means are equal
    assert vote(-300, 200, table((-300.0, 40.0, GGO), (-300.0, 200.0, MIXED)), voters=1) == MIXED


def test_ranks_weigh_the_votes():
    # nearest two CONS (5 + 4) against three GGO (3 + 2 + 1)
    rows = [
        (-600.0, 50.0, CONS),
        (-601.0, 50.0, CONS),
        *[(-620.0 - n, 50.0, GGO) for n in range(3)],
    ]
    assert vote(-600, 50, table(*rows)) == CONS
    # 5 + 1 against 4 + 3 + 2
    rows = [
        (-600.0, 50.0, CONS),
        *[(-603.0 - n, 50.0, GGO) for n in range(3)],
        (-650.0, 50.0, CONS),
    ]
    assert vote(-600, 50, table(*rows)) == GGO
    assert vote(-600, 50, table(*rows), voters=1) == CONS


def test_tie_goes_to_the_smaller_value():
    # ranks 3 against 2 + 1
    rows = [(-600.0, 50.0, MIXED), (-610.0, 50.0, CONS), (-611.0, 50.0, CONS)]
    assert vote(-600, 50, table(*rows), voters=3) == CONS


def test_spread_of_zero_is_no_infinite_distance():
    assert vote(-600, 0, table((-600.0, 0.0, GGO), (0.0, 0.0, CONS)), voters=1) == GGO


# -- surroundings ---------------------------------------------------------------------------------


def ball(centre: tuple[int, int, int], radius: float, shape: tuple[int, int, int]) -> np.ndarray:
    mesh = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return sum((m - c) ** 2 for m, c in zip(mesh, centre, strict=True)) <= radius**2


def test_surroundings_against_plain_numbers():
    rng = np.random.default_rng(4)
    hu = rng.normal(-500.0, 120.0, (20, 20, 20)).astype(np.float32)
    whole = np.ones(hu.shape, np.uint8)
    around = surroundings(image(hu), image(whole))
    # the grid reaches one window beyond the lesion on each side, which is 7 voxels
    assert around.lesion.sum() == whole.sum()
    place = tuple(np.argwhere(around.lesion).min(axis=0) + 10)
    cube = hu[7:14, 7:14, 7:14]
    assert around.mean_hu[place] == pytest.approx(cube.mean(), abs=0.1)
    assert around.sd_hu[place] == pytest.approx(cube.std(), abs=0.1)


def test_rim_and_vessels_do_not_count():
    shape = (40, 40, 40)
    lesion = ball((20, 20, 20), 12, shape)
    core = ball((20, 20, 20), 11, shape)
    hu = np.where(lesion, np.where(core, -600.0, -800.0), -870.0).astype(np.float32)
    vessel = np.zeros(shape, bool)
    vessel[:, 19:21, 19:21] = True
    hu[vessel & lesion] = 50.0
    known = surroundings(image(hu), image(lesion.astype(np.uint8)), image(vessel.astype(np.uint8)))
    here = known.lesion & np.isfinite(known.mean_hu)
    assert here.sum() == known.lesion.sum() == lesion.sum()
    # in the outermost corners of the lesion there is nothing else
    assert np.percentile(known.sd_hu[here], 90) < 40.0
    assert abs(np.median(known.mean_hu[here]) + 600.0) < 10.0
    seen = surroundings(image(hu), image(lesion.astype(np.uint8)))
    assert seen.sd_hu[seen.lesion].max() > 150.0


# -- lesions --------------------------------------------------------------------------------------

REFERENCES = (
    *[(-600.0 + n, 60.0, GGO) for n in range(5)],
    *[(20.0 + n, 60.0, CONS) for n in range(5)],
    *[(-300.0 + n, 250.0, MIXED) for n in range(5)],
)


def test_one_lesion_holds_two_types():
    shape = (30, 30, 80)
    lesion = np.zeros(shape, np.uint8)
    lesion[5:25, 5:25, 5:75] = 1
    hu = np.full(shape, -870, np.int16)
    hu[5:25, 5:25, 5:40], hu[5:25, 5:25, 40:75] = -600, 20
    types = sitk.GetArrayFromImage(classify_lesions(image(hu), image(lesion), table(*REFERENCES)))
    assert ((types > 0) == (lesion > 0)).all()
    assert (types[5:25, 5:25, 5:33] == GGO).all()
    assert (types[5:25, 5:25, 47:75] == CONS).all()


def test_islands_vanish():
    shape = (40, 40, 40)
    lesion = ball((20, 20, 20), 15, shape)
    hu = np.where(lesion, -600, -870).astype(np.int16)
    hu[ball((20, 20, 20), 1.5, shape)] = 20
    types = classify_lesions(image(hu), image(lesion.astype(np.uint8)), table(*REFERENCES))
    assert set(np.unique(sitk.GetArrayFromImage(types)[lesion])) == {GGO}


def test_empty_mask_and_one_voxel():
    hu = image(np.full((12, 12, 12), -600, np.int16), (0.7, 0.7, 5.0))
    nothing = classify_lesions(hu, image(np.zeros((12, 12, 12), np.uint8), (0.7, 0.7, 5.0)))
    assert not sitk.GetArrayFromImage(nothing).any()
    one = np.zeros((12, 12, 12), np.uint8)
    one[6, 6, 6] = 1
    typed = classify_lesions(hu, image(one, (0.7, 0.7, 5.0)), table(*REFERENCES))
    assert sitk.GetArrayFromImage(typed).sum() == GGO


def test_result_keeps_the_grid():
    hu = image(np.full((20, 30, 25), -600, np.int16), (0.8, 0.9, 3.0))
    hu.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    hu.SetOrigin((3.0, -20.0, 100.0))
    mask = sitk.Cast(hu < 0, sitk.sitkUInt8)
    typed = classify_lesions(hu, mask, table(*REFERENCES))
    assert typed.GetPixelID() == sitk.sitkUInt8
    assert (typed.GetSize(), typed.GetOrigin(), typed.GetDirection(), typed.GetSpacing()) == (
        hu.GetSize(), hu.GetOrigin(), hu.GetDirection(), hu.GetSpacing()
    )  # fmt: skip
    assert (sitk.GetArrayFromImage(typed) == GGO).all()


def test_other_grid_is_refused():
    hu = image(np.zeros((9, 9, 9), np.int16))
    other = image(np.ones((9, 9, 8), np.uint8))
    with pytest.raises(InputError, match="lesion mask lies on another grid"):
        classify_lesions(hu, other)
    with pytest.raises(InputError, match="vessel mask lies on another grid"):
        classify_lesions(hu, image(np.ones((9, 9, 9), np.uint8)), vessels=other)


def test_shipped_table_tells_the_types_of_a_phantom():
    """One scan of a seed that the table has not seen; the results page has twenty."""
    phantom = make_phantom(95_003, 3.0, PhantomConfig(consolidation=(0.3, 0.6)))
    truth = sitk.GetArrayFromImage(phantom.lesions)
    found = sitk.GetArrayFromImage(
        classify_lesions(phantom.ct, phantom.lesions, vessels=phantom.vessels)
    )
    assert ((found > 0) == (truth > 0)).all()
    here = truth > 0
    assert np.mean(found[here] == truth[here]) > 0.75


@pytest.mark.parametrize(
    ("ground_glass", "consolidation", "expected"),
    [(90, 10, GGO), (84, 16, MIXED), (40, 60, CONS), (41, 59, MIXED), (0, 10, CONS)],
)
def test_shares_decide_the_type_of_a_whole_lesion(ground_glass, consolidation, expected):
    assert type_of_lesion(np.array([0, ground_glass, consolidation, 0])) == expected


# -- the table ------------------------------------------------------------------------------------


def test_rows_from_a_known_scan():
    hu = np.full((20, 20, 60), -870, np.int16)
    kinds = np.zeros(hu.shape, np.uint8)
    kinds[2:18, 2:18, 2:18], hu[2:18, 2:18, 2:18] = GGO, -600
    kinds[2:18, 2:18, 40:56], hu[2:18, 2:18, 40:56] = CONS, 20
    rows = reference_rows(image(hu), image(kinds))
    assert rows.shape == (2 * 16**3, 3)
    for kind, mean in ((GGO, -600.0), (CONS, 20.0)):
        own = rows[rows[:, 2] == kind]
        assert len(own) == 16**3
        assert np.allclose(own[:, 0], mean, atol=1.0)
    assert reference_rows(image(hu), image(kinds * 0)).shape == (0, 3)


def test_rows_refuse_values_that_are_no_type():
    with pytest.raises(InputError, match="holds 0 to 3, not 0–7"):
        reference_rows(
            image(np.zeros((5, 5, 5), np.int16)),
            image(np.arange(125, dtype=np.uint8).reshape(5, 5, 5) % 8),
        )


def test_table_survives_saving(tmp_path):
    made = table((-600.5, 60.1, GGO), (10.0, 0.0, CONS))
    made.save(tmp_path / "t.json")
    again = ReferenceTable.load(tmp_path / "t.json")
    assert again.source == "made for a test"
    assert again.mean_hu.tolist() == [-600.5, 10.0]
    assert again.sd_hu.tolist() == [60.1, 0.0]
    assert again.types.tolist() == [GGO, CONS]


def test_shipped_table_knows_all_types():
    shipped = ReferenceTable.load()
    assert [int((shipped.types == kind).sum()) for kind in LesionType] == [150, 150, 150]
    assert "phantoms" in shipped.source


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((-600.0, 50.0), "reference 1 must be three numbers"),
        ((-600.0, float("nan"), GGO), "reference 1 must be three numbers"),
        (("a", 50.0, GGO), "reference 1 must be three numbers"),
        ((-600.0, -1.0, GGO), "needs a standard deviation of at least 0"),
        ((-600.0, 50.0, 4), "a type of 1, 2, 3"),
    ],
)
def test_impossible_rows_are_named(row, message):
    with pytest.raises(WeightsError, match=message):
        table(row)


def test_table_without_rows_is_refused():
    with pytest.raises(WeightsError, match="needs at least one row"):
        table()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "its format is not"),
        (json.dumps({"format": "dramlesion-lesion-types", "version": 1}), "has version 1"),
        (json.dumps({"format": "dramlesion-lesion-types", "version": 2}), "no list 'rows'"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, message):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match=message):
        ReferenceTable.load(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(
        WeightsError, match=r"cannot read the table of reference lesions none\.json"
    ):
        ReferenceTable.load(tmp_path / "none.json")
