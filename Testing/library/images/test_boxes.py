import numpy as np
import pytest

from DRAMLesionLib.images.boxes import bounding_box, mirrored


def test_the_box_holds_every_voxel_and_no_empty_plane():
    mask = np.zeros((10, 12, 14), dtype=bool)
    mask[3, 5, 7] = mask[6, 2, 7] = True
    assert bounding_box(mask) == (slice(3, 7), slice(2, 6), slice(7, 8))


def test_a_margin_ends_where_the_volume_does():
    mask = np.zeros((10, 12, 14), dtype=bool)
    mask[1, 5, 12] = True
    assert bounding_box(mask, margin=3) == (slice(0, 5), slice(2, 9), slice(9, 14))


def test_an_empty_mask_has_an_empty_box_with_any_margin():
    box = bounding_box(np.zeros((4, 5, 6), dtype=bool), margin=2)
    assert box == (slice(0, 0),) * 3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_mirror_images_go_on_for_ever_as_numpy_reflects(count):
    far = 3 * count + 2
    expected = np.pad(np.arange(count), far, mode="reflect")
    assert mirrored(np.arange(-far, count + far), count).tolist() == expected.tolist()
