"""The shipped configurations are read, and paper.yaml has the figures of the paper."""

from pathlib import Path

import pytest

from Training.config import Config, dump_config, load_config

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
    assert config.vessels.threshold == 0.7
    assert config.vessels.source == "scans"
    assert (segmentation.spacing, segmentation.patch, segmentation.padding) == (1.5, 44, "valid")
    assert (segmentation.start, segmentation.loop.batch) == ("scratch", 2)
    crf = regression.crf
    assert (crf.spatial_sigma, crf.spatial_weight, crf.iterations) == (3.0, 3.0, 5)
    assert (crf.bilateral_sigma, crf.bilateral_intensity_sigma) == (5.0, 0.1)
    assert crf.bilateral_weight == 10.0
    assert config.ablation == Config().ablation
