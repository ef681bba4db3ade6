"""Benchmark sets: the same again, complete, and never another one by mistake."""

import json
import shutil

import pytest
import SimpleITK as sitk

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe
from Training.__main__ import main
from Training.dataset.folder import find_cases
from Training.evaluation import sets as benchmark_sets
from Training.evaluation.sets import (
    FIRST_SEEDS,
    SIZES,
    TEST,
    BenchmarkSize,
    make_benchmark,
    share_out,
)
from Training.stages.phantoms import is_healthy

ONE = {"train": 1, "validation": 1, "test": 1}
TINY = BenchmarkSize(5.0, ONE, {"train": 3, "validation": 0, "test": 2}, healthy_share=0.0)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "clear.nii.gz"
    writing.write_image(sitk.Image(60, 60, 60, sitk.sitkInt16), path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "tiny"
    lines = []
    content = make_benchmark(folder, TINY, workers=1, report=lines.append)
    assert "train: 1/1 phantom-500015" in lines
    return folder, content


def test_every_part_is_a_data_set_with_seeds_of_its_own(made):
    folder, content = made
    cases, problems = find_cases([folder / part for part in benchmark_sets.PARTS])
    assert not problems
    assert [case.name for case in cases] == ["phantom-500015", "phantom-700000", "phantom-800010"]
    assert list(content["cases"]) == [
        "test/phantom-800010", "train/phantom-500015", "validation/phantom-700000",
    ]  # fmt: skip
    assert list(cases[0].scores.values()) == content["cases"]["train/phantom-500015"]["scores"]
    assert json.loads((folder / "benchmark.json").read_text()) == content


def test_made_again_here_or_elsewhere_it_is_the_same(made, tmp_path):
    folder, content = made
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}
    (folder / "benchmark.json").unlink()
    (folder / "test" / "scores.csv").unlink()
    assert make_benchmark(folder, TINY, workers=1) == content
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}
    changed = {path.relative_to(folder).parts[0] for path in after if after[path] != before[path]}
    assert changed == {"test"}


def test_real_lungs_get_lesions_in_every_part_that_wants_them(scan, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(benchmark_sets, "make_synthetic", lambda *words: calls.append(words))
    content = make_benchmark(tmp_path / "set", TINY, [scan], {"clear": [Lobe.LLL]}, 1)
    assert content["same_lungs_in_all_parts"] is True
    assert content["scans"]["clear"]["without"] == ["LLL"]
    assert [call[:7] for call in calls] == [
        (tmp_path / "set" / "train", [scan], 3, 500_015, 5.0, 0.0, {"clear": [Lobe.LLL]}),
        (tmp_path / "set" / "test", [scan], 2, 800_010, 5.0, 0.0, {"clear": [Lobe.LLL]}),
    ]


def test_what_was_changed_or_is_another_set_is_refused(made, scan, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(made[0], folder)
    with pytest.raises(InputError, match="another benchmark set"):
        make_benchmark(folder, TINY, [scan], workers=1)
    path = folder / "test" / "lobes" / "phantom-800010.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path)) * 0, str(path))
    with pytest.raises(InputError, match=r"1 cases .* such as test/phantom-800010"):
        make_benchmark(folder, TINY, workers=1)
    (folder / "benchmark.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        make_benchmark(folder, TINY, workers=1)


def test_lungs_are_shared_out_to_the_parts():
    shared = share_out(list("abcdefg"))
    assert (shared["train"], shared["validation"], shared[TEST]) == (
        list("abcde"),
        list("abcde"),
        list("fg"),
    )
    assert share_out(["a", "b"])[TEST] == ["a", "b"]
    assert share_out([])["train"] == []


def test_every_size_has_healthy_and_diseased_cases_to_learn_from_and_to_measure():
    for size in SIZES.values():
        for part in ("train", TEST):
            seeds = range(FIRST_SEEDS[part], FIRST_SEEDS[part] + size.phantoms[part])
            healthy = sum(is_healthy(seed, size.healthy_share) for seed in seeds)
            assert 2 <= healthy <= len(seeds) / 2


def test_the_paper_size_has_as_many_scans_as_the_paper():
    paper = SIZES["paper"].phantoms
    assert (paper["train"] + paper["validation"], paper["test"]) == (322, 69)
    with pytest.raises(InputError, match="known: small, medium, paper"):
        make_benchmark("unused", "large")


def test_the_command_makes_a_set(tmp_path, monkeypatch, capsys):
    one = {"train": 0, "validation": 0, "test": 1}
    monkeypatch.setitem(SIZES, "small", BenchmarkSize(5.0, one, {}))
    words = ["benchmark", "--size", "small", "--output", str(tmp_path / "set"), "--workers", "1"]
    assert main(words) == 0
    assert "1 cases, checksum" in capsys.readouterr().out
    assert main([*words, "--without", "a=LUL"]) == 1
    assert "no scan that was given" in capsys.readouterr().err
