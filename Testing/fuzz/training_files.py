"""What a training keeps: its cache, checkpoint, settings and log; and slices as pictures."""

from __future__ import annotations

import contextlib
import io
import json
import zlib
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin

import Training
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.typed import read_json
from Testing.fuzz.damage import Rng, change_bytes, cut, flip_bits, pick, replace_file
from Testing.fuzz.kinds import Change, Kind, Reading
from Testing.fuzz.texts import change_json, change_text
from Testing.training.small_cache import write_small_cache
from Training.config import RegressionConfig, load_config
from Training.dataset.cache import LABELS, PREPARED, read_cache, write_meta
from Training.learning.engine import last_logged, make_fabric, read_run, train
from Training.slices.measure import read_slices
from Training.stages.prepare import grid_image
from Training.stages.pseudolabels import Note
from Training.stages.regression import RegressionExperiment

_TINY = Path(Training.__file__).with_name("configs") / "tiny.yaml"
_NPY_HEADER = 128
_ARRAYS = (*PREPARED, LABELS)


def _write_cache(folder: Path) -> None:
    cache = write_small_cache(folder / "cache")
    for case in read_cache(cache):
        write_meta(case.folder, case.meta)


def _change_cache(folder: Path, rng: Rng) -> Change:
    cache = folder / "cache"
    how = rng.random()
    if how < 0.25:
        return change_json(cache / "index.json", rng)
    if how < 0.6:
        return change_json(cache / "case-1" / "meta.json", rng)
    path = cache / "case-1" / f"{pick(rng, _ARRAYS)}.npy"
    if how < 0.65:
        return replace_file(path, rng)
    data = path.read_bytes()
    if how < 0.75:
        changed, change = _change_array_header(data, rng)
    else:
        changed, change = change_bytes(data, rng, _NPY_HEADER, checked=True)
    path.write_bytes(changed)
    return change


def _change_array_header(data: bytes, rng: Rng) -> tuple[bytes, Change]:
    header = pick(
        rng,
        (
            b"{'descr': '|O', 'fortran_order': False, 'shape': (24, 30, 28), }",
            b"{'descr': '<f8', 'fortran_order': False, 'shape': (24, 30, 28), }",
            b"{'descr': '|u1', 'fortran_order': True, 'shape': (24, 30, 28), }",
            b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99999, 99999), }",
            b"{'descr': '|u1', 'fortran_order': False, 'shape': (24, 30, 27), }",
            b"{'descr': '|u1', 'fortran_order': False, 'shape': (20160,), }",
            b"{'descr': [('a', 'u1')], 'fortran_order': False, 'shape': (24, 30, 28), }",
            b"[" * 90,
            b"__import__('os')",
        ),
    )
    head = data[:10] + header.ljust(_NPY_HEADER - 11) + b"\n"
    return head + data[_NPY_HEADER:], Change(f"header {header!r}", guarded=True)


def _read_cache(folder: Path) -> Reading:
    content: dict[str, object] = {}
    for case in read_cache(folder / "cache", _ARRAYS):
        content[case.name] = (case.validation, str(case.scores), str(case.boxes))
        for kind in ("regression", "segmentation"):
            grid = grid_image(case.meta["grids"][kind])
            content[f"{case.name} {kind}"] = str((grid.GetSize(), grid.GetSpacing()))
        for name in _ARRAYS:
            content[f"{case.name} {name}"] = np.array(case.load(name))
    return Reading(content)


@lru_cache
def _trained(folder: Path) -> Path:
    """Train two steps on the small cache."""
    settings = [
        "regression.vessels=frangi",
        "regression.attention=false",
        "regression.local=false",
        "regression.loop.steps=2",
        "regression.loop.tensorboard=false",
        "regression.refine_after=9",
    ]
    config = load_config(_TINY, settings)
    write_small_cache(folder / "cache")
    experiment = RegressionExperiment(read_cache(folder / "cache"), config)
    with contextlib.redirect_stderr(io.StringIO()):
        train(experiment, folder / "regression", config, make_fabric(config))
    return folder


def _write_run(folder: Path) -> None:
    _trained(folder)


def _change_run(folder: Path, rng: Rng) -> Change:
    run = folder / "regression"
    how = rng.random()
    if how < 0.25:
        return change_json(run / "config.yaml", rng)
    if how < 0.45:
        changed, change = change_text((run / "log.jsonl").read_bytes(), rng)
        (run / "log.jsonl").write_bytes(changed)
        return Change(f"log: {change.what}", guarded=False)
    path = run / "checkpoint.pt"
    if how < 0.5:
        return replace_file(path, rng)
    data = path.read_bytes()
    if how < 0.6:
        torch.save(_other_state(torch.load(path, weights_only=True), rng), path)
        return Change("another state", guarded=True)
    changed, change = change_bytes(data, rng, 0, checked=True)
    path.write_bytes(changed)
    return change


