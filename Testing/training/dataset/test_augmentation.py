"""Thick slices: what they change, and what they must not."""

import numpy as np
import pytest
import torch

from Training.dataset.augmentation import thicken


class _Drawn:
    """Gives the thickness that a test wants."""

    def __init__(self, thickness):
        self.thickness = thickness

    def random(self):
        return 0.0

    def integers(self, low, high):
        assert low <= self.thickness < high
        return self.thickness


@pytest.mark.parametrize("thickness", [2, 3, 4])
def test_slices_become_means_and_lines_between_them(thickness):
    image = torch.rand(12, 3, 5)
    found = thicken(image, _Drawn(thickness), 1.0)
    assert found.shape == image.shape
    means = image.reshape(12 // thickness, thickness, 3, 5).mean(1)
    centres = np.arange(12 // thickness) * thickness + (thickness - 1) / 2
    for j, i in np.ndindex(3, 5):
        expected = np.interp(np.arange(12), centres, means[:, j, i].numpy())
        np.testing.assert_allclose(found[:, j, i].numpy(), expected, atol=1e-6)


def test_what_does_not_change_along_the_slices_stays():
    image = torch.rand(1, 4, 4).repeat(11, 1, 1)
    torch.testing.assert_close(thicken(image, _Drawn(4), 1.0), image)


def test_a_share_of_nothing_asks_for_no_randomness():
    image = torch.rand(6, 2, 2)
    assert thicken(image, None, 0.0) is image


def test_about_the_share_is_changed():
    rng = np.random.default_rng(0)
    image = torch.rand(8, 2, 2)
    changed = sum(thicken(image, rng, 0.3) is not image for _ in range(400))
    assert 90 <= changed <= 150
