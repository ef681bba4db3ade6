import pytest
import torch
from torch.nn import functional as F

from DRAMLesionLib.networks.attention import OFFSETS, LocalAttention, local_attention
from DRAMLesionLib.networks.regression import RegressionNetwork


def gathered(theta, phi, value):
    """The plain way: gather all 19 neighbours, mask those outside, softmax, sum."""
    size = theta.shape[2:]

    def neighbours(x, fill):
        padded = F.pad(x, (1,) * 6, value=fill)
        return torch.stack(
            [
                padded[
                    :, :, 1 + k : 1 + k + size[0], 1 + j : 1 + j + size[1], 1 + i : 1 + i + size[2]
                ]
                for k, j, i in OFFSETS
            ],
            dim=2,
        )

    inside = neighbours(torch.ones_like(theta[:, :1]), 0.0)[:, 0] > 0
    scores = (theta.unsqueeze(2) * neighbours(phi, 0.0)).sum(1)
    weights = scores.masked_fill(~inside, -torch.inf).softmax(1)
    return (weights.unsqueeze(1) * neighbours(value, 0.0)).sum(2)


def test_the_window_has_19_positions_and_no_corner():
    assert len(OFFSETS) == len(set(OFFSETS)) == 19
    assert (0, 0, 0) in OFFSETS
    assert (1, 1, 1) not in OFFSETS


def check_against_the_gathered_form(inputs, bound=1e-5):
    weight = torch.randn(inputs[2].shape)
    ours, plain = local_attention(*inputs), gathered(*inputs)
    torch.testing.assert_close(ours, plain, atol=bound, rtol=bound)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((plain * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=bound, rtol=bound)


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 4, 3), (2, 2, 2)])
def test_forward_and_backward_equal_the_gathered_form(shape):
    torch.manual_seed(0)
    inputs = [torch.randn(2, c, *shape, requires_grad=True) for c in (8, 8, 3)]
    check_against_the_gathered_form(inputs)


@pytest.mark.parametrize("shape", [(20, 70, 19), (80, 9, 33)])
def test_volumes_of_several_blocks_equal_the_gathered_form(shape):
    torch.manual_seed(2)
    inputs = [torch.randn(1, c, *shape, requires_grad=True) for c in (8, 8, 1)]
    check_against_the_gathered_form(inputs)


def test_affinities_of_all_sizes_equal_the_gathered_form():
    torch.manual_seed(2)
    # scores up to 100: in float32 the gathered form itself is 2e-5 from the truth
    inputs = [torch.randn(1, c, 20, 70, 19).double() for c in (8, 8, 1)]
    inputs[0] *= 5.0
    check_against_the_gathered_form([x.requires_grad_() for x in inputs], 1e-10)


def test_without_a_gradient_the_result_is_the_same():
    inputs = [torch.randn(2, c, 4, 5, 6, requires_grad=True) for c in (8, 8, 1)]
    with torch.no_grad():
        quiet = local_attention(*inputs)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, local_attention(*inputs), atol=0, rtol=0)


def test_the_module_is_equation_5_as_written():
    torch.manual_seed(3)
    module = LocalAttention(5)
    torch.nn.init.normal_(module.r.weight)
    y, features = torch.randn(1, 1, 5, 6, 4), torch.randn(1, 5, 5, 6, 4)
    x = module.reduce(features)
    written = module.r(gathered(module.theta(x), module.phi(x), module.g(y))) + y
    torch.testing.assert_close(module(y, features), written, atol=1e-5, rtol=1e-5)


def test_half_precision_is_computed_in_single():
    inputs = [torch.randn(1, c, 4, 4, 4).half().requires_grad_() for c in (8, 8, 1)]
    out = local_attention(*inputs)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert all(x.grad.dtype == torch.float16 for x in inputs)


def test_a_score_that_dwarfs_the_others_picks_its_neighbour():
    theta, phi = torch.zeros(1, 1, 3, 3, 3), torch.zeros(1, 1, 3, 3, 3)
    theta[0, 0, 1, 1, 1] = 1.0
    phi[0, 0, 0, 1, 1] = 1000.0
    value = torch.arange(27.0).view(1, 1, 3, 3, 3)
    assert local_attention(theta, phi, value)[0, 0, 1, 1, 1].item() == pytest.approx(4.0)


def test_gradients_equal_finite_differences():
    torch.manual_seed(1)
    inputs = [torch.randn(1, 2, 2, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(local_attention, inputs)


def test_equal_features_average_the_neighbours_inside_the_volume():
    value = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    zeros = torch.zeros(1, 4, 2, 2, 2)
    out = local_attention(zeros, zeros, value)
    # in a 2x2x2 cube each corner sees all but the opposite one: (28 - opposite) / 7
    expected = (28.0 - torch.arange(7.0, -1.0, -1.0)) / 7.0
    torch.testing.assert_close(out.flatten(), expected)


def test_untrained_attention_changes_nothing_and_the_features_get_no_gradient():
    y = torch.randn(1, 1, 4, 4, 4, requires_grad=True)
    features = torch.randn(1, 5, 4, 4, 4, requires_grad=True)
    module = LocalAttention(5)
    out = module(y, features)
    torch.testing.assert_close(out, y)
    module.r.weight.data.normal_()
    module(y, features).sum().backward()
    assert features.grad is None
    assert y.grad is not None
    assert module.theta.weight.grad.abs().sum() > 0


def test_the_regression_network_gives_both_maps():
    net = RegressionNetwork(base_channels=2)
    out = net(torch.rand(1, 1, 16, 16, 16))
    assert out.dram.shape == out.attended.shape == (1, 1, 16, 16, 16)
    plain = RegressionNetwork(base_channels=2, attention=False)(torch.rand(1, 1, 16, 16, 16))
    assert plain.attended is plain.dram
