"""A data set: its folder, checked, cached, sampled and augmented."""