def _other_state(state: dict, rng: Rng) -> object:
    """Return what a checkpoint must not hold."""
    how = pick(rng, ("list", "no step", "no network", "step", "tensor"))
    if how == "list":
        return [1, 2]
    if how == "tensor":
        return torch.zeros(3)
    if how == "step":
        return {**state, "step": pick(rng, ("7", None, -1, 1e9))}
    return {key: value for key, value in state.items() if key != how.removeprefix("no ")}


def _read_run(folder: Path) -> Reading:
    run = folder / "regression"
    settings, network = read_run(run, RegressionConfig)
    last_logged(run, "train")
    tensors = {name: value.numpy() for name, value in network.items()}
    return Reading({**tensors, "settings": repr(settings)})


def _write_slices(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
        for number in range(3):
            values = rng.integers(0, 256, (40, 48)) if name == "images" else _mask(number)
            Image.fromarray(values.astype(np.uint8)).save(folder / name / f"{number}.png")


def _mask(number: int) -> np.ndarray:
    result = np.zeros((40, 48))
    result[10:20, 10 + number : 30] = 255
    return result


def _change_slices(folder: Path, rng: Rng) -> Change:
    kind = pick(rng, ("images", "masks"))
    path = folder / kind / "1.png"
    how = rng.random()
    if how < 0.1:
        return replace_file(path, rng)
    data = path.read_bytes()
    if how < 0.4:
        path.write_bytes(flip_bits(data, rng, 8))
        return Change(f"bits of {kind}", guarded=True)
    if how < 0.5:
        path.write_bytes(cut(data, rng))
        return Change(f"cut {kind}", guarded=True)
    with Image.open(path) as picture:
        picture.load()
    name = pick(rng, list(_PICTURES))
    _PICTURES[name](picture, path, rng)
    # other pictures, and sound ones; a mask has two values
    return Change(f"{kind}: {name}", guarded=(kind, name) not in _OTHERS)


def _alpha(picture: Image.Image, path: Path, _: Rng) -> None:
    grey = Image.new("L", picture.size, 128)
    Image.merge("LA", (grey, picture)).save(path)


def _palette(picture: Image.Image, path: Path, _: Rng) -> None:
    values = np.asarray(picture) > 127
    shown = Image.fromarray(values.astype(np.uint8), "P")
    shown.putpalette([255, 255, 255, 0, 0, 0])
    shown.save(path)


def _soft(picture: Image.Image, path: Path, _: Rng) -> None:
    values = np.asarray(picture).astype(float)
    Image.fromarray(((values + np.roll(values, 3, 1)) / 2).astype(np.uint8)).save(path)


def _huge_claim(picture: Image.Image, path: Path, rng: Rng) -> None:
    data = bytearray(path.read_bytes())
    data[16:24] = int(pick(rng, (60_000, 2**31 - 1, 0))).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(data))


def _text_bomb(picture: Image.Image, path: Path, _: Rng) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("Comment", "x" * 3_000_000, zip=True)
    picture.save(path, pnginfo=about)


_PICTURES = {
    "alpha": _alpha,
    "palette": _palette,
    "soft values": _soft,
    "a huge claim": _huge_claim,
    "a long text": _text_bomb,
    "16 bits": lambda p, path, _: Image.fromarray(np.asarray(p).astype(np.uint16) * 257).save(path),
    "turned": lambda p, path, _: p.transpose(Image.Transpose.ROTATE_90).save(path),
    "smaller": lambda p, path, _: p.resize((20, 20)).save(path),
    "colours": lambda p, path, _: Image.merge("RGB", (p, p, p.point(lambda v: 255 - v))).save(path),
    "a picture of another kind": lambda p, path, _: p.save(path, "GIF"),
}


_OTHERS = {("images", "soft values"), ("images", "palette")}


def _read_slices(folder: Path) -> Reading:
    told: list[str] = []
    slices = read_slices(folder / "images", folder / "masks", told.append)
    content: dict[str, object] = {f"{one.name} grey": one.grey for one in slices}
    content |= {f"{one.name} truth": one.truth for one in slices}
    return Reading(content, frozenset(told))


_NOTE = "case-1.json"


def _write_note(folder: Path) -> None:
    note = Note(
        file="0" * 64,
        computed_from="a teacher",
        before="",
        fractions={lobe.name: 0.1 for lobe in Lobe},
        regressed_from="a network",
        labels="1" * 64,
    )
    (folder / _NOTE).write_text(json.dumps(asdict(note)) + "\n", encoding="utf-8")


def _change_note(folder: Path, rng: Rng) -> Change:
    return change_json(folder / _NOTE, rng)


def _read_note(folder: Path) -> Reading:
    return Reading(asdict(read_json(folder / _NOTE, Note)))


KINDS = (
    Kind("note", _write_note, _change_note, _read_note),
    Kind("cache", _write_cache, _change_cache, _read_cache),
    Kind("run", _write_run, _change_run, _read_run),
    Kind("slices", _write_slices, _change_slices, _read_slices),
)
