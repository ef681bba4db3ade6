"""The CT that the tests of the readers write and read again."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.library import simple_chest as chest


@pytest.fixture(scope="session")
def ct() -> sitk.Image:
    """A crude chest in HU."""
    return chest.hu(chest.grid())


@pytest.fixture(scope="session")
def volume(ct) -> np.ndarray:
    """Its voxels, (k, j, i)."""
    return chest.values(ct)
