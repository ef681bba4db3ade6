"""Labels of regions, points and masks: read, checked against each other, put on working grids."""

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.reading.markups import Point, write_points
from Training.dataset.contradictions import check_labels
from Training.dataset.folder import find_cases
from Training.dataset.regions import Region, fit_shares
from Training.dataset.voxel_labels import is_axial, planes_of_slice, read_outlined, voxels_on
from Training.dataset.weak_labels import RegionLabel, read_region_labels

HEAD = "case,region,lower,upper\n"


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding="utf-8")
        table, problems = read_region_labels(path)
        return table, [str(problem) for problem in problems]

    return read


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ("a,lungs,30,", RegionLabel("lungs", 0.25, 0.35)),
        ("a,Left,30 %,", RegionLabel("left", 0.25, 0.35)),
        ("a,right,3,", RegionLabel("right", 0.0, 0.08)),
        ("a,scan,99,", RegionLabel("scan", 0.94, 1.0)),
        ("a,rul,10,25", RegionLabel("RUL", 0.10, 0.25)),
        ("a,lungs,0,0", RegionLabel("lungs", 0.0, 0.0)),
        ('a,lungs,"12,5",20', RegionLabel("lungs", 0.125, 0.20)),
        ("a,slice:40,diseased,", RegionLabel("slice:40", 0.001, 1.0)),
        ("a,Slice: 040,free,free", RegionLabel("slice:40", 0.0, 0.0)),
    ],
)
def test_every_way_to_write_a_label(row, label, read):
    table, problems = read(HEAD + row + "\n")
    assert problems == []
    (found,) = table["a"]
    assert found.region == label.region
    assert (found.lower, found.upper) == pytest.approx((label.lower, label.upper))


def test_a_step_takes_the_place_of_five_points_and_a_region_may_have_several(read):
    table, problems = read(
        "case,region,lower,upper,step\na,lungs,30,,10\na,left,30,,\na,left,diseased,,\na,left,30,,\n"
    )
    assert problems == []
    bounds = [(one.region, round(one.lower, 4), round(one.upper, 4)) for one in table["a"]]
    assert bounds == [("lungs", 0.2, 0.4), ("left", 0.25, 0.35), ("left", 0.001, 1.0)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,lungs,40,30", "the lower bound 40 of lungs lies above the upper one, 30 (labels.csv"),
        ("a,heart,40,50", "the region 'heart' is none of LUL, LLL, RUL, RML, RLL, left, right"),
        ("a,slice:-1,free,", "the region 'slice:-1' is none of"),
        ("a,lungs,140,", "the bound '140' of lungs is neither per cent (0 to 100) nor 'free'"),
        ("a,lungs,some,", "the bound 'some' of lungs is neither"),
        ("a,lungs,,30", "the bound '' of lungs is neither"),
        ("a,lungs,10,many", "the bound 'many' of lungs is neither"),
        ("a,lungs,free,10", "'free' of lungs leaves no place for the upper bound '10'"),
        ("a,lungs,1", "line 2 has 3 cells"),
        ("../a,lungs,1,2", "give its name alone"),
    ],
)
def test_a_row_that_is_no_label_is_named_and_gives_none(row, says, read):
    table, problems = read(f"{HEAD}{row}\nb,lungs,diseased,\n")
    assert set(table) == {"b"}
    (problem,) = problems
    assert problem.startswith("error: ")
    assert says in problem


def test_shares_written_as_fractions_are_told(read):
    _, problems = read(HEAD + "a,lungs,0.3,0.5\nb,left,free,\n")
    assert problems == [
        "note: labels.csv: no share is above 1: they are read as per cent, 0.3 as three in a "
        "thousand"
    ]
    assert read(HEAD + "a,lungs,0.3,5\n")[1] == []


def _scan(folder, name, kind="scans"):
    (folder / kind).mkdir(parents=True, exist_ok=True)
    path = folder / kind / f"{name}.nii.gz"
    path.write_bytes(b"")
    return path


def test_scores_may_be_missing_where_there_are_other_labels(tmp_path):
    for name in "abcde":
        _scan(tmp_path, name)
    (tmp_path / "labels.csv").write_text(HEAD + "a,lungs,30,\nz,lungs,30,\n")
    (tmp_path / "points").mkdir()
    write_points([Point((0.0, 0.0, 0.0), True)], tmp_path / "points" / "b.mrk.json")
    mask, label = _scan(tmp_path, "c", "masks"), _scan(tmp_path, "d", "pseudolabels")
    cases, problems = find_cases([tmp_path])
    assert [case.name for case in cases] == ["a", "b", "c", "d"]
    assert [case.has_scores for case in cases] == [False] * 4
    assert [case.outlined for case in cases] == [None, None, mask, label]
    assert cases[1].points == tmp_path / "points" / "b.mrk.json"
    said = "\n".join(map(str, problems))
    assert "error: e: has no row in" in said
    assert "and no label of another kind" in said
    assert "error: z: has labels but no scan" in said
    (tmp_path / "scores.csv").write_text("\n")
    assert [case.name for case in find_cases([tmp_path])[0]] == ["a", "b", "c", "d"]
    # a pseudo-label beside scores goes to the final network alone, as ever
    (tmp_path / "scores.csv").write_text("case,LUL,LLL,RUL,RML,RLL\nd,1,1,1,1,1\na,,,,,\n")
    cases = {case.name: case for case in find_cases([tmp_path])[0]}
    assert (cases["d"].outlined, cases["d"].label) == (None, label)
    assert set(cases) == {"a", "b", "c", "d"}


