"""Synthetic lesions in real lungs: the phantom's lesions set into scans without lesions."""
