"""Score tables as people's programs write them: the right value, or a problem with its place."""

import codecs
import unicodedata

import pytest

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe
from Testing.library.mutation import damaged, seeded
from Training.dataset.folder import find_cases
from Training.dataset.scores import read_scores, write_scores

HEAD = "case,LUL,LLL,RUL,RML,RLL\n"
FIVE = dict(zip(Lobe, (1, 5, 2, 0, 3), strict=True))


@pytest.fixture
def read(tmp_path):
    def read(text, encoding="utf-8"):
        path = tmp_path / "scores.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        table, problems = read_scores(path)
        return table, [str(problem) for problem in problems]

    return read


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "a,1,5,2,0,3\n",
        HEAD + "a,1,5,2,0,3",
        HEAD.replace("\n", "\r\n") + "a,1,5,2,0,3\r\n\r\n,,,,,\r\n",
        HEAD.replace("\n", "\r") + "a,1,5,2,0,3\r",
        HEAD.replace(",", ";") + "a;1;5;2;0;3\n",
        HEAD.replace(",", ";") + "a;1,0;5,0;2,00;0,0;3,0\n",
        HEAD.replace(",", "\t") + "a\t1\t5\t2\t0\t3\n",
        HEAD + 'a,1.0,5.0,2.00,0.0,"3,0"\n',
        "sep=;\n" + HEAD.replace(",", ";") + "a;1;5;2;0;3\n",
        HEAD.replace("\n", ",note,\n") + 'a,1,5,2,0,3,"two\nlines, a comma",\n',
        "RLL, RML,RUL,LLL,LUL ,note,case\n3,0,2,5,1,x, a \n",
        "\n\n" + HEAD + "\na, 1, 5, 2, 0, 3\n",
    ],
)
def test_the_same_scores_however_a_spreadsheet_writes_them(text, read):
    assert read(text) == ({"a": FIVE}, [])


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF8])
def test_marks_of_unicode_are_known(mark, read):
    encodings = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
    text = HEAD.replace(",", "\t") + "Müller\t1\t5\t2\t0\t3\n"
    table, problems = read(mark + text.encode(encodings.get(mark, "utf-8")))
    assert (table, problems) == ({"Müller": FIVE}, [])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,1,5,2,0,3,0", "scores.csv: line 2 has 7 cells, but the first line has 6: is a separ"),
        ("a,1,0,5,0,2,0,0,0,3,0", "line 2 has 11 cells"),
        ("a,1,5,2,0,3,", "line 2 has 7 cells"),
        ("a,1,5,2,0", "line 2 has 5 cells"),
        ("a;1;5;2;0;3", "line 2 has 1 cells"),
    ],
)
def test_a_row_that_does_not_fit_the_columns_gives_no_score(row, says, read):
    table, problems = read(HEAD + row + "\nb,1,1,1,1,1\n")
    assert table.pop("b") == dict.fromkeys(Lobe, 1)
    assert all(scores == dict.fromkeys(Lobe) for scores in table.values())
    assert len(problems) == 1
    assert problems[0].startswith("error: ")
    assert says in problems[0]


