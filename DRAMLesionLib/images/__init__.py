"""Grids, boxes and windows: what every room needs to know of an image."""
