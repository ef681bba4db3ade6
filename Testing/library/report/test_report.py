"""The report: counting, the three files, and the right side of every picture."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from DRAMLesionLib.errors import ScanWarning
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions import severity
from DRAMLesionLib.lesions.types import LesionType
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.report.chart import bar_chart
from DRAMLesionLib.report.data import to_csv, to_json
from DRAMLesionLib.report.html import findings, to_html
from DRAMLesionLib.report.model import LESION_LABELS, Report, tabulate
from DRAMLesionLib.report.pictures import key_slices

VOXEL_ML = 0.5


def tiny() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Five lobes of 100 voxels (50 ml), two slices of each; no lesion in RUL."""
    lobes = np.zeros((10, 10, 6), np.uint8)
    lesions = np.zeros_like(lobes)
    vessels = np.zeros_like(lobes)
    for lobe in Lobe:
        lobes[2 * lobe - 2 : 2 * lobe, :, :5] = lobe
    lesions[0, :, 0] = 1  # LUL: 10 ground glass, 10 consolidation, 5 mixed
    lesions[0, :, 1] = 2
    lesions[0, :5, 2] = 3
    lesions[2, :3, 0] = 1  # LLL: 3
    lesions[6, 0, 0] = 3  # RML: 1, the border to score 1
    lesions[8:10, :, :5] = 2  # RLL: all
    lesions[:, :, 5] = 1  # outside the lobes
    vessels[0, :, 3] = 1  # LUL: 10
    vessels[0, :2, 0] = 1  # and 2 inside a lesion
    return lobes, lesions, vessels


def make_report(**changes: object) -> Report:
    lobes, lesions, vessels = tiny()
    missing = changes.pop("not_assessable", {})
    rows, totals = tabulate(
        lobes, lesions, VOXEL_ML, missing, changes.pop("confidence", None), vessels
    )
    report = Report(
        rows=rows,
        totals=totals,
        total_score=totals[-1].score,
        lobes_source="given",
        grid={"size": (6, 10, 10), "spacing_mm": (5.0, 10.0, 10.0)},
        version="1.2.3",
        created="2025-01-31",
        warnings=(ScanWarning("thick-slices", "The slices are 12 mm thick."),),
        parameters={"crf": {"sigma": 3.0}, "scales": (0.8, 1.0)},
        weights=({"name": "net.safetensors", "sha256": "ab12", "summary": {"data": "phantoms"}},),
        timings_s={"lobes": 1.25},
    )
    return replace(report, **changes)


