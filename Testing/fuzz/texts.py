"""Tables, settings and cards: text with values that must not be believed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import Training
from DRAMLesionLib import weights
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.pipeline import LesionPipeline
from Testing.fuzz.damage import Rng, change_bytes, cut, flip_bits, pick, replace_file
from Testing.fuzz.kinds import Change, Kind, Reading
from Testing.library.small_weights import write_small_weights
from Training.config import load_config, to_plain
from Training.dataset.folder import read_scores
from Training.dataset.weak_labels import read_region_labels

_TABLE = {f"case-{n}": [(n + k) % 6 for k in range(5)] for n in range(8)}
_TINY = Path(Training.__file__).with_name("configs") / "tiny.yaml"

WRONG_VALUES: tuple[Any, ...] = (
    None,
    "banana",
    "",
    [],
    {},
    [1, 2],
    {"a": 1},
    math.nan,
    math.inf,
    -1,
    10**30,
    True,
)
"""What takes the place of a value in a card, a note or settings."""


def change_text(data: bytes, rng: Rng) -> tuple[bytes, Change]:
    """Change the bytes of a text."""
    how = pick(rng, ("bits", "cut", "utf-16", "latin-1", "nul", "twice", "deep"))
    if how == "bits":
        return flip_bits(data, rng), Change("bits", guarded=False)
    if how == "cut":
        return cut(data, rng), Change("cut", guarded=False)
    if how == "utf-16":
        return data.decode("utf-8").encode("utf-16"), Change(how, guarded=True)
    if how == "latin-1":
        return data + "# \u00fc\n".encode("latin-1"), Change(how, guarded=True)
    if how == "nul":
        at = int(rng.integers(len(data)))
        return data[:at] + b"\0" * 9 + data[at:], Change("NUL bytes", guarded=False)
    if how == "deep":
        return pick(rng, (b"[", b'{"a":')) * 100_000, Change("nested without end", guarded=True)
    return data + data, Change("twice", guarded=False)


def change_value(content: Any, rng: Rng) -> tuple[Any, Change]:
    """Change one value somewhere in nested dictionaries and lists."""
    places = list(_places(content))
    holder, key = places[int(rng.integers(len(places)))]
    before = holder[key]
    how = pick(rng, ("value", "value", "value", "remove", "add"))
    if how == "remove":
        del holder[key]
        return content, Change(f"without {key!r}", guarded=False)
    if how == "add" and isinstance(holder, dict):
        holder["banana"] = 1
        return content, Change("an unknown key", guarded=False)
    value = pick(rng, WRONG_VALUES)
    if value is True and rng.random() < 0.5:
        value = pick(rng, (0, 1, 0.5, 7))
    holder[key] = value
    return content, Change(f"{key!r}: {before!r} -> {value!r}", _is_other_type(before, value))


def _is_other_type(before: Any, value: Any) -> bool:
    """Tell whether a value cannot stand in another's place."""
    if isinstance(value, float) and not math.isfinite(value):
        return isinstance(before, int | float)
    if isinstance(before, bool) or isinstance(value, bool):
        return type(before) is not type(value)
    if isinstance(before, int | float):
        return not isinstance(value, int | float)
    return before is not None and type(before) is not type(value)


def _places(content: Any) -> Any:
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield content, key
        if isinstance(value, dict | list):
            yield from _places(value)


def change_json(path: Path, rng: Rng) -> Change:
    """Change a JSON file."""
    how = rng.random()
    if how < 0.05:
        return replace_file(path, rng)
    if how < 0.25:
        changed, change = change_text(path.read_bytes(), rng)
        path.write_bytes(changed)
        return change
    content, change = change_value(json.loads(path.read_text(encoding="utf-8")), rng)
    path.write_text(json.dumps(content), encoding="utf-8")
    return change


