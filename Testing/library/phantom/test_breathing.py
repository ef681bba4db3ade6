import numpy as np
import pytest

from DRAMLesionLib.images import geometry
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.phantom.breathing import Breath, breathe, landmarks


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(seed=2, spacing=5.0)


def test_the_way_of_a_point_leads_back():
    points = np.random.default_rng(0).uniform(-150.0, 150.0, (200, 3))
    breath = Breath(lift_mm=25.0, narrowing=0.08, wave_mm=2.0, seed=4)
    assert breath.before(breath.after(points)) == pytest.approx(points, abs=1e-6)
    assert np.abs(breath.after(points) - points).max() > 15.0


def test_no_breath_moves_nothing(phantom):
    still = breathe(phantom, Breath(lift_mm=0.0, narrowing=0.0, wave_mm=0.0))
    for name in ("ct", "lobes", "lesions"):
        ours, theirs = (geometry.array(getattr(p, name)) for p in (still, phantom))
        assert np.array_equal(ours, theirs)
    assert still.fractions == pytest.approx(phantom.fractions)


def test_lungs_get_smaller_and_denser_and_keep_their_mass(phantom):
    out = breathe(phantom, Breath(lift_mm=25.0, narrowing=0.06))
    volumes, masses = [], []
    for one in (phantom, out):
        inside = geometry.array(one.lobes) > 0
        hu = geometry.array(one.ct)[inside & (geometry.array(one.vessels) == 0)].astype(float)
        volumes.append(int(inside.sum()))
        masses.append(float((hu[hu < -500.0] + 1000.0).sum()))
    assert 0.75 < volumes[1] / volumes[0] < 0.95
    assert masses[1] == pytest.approx(masses[0], rel=0.08)


def test_truth_moves_with_the_ct(phantom):
    breath = Breath(lift_mm=20.0)
    out = breathe(phantom, breath)
    points = landmarks(phantom, 30)
    index = [out.lobes.TransformPhysicalPointToIndex(p) for p in breath.after(points).tolist()]
    before = [phantom.lobes.TransformPhysicalPointToIndex(p) for p in points.tolist()]
    same = [out.lobes[a] == phantom.lobes[b] for a, b in zip(index, before, strict=True)]
    assert np.mean(same) > 0.9


def test_landmarks_are_vessels_far_from_each_other(phantom):
    points = landmarks(phantom, 20)
    at = [phantom.vessels.TransformPhysicalPointToIndex(p) for p in points.tolist()]
    assert all(phantom.vessels[index] > 0 for index in at)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e3 * np.eye(len(points))
    assert distance.min() > 20.0
