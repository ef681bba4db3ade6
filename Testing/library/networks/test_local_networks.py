"""A network whose deep levels are cut off gives the same without computing them."""

import numpy as np
import pytest
import torch

from DRAMLesionLib.networks import tiles
from DRAMLesionLib.networks.local import LOCAL_HALO, is_local, run_local
from DRAMLesionLib.networks.whole import fused
from Testing.library.small_weights import random_network


@pytest.fixture(scope="module")
def network():
    net = random_network(seed=4)
    assert not is_local(net)
    net.decoder[1][0].weight.data[:, net.low_level_channels[1] :] = 0.0
    assert is_local(net)
    assert is_local(fused(net))
    return net


@pytest.mark.parametrize("depth", [6, 16, 64])
def test_it_is_the_output_of_one_patch(network, depth):
    torch.manual_seed(5)
    image = torch.rand(1, 1, 132, 116, 124)
    with torch.no_grad():
        wanted = network(image).logits[..., 10:-10, 10:-10, 10:-10]
    # both outputs lie in the middle of the same image
    cut = 54 - LOCAL_HALO
    inner = image[..., cut:-cut, cut:-cut, cut:-cut]
    slabs = {}
    run_local(fused(network), inner, slabs.__setitem__, depth)
    assert sorted(slabs) == list(range(0, 24, depth))
    found = torch.cat([slabs[first] for first in sorted(slabs)], dim=2)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


def test_over_the_lungs_it_takes_the_short_way_to_the_same(network, monkeypatch):
    rng = np.random.default_rng(1)
    image = rng.random((37, 30, 41), dtype=np.float32)
    inside = np.zeros(image.shape, dtype=bool)
    inside[3:33, 2:29, 5:40] = True

    def probability(tile):
        found = np.zeros((3, *image.shape), dtype=np.float32)

        def take(part, logits):
            found[(slice(None), *part)] = logits[0].numpy()

        tiles.run_over_lungs(network, image, inside, take, tile)
        return found[:, inside]

    short, tiled = probability(320), probability(16)
    monkeypatch.setattr(tiles, "is_local", lambda _: False)
    long = probability(320)
    np.testing.assert_allclose(short, long, atol=2e-5)
    np.testing.assert_allclose(short, tiled, atol=2e-5)
    assert short.std() > 1e-3
