"""The simulated reader, and the measure of what clicks are worth."""

import json

import numpy as np
import pytest

from DRAMLesionLib.lesions.clicks import Click
from Training.evaluation import clicks
from Training.evaluation.simulated_reader import worst_error

SPACING = (2.0, 1.0, 1.0)


def _boxes(*boxes):
    mask = np.zeros((12, 24, 24), dtype=bool)
    for k, j, i, size in boxes:
        mask[k : k + size, j : j + size, i : i + size] = True
    return mask


def test_the_reader_clicks_where_the_largest_error_is_deepest():
    # of voxels of one depth the first: slices are 2 mm apart, so that is near the first slice
    truth = _boxes((2, 2, 2, 5), (2, 14, 14, 3))
    assert worst_error(_boxes((2, 14, 14, 3)), truth, SPACING) == Click((3, 4, 4), True)
    assert worst_error(_boxes((2, 2, 2, 5)), truth, SPACING) == Click((2, 15, 15), True)
    made_up = _boxes((2, 2, 2, 5), (2, 14, 14, 3), (3, 4, 16, 7))
    click = worst_error(made_up, truth, SPACING)
    assert click == Click((4, 7, 19), False)
    assert worst_error(truth, truth, SPACING) is None


@pytest.fixture
def scan():
    """One lobe with ground glass of which the network has found a half, and vessels none."""
    truth = _boxes((3, 4, 3, 6), (3, 4, 14, 6))
    lobes = np.zeros(truth.shape, dtype=np.uint8)
    lobes[1:11, 2:22, 1:23] = 3
    hu = np.where(truth, -600, -860).astype(np.int16)
    answer = np.where(_boxes((3, 4, 3, 6)), 0.9, 0.05).astype(np.float32)
    maps = dict.fromkeys(clicks.STARTS, answer)
    return clicks.Scan(hu, lobes, np.zeros_like(truth), truth, maps, SPACING)


def test_a_session_counts_what_each_click_brings(scan):
    one = clicks.session("case", scan, clicks.STARTS[0], 3)
    assert one.dice[0] == pytest.approx(2 * 216 / (216 + 432))
    assert one.dice[1] > one.dice[0] + 0.1
    assert len(one.dice) == 4
    assert set(one.peer) == {0, 1, 3}
    assert one.obeyed
    assert one.elsewhere == 0.0


def test_the_peer_starts_from_the_clicks_and_from_the_network(scan):
    found = clicks.walk(scan, scan.maps[clicks.STARTS[0]] > 0.5, [Click((5, 6, 16), True)])
    assert found[5, 6, 16]
    assert not found[scan.lobes == 0].any()


def test_figures_are_means_over_the_scans(scan):
    def made(name, dice, peer):
        return clicks.Session(name, "pseudo-label", dice, peer, True, 0.0, [0.5], [1.0])

    figures = clicks.summarise(
        [
            made("a", [0.5, 0.6, 0.6, 0.7], {0: 0.5, 1: 0.5, 3: 0.6}),
            made("b", [0.7, 0.7, 0.7, 0.9], {0: 0.7, 1: 0.6, 3: 0.8}),
        ]
    )["pseudo-label"]
    assert figures["dice"] == pytest.approx(0.6)
    assert figures["gain_1"] == pytest.approx(0.05)
    assert figures["gain_3"] == pytest.approx(0.2)
    assert figures["least_gain_3"] == pytest.approx(0.2)
    assert figures["peer_gain_1"] == pytest.approx(-0.05)
    assert "gain_10" not in figures
    assert figures["obeyed"] is True


def test_the_command_measures_scans(scan, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clicks, "load", lambda _source, _weights: scan)
    path = tmp_path / "clicks.json"
    words = ["--output", str(path), "--count", "2", "--workers", "1", "--clicks", "1"]
    assert clicks.main(words) == 0
    content = json.loads(path.read_text())
    assert content["final network"]["scans"] == 2
    assert content["final network"]["gain_1"] > 0.1
    assert [one["name"] for one in content["scans"][:2]] == ["phantom-900000"] * 2
    assert "peer_gain_1" in capsys.readouterr().out