@pytest.mark.parametrize(
    "text", ["6", "-1", "2.5", "2,5", "1e0", "１", "0_3", "+3", "03", "x" * 500, "=1", "1 2", "³"]
)
def test_a_score_that_is_none_names_line_and_column(text, read):
    table, problems = read(f'{HEAD}b,1,1,1,1,1\na,1,1,"{text}",1,1\n')
    assert table["a"][Lobe.RUL] is None
    (problem,) = problems
    assert problem.startswith("error: a: the score of the right upper lobe is '")
    assert problem.endswith("not a whole number 0 to 5 (scores.csv, line 3, column RUL)")
    assert len(problem) < 200


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "names no case"),
        ("../a", "has the case '../a': give its name alone, without folders"),
        ("x\\a", "give its name alone"),
        (".a", "begins with a dot as hidden files do"),
        ("..", "begins with a dot"),
        ('"a\nb"', "line break or another control character"),
        ("a" * 300, "more than 200 letters"),
    ],
)
def test_what_is_no_name_of_a_case_is_told(name, says, read):
    table, problems = read(f"{HEAD}{name},1,1,1,1,1\nb,1,1,1,1,1\n")
    assert set(table) == {"b"}
    (problem,) = problems
    assert problem.startswith("error: scores.csv: line 2 ")
    assert says in problem
    assert len(problem) < 200


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "RLL: it lacks case, LUL, LLL, RUL, RML, RLL; it has nothing"),
        ("case,LUL,LLL,RUL,RML\na,1,1,1,1\n", "it lacks RLL; it has case, LUL"),
        ("case|LUL|LLL|RUL|RML|RLL\n", "between the cells are commas, semicolons or tabs"),
        (HEAD.replace("\n", ",LUL\n") + "a,1,5,2,0,3,4\n", "has the column LUL 2 times: keep one"),
        (HEAD + 'b,1,1,1,1,1\n"a,1,1,1,1,1\n', "begins in line 3 cannot be read: a quotation mark"),
        (HEAD + '"' + "a\n" * 200_000, "begins in line 2 cannot be read: a quotation mark has no"),
        (HEAD + 'a"b"c,"1"2,1,1,1,1\n', "begins in line 2 cannot be read"),
        (
            HEAD.encode() + b"M\xfcller,1,1,1,1,1\n",
            "line 2 is no UTF-8 text; save it as 'CSV UTF-8'",
        ),
        (HEAD + "a,1,\0,1,1,1\n", "line 2 has a NUL character"),
        (HEAD.encode("utf-16-le"), "line 1 has a NUL character"),
        (codecs.BOM_UTF16_LE + b"x", "is no UTF-8 text"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(text, says, read):
    with pytest.raises(InputError, match=says):
        read(text)


def test_a_missing_table_and_a_huge_one_are_refused(tmp_path):
    path = tmp_path / "scores.csv"
    with pytest.raises(InputError, match=r"the table with the columns case, LUL.*: No such file"):
        read_scores(path)
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(InputError, match="has 1024 MB: it is no table"):
        read_scores(path)


def test_two_rows_of_one_case_are_told_also_in_two_spellings(read):
    names = [unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    table, problems = read(HEAD + "".join(f"{name},1,1,1,1,1\n" for name in names))
    assert set(table) == {names[0]}
    assert problems == [f"error: {names[0]}: has more than one row in scores.csv, see line 3"]


def test_any_damaged_table_is_read_or_refused(tmp_path):
    path, random = tmp_path / "scores.csv", seeded(3)
    names = [f"case-{n}" for n in range(6)]
    write_scores(path, dict.fromkeys(names, FIVE))
    original, refused, told = path.read_bytes(), 0, 0
    for _ in range(500):
        path.write_bytes(damaged(original, random))
        try:
            table, problems = read_scores(path)
        except InputError as error:
            refused += str(path) in str(error)
            continue
        told += bool(problems)
        assert all(s is None or 0 <= s <= 5 for row in table.values() for s in row.values())
    assert refused > 50
    assert told > 100


def _set(folder, scans, rows):
    (folder / "scans").mkdir()
    for name in scans:
        (folder / "scans" / name).touch()
    (folder / "scores.csv").write_text(HEAD + "".join(f"{row},1,1,1,1,1\n" for row in rows))
    cases, problems = find_cases([folder])
    return [case.name for case in cases], [str(problem) for problem in problems]


def test_names_match_in_any_form_of_unicode(tmp_path):
    composed, other = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    assert _set(tmp_path, [f"{other}.nii.gz"], [composed]) == ([composed], [])
    (tmp_path / "other").mkdir()
    assert _set(tmp_path / "other", [f"{composed}.nii.gz"], [other]) == ([composed], [])


def test_names_that_differ_in_capitals_alone_are_told(tmp_path):
    cases, problems = _set(tmp_path, ["a.nii", "B.nii", "c.nii", "C.nii"], ["A", "B", "c", "C"])
    assert cases == ["B", "C"]
    said = "\n".join(problems)
    assert "error: A: has scores but no scan" in said
    assert "; 'a' differs in capitals alone: write both the same way" in said
    assert "error: c: differs from 'C' in capitals alone, which Windows and macOS do not" in said


def test_files_that_are_no_volumes_are_told_and_hidden_ones_are_not(tmp_path):
    names = ["a.nii", "._a.nii", ".DS_Store", "b.png", "c.dcm", "a.zraw", "notes.txt"]
    cases, problems = _set(tmp_path, names, ["a"])
    assert cases == ["a"]
    assert [problem.split(" is left out")[0] for problem in problems] == [
        f"note: b.png: {tmp_path / 'scans' / 'b.png'}",
        f"note: c.dcm: {tmp_path / 'scans' / 'c.dcm'}",
    ]
