import datetime

import pytest

from DRAMLesionLib.reading.dicom_origin import _day, when_and_who
from Testing.library import simple_chest as chest
from Testing.library.reading.dicom_edits import edit, image_paths


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("20260301", datetime.date(2026, 3, 1)),
        ("2026.03.01", datetime.date(2026, 3, 1)),
        ("20260231", None),
        ("2026", None),
        ("", None),
    ],
)
def test_dates_as_dicom_writes_them(text, day):
    assert _day(text) == day


def test_the_day_and_the_patient_of_a_series(tmp_path, volume):
    chest.write_series(tmp_path / "a", volume)
    chest.write_series(tmp_path / "b", volume)

    def fill(dataset, patient="P 1"):
        dataset.StudyDate, dataset.AcquisitionDate = "20260228", "20260301"
        dataset.PatientID = patient

    edit(image_paths(tmp_path / "a"), fill)
    day, patient = when_and_who(tmp_path / "a")
    assert day == datetime.date(2026, 3, 1)
    assert "P 1" not in patient
    edit(image_paths(tmp_path / "b"), fill)
    assert when_and_who(tmp_path / "b") == (day, patient)
    edit(image_paths(tmp_path / "b"), lambda dataset: fill(dataset, "P 2"))
    assert when_and_who(tmp_path / "b")[1] != patient


def test_a_series_that_says_neither(tmp_path, volume):
    chest.write_series(tmp_path, volume)

    def empty(dataset):
        for name in ("StudyDate", "SeriesDate", "AcquisitionDate", "PatientID"):
            if name in dataset:
                delattr(dataset, name)

    edit(image_paths(tmp_path), empty)
    assert when_and_who(tmp_path) == (None, None)