def test_without_any_label_the_scores_are_asked_for(tmp_path):
    _scan(tmp_path, "a")
    with pytest.raises(InputError, match=r"scores\.csv"):
        find_cases([tmp_path])


SHAPE = (10, 8, 12)


def _ct():
    image = sitk.Image(SHAPE[::-1], sitk.sitkInt16)
    image.SetSpacing((1.0, 1.0, 2.0))
    image.SetOrigin((5.0, -3.0, 100.0))
    return image


def _lobes():
    """LUL above LLL on one side, the right lobes in thirds on the other; nothing below."""
    lobes = np.zeros(SHAPE, dtype=np.uint8)
    lobes[6:, 2:6, 6:] = Lobe.LUL
    lobes[2:6, 2:6, 6:] = Lobe.LLL
    for n, lobe in enumerate((Lobe.RLL, Lobe.RML, Lobe.RUL)):
        lobes[2 + 2 * n : 4 + 2 * n, 2:6, :6] = lobe
    return lobes


NONE = dict.fromkeys(Lobe)


def _said(labels=(), scores=NONE, voxels=None, points=()):
    found = check_labels("a", _ct(), _lobes(), labels, scores, voxels, points)
    return [str(problem).removeprefix("note: a: ") for problem in found]


def _place(k, j, i):
    return _ct().TransformIndexToPhysicalPoint((i, j, k))


def test_labels_that_agree_have_nothing_said_about_them():
    labels = [
        RegionLabel("lungs", 0.25, 0.35),
        RegionLabel("left", 0.3, 0.4),
        RegionLabel("slice:4", 0.001, 1.0),
        RegionLabel("slice:3", 0.0, 0.0),
    ]
    scores = NONE | {Lobe.LUL: 3, Lobe.RUL: 0}
    mask = np.full(SHAPE, 255, dtype=np.uint8)
    mask[4, 2:6] = 1
    points = [Point(_place(4, 3, 8), True), Point(_place(5, 3, 8), False)]
    assert _said(labels, scores, mask, points) == []


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        (
            [RegionLabel("lungs", 0.5, 0.6), RegionLabel("scan", 0.1, 0.2)],
            {},
            "the label 'lungs 50 to 60 %' and the label 'scan 10 to 20 %' contradict each other",
        ),
        # LUL has four of the left lung's eight planes: half of 5 to 25 %
        (
            [RegionLabel("left", 0.6, 0.7)],
            {Lobe.LUL: 2, Lobe.LLL: 0},
            "left 60 to 70 %' contradicts the labels of its parts, which leave 2.5 to 12.5 % of",
        ),
        (
            [RegionLabel("lungs", 0.6, 0.7), RegionLabel("left", 0.0, 0.0)],
            {Lobe.RUL: 0},
            "lungs 60 to 70 %' contradicts the labels of its parts, which leave 0.0 to 28.6 % of",
        ),
        (
            [RegionLabel("lungs", 0.0, 0.0), RegionLabel("slice:4", 0.001, 1.0)],
            {},
            "'slice:4 diseased' lies in lobes that are said to be free of lesions",
        ),
        ([RegionLabel("slice:1", 0.001, 1.0)], {}, "slice:1, which has no lung: left out"),
        (
            [RegionLabel("slice:10", 0.0, 0.0)],
            {},
            "error: a: has a label of slice:10, but the CT has the slices 0 to 9",
        ),
    ],
)
def test_regions_that_contradict_each_other_are_named(labels, scores, says):
    said = _said(labels, NONE | scores)
    assert len(said) == 1
    assert says in said[0]


def test_points_and_masks_that_contradict_are_named():
    scores = NONE | {Lobe.LUL: 0, Lobe.LLL: 4}
    mask = np.full(SHAPE, 255, dtype=np.uint8)
    mask[2:6, 2:6, 6:] = 0
    points = [
        Point(_place(7, 3, 8), True),
        Point(_place(8, 3, 8), True),
        Point(_place(3, 3, 8), True),
        Point(_place(3, 3, 9), False),
        Point(_place(0, 0, 0), True),
        Point((5000.0, 0.0, 0.0), False),
    ]
    said = _said((), scores, mask, points)
    assert "a lesion point lies in a region without lesions, 'LUL free' (2 times)" in said
    assert "a lesion point lies where the mask says the opposite" in said
    assert "1 lesion points lie outside of the lungs and teach nothing" in said
    assert "1 background points lie outside of the lungs" in said
    assert "'LLL 50 to 75 %' contradicts the mask, which has 0.0 % of it" in said
    assert "its mask has no lesion (1); 255 means that nobody looked there" in said
    assert len(said) == 6