def _write_table(folder: Path) -> None:
    rows = [",".join(map(str, (name, *scores))) for name, scores in _TABLE.items()]
    head = ",".join(("case", *(lobe.name for lobe in Lobe)))
    (folder / "scores.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def _change_table(folder: Path, rng: Rng) -> Change:
    path = folder / "scores.csv"
    how = rng.random()
    if how < 0.05:
        return replace_file(path, rng)
    if how < 0.25:
        changed, change = change_text(path.read_bytes(), rng)
        path.write_bytes(changed)
        return change
    lines = path.read_text(encoding="utf-8").splitlines()
    name = pick(rng, list(_ROWS))
    at = int(rng.integers(1, len(lines)))
    guarded, change_rows = _ROWS[name]
    path.write_text("\n".join(change_rows(lines, at)) + "\n", encoding="utf-8")
    return Change(f"{name} in line {at + 1}", guarded)


def _with(change: Callable[[str], str]) -> Callable[[list[str], int], list[str]]:
    return lambda lines, at: [*lines[:at], change(lines[at]), *lines[at + 1 :]]


def _head(change: Callable[[str], str]) -> Callable[[list[str], int], list[str]]:
    return lambda lines, _: [change(lines[0]), *lines[1:]]


_ROWS: dict[str, tuple[bool, Callable[[list[str], int], list[str]]]] = {
    "a field too many": (True, _with(lambda row: row.replace(",", ",0,", 1))),
    "a field too many at the end": (True, _with(lambda row: row + ",3")),
    "a field too few": (True, _with(lambda row: row.rpartition(",")[0])),
    "an endless quote": (True, _with(lambda row: row.replace(",", ',"', 1))),
    "a quote around the row": (True, _with(lambda row: f'"{row}"')),
    "a decimal comma": (True, _with(lambda row: row[:-1] + "2,5")),
    "a fraction": (True, _with(lambda row: row[:-1] + "2.5")),
    "a minus": (True, _with(lambda row: row[:-1] + "-1")),
    "a digit of another script": (True, _with(lambda row: row[:-1] + "\u0663")),
    "a digit with a line below": (True, _with(lambda row: row[:-1] + "0_3")),
    "a huge field": (True, _with(lambda row: row[:-1] + "9" * 200_000)),
    "a long name": (True, _with(lambda row: "x" * 200_000 + row)),
    "a column twice": (True, _head(lambda row: row.replace("RLL", "LUL"))),
    "a column more, twice": (True, _head(lambda row: row + ",LUL")),
    "a column without name": (True, _head(lambda row: row.replace("RLL", ""))),
    "semicolons": (True, lambda lines, _: [line.replace(",", ";") for line in lines]),
    "semicolons in a row": (True, _with(lambda row: row.replace(",", ";"))),
    "a row twice": (True, lambda lines, at: [*lines, lines[at][:-1] + "5"]),
    "a row in two lines": (True, _with(lambda row: row.replace(",", ",\n", 1))),
    "a carriage return": (True, _with(lambda row: row.replace(",", ",\r", 1))),
    "blanks": (False, _with(lambda row: row.replace(",", " , "))),
    "an empty line": (False, lambda lines, at: [*lines[:at], "", *lines[at:]]),
    # the scans are named then as those that have no row
    "nothing below the head": (False, lambda lines, _: lines[:1]),
}


def _read_table(folder: Path) -> Reading:
    table, problems = read_scores(folder / "scores.csv")
    scores = {name: [row[lobe] for lobe in Lobe] for name, row in table.items()}
    return Reading({"scores": scores}, frozenset(str(problem) for problem in problems))


def _write_labels(folder: Path) -> None:
    rows = ("a,lungs,30,,10", "a,left,20,40,", "b,LUL,free,,", "b,slice:12,diseased,,", "c,RML,5,,")
    text = "\n".join(["case,region,lower,upper,step", *rows])
    (folder / "labels.csv").write_text(f"{text}\n", encoding="utf-8")


def _change_labels(folder: Path, rng: Rng) -> Change:
    path = folder / "labels.csv"
    changed, change = change_text(path.read_bytes(), rng)
    path.write_bytes(changed)
    # another number of per cent is as good a label
    return Change(change.what, guarded=False)


def _read_labels(folder: Path) -> Reading:
    table, problems = read_region_labels(folder / "labels.csv")
    labels = {name: [[one.region, one.lower, one.upper] for one in table[name]] for name in table}
    return Reading({"labels": labels}, frozenset(str(problem) for problem in problems))


def _write_settings(folder: Path) -> None:
    (folder / "run.yaml").write_bytes(_TINY.read_bytes())


_YAML = (
    b"!!python/object/apply:os.system ['true']\n",
    b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (c, c, *[c - 1] * 8)
        for c in range(ord("b"), ord("k"))
    ),
    b"regression: &r {loop: *r}\n",
    b"- a\n- b\n",
    b"? [a, b]\n: c\n",
    b"? {a: b}\n: c\n",
    b"seed: 0o17\n",
    b"seed: 2026-01-01\n",
    b"seed: 1_000:59\n",
    b"seed: 1\nseed: 2\n",
    b"--- a\n--- b\n",
    b"\t seed: 1\n",
    b"'",
)  # fmt: skip


