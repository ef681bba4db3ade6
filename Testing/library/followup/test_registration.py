import numpy as np
import pytest

from DRAMLesionLib.followup import compare as comparing
from DRAMLesionLib.followup import splines
from DRAMLesionLib.followup.registration import Lungs, register
from DRAMLesionLib.images import geometry
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.phantom.breathing import landmarks
from Testing.library.followup.conftest import BREATH, SPACING

QUICK = splines.LEVELS[:2]
"""Without the last level, which takes four fifths of the time and the last millimetre."""


def lungs(phantom):
    return Lungs(phantom.ct, phantom.lobes, phantom.lesions)


@pytest.fixture(scope="module")
def found(pair):
    return register(lungs(pair[0]), lungs(pair[1]), levels=QUICK)


def test_landmarks_of_another_breath_are_found(pair, found):
    points = landmarks(pair[0], 60)
    wanted = BREATH.after(points)
    there = np.array([found.transform.TransformPoint(p.tolist()) for p in points])
    error = np.linalg.norm(there - wanted, axis=1)
    assert np.linalg.norm(points - wanted, axis=1).mean() > 8.0
    assert error.mean() < 2.5
    assert error.max() < 8.0


def test_the_fit_is_judged_as_good(found):
    assert found.dice > comparing.SURE_DICE
    assert found.likeness > comparing.SURE_LIKENESS
    assert found.folded == 0.0


def test_lungs_are_pressed_together_where_they_were(pair, found):
    inside = geometry.array(geometry.resample(pair[0].lobes, found.expansion, "nearest")) > 0
    volume = [np.count_nonzero(geometry.array(phantom.lobes)) for phantom in pair]
    shrunk = geometry.array(found.expansion)[inside].mean()
    assert shrunk == pytest.approx(volume[1] / volume[0], abs=0.04)
    assert shrunk < 0.95


def test_another_person_is_not_taken_for_this_one(pair, found):
    stranger = register(lungs(pair[0]), lungs(make_phantom(4, SPACING)), levels=QUICK)
    assert stranger.likeness < comparing.SURE_LIKENESS < found.likeness


def test_a_run_can_be_stopped(pair):
    class Stopped(Exception):
        pass

    def stop(fraction):
        if fraction > 0.25:
            raise Stopped

    with pytest.raises(Stopped):
        register(lungs(pair[0]), lungs(pair[0]), stop, QUICK)


def test_refined_knots_make_the_same_displacement():
    rng = np.random.default_rng(0)
    extent = [100.0, 90.0, 80.0]
    places = [np.arange(0.0, length, 5.0) for length in extent]
    coarse = [splines._basis(p, e, 40.0) for p, e in zip(places, extent, strict=True)]
    knots = rng.normal(size=(*(basis.shape[1] for basis in coarse), 3))
    fine = [splines._basis(p, e, 20.0) for p, e in zip(places, extent, strict=True)]
    refined = splines._refined(knots, [basis.shape[1] for basis in fine])
    assert splines._spread(refined, fine) == pytest.approx(splines._spread(knots, coarse))


def test_the_derivative_by_the_knots_is_that_of_the_cost():
    rng = np.random.default_rng(1)
    knots = rng.normal(size=(6, 5, 7, 3))
    value, slope = splines._bending(knots)
    step = np.zeros_like(knots)
    step[2, 3, 4, 1] = 1e-5
    assert (splines._bending(knots + step)[0] - value) / 1e-5 == pytest.approx(
        slope[2, 3, 4, 1], abs=1e-4
    )