def test_tilted_slices_have_no_labels():
    ct = _ct()
    ct.SetDirection((1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0))
    assert not is_axial(ct)
    labels = [RegionLabel("slice:4", 0.0, 0.0)]
    (found,) = check_labels("a", ct, _lobes(), labels, NONE, None, [])
    assert found.fatal
    assert "do not lie across the patient's axis" in found.message


@pytest.mark.parametrize("spacing", [1.0, 3.0])
def test_slices_keep_their_place_on_the_grid_also_upside_down(spacing):
    ct = _ct()
    values = np.arange(SHAPE[0], dtype=np.int16)[:, None, None] * np.ones(SHAPE, dtype=np.int16)
    upright = geometry.image_like(values, ct)
    flipped = sitk.Flip(upright, [False, False, True])
    for image in (upright, flipped):
        stored = geometry.array(image)[:, 0, 0]
        grid = geometry.working_grid(image, spacing)
        seen = geometry.array(geometry.resample(image, grid, "nearest", fill=-1))[:, 1, 1]
        for k in (0, 4, 9):
            first, stop = planes_of_slice(image, k, grid)
            there = np.flatnonzero(seen == stored[k])
            # planes that are thicker than slices show a third of them: the nearest is taken
            assert stop - first == (2 if spacing == 1.0 else 1)
            assert first <= there[0] <= stop if there.size else True
            if spacing == 1.0:
                np.testing.assert_array_equal(there, np.arange(first, stop))


def test_points_are_painted_over_the_mask_on_any_grid():
    ct = _ct()
    mask = geometry.image_like(np.where(_lobes() == Lobe.LUL, 1, 0).astype(np.uint8), ct)
    points = [Point(_place(4, 3, 8), True), Point(_place(8, 3, 8), False)]
    found = voxels_on(ct, mask, [*points, Point((1e4, 0.0, 0.0), True)])
    expected = np.where(_lobes() == Lobe.LUL, 1, 0)
    expected[4, 3, 8], expected[8, 3, 8] = 1, 0
    np.testing.assert_array_equal(found, expected)
    grid = geometry.working_grid(ct, 1.5)
    alone = voxels_on(grid, None, points)
    for point in points:
        i, j, k = grid.TransformPhysicalPointToIndex(point.place)
        assert alone[k, j, i] == int(point.lesion)
    assert (alone != 255).sum() == 2


def test_masks_have_three_values(tmp_path):
    _scan(tmp_path, "a")
    (tmp_path / "masks").mkdir()
    path = tmp_path / "masks" / "a.nii.gz"
    values = np.zeros(SHAPE, dtype=np.uint8)
    values[0], values[1] = 1, 255
    sitk.WriteImage(geometry.image_like(values, _ct()), str(path))
    (case,), problems = find_cases([tmp_path])
    assert problems == []
    image, name = read_outlined(case)
    np.testing.assert_array_equal(geometry.array(image), values)
    assert name == "the mask a.nii.gz"
    sitk.WriteImage(geometry.image_like(values * 2, _ct()), str(path))
    with pytest.raises(InputError, match=r"the mask a\.nii\.gz has the values 2, 254; a mask has"):
        read_outlined(case)


def test_shares_of_lobes_are_brought_into_the_intervals_of_their_regions():
    shares = {Lobe.LUL: 0.2, Lobe.LLL: 0.4, Lobe.RUL: 0.5}
    voxels = {Lobe.LUL: 100, Lobe.LLL: 300, Lobe.RUL: 10}
    left = Region("left", 0.5, 0.6, (Lobe.LUL, Lobe.LLL))
    fitted = fit_shares(shares, voxels, [left, Region("RUL", 0.0, 0.1, (Lobe.RUL,))])
    # (100 * 0.2 + 300 * 0.4) / 400 = 0.35: both times 0.5 / 0.35
    assert fitted[Lobe.LUL] == pytest.approx(0.2 * 0.5 / 0.35)
    assert fitted[Lobe.LLL] == pytest.approx(0.4 * 0.5 / 0.35)
    assert fitted[Lobe.RUL] == 0.1
    nothing = fit_shares(dict.fromkeys(shares, 0.0), voxels, [left])
    assert nothing[Lobe.LUL] == nothing[Lobe.LLL] == 0.5
    one_slice = Region("slice:4", 0.9, 1.0, (Lobe.LUL,), (4, 5))
    assert fit_shares(shares, voxels, [one_slice]) == shares
