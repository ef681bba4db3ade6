"""Points of a reader go to Slicer's own files and come back."""

import json

import pytest

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.reading.markups import Point, read_points, write_points

POINTS = [
    Point((12.5, -30.25, 100.0), lesion=True),
    Point((13.5, -30.25, 100.0), lesion=True),
    Point((-40.0, 7.0, -3.5), lesion=False),
]


def _file(tmp_path, **changes):
    """A list of one point as Slicer writes it, with changes."""
    point = {"id": "1", "label": "lesion-1", "position": [1.0, 2.0, 3.0]}
    point |= {"positionStatus": "defined", "orientation": [1.0] * 9, "selected": True}
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm"}
    for name, value in changes.items():
        target = markup if name in ("type", "coordinateSystem", "coordinateUnits") else point
        target[name] = value
    content = {"@schema": "…", "markups": [{**markup, "display": {}, "controlPoints": [point]}]}
    path = tmp_path / "a.mrk.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "points.mrk.json"
    write_points(POINTS, path)
    assert read_points(path) == POINTS
    write_points([], path)
    assert read_points(path) == []


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({}, (1.0, 2.0, 3.0)),
        ({"coordinateSystem": "RAS"}, (-1.0, -2.0, 3.0)),
        ({"coordinateUnits": "cm"}, (10.0, 20.0, 30.0)),
    ],
)
def test_places_are_lps_millimetres(tmp_path, changes, place):
    assert read_points(_file(tmp_path, **changes)) == [Point(place, lesion=True)]


def test_the_kind_is_in_the_label_or_in_the_description(tmp_path):
    assert not read_points(_file(tmp_path, label="Background-7"))[0].lesion
    assert read_points(_file(tmp_path, label="F-1", description="lesion, faint"))[0].lesion


def test_points_that_were_never_placed_are_passed_over(tmp_path):
    assert read_points(_file(tmp_path, positionStatus="undefined", position=None)) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": "F-1"}, "has to begin with 'lesion' or 'background'"),
        ({"type": "Curve"}, "no list of points"),
        ({"coordinateSystem": "IJK"}, "coordinateSystem"),
        ({"coordinateUnits": ["mm", "s"]}, "save the points in mm"),
        ({"coordinateUnits": "inch"}, "save the points in mm"),
        ({"position": [1.0, 2.0]}, "no place in mm"),
        ({"position": [1.0, 2.0, 1e9]}, "no place in mm"),
        ({"position": [1.0, float("nan"), 3.0]}, "wanted: a number"),
        ({"position": "here"}, "position"),
    ],
)
def test_what_is_no_point_is_refused_in_one_line(tmp_path, changes, reason):
    path = _file(tmp_path, **changes)
    with pytest.raises(InputError, match=reason) as caught:
        read_points(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"markups": 3}', '{"markups": [{}]}'])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "a.mrk.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.mrk\.json"):
        read_points(path)


def test_a_place_that_is_both_is_refused(tmp_path):
    path = tmp_path / "a.mrk.json"
    place = (1.0, 2.0, 3.0)
    write_points([Point(place, lesion=True), Point(place, lesion=False)], path)
    with pytest.raises(InputError, match="a point of the other kind"):
        read_points(path)


def test_a_place_that_is_there_twice_is_there_once(tmp_path):
    path = tmp_path / "a.mrk.json"
    write_points([POINTS[0], POINTS[0]], path)
    assert read_points(path) == [POINTS[0]]


def test_slicer_reads_what_is_written_and_writes_what_is_read(tmp_path):
    slicer = pytest.importorskip("slicer_core") and pytest.importorskip("slicer")
    path = tmp_path / "points.mrk.json"
    write_points(POINTS, path)
    storage = slicer.vtkMRMLMarkupsJsonStorageNode()
    storage.SetFileName(str(path))
    node = slicer.vtkMRMLMarkupsFiducialNode()
    assert storage.ReadData(node)
    assert node.GetNumberOfControlPoints() == 2
    place = [0.0] * 3
    node.GetNthControlPointPosition(0, place)
    assert place == [-12.5, 30.25, 100.0]  # RAS
    again = tmp_path / "again.mrk.json"
    storage.SetFileName(str(again))
    assert storage.WriteData(node)
    assert read_points(again) == POINTS[:2]
