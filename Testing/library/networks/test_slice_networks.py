"""Networks for slices: each block against a plain implementation, shapes, parameters, maps."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from DRAMLesionLib.networks import light
from DRAMLesionLib.networks.decomposition import DecompositionNetwork, to_input
from DRAMLesionLib.networks.light import (
    MDPPM,
    Bottleneck,
    ChannelAttention,
    FeatureExtraction,
    LightUNet,
    SpatialAttention,
)
from DRAMLesionLib.networks.slices import Decoder2D, Encoder2D, UNet2D


def _random(module, seed=0):
    """Return a module in evaluation mode whose norms do something."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2.0)
            part.weight.data.normal_(1, 0.3)
            part.bias.data.normal_(0, 0.3)
    return module.eval()


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def _numpy(tensor):
    return tensor.detach().double().numpy()


def _correlate(x, weight, bias=None, dilation=1, groups=1):
    """Convolve (channels, j, i) with zero padding, as torch means it, in loops over channels."""
    out = np.zeros((weight.shape[0], *x.shape[1:]))
    each = weight.shape[0] // groups
    for o in range(weight.shape[0]):
        for c in range(weight.shape[1]):
            kernel = weight[o, c]
            spread = np.zeros([(n - 1) * dilation + 1 for n in kernel.shape])
            spread[::dilation, ::dilation] = kernel
            source = x[(o // each) * weight.shape[1] + c]
            out[o] += ndimage.correlate(source, spread, mode="constant")
        if bias is not None:
            out[o] += bias[o]
    return out


def _plain_conv(layer, x):
    bias = None if layer.bias is None else _numpy(layer.bias)
    return _correlate(x, _numpy(layer.weight), bias, layer.dilation[0], layer.groups)


def _plain_norm(layer, x):
    mean, var = _numpy(layer.running_mean), _numpy(layer.running_var)
    scale = _numpy(layer.weight) / np.sqrt(var + layer.eps)
    return (x - mean[:, None, None]) * scale[:, None, None] + _numpy(layer.bias)[:, None, None]


def _plain_separable(layers, x):
    return np.maximum(_plain_norm(layers[2], _plain_conv(layers[1], _plain_conv(layers[0], x))), 0)


def _plain_attention(module, x):
    seen = np.stack([x.mean(axis=0), x.max(axis=0)])
    return x * _sigmoid(_plain_conv(module.weigh, seen))


def _check(module, plain, channels=6, edge=12):
    torch.manual_seed(3)
    x = torch.randn(1, channels, edge, edge)
    with torch.no_grad():
        found = module(x)[0]
    np.testing.assert_allclose(_numpy(found), plain(_numpy(x)[0]), atol=2e-5)


def test_spatial_attention():
    module = _random(SpatialAttention())
    _check(module, lambda x: _plain_attention(module, x))


def test_channel_attention():
    module = _random(ChannelAttention(32))
    assert module.squeeze.out_features == 2

    def plain(x):
        mean = x.mean(axis=(1, 2))
        small = np.maximum(_numpy(module.squeeze.weight) @ mean + _numpy(module.squeeze.bias), 0)
        weights = _sigmoid(_numpy(module.excite.weight) @ small + _numpy(module.excite.bias))
        return x * weights[:, None, None]

    _check(module, plain, channels=32)


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_separable_convolution(dilation):
    module = _random(light.separable(6, 5, dilation))
    assert sum(p.numel() for p in module[:2].parameters()) == 9 * 6 + 6 * 5
    _check(module, lambda x: _plain_separable(module, x))


def test_features_of_three_fields():
    module = _random(FeatureExtraction(6, 8))

    def plain(x):
        parts, y = [], x
        for layers in module.chain:
            y = _plain_separable(layers, y)
            parts.append(y)
        seen = _plain_norm(module.norm, _plain_attention(module.attention, np.concatenate(parts)))
        return np.maximum(seen + _plain_conv(module.residual, x), 0)

    assert [layers[1].out_channels for layers in module.chain] == [2, 2, 4]
    _check(module, plain)


def _plain_up(x, size):
    """Up-sample bilinearly with half-pixel centres, the edge repeated."""
    for axis, n in enumerate(size, start=1):
        place = np.clip((np.arange(n) + 0.5) * x.shape[axis] / n - 0.5, 0, x.shape[axis] - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        part = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
        x = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    return x


def _plain_pool(x, n):
    """Pool to n by n: cell a goes from floor(a e / n) to ceil((a + 1) e / n)."""
    edge = x.shape[1]
    cells = [slice(a * edge // n, -(-(a + 1) * edge // n)) for a in range(n)]
    return np.stack([[x[:, j, i].mean(axis=(1, 2)) for i in cells] for j in cells]).transpose(
        2, 0, 1
    )


def test_pyramid_of_pooled_and_dilated_views():
    module = _random(MDPPM(8))

    def plain(x):
        views = [
            _plain_up(_plain_conv(reduce, _plain_pool(x, n)), x.shape[1:])
            for n, reduce in zip((1, 2, 3, 6), module.pooled, strict=True)
        ]
        views += [_plain_separable(layers, x) for layers in module.dilated]
        return _plain_conv(module.join, np.concatenate(views))

    assert [layers[0].dilation[0] for layers in module.dilated] == [2, 4]
    _check(module, plain, channels=8, edge=10)


def test_bottleneck_ends_linearly():
    module = _random(Bottleneck(4))

    def plain(x):
        y = np.clip(_plain_norm(module.layers[1], _plain_conv(module.layers[0], x)), 0, 6)
        y = np.clip(_plain_norm(module.layers[4], _plain_conv(module.layers[3], y)), 0, 6)
        return x + _plain_norm(module.layers[7], _plain_conv(module.layers[6], y))

    assert module.layers[0].out_channels == 24
    _check(module, plain, channels=4)


def test_two_stages_of_the_u_net_by_hand():
    encoder, decoder = _random(Encoder2D(2, 1)), _random(Decoder2D(2, 1))

    def double(layers, x):
        for n in (0, 3):
            x = np.maximum(_plain_norm(layers[n + 1], _plain_conv(layers[n], x)), 0)
        return x

    def plain(x):
        top = double(encoder.stages[0], x)
        low = double(encoder.stages[1], top.reshape(2, 6, 2, 6, 2).max(axis=(2, 4)))
        joined = np.concatenate([top, _plain_up(low, (12, 12))])
        return _plain_conv(decoder.head, double(decoder.stages[0], joined))

    _check(lambda x: decoder(encoder(x)), plain, channels=1)


def test_the_light_network_has_its_parts_and_fewer_parameters():
    network = LightUNet(16)
    assert [len(skip) for skip in network.skips] == [4, 3, 2, 1]
    count = {
        name: sum(p.numel() for p in module.parameters())
        for name, module in (
            ("light", network),
            ("plain", UNet2D(16)),
            ("usual", UNet2D(64)),
            ("without residual", LightUNet(16, residual=False)),
            ("without features", LightUNet(16, features=False)),
            ("without channels", LightUNet(16, channels=False)),
            ("without pyramid", LightUNet(16, pyramid="none")),
        )
    }
    assert count["light"] < 0.45 * count["plain"]
    assert count["light"] < count["usual"] / 3
    for name, number in count.items():
        if name.startswith("without"):
            assert number != count["light"], name


@pytest.mark.parametrize(
    "switch",
    [{}, {"features": False}, {"channels": False}, {"residual": False}, {"pyramid": "aspp"}],
)
def test_the_light_network_learns_with_each_part_switched_off(switch):
    torch.manual_seed(0)
    network = LightUNet(4, **switch)
    optimiser = torch.optim.Adam(network.parameters(), 3e-2)
    image = torch.rand(2, 1, 32, 32)
    wanted = (image > 0.5).float()
    losses = []
    for _ in range(40):
        loss = nn.functional.binary_cross_entropy_with_logits(network(image), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in network.parameters())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("network", [LightUNet(3), UNet2D(2), DecompositionNetwork(2)])
def test_maps_lie_in_the_lungs_and_edges_are_checked(network):
    image, lungs = torch.rand(2, 1, 32, 48), torch.zeros(2, 1, 32, 48, dtype=torch.bool)
    lungs[:, :, 8:24, 8:40] = True
    with torch.no_grad():
        found = network.eval().lesion_map(image, lungs)
    assert found.shape == image.shape
    assert 0 <= found.min() <= found.max() <= 1
    assert found[~lungs].abs().max() == 0
    with pytest.raises(ValueError, match="multiple of 16"):
        network.lesion_map(image[..., :40], lungs[..., :40])


def test_untrained_probabilities_are_the_prior():
    image = torch.zeros(1, 1, 32, 32)
    with torch.no_grad():
        found = torch.sigmoid(LightUNet(4, prior=0.2).eval()(image))
    assert found.mean() == pytest.approx(0.2, abs=0.05)


def test_parts_of_a_slice():
    torch.manual_seed(0)
    network = DecompositionNetwork(2).eval()
    image, lungs = torch.rand(1, 1, 32, 32), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    lungs[..., :16] = False
    x = to_input(image, lungs)
    assert x[~lungs].unique().tolist() == [-1.0]
    torch.testing.assert_close(x[lungs], 2 * image[lungs] - 1)
    with torch.no_grad():
        normal, lesion = network(x, lungs)
    assert normal[~lungs].unique().tolist() == [-1.0]
    assert lesion[~lungs].abs().max() == 0
    assert normal.abs().max() <= 1
    torch.testing.assert_close(network.lesion_map(image, lungs), lesion.clamp(0, 1))


def test_without_the_top_skip_the_finest_features_do_not_reach_the_normal_slice():
    torch.manual_seed(0)
    network = DecompositionNetwork(2, levels=2).eval()
    x = torch.rand(1, 1, 16, 16)
    features = [f.detach().requires_grad_(True) for f in network.encoder(x)]
    network.normal(features).sum().backward()
    assert features[0].grad is None
    assert features[1].grad.abs().max() > 0
    network.lesion(features).sum().backward()
    assert features[0].grad.abs().max() > 0
