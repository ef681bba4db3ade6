import math

import pytest
import torch

from DRAMLesionLib.networks.unet import VALID_EXACT_SHRINK, VALID_SHRINK, UNet3D


def test_paper_width_has_the_channels_of_figure_2():
    net = UNet3D(base_channels=32)
    widths = [
        (m.in_channels, m.out_channels) for m in net.modules() if isinstance(m, torch.nn.Conv3d)
    ]
    assert widths == [
        (1, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512),
        (768, 256), (256, 256), (384, 128), (128, 128), (192, 64), (64, 64), (64, 1),
    ]  # fmt: skip


def test_zero_padding_keeps_the_size_and_gives_low_level_features():
    out = UNet3D(base_channels=2)(torch.rand(2, 1, 24, 16, 32))
    assert out.logits.shape == (2, 1, 24, 16, 32)
    assert out.low_level[0].shape == (2, 4, 24, 16, 32)
    assert out.low_level[1].shape == (2, 8, 12, 8, 16)


def test_valid_padding_gives_44_for_132_and_for_any_larger_size():
    net = UNet3D(base_channels=1, out_channels=3, padding="valid").eval()
    with torch.no_grad():
        assert net(torch.rand(1, 1, 132, 132, 132)).logits.shape == (1, 3, 44, 44, 44)
        assert net(torch.rand(1, 1, 92, 100, 108)).logits.shape == (1, 3, 4, 12, 20)
    assert 132 - VALID_SHRINK == 44


@pytest.mark.parametrize(
    ("padding", "size", "rule"), [("zero", 20, "multiple of 8"), ("valid", 128, "92")]
)
def test_sizes_that_do_not_fit_are_refused(padding, size, rule):
    with pytest.raises(ValueError, match=rule):
        UNet3D(base_channels=1, padding=padding)(torch.rand(1, 1, size, size, size))


def test_an_unknown_padding_is_refused():
    with pytest.raises(ValueError, match="'zero' or 'valid'"):
        UNet3D(padding="same")


@pytest.mark.parametrize("prior", [0.02, 0.3])
def test_the_untrained_map_starts_near_the_prior(prior):
    torch.manual_seed(0)
    net = UNet3D(base_channels=4, prior=prior)
    share = torch.sigmoid(net(torch.rand(2, 1, 16, 16, 16)).logits.detach()).mean()
    assert abs(math.log(share / prior)) < 0.7


def test_valid_output_does_not_depend_on_where_a_tile_ends():
    torch.manual_seed(1)
    net = UNet3D(base_channels=1, padding="valid").eval()
    net.head.weight.data.fill_(5.0)
    image = torch.rand(1, 1, 148, 92, 92)
    with torch.no_grad():
        whole = net(image).logits
        part = net(image[:, :, :124]).logits
    crop = (VALID_EXACT_SHRINK - VALID_SHRINK) // 2
    kept = part.shape[2] - crop
    torch.testing.assert_close(whole[:, :, :kept], part[:, :, :kept])
    assert not torch.allclose(whole[:, :, kept + 4 : part.shape[2]], part[:, :, kept + 4 :])
