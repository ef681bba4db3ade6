"""What a scan says about its own lungs, and that sound lungs have nothing to say."""

from dataclasses import replace

import numpy as np
import pytest

from DRAMLesionLib.lobes.plausibility import LEFT, RIGHT, LungFacts, judge, lung_facts

SOUND = LungFacts(
    litres={LEFT: 2.4, RIGHT: 2.8},
    mode=-870.0,
    noise=22.0,
    soft={LEFT: 0.004, RIGHT: 0.02},
    to_airways_mm={LEFT: 3.0, RIGHT: 0.0},
    bottoms_mm={LEFT: 45.0, RIGHT: 20.0},
    free_gas_ml=4.0,
    cut=False,
)
NAN = float("nan")


def codes(**changes):
    return [warning.code for warning in judge(replace(SOUND, **changes))]


def test_sound_lungs_get_no_warning():
    assert codes() == []


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({"mode": -812.0}, "expiration", "near -812 HU"),
        ({"litres": {LEFT: 0.3, RIGHT: 0.4}}, "lung-volume", "0.7 litres"),
        ({"litres": {LEFT: 6.0, RIGHT: 7.0}}, "lung-volume", "13.0 litres"),
        ({"litres": {LEFT: 0.8, RIGHT: 2.4}}, "lungs-unequal", "left lung has 33 %"),
        ({"soft": {LEFT: 0.0, RIGHT: 0.31}}, "dense-right-lung", "31 % of the right lung"),
        ({"to_airways_mm": {LEFT: NAN, RIGHT: NAN}}, "no-airways", "Neither trachea nor"),
        ({"to_airways_mm": {LEFT: 40.0, RIGHT: 0.0}}, "left-lung-apart", "left lung lies 40 mm"),
        ({"bottoms_mm": {LEFT: 10.0, RIGHT: 100.0}}, "diaphragm", "right lung ends 90 mm"),
        ({"free_gas_ml": 250.0}, "free-gas", "250 ml of gas"),
        ({"noise": 110.0}, "noisy", "SD 110 HU"),
    ],
)
def test_what_is_implausible_is_told(changes, code, told):
    warnings = judge(replace(SOUND, **changes))
    assert [warning.code for warning in warnings] == [code]
    assert told in warnings[0].message


def test_of_a_slab_neither_volume_nor_airways_are_expected():
    slab = {"litres": {LEFT: 0.2, RIGHT: 0.25}, "to_airways_mm": {LEFT: NAN, RIGHT: NAN}}
    assert codes(cut=True, **slab) == []


def test_one_lung_alone_is_not_compared():
    one = {"litres": {LEFT: 2.5}, "soft": {LEFT: 0.0}, "bottoms_mm": {LEFT: 30.0}}
    assert codes(to_airways_mm={LEFT: 0.0}, **one) == []


@pytest.fixture(scope="module")
def boxes():
    """Two lungs of -870 HU as boxes, 1.5 mm, a trachea between them, 200 ml of gas in the right."""
    hu = np.full((80, 80, 120), 40.0, dtype=np.float32)
    labels = np.zeros(hu.shape, dtype=np.uint8)
    labels[10:70, 10:70, 65:110] = LEFT
    labels[20:70, 10:70, 10:55] = RIGHT
    hu[labels > 0] = -870.0
    hu[30:70, 20:60, 15:50] = -1000.0
    hu[12:15, 20:60, 70:100] = 40.0
    airways = np.zeros(hu.shape, dtype=bool)
    airways[40:80, 36:44, 56:64] = True
    return hu, labels, airways


def test_facts_are_measured(boxes):
    hu, labels, airways = boxes
    facts = lung_facts(hu, hu, labels, airways, np.zeros_like(airways), 1.5)
    ml = 1.5**3 / 1000.0
    assert facts.litres[LEFT] == pytest.approx(60 * 60 * 45 * ml / 1000.0)
    assert facts.litres[RIGHT] == pytest.approx(50 * 60 * 45 * ml / 1000.0)
    assert facts.mode == pytest.approx(-870.0, abs=1.5)
    assert facts.free_gas_ml == pytest.approx(40 * 40 * 35 * ml)
    assert facts.soft[RIGHT] == 0.0
    assert 0.01 < facts.soft[LEFT] < 0.05
    assert facts.bottoms_mm == {LEFT: 15.0, RIGHT: 30.0}
    assert all(0.0 <= far < 6.0 for far in facts.to_airways_mm.values())
    assert facts.noise == 0.0
    assert not facts.cut


def test_gas_left_out_beside_the_upper_lung_is_counted(boxes):
    hu, labels, airways = boxes
    hu, labels = hu.copy(), labels.copy()
    hu[30:70, 20:60, 15:50] = -870.0
    gas = np.zeros_like(airways)
    gas[50:69, 71:79, 10:50] = True
    hu[gas] = -1000.0
    facts = lung_facts(hu, hu, labels, airways, gas, 1.5)
    assert facts.free_gas_ml == pytest.approx(19 * 8 * 40 * 1.5**3 / 1000.0)
