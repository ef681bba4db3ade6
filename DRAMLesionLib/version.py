"""The version of DRAMLesion, below everything that has to say it."""

__version__ = "0.2.0.dev0"
