"""The shipped configurations are read, and paper.yaml has the figures of the paper."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from DRAMLesionLib.errors import InputError
from Testing.library.mutation import damaged, mutated, seeded
from Training.config import Config, dump_config, load_config, to_plain

CONFIGS = Path(__file__).resolve().parents[2] / "Training" / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_configuration_is_read_and_survives_being_written(path, tmp_path):
    config = load_config(path)
    written = tmp_path / "config.yaml"
    written.write_text(dump_config(config))
    assert load_config(written) == config


def test_paper_has_the_figures_of_the_paper():
    config = load_config(CONFIGS / "paper.yaml")
    for part in (config.vessels, config.regression, config.segmentation):
        assert part.base_channels == 32
        assert part.optimiser.name == "sgd"
        assert part.optimiser.momentum == 0.9
        assert part.optimiser.learning_rate == 1e-5
        assert part.freeze_norm == 1.0
        assert not part.local
    regression, segmentation = config.regression, config.segmentation
    assert (regression.chunk.spacing, regression.chunk.size) == (1.2, 80)
    weights = regression.weights
    assert (weights.regression, weights.equivariance) == (2.0, 1.0)
    assert (weights.entropy, weights.refinement) == (1.0, 1.0)
    assert regression.beta == segmentation.beta == 0.8
    assert regression.scales == (0.8, 1.0, 1.2, 1.5)
    assert regression.attention
    assert regression.suppress_vessels
    assert regression.vessels == "network"
    assert regression.balance == "loss"
    assert regression.sizes == ()
    assert (regression.target, regression.gain, regression.refined_by) == ("raw", 0.0, "attention")
    assert regression.loss_scale == "sum"
    assert config.vessels.threshold == 0.7
    assert config.vessels.source == "scans"
    assert not config.prepare.vessel_guards
    assert (segmentation.spacing, segmentation.patch, segmentation.padding) == (1.5, 44, "valid")
    assert (segmentation.start, segmentation.loop.batch) == ("scratch", 2)
    assert config.ablation == Config().ablation


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_all_trainings_have_the_crf_that_was_found_by_the_search(path):
    crf = load_config(path).regression.crf
    assert replace(crf, iterations=5) == Config().regression.crf
    assert crf.reference_size == 80


def _leaves(config, name=""):
    """Every setting with its value, by its path."""
    if not isinstance(config, dict):
        return {name: config}
    return {k: v for key, part in config.items() for k, v in _leaves(part, f"{name}.{key}").items()}


def test_the_benchmark_of_the_papers_size_names_all_in_which_it_differs_from_the_paper():
    path = CONFIGS / "benchmark-paper.yaml"
    ours, paper = (_leaves(to_plain(load_config(p))) for p in (path, CONFIGS / "paper.yaml"))
    comment = " ".join(line[2:] for line in path.read_text().splitlines() if line.startswith("# "))
    different = {name for name in paper if ours[name] != paper[name]}
    # the vessel network is not trained, so its settings mean nothing
    different = {name for name in different if not name.startswith(".vessels.")}
    assert ".segmentation.region" in different
    unnamed = {
        name
        for name in different
        if not any(part in comment for part in name.split(".")[2:] if part != "crf")
        and not name.startswith(".prepare.")
        and not name.endswith(".workers")
    }
    assert unnamed == set()


def _written(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: [1", "is not YAML: while parsing"),
        (b"seed: \xff", "it is no UTF-8 text"),
        ("seed: 1\nseed: 2", "the setting 'seed' stands in it twice"),
        ("regression: {beta: 0.1, beta: 0.2}", "the setting 'beta' stands in it twice"),
        ("seed: 1\x00", "is not YAML"),
        ("export: {date: 2026-99-99}", "is not YAML"),
        ("- 1", "expected settings of the form 'key: value'"),
        ("regression: 3", "regression: fields of the form 'name: value' are wanted, not 3"),
        ("regression: {beta: 2}", "regression.beta is 2; wanted: a number, at least 0 and at mos"),
        ("regression: {beta: .nan}", "regression.beta is nan; wanted"),
        ("regression: {beta: '0.5'}", "regression.beta is '0.5'; wanted"),
        ("regression: {scales: []}", "regression.scales is a list of 0; wanted"),
        ("regression: {chunk: {size: 60}}", "chunk.size is 60; wanted: a whole number, at least 8"),
        ("segmentation: {loop: {batch: 0}}", "loop.batch is 0; wanted: a whole number, at least 1"),
        ("accelerator: tpu", "accelerator is 'tpu'; wanted: one of auto, cpu, cuda, mps"),
        ("colour: red", "there is no field 'colour' here; known: seed, threads"),
    ],
)
def test_settings_that_do_not_fit_name_file_and_field(text, says, tmp_path):
    path = _written(tmp_path, text)
    with pytest.raises(InputError, match=says) as refused:
        load_config(path)
    assert str(path) in str(refused.value)


def test_numbers_are_read_as_people_write_them(tmp_path):
    text = "regression: {optimiser: {learning_rate: 1e-3, weight_decay: 2E-4, clip: 1}}"
    optimiser = load_config(_written(tmp_path, text)).regression.optimiser
    assert (optimiser.learning_rate, optimiser.weight_decay, optimiser.clip) == (1e-3, 2e-4, 1.0)
    changed = load_config(None, ["regression.optimiser.learning_rate=5e-4"])
    assert changed.regression.optimiser.learning_rate == 5e-4
    with pytest.raises(InputError, match=r"the setting 'seed=\[1' is not YAML"):
        load_config(None, ["seed=[1"])


def test_any_damaged_configuration_is_read_or_refused(tmp_path):
    random, original = seeded(0), to_plain(load_config(CONFIGS / "default.yaml"))
    text = (CONFIGS / "tiny.yaml").read_bytes()
    refused = 0
    for n in range(300):
        content = json.dumps(mutated(original, random)) if n % 2 else damaged(text, random)
        try:
            config = load_config(_written(tmp_path, content))
        except InputError:
            refused += 1
        else:
            assert isinstance(config, Config)
            assert 0 <= config.regression.threshold <= 1
    assert refused > 100