class TestTabulate:
    def test_counts_worked_out_by_hand(self):
        report = make_report()
        lul, rll = report.row("LUL"), report.row("RLL")
        assert (lul.volume_ml, lul.lesion_ml, lul.vessel_ml) == (50.0, 12.5, 6.0)
        assert (lul.ground_glass_ml, lul.consolidation_ml, lul.mixed_ml) == (5.0, 5.0, 2.5)
        assert (lul.lesion_percent, lul.score) == (25.0, 3)
        assert (rll.lesion_ml, rll.lesion_percent, rll.score) == (50.0, 100.0, 5)
        assert [row.score for row in report.rows] == [3, 1, 0, 1, 5]
        assert [row.name for row in report.rows] == ["LUL", "LLL", "RUL", "RML", "RLL"]

    def test_totals_add_up_lobes_only(self):
        report = make_report()
        total = report.row("total")
        assert total.volume_ml == 250.0
        assert total.lesion_ml == pytest.approx(12.5 + 1.5 + 0.5 + 50.0)
        assert total.lesion_percent == pytest.approx(25.8)
        assert [row.score for row in report.totals] == [4, 6, 10]
        assert [row.max_score for row in report.totals] == [10, 15, 25]
        assert report.row("left lung").lesion_ml == 14.0

    def test_matches_a_plain_count_on_random_labels(self):
        rng = np.random.default_rng(5)
        lobes = rng.integers(0, 6, (4, 30, 31)).astype(np.int16)
        lesions = rng.integers(0, 4, lobes.shape).astype(np.uint8)
        vessels = rng.integers(0, 2, lobes.shape).astype(bool)
        rows, _ = tabulate(lobes, lesions, 2.0, vessels=vessels)
        for row in rows:
            inside = lobes == Lobe[row.name]
            assert row.volume_ml == 2.0 * inside.sum()
            assert row.mixed_ml == 2.0 * (inside & (lesions == 3)).sum()
            assert row.lesion_ml == 2.0 * (inside & (lesions > 0)).sum()
            assert row.vessel_ml == 2.0 * (inside & vessels).sum()

    def test_a_lobe_that_cannot_be_assessed_has_no_numbers_and_the_others_go_on(self):
        report = make_report(not_assessable={Lobe.RML: "it is cut off"})
        rml = report.row("RML")
        assert rml.status == "not assessable: it is cut off"
        assert rml.reason == "it is cut off"
        assert (rml.volume_ml, rml.lesion_ml, rml.lesion_percent, rml.score) == (None,) * 4
        assert report.row("left lung").score == 4
        right = report.row("right lung")
        assert (right.volume_ml, right.lesion_ml, right.score) == (100.0, 50.0, None)
        assert right.status == "partly assessed: without RML"
        assert report.total_score is None
        assert report.score_note == "no total, since RML could not be assessed"

    def test_an_absent_lobe_is_found_without_being_told(self):
        lobes, lesions, _ = tiny()
        lobes[lobes == Lobe.LLL] = 0
        rows, totals = tabulate(lobes, lesions, VOXEL_ML)
        assert rows[1].status == "not assessable: no voxel of this lobe in the scan"
        assert rows[0].vessel_ml is None
        assert totals[0].lesion_percent == 25.0

    def test_no_lobe_at_all(self):
        lobes = np.zeros((2, 3, 4), np.uint8)
        rows, totals = tabulate(lobes, lobes, VOXEL_ML)
        assert not any(row.assessed for row in (*rows, *totals))
        assert totals[2].status == "not assessable: none of its lobes could be assessed"

    @pytest.mark.parametrize(("lobe", "lesion"), [(6, 0), (0, 4), (-1, 0)])
    def test_foreign_labels_are_refused(self, lobe, lesion):
        lobes = np.full((1, 2, 2), lobe, np.int16)
        with pytest.raises(ValueError, match="labels must be"):
            tabulate(lobes, np.full((1, 2, 2), lesion, np.int16), 1.0)

    def test_an_interval_holds_what_is_reported_and_says_which_scores_it_reaches(self):
        lobes, lesions, _ = tiny()
        ends = {Lobe.LUL: (0.24, 0.31), Lobe.LLL: (0.035, 0.06), Lobe.RLL: (0.8, 0.9)}
        rows, totals = tabulate(lobes, lesions, VOXEL_ML, intervals=ends)
        lul, lll, rul, _, rll = rows
        assert (lul.lesion_percent_low, lul.lesion_percent_high) == (24.0, 31.0)
        assert (lul.score_low, lul.score_high, lul.scores) == (2, 3, "3 (2–3)")
        # 3 % were found, which the ends from the network's grid do not hold
        assert (lll.lesion_percent_low, lll.lesion_percent_high) == (3.0, 6.0)
        assert (rll.lesion_percent_high, rll.scores) == (100.0, "5")
        assert (rul.lesion_percent_low, rul.score_low, rul.scores) == (None, None, "0")
        assert all(row.lesion_percent_low is None for row in totals)

    def test_other_shapes_are_refused(self):
        with pytest.raises(ValueError, match="one shape"):
            tabulate(np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int), 1.0)


