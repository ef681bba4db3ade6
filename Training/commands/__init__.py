"""The groups of commands of ``python -m Training``."""
