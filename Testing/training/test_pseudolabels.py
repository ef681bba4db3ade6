"""From maps to labels: what is done with vessels, scores, and files that a person edited."""

import numpy as np

from Training.cache import BACKGROUND, LESION, VESSEL
from Training.stages.pseudolabels import _vessels_in_lesions


def _tube(size=24):
    labels = np.full((size, size, size), BACKGROUND, dtype=np.uint8)
    labels[:, 11:13, 11:13] = VESSEL
    return labels, np.ones_like(labels)


def test_a_vessel_with_lesion_all_around_becomes_lesion_and_its_continuation_does_not():
    labels, lobes = _tube()
    labels[:12][labels[:12] == BACKGROUND] = LESION
    filled = _vessels_in_lesions(labels, lobes)
    assert filled[:9, 11:13, 11:13].all()
    assert not filled[15:].any()
    assert not filled[labels != VESSEL].any()


def test_a_vessel_beside_a_lesion_stays_a_vessel():
    labels, lobes = _tube()
    labels[:, :, :9][labels[:, :, :9] == BACKGROUND] = LESION
    assert not _vessels_in_lesions(labels, lobes).any()


def test_without_lesions_and_outside_of_the_lobes_nothing_is_filled():
    labels, lobes = _tube()
    assert not _vessels_in_lesions(labels, lobes).any()
    labels[labels == BACKGROUND] = LESION
    assert not _vessels_in_lesions(labels, np.zeros_like(lobes)).any()
    # the share is that of the lung alone: at the pleura, half of the cube lies outside
    lobes[:, :10] = 0
    labels[:, :10] = BACKGROUND
    assert _vessels_in_lesions(labels, lobes)[:, 11:13, 11:13].all()
