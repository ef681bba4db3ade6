"""Plain content is read by types and ranges; what does not fit is named."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from DRAMLesionLib import typed
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.typed import Between, FileName, Filled
from Testing.library.mutation import STRANGE, damaged, mutated, seeded


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Between(8, 512, step=8)] = 64

    def __post_init__(self):
        if self.size == 96:
            message = "96 is the one size that nobody likes"
            raise InputError(message)


@dataclass(frozen=True)
class Outer:
    name: str
    kind: Literal["a", "b", 1] = "a"
    share: Annotated[float, Between(0, 1)] = 0.5
    flag: bool = False
    note: str | None = None
    either: int | str = 0
    items: Annotated[list[float], Filled()] = field(default_factory=lambda: [1.0])
    pair: tuple[int, float] = (0, 0.0)
    axes: tuple[str, ...] = ()
    table: dict[str, int | None] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    more: Any = None


WHOLE = {
    "name": "n",
    "kind": 1,
    "share": 1,
    "flag": True,
    "note": None,
    "either": "x",
    "items": [1, 2.5],
    "pair": [3, 4],
    "axes": ["i", "j"],
    "table": {"x": None, "y": 2},
    "inner": {"size": 16},
    "more": {"anything": [1]},
}


def test_every_kind_of_content_becomes_what_the_annotation_says():
    read = typed.build(Outer, WHOLE, "file")
    assert read == Outer(
        "n",
        1,
        1.0,
        True,
        None,
        "x",
        [1.0, 2.5],
        (3, 4.0),
        ("i", "j"),
        {"x": None, "y": 2},
        Inner(16),
        {"anything": [1]},
    )
    assert type(read.share) is float
    assert typed.build(Outer, {"name": "n"}, "file") == Outer("n")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": None}, "file: name is null; wanted: a text"),
        ({"name": "\ud800"}, r"file: name is '\\ud800'; wanted: a text"),
        ({"kind": True}, "file: kind is true; wanted: one of a, b, 1"),
        ({"share": "0.5"}, "file: share is '0.5'; wanted: a number, at least 0 and at most 1"),
        ({"share": 1.5}, "file: share is 1.5; wanted: a number, at least 0 and at most 1"),
        ({"share": float("nan")}, "file: share is nan; wanted: a number"),
        ({"share": 10**400}, "file: share is a number of very many digits; wanted: a number"),
        ({"flag": 1}, "file: flag is 1; wanted: true or false"),
        ({"note": 3}, "file: note is 3; wanted: a text"),
        ({"either": 2.5}, "file: either is 2.5; wanted: a whole number or a text"),
        ({"items": []}, "file: items is a list of 0; wanted: a list, each item a number, not em"),
        ({"items": [1, "x"]}, r"file: items\[1\] is 'x'; wanted: a number"),
        ({"pair": [1]}, "file: pair is a list of 1; wanted: a list of 2: a whole number, a numb"),
        ({"axes": "ij"}, "file: axes is 'ij'; wanted: a list, each item a text"),
        ({"table": {"x": 1.5}}, "file: table.x is 1.5; wanted: a whole number"),
        ({"table": {1: 1}}, r"file: table \(a name in it\) is 1; wanted: a text"),
        ({"inner": 3}, "file: inner: fields of the form 'name: value' are wanted, not 3"),
        ({"inner": {"size": 12}}, "file: inner.size is 12; wanted: a whole number, at least 8 and"),
        ({"inner": {"size": 96}}, "file: inner: 96 is the one size that nobody likes"),
        ({"inner": {"colour": 1}}, "file: inner: there is no field 'colour' here; known: size"),
        ({"colour": 1}, "file: there is no field 'colour' here; known: name, kind"),
        ({"x" * 200: 1}, "there is no field 'xxxxxxx"),
    ],
)
def test_what_does_not_fit_is_named(change, says):
    with pytest.raises(InputError, match=says) as refused:
        typed.build(Outer, WHOLE | change, "file")
    assert len(str(refused.value)) < 250


def test_what_is_missing_is_named():
    with pytest.raises(InputError, match="file lacks the field 'name'"):
        typed.build(Outer, {}, "file")
    with pytest.raises(InputError, match="file lacks the field 'share'"):
        typed.build(Outer, {"name": "n"}, "file", required=("share",))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0"])
def test_a_name_that_leaves_its_folder_is_none(name):
    kind = Annotated[str, FileName()]
    assert typed.build(kind, "case-1", "file") == "case-1"
    with pytest.raises(InputError, match="wanted: a text, a name without folders"):
        typed.build(kind, name, "file")


def test_unknown_fields_can_be_passed_over():
    content = {"name": "n", "colour": 1, "inner": {"size": 8, "colour": 2}}
    assert typed.build(Outer, content, "file", others=True) == Outer("n", inner=Inner(8))


def test_arguments_of_a_function_are_checked_by_its_annotations():
    def function(count: Annotated[int, Between(1, 4)], name: str = "x") -> str:
        return name * count

    assert function(**typed.arguments(function, {"count": 3}, "card")) == "xxx"
    with pytest.raises(InputError, match="card: count is 9; wanted: a whole number, at least 1"):
        typed.arguments(function, {"count": 9}, "card")
    with pytest.raises(InputError, match="card lacks the field 'count'"):
        typed.arguments(function, {}, "card")
    with pytest.raises(InputError, match="no field 'depth' here; known: count, name"):
        typed.arguments(function, {"count": 1, "depth": 2}, "card")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is damaged or no JSON"),
        (b'{"name": "n"', "is damaged or no JSON"),
        (b"\xff\xfe", "it is no UTF-8 text"),
        (b'{"name": "a", "name": "b"}', "the field 'name' stands in it twice"),
        (b"[" * 100_000, "is damaged or no JSON"),
        (b'{"name": ' + b"1" * 5000 + b"}", "is damaged or no JSON"),
        (b"[1]", "fields of the form 'name: value' are wanted, not a list of 1"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, says):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as refused:
        typed.read_json(path, Outer)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*: No such file"):
        typed.read_json(tmp_path / "none.json", Outer)
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        typed.read_json(tmp_path, Outer)


def test_any_content_is_read_or_refused():
    random = seeded(0)
    refused = 0
    for value in [*STRANGE, *(mutated(WHOLE, random) for _ in range(3000))]:
        try:
            read = typed.build(Outer, value, "file")
        except InputError:
            refused += 1
        else:
            assert 0 <= read.share <= 1
            assert read.inner.size % 8 == 0
            assert all(isinstance(item, float) for item in read.items)
    assert refused > 1500


def test_any_bytes_are_read_or_refused(tmp_path):
    path, random = tmp_path / "a.json", seeded(1)
    original = b'{"name": "n", "share": 0.25, "inner": {"size": 16}, "items": [1, 2.5]}'
    refused = 0
    for _ in range(1000):
        path.write_bytes(damaged(original, random))
        try:
            assert typed.read_json(path, Outer).items
        except InputError:
            refused += 1
    assert refused > 300
