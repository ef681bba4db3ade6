"""Damaged and contradictory files, made from a seed: none may crash, hang, or be believed."""
