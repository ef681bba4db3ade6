import csv
import html.parser
import io
import json
import re

import pytest
import SimpleITK as sitk

from DRAMLesionLib import __main__ as command_line
from DRAMLesionLib import writing
from DRAMLesionLib.followup import compare as comparing
from DRAMLesionLib.followup import data, output, page
from Testing.library.followup.pairs import timepoint, write_results

FILES = {"comparison.html", "comparison.json", "lobes.csv", "lesions.csv"}


@pytest.fixture(scope="module")
def folders(pair, tmp_path_factory):
    """Results of both scans of the pair, and their CTs."""
    folder = tmp_path_factory.mktemp("zwei Zeiten")
    for phantom, name in zip(pair, ("earlier", "later"), strict=True):
        sitk.WriteImage(phantom.ct, str(folder / f"{name} ct.nii.gz"))
        write_results(folder / name, timepoint(phantom))
    return folder


@pytest.fixture
def known(monkeypatch, compared):
    """The registration of the pair is not computed again."""
    monkeypatch.setattr(comparing, "register", lambda *_: compared[1])


def run(folders, out, *more):
    return command_line.main(
        [
            "compare",
            str(folders / "earlier"),
            str(folders / "later"),
            *("--earlier-ct", str(folders / "earlier ct.nii.gz")),
            *("--later-ct", str(folders / "later ct.nii.gz")),
            *("-o", str(out)),
            *more,
        ]
    )


def names(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


class TestCommand:
    def test_everything_is_written(self, folders, known, compared, tmp_path, capsys):
        assert run(folders, tmp_path / "out") == 0
        assert names(tmp_path / "out") == FILES
        said = capsys.readouterr().out
        assert "note: The lungs hold" in said
        assert page.findings(compared[0]) in said
        assert re.search(r"1 new|[2-9] new", said)
        text = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
        assert "zwei Zeiten" not in text

    def test_progress_as_json(self, folders, known, tmp_path, capsys):
        assert run(folders, tmp_path / "out", "--json-progress") == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [*dict.fromkeys(line["stage"] for line in lines)] == [
            "read",
            "earlier",
            "later",
            "compare",
            "write",
        ]
        fractions = [line["fraction"] for line in lines]
        assert fractions == sorted(fractions)

    def test_a_folder_with_results_of_one_ct_is_spared(self, folders, capsys):
        before = (folders / "earlier" / "report.json").read_bytes()
        assert run(folders, folders / "earlier") == 1
        assert "lobes.csv would be replaced" in capsys.readouterr().err
        assert (folders / "earlier" / "report.json").read_bytes() == before
        assert "comparison.json" not in names(folders / "earlier")

    def test_one_ct_twice_is_told_before_anything_is_computed(self, folders, tmp_path, capsys):
        ct = str(folders / "earlier ct.nii.gz")
        assert command_line.main(["compare", ct, ct, "-o", str(tmp_path / "out")]) == 1
        assert "are the same, voxel by voxel" in capsys.readouterr().err
        assert names(tmp_path / "out") == set()

    def test_ctrl_c_leaves_nothing(self, folders, tmp_path, monkeypatch, capsys):
        def stopped(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(comparing, "register", stopped)
        assert run(folders, tmp_path / "out") == 130
        assert "stopped; nothing was written" in capsys.readouterr().err
        assert names(tmp_path / "out") == set()

    def test_whole_or_not_at_all(self, folders, known, tmp_path, monkeypatch, capsys):
        assert run(folders, tmp_path) == 0
        before = {name: (tmp_path / name).read_bytes() for name in FILES}

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(writing, "write_json", full)
        assert run(folders, tmp_path) == 1
        assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
        assert capsys.readouterr().err.count("\n") == 1


class TestTables:
    def test_json_is_plain_and_csv_says_the_same(self, compared):
        comparison = compared[0]
        content = data.to_json(comparison)
        assert json.loads(json.dumps(content, allow_nan=False)) == content
        table = list(csv.DictReader(io.StringIO(data.lobes_csv(comparison))))
        assert [row["lobe"] for row in table] == [row.name for row in comparison.lobes]
        by_name = {row["lobe"]: row for row in table}
        change = comparison.lobe("LLL").lesion
        assert float(by_name["LLL"]["lesion_change_ml"]) == pytest.approx(change.ml, abs=1e-3)
        assert by_name["LLL"]["lesion_verdict"] == "grown"
        assert by_name["LUL"]["earlier_percent"] == "0.0"
        rows = list(csv.DictReader(io.StringIO(data.lesions_csv(comparison))))
        assert len(rows) == len(comparison.lesions) == len(content["lesions"])
        assert rows[0]["change"] == comparison.lesions[0].words
        assert float(rows[0]["later_z_mm"]) == content["lesions"][0]["later_mm"][2]


class _Page(html.parser.HTMLParser):
    """Collects what a page loads, and checks that its elements are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


class TestPage:
    def test_it_is_one_whole_page_that_loads_nothing(self, pair, compared):
        scans = [timepoint(phantom) for phantom in pair]
        shots = page.pairs(*compared[:1], *scans, compared[1])
        parsed = _Page()
        parsed.feed(page.to_html(compared[0], shots))
        assert parsed.open == []
        assert len(parsed.sources) == 2 * len(shots)
        assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)

    def test_both_pictures_of_a_pair_show_the_same_place(self, pair, compared):
        comparison, found = compared
        scans = [timepoint(phantom) for phantom in pair]
        first = page.pairs(comparison, *scans, found)[0]
        lesion = comparison.lesions[0]
        assert first.earlier.plane == first.later.plane == "axial"
        assert first.earlier.position_mm == pytest.approx(lesion.earlier_mm[2])
        assert first.later.position_mm == pytest.approx(lesion.later_mm[2])
        assert first.later.position_mm != pytest.approx(first.earlier.position_mm)
        assert 1 in first.numbers

    def test_figures_of_the_lobes_stand_on_it(self, compared):
        text = page.to_html(compared[0], [])
        change = compared[0].lobe("LLL").lesion
        assert f"{change.earlier_ml:.1f} → {change.later_ml:.1f}" in text
        assert f"{change.ml:+.1f} ± {change.uncertainty_ml:.1f}" in text
        assert "None" not in text


def test_a_folder_in_the_way_is_told_before_the_computing(tmp_path):
    (tmp_path / "lobes.csv").mkdir()
    with pytest.raises(output.OutputError, match="a folder stands where a file should be"):
        output.check_output(tmp_path)
