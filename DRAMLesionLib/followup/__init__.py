"""Two points in time: two CTs of one patient, laid over each other, and what has changed between.

``registration`` finds each place of the earlier lungs in the later ones, ``lesions`` and
``uncertainty`` say what of the difference is change, ``model`` holds it, ``page`` and ``output``
write it.
"""