def _change_settings(folder: Path, rng: Rng) -> Change:
    path = folder / "run.yaml"
    how = rng.random()
    if how < 0.05:
        change = replace_file(path, rng)
        # no setting at all is a sound file: all have their defaults
        return Change(change.what, guarded=not path.is_file() or path.stat().st_size > 0)
    if how < 0.3:
        changed, change = change_text(path.read_bytes(), rng)
        path.write_bytes(changed)
        return change
    if how < 0.45:
        path.write_bytes(pick(rng, _YAML))
        return Change("odd YAML", guarded=False)
    content, change = change_value(yaml.safe_load(path.read_text(encoding="utf-8")), rng)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return change


def _read_settings(folder: Path) -> Reading:
    return Reading({"settings": to_plain(load_config(folder / "run.yaml"))})


def _change_weights(folder: Path, rng: Rng) -> Change:
    name = pick(rng, ("regression", "segmentation"))
    card, tensors = folder / f"{name}.json", folder / f"{name}.safetensors"
    how = rng.random()
    if how < 0.6:
        return change_json(card, rng)
    if how < 0.65:
        return replace_file(tensors, rng)
    data = tensors.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    if how < 0.8:
        changed, change = _change_claims(data, start, rng)
    else:
        changed, change = change_bytes(data, rng, start, checked=True)
    tensors.write_bytes(changed)
    if rng.random() < 0.5:
        # the sum fits, so that what comes after it is reached
        content = json.loads(card.read_text(encoding="utf-8"))
        content["sha256"] = hashlib.sha256(changed).hexdigest()
        card.write_text(json.dumps(content), encoding="utf-8")
        return Change(f"{change.what}, sum renewed", guarded=False)
    return Change(change.what, guarded=True)


def _change_claims(data: bytes, start: int, rng: Rng) -> tuple[bytes, Change]:
    header = json.loads(data[8:start])
    if rng.random() < 0.2:
        size = int(pick(rng, (0, 1, 2**31, 2**62, 2**63)))
        return size.to_bytes(8, "little") + data[8:], Change("length of the header", guarded=True)
    name = pick(rng, [key for key in header if key != "__metadata__"])
    field = pick(rng, ("dtype", "shape", "data_offsets"))
    values = {
        "dtype": ("F64", "I8", "F16", "BOOL", 7, None),
        "shape": ([10**9, 10**9], [-1], [], "x", None, [2**62, 4]),
        "data_offsets": ([0, 2**40], [-1, 4], [8, 0], [0], None, "x"),
    }
    header[name][field] = pick(rng, values[field])
    text = json.dumps(header).encode()
    what = f"{name}: {field} = {header[name][field]}"
    return len(text).to_bytes(8, "little") + text + data[start:], Change(what, guarded=True)


def _read_weights(folder: Path) -> Reading:
    pipeline = LesionPipeline("cpu", folder)
    content: dict[str, Any] = {
        "dRAM": repr(pipeline.dram_config),
        "segmentation": repr(pipeline.segmentation_config),
    }
    for name in ("regression", "segmentation"):
        network, card = weights.load_network(folder, name)
        content[f"{name} card"] = json.dumps(card.__dict__)
        for key, value in network.state_dict().items():
            content[f"{name} {key}"] = np.asarray(value)
    return Reading(content)


def _write_weights(folder: Path) -> None:
    write_small_weights(folder)


KINDS = (
    Kind("scores", _write_table, _change_table, _read_table),
    Kind("labels", _write_labels, _change_labels, _read_labels),
    Kind("settings", _write_settings, _change_settings, _read_settings),
    Kind("weights", _write_weights, _change_weights, _read_weights),
)
