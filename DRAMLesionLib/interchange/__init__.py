"""Results for other programs: DICOM segmentations and a structured report for the archive.

They belong to the patient's study: they carry its names and identifiers, as the CT does.
"""
