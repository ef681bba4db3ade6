"""The report: table of the lobes, key slices, and the files that carry them.

Numbers are in :mod:`model` and :mod:`data`, pictures in :mod:`pictures` and :mod:`drawing`, the
page in :mod:`html`. Nothing here writes files, and nothing here knows the patient. Nothing is
imported here either: whoever needs the numbers alone need not have what draws the pictures.
"""
