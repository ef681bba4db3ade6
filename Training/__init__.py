"""Headless training and evaluation; imports DRAMLesionLib, is imported by nobody."""