class TestFiles:
    def test_labels_are_those_of_the_type_map(self):
        names = {t.value: t.name.lower().replace("_", " ") for t in LesionType}
        assert names == LESION_LABELS

    def test_csv(self):
        report = make_report(not_assessable={Lobe.RML: "it is cut off"})
        text = to_csv(report)
        table = {line["lobe"]: line for line in csv.DictReader(io.StringIO(text))}
        assert list(table) == [*Lobe.__members__, "left lung", "right lung", "total"]
        assert table["LUL"]["lesion_ml"] == "12.5"
        assert table["LUL"]["lesion_percent"] == "25.0"
        assert table["LUL"]["score"] == "3"
        assert table["RML"]["score"] == table["RML"]["volume_ml"] == ""
        assert table["RML"]["status"] == "not assessable: it is cut off"
        assert "None" not in text
        assert "\r" not in text

    def test_intervals_are_in_all_three_files_and_nothing_where_there_are_none(self):
        lobes, lesions, vessels = tiny()
        ends = {Lobe.LUL: (0.24, 0.31)}
        rows, totals = tabulate(lobes, lesions, VOXEL_ML, None, None, vessels, ends)
        report = replace(make_report(), rows=rows, totals=totals)
        table = {line["lobe"]: line for line in csv.DictReader(io.StringIO(to_csv(report)))}
        columns = ("lesion_percent_low", "lesion_percent_high", "score_low", "score_high")
        assert [table["LUL"][name] for name in columns] == ["24.0", "31.0", "2", "3"]
        assert [table["LLL"][name] for name in columns] == [""] * 4
        assert [to_json(report)["lobes"][0][name] for name in columns] == [24.0, 31.0, 2, 3]
        page = to_html(report)
        assert "<small>24.0–31.0</small>" in page
        assert "3 (2–3)" in page
        assert "nine of ten lobes" in page
        assert "nine of ten lobes" not in to_html(make_report())

    def test_json_is_plain_and_complete(self):
        data = to_json(make_report())
        assert json.loads(json.dumps(data, allow_nan=False)) == data
        assert data["score"] == {
            "name": severity.TOTAL_SCORE_NAME,
            "value": 10,
            "max": 25,
            "note": "",
        }
        assert data["lobes"][0]["name"] == "LUL"
        assert data["lobes"][0]["consolidation_ml"] == 5.0
        assert data["totals"][2]["score"] == 10
        assert data["warnings"][0]["code"] == "thick-slices"
        assert data["weights"][0]["sha256"] == "ab12"
        assert data["parameters"]["scales"] == [0.8, 1.0]
        assert data["grid"]["size"] == [6, 10, 10]
        assert data["timings_s"] == {"lobes": 1.25}
        assert "Not a medical device" in data["notice"]

    def test_json_takes_numpy_and_drops_nan_and_folders(self, tmp_path):
        parameters = {
            "a": np.float32(0.5),
            "b": float("nan"),
            "c": np.arange(2),
            "weights": tmp_path / "Jane Doe" / "net.safetensors",
            "d": np.array([np.inf]),
        }
        data = to_json(make_report(parameters=parameters))
        json.dumps(data, allow_nan=False)
        assert data["parameters"] == {
            "a": 0.5,
            "b": None,
            "c": [0, 1],
            "weights": "net.safetensors",
            "d": [None],
        }


