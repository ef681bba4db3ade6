import csv
import io

import pytest

from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.tables import cell, csv_text, one_line, original
from Training.dataset.scores import read_scores, write_scores
from Training.learning.results import csv_table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1+1", "'=1+1"),
        ("\rx", "x"),
        (" =1", "'=1"),
        ("-", "-"),
        ("-12.5", "-12.5"),
        ("+1e3", "+1e3"),
        ("a\x1b[2Jb", "a [2Jb"),
        ("a\nb\x9bc", "a b c"),
        ("Größe -1", "Größe -1"),
        ("", ""),
    ],
)
def test_text_in_cells_is_no_formula_and_commands_no_terminal(text, shown):
    assert cell(text) == shown


@pytest.mark.parametrize("value", [-1, 2.5, -0.25, 0, True])
def test_numbers_stay_as_they_are(value):
    assert cell(value) is value
    assert cell(None) == ""


@pytest.mark.parametrize("text", ["=a", "-case", "@b", "'quoted", "''", "plain", "-", "'-", "-3"])
def test_what_was_made_harmless_is_found_again(text):
    assert original(str(cell(text))) == text


def test_a_table():
    rows = [{"a": "=x", "b": None, "c": 1}, {"a": 'say "a, b"'}]
    text = csv_text(("a", "b"), rows)
    assert text == 'a,b\n\'=x,\n"say ""a, b""",\n'
    assert list(csv.reader(io.StringIO(text)))[2] == ['say "a, b"', ""]


def test_one_line():
    assert one_line("a\r\n\x1b]0;title\x07b\u2028c") == "a ]0;title b c"


def test_tables_of_the_training_are_harmless_as_well(tmp_path):
    assert csv_table([{"set": "=HYPERLINK(1)", "dice": float("nan"), "n": -1}]) == (
        "set,dice,n\n'=HYPERLINK(1),,-1\n"
    )
    scores = dict.fromkeys(Lobe, 1) | {Lobe.RML: None}
    write_scores(tmp_path / "scores.csv", {"-case": scores})
    assert (tmp_path / "scores.csv").read_text().splitlines()[1] == "'-case,1,1,1,,1"
    assert read_scores(tmp_path / "scores.csv")[0] == {"-case": scores}
