"""Many scans: one function does a case, and runners call it here, in job arrays, or on a cluster.

:mod:`case` turns a scan and settings into a row, with its results whole or not at all;
:mod:`local` and :mod:`cluster` call it; :mod:`run` strings them together with :mod:`summary` and
:mod:`cohort`, the table and the page of all scans.
"""