class Page(HTMLParser):
    """Collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


class TestPage:
    def test_loads_nothing_from_elsewhere(self, pictures):
        text = to_html(make_report(), pictures)
        page = Page(text)
        assert "http:" not in text
        assert "https:" not in text
        assert not page.all("script")
        assert not page.all("link")
        assert "@import" not in text
        assert "url(" not in text
        sources = [a[k] for _, a in page.tags for k in ("src", "href", "xlink:href") if k in a]
        assert sources
        assert all(s.startswith("data:image/png;base64,") for s in sources)
        assert len(text) < 3_000_000

    def test_says_what_a_reader_needs(self):
        text = Page(to_html(make_report(confidence={Lobe.RML: 0.44}))).text
        for words in (
            "Research use only. Not a medical device.",
            "CTSS (5 lobes × 0–5)",
            "The slices are 12 mm thick.",
            "Right middle lobe",
            "0.44",
            "1.2.3",
            "net.safetensors",
            "ab12",
            "crf.sigma",
            "0.8, 1.0",
            "lobes 1.2 s",
            "below 1 %",
            "75 % or more",
        ):
            assert words in text

    def test_estimated_lobes_are_named_as_such(self):
        assert "Estimated lobes" in to_html(make_report(lobes_source="estimated"))
        assert "found by lungmask" in to_html(make_report(lobes_source="lungmask"))
        assert "Estimated" not in to_html(make_report())

    def test_what_has_no_value_is_a_dash_with_its_reason(self):
        report = make_report(
            not_assessable={Lobe.RML: "it is cut off"}, confidence={Lobe.LUL: float("nan")}
        )
        text = Page(to_html(report)).text
        assert "not assessable: it is cut off" in text
        assert "no total, since RML could not be assessed" in text
        assert "– of 25" in re.sub(r"\s+", " ", text)
        assert not re.search(r"\b(nan|None|inf)\b", text)

    def test_whatever_is_given_stays_text(self):
        bad = "<script>alert('x')</script>"
        report = make_report(
            title=bad,
            warnings=(ScanWarning("x", bad),),
            not_assessable={Lobe.LUL: bad},
            parameters={bad: bad},
            weights=({"name": bad, "sha256": bad, "summary": bad},),
            lobes_source=bad,
        )
        text = to_html(report)
        assert "<script" not in text
        assert text.count("&lt;script&gt;") > 8

    def test_can_be_read_aloud(self, pictures):
        page = Page(to_html(make_report(), pictures))
        assert page.all("html") == [{"lang": "en"}]
        assert len(page.all("h1")) == 1
        assert all(image["alt"] for image in page.all("img"))
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert all(after - before <= 1 for before, after in pairwise(levels))
        ids = [a["id"] for _, a in page.tags if "id" in a]
        assert len(ids) == len(set(ids))
        wanted = [i for _, a in page.tags for i in (a.get("aria-labelledby") or "").split()]
        assert set(wanted) <= set(ids)
        assert all("scope" in head for head in page.all("th"))

    def test_is_a_page_without_pictures_too(self):
        assert "Key slices" not in to_html(make_report())

    def test_findings_in_words(self):
        text = findings(make_report()).replace("\u00a0", " ")
        assert text == (
            "Lesions take up 25.8 % of both lungs (64.5 of 250 ml), 10 % ground glass, 5 % mixed "
            "and 85 % consolidation. Most affected is the right lower lobe (100.0 %)."
        )

    def test_findings_of_healthy_lungs_and_of_none(self):
        lobes, _, _ = tiny()
        rows, totals = tabulate(lobes, np.zeros_like(lobes), VOXEL_ML)
        healthy = make_report(rows=rows, totals=totals, total_score=0)
        assert findings(healthy) == "No lesion was found in either lung."
        rows, totals = tabulate(np.zeros_like(lobes), np.zeros_like(lobes), VOXEL_ML)
        none = make_report(rows=rows, totals=totals, total_score=None)
        assert findings(none) == "No lobe could be assessed."
        assert Page(to_html(none)).text.count("not assessable") >= 8


class TestChart:
    def test_bars_are_as_long_as_their_shares(self):
        chart = bar_chart(make_report().rows)
        plot = chart.right - chart.left
        lul = chart.bars[0]
        assert [s.kind for s in lul.segments] == ["ground_glass", "mixed", "consolidation"]
        widths = [s.width / plot for s in lul.segments]
        assert widths == pytest.approx([0.10, 0.05, 0.10], abs=1e-3)
        assert lul.end - chart.left == pytest.approx(0.25 * plot, abs=0.1)
        assert chart.bars[2].segments == ()
        assert chart.ticks[-1].text == "100"

    def test_small_shares_get_a_short_axis(self):
        rows = [replace(row, lesion_percent=3.0) for row in make_report().rows]
        assert [tick.text for tick in bar_chart(rows).ticks] == ["0", "1", "5", "10"]


# ---- pictures: two box lungs, and in the right front upper part a cube that is brighter ----

MARK = np.array([-80.0, -40.0, 60.0])  # LPS mm
CUBE_MM = 24.0


def box_mask(
    points: tuple[np.ndarray, ...], lower: tuple[float, ...], upper: tuple[float, ...]
) -> np.ndarray:
    inside = [(lo < p) & (p < hi) for p, lo, hi in zip(points, lower, upper, strict=True)]
    return inside[0] & inside[1] & inside[2]


def make_scan(*cubes: np.ndarray, spacing: tuple[float, ...] = (4.0, 4.0, 4.0)) -> list[sitk.Image]:
    """Return CT, lobes, lesions (mixed) and dRAM, 280 × 200 × 240 mm around the origin."""
    edges = np.array([140.0, 100.0, 120.0])
    size = [round(2 * e / s) for e, s in zip(edges, spacing, strict=True)]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing(spacing)
    grid.SetOrigin((-edges + np.array(spacing) / 2).tolist())
    axes = [o + s * np.arange(n) for o, s, n in zip(grid.GetOrigin(), spacing, size, strict=True)]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    lobes = np.zeros(x.shape, np.uint8)
    lobes[box_mask((x, y, z), (-120, -80, 0), (-20, 80, 100))] = Lobe.RUL
    lobes[box_mask((x, y, z), (-120, -80, -100), (-20, 80, 0))] = Lobe.RLL
    lobes[box_mask((x, y, z), (20, -80, -100), (120, 80, 100))] = Lobe.LUL
    lesion = np.zeros(x.shape, bool)
    for centre in cubes:
        lesion |= box_mask((x, y, z), centre - CUBE_MM / 2, centre + CUBE_MM / 2)
    ct = np.where(lesion, -300, -900).astype(np.int16)
    arrays = (ct, lobes, lesion.astype(np.uint8) * 3, lesion.astype(np.float32))
    return [geometry.image_like(values, grid) for values in arrays]


@pytest.fixture(scope="module")
def pictures():
    return key_slices(*make_scan(MARK))


def oblique(image: sitk.Image) -> sitk.Image:
    """Store the image on axes turned by 20 degrees around z and 10 around x."""
    turn = sitk.Euler3DTransform((0.0, 0.0, 0.0), np.deg2rad(10), 0.0, np.deg2rad(20))
    grid = sitk.Image([84, 80, 74], sitk.sitkUInt8)
    grid.SetSpacing((4.0, 4.0, 4.0))
    grid.SetDirection(turn.GetMatrix())
    middle = np.array(grid.TransformContinuousIndexToPhysicalPoint([41.5, 39.5, 36.5]))
    grid.SetOrigin((-middle).tolist())
    nearest = image.GetPixelID() == sitk.sitkUInt8
    fill = -900 if image.GetPixelID() == sitk.sitkInt16 else 0
    kind = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    return sitk.Resample(image, grid, sitk.Transform(), kind, fill)


def coloured(data: bytes) -> np.ndarray:
    """Return the (row, column) places with colour; letters and CT are grey."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    return np.argwhere(pixels.max(axis=2) - pixels.min(axis=2) > 60)


