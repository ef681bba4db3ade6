"""2D slices with masks: prepared, segmented and measured."""
