"""Points from masks: inside of each lesion, as many on the background."""

import numpy as np
import pytest

from Training.dataset.sampled_points import WITHOUT_LESION, sample_points


def _rng():
    return np.random.default_rng(4)


@pytest.mark.parametrize("shape", [(20, 22), (6, 20, 22)])
def test_one_point_for_each_lesion_and_as_many_beside(shape):
    truth = np.zeros(shape, dtype=bool)
    # a ring, whose centroid is no lesion, and a corner of the image
    truth[..., 3:12, 3:12] = True
    truth[..., 5:10, 5:10] = False
    truth[..., 15:20, 17:22] = True
    labels = sample_points(truth, None, _rng())
    assert (labels == 1).sum() == (labels == 0).sum() == 2
    assert truth[labels == 1].all()
    assert not truth[labels == 0].any()
    corner = np.argwhere(labels == 1)[-1]
    assert tuple(corner[-2:]) == (17, 19)
    np.testing.assert_array_equal(labels, sample_points(truth, None, _rng()))


def test_an_image_without_lesion_has_background_in_the_lungs():
    lungs = np.zeros((16, 16), dtype=bool)
    lungs[4:8, 4:8] = True
    labels = sample_points(np.zeros((16, 16), dtype=bool), lungs, _rng())
    assert (labels == 0).sum() == WITHOUT_LESION
    assert lungs[labels == 0].all()
    assert (labels == 255).sum() == 256 - WITHOUT_LESION


def test_background_is_drawn_from_all_of_the_image():
    truth = np.zeros((30, 30), dtype=bool)
    truth[::3, ::3] = True
    labels = sample_points(truth, np.zeros_like(truth), _rng())
    assert (labels == 1).sum() == (labels == 0).sum() == 100
    quarters = [(labels == 0)[j : j + 15, i : i + 15].sum() for j in (0, 15) for i in (0, 15)]
    assert min(quarters) > 10