# the pictures show the lungs and 12 mm more on every side; x from -132 to 132 mm is 480 pixels wide
MM_PER_PX = 264.0 / 480.0
EXPECTED = {  # column, row: right front upper is left, top; sagittal pictures have the front left
    "axial": ((-80 + 132) / MM_PER_PX, (-40 + 92) / MM_PER_PX),
    "coronal": ((-80 + 132) / MM_PER_PX, (112 - 60) / MM_PER_PX),
    "sagittal": ((-40 + 92) / MM_PER_PX, (112 - 60) / MM_PER_PX),
}


class TestPictures:
    @pytest.mark.parametrize("stored", ["LPS", "RAS", "RPI", "PIR", "SAL", "ASR", "LAI", "oblique"])
    def test_a_place_is_shown_at_one_place_however_it_is_stored(self, stored):
        images = make_scan(MARK)
        turned = [
            oblique(i) if stored == "oblique" else sitk.DICOMOrient(i, stored) for i in images
        ]
        limit = 4.0 if stored == "oblique" else 1.5
        pictures = [p for p in key_slices(*turned) if p.lesion_cm2 > 0]
        assert {p.plane for p in pictures} == set(EXPECTED)
        for picture in pictures:
            for data in (picture.outlined, picture.heat):
                places = coloured(data)
                middle = (places.min(axis=0) + places.max(axis=0)) / 2
                assert middle[::-1] == pytest.approx(EXPECTED[picture.plane], abs=limit)
            grey = np.asarray(Image.open(io.BytesIO(picture.outlined)).convert("L"))
            row, column = np.rint(middle).astype(int)
            assert grey[row, column] == pytest.approx(255 * 1050 / 1500, abs=3)
            assert grey[row + 60, column + 60] == pytest.approx(255 * 450 / 1500, abs=3)

    def test_millimetres_are_true_in_every_direction(self):
        for picture in key_slices(*make_scan(MARK, spacing=(2.0, 4.0, 8.0))):
            if picture.lesion_cm2:
                places = coloured(picture.outlined)
                extent = (places.max(axis=0) - places.min(axis=0)) * MM_PER_PX
                assert extent == pytest.approx([CUBE_MM, CUBE_MM], abs=4.0)

    def test_other_grids_for_masks_and_dram(self):
        ct, lobes, lesions, dram = make_scan(MARK)
        coarse = geometry.working_grid(ct, 5.0)
        others = [geometry.resample(i, coarse, "nearest") for i in (lobes, lesions)]
        dram = geometry.resample(dram, geometry.working_grid(ct, 3.0))
        picture = key_slices(ct, *others, dram)[0]
        middle = coloured(picture.heat).mean(axis=0)
        assert middle[::-1] == pytest.approx(EXPECTED["axial"], abs=4.0)

    def test_planes_with_most_lesion_are_chosen(self):
        low = np.array([-80.0, 40.0, -60.0])
        pictures = key_slices(*make_scan(MARK, low))
        axial = [p for p in pictures if p.plane == "axial"]
        assert len(axial) == 3
        assert [p.position_mm for p in axial] == sorted(
            (p.position_mm for p in axial), reverse=True
        )
        hit = [p for p in axial if p.lesion_cm2]
        assert [p.lesion_cm2 for p in hit] == [pytest.approx(5.76)] * 2
        assert abs(hit[0].position_mm - 60.0) < CUBE_MM / 2
        assert abs(hit[1].position_mm + 60.0) < CUBE_MM / 2
        assert hit[1].position == f"I {-hit[1].position_mm:.0f} mm"
        sagittal = [p for p in pictures if p.plane == "sagittal"]
        assert [p.lesion_cm2 for p in sagittal] == [pytest.approx(2 * 5.76)]
        assert sagittal[0].position.startswith("R ")

    def test_both_lungs_are_shown_where_both_are_affected(self):
        pictures = key_slices(*make_scan(MARK, -MARK))
        assert [p.position[0] for p in pictures if p.plane == "sagittal"] == ["R", "L"]

    def test_healthy_lungs_are_shown_in_their_middle(self):
        ct, lobes, lesions, _ = make_scan()
        pictures = key_slices(ct, lobes, lesions)
        assert [p.plane for p in pictures] == ["axial"] * 3 + ["coronal"] + ["sagittal"] * 2
        assert [p.position_mm for p in pictures[:3]] == pytest.approx([40, 0, -40], abs=2.1)
        assert all(p.heat is None and p.lesion_cm2 == 0 for p in pictures)
        assert all(coloured(p.outlined).size == 0 for p in pictures)

    def test_a_scan_without_any_lobe_is_still_drawn(self):
        ct, lobes, lesions, dram = make_scan()
        assert [p.plane for p in key_slices(ct, lobes * 0, lesions, dram)].count("axial") == 3

    def test_the_same_scan_gives_the_same_bytes(self, pictures):
        assert key_slices(*make_scan(MARK)) == pictures
