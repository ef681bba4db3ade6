"""Files of a cache and of a run, damaged by a seed: they are read, or refused by name."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe
from Testing.library.mutation import damaged, mutated, seeded
from Testing.training.small_cache import write_small_cache
from Training.config import RegressionConfig, to_plain
from Training.dataset.cache import INDEX, LABELS, META, CachedCase, read_cache
from Training.evaluation import run, sets
from Training.learning import engine
from Training.stages import segmentation


@dataclass
class Tried:
    """How often a file was refused, and whether each refusal named it."""

    refused: int = 0
    unnamed: list[str] = field(default_factory=list)


def _try_all(path, read, count=250):
    """Damage a file again and again; anything but success and InputError ends the test."""
    original, random, tried = path.read_bytes(), seeded(7), Tried()
    content = json.loads(original)
    for n in range(count):
        text = json.dumps(mutated(content, random)).encode() if n % 3 else damaged(original, random)
        path.write_bytes(text)
        try:
            read()
        except InputError as error:
            tried.refused += 1
            if path.name not in str(error) and str(path.parent) not in str(error):
                tried.unnamed.append(str(error))
    path.write_bytes(original)
    return tried


@pytest.fixture
def cache(tmp_path):
    return write_small_cache(tmp_path / "cache")


def test_the_index_of_a_cache(cache):
    def read():
        assert all(case.folder.parent == cache for case in read_cache(cache))

    tried = _try_all(cache / INDEX, read)
    assert tried.refused > 150
    assert tried.unnamed == []


def test_what_is_known_about_a_case(cache):
    folder = cache / "case-0"
    grids = set()

    def read():
        case = CachedCase("case-0", folder, validation=False)
        assert set(case.scores) == set(Lobe)
        assert all(score is None or 0 <= score <= 5 for score in case.scores.values())
        shape = case.load("regression/lobes").shape
        assert all(np.zeros(shape)[box].ndim == 3 for box in case.boxes.values())
        grids.add(tuple(case.meta["grids"]["segmentation"]["size"]))

    tried = _try_all(folder / META, read)
    assert tried.refused > 100
    assert tried.unnamed == []
    assert all(len(size) == 3 for size in grids)


def test_the_settings_of_a_run(tmp_path, monkeypatch):
    path = tmp_path / engine.SETTINGS
    path.write_text(json.dumps(to_plain(RegressionConfig())))
    monkeypatch.setattr(engine, "read_checkpoint", lambda _: {"network": {}})

    def read():
        settings, _ = engine.read_run(tmp_path, RegressionConfig)
        assert isinstance(settings.threshold, float)
        engine._difference(tmp_path, RegressionConfig())

    tried = _try_all(path, read)
    assert tried.refused > 100
    assert tried.unnamed == []
    path.write_text("[1]")
    with pytest.raises(InputError, match="names, each with anything"):
        engine._difference(tmp_path, RegressionConfig())


def test_the_log_of_a_run(tmp_path):
    path, random = tmp_path / engine.LOG, seeded(2)
    entry = {"kind": "train", "step": 3, "total": 0.5}
    original = "".join(json.dumps({**entry, "step": n}) + "\n" for n in range(4)).encode()
    kept = 0
    for _ in range(200):
        path.write_bytes(damaged(original, random))
        kept += len(engine.logged(tmp_path, "train"))
    assert 200 < kept < 800


def test_which_labels_a_run_has(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"a": "1" * 64, "b": "2" * 64}))
    tried = _try_all(path, lambda: segmentation.check_labels([], tmp_path))
    # without cases, each label that is known is one that has changed
    assert tried.refused > 150
    assert tried.unnamed == []


def test_the_seconds_and_the_ablation_of_an_evaluation(tmp_path):
    path = tmp_path / run.SECONDS
    path.write_text(json.dumps({"dram": 12.5, "cam": 3.0}))

    def read():
        assert all(value >= 0 for value in run._read_seconds(tmp_path).values())

    assert _try_all(path, read).refused == 0
    table = tmp_path / "ablation" / "ablation.json"
    table.parent.mkdir()
    table.write_text(json.dumps({"rows": [{"name": "a", "iou": 0.5}]}))
    tried = _try_all(table, lambda: run.read_ablation(tmp_path))
    assert tried.refused > 50
    assert tried.unnamed == []


def test_the_manifest_of_a_benchmark_set(tmp_path):
    path = tmp_path / sets.MANIFEST
    path.write_text(json.dumps({"size": "small", "format": 2, "cases": {"test/a": {"x": 1}}}))

    def read():
        before = sets._read_manifest(tmp_path, {"size": "small", "format": 2})
        sets._compare(before, {"cases": {}}, tmp_path)

    tried = _try_all(path, read)
    assert tried.refused > 50
    assert tried.unnamed == []


@pytest.mark.parametrize(
    ("name", "stage"), [("regression/image", "prepare"), (LABELS, "pseudolabels")]
)
def test_a_stage_does_not_begin_on_a_damaged_array(cache, name, stage):
    assert len(read_cache(cache, [name])) == 3
    path = cache / "case-1" / f"{name}.npy"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} of case-1 is damaged: .*'{stage}'"):
        read_cache(cache, [name])
    # who does not read the array does not mind
    assert len(read_cache(cache, ["regression/lobes"])) == 3
