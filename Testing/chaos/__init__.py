"""Runs that are killed at any moment and started again: their results must be those of others."""
