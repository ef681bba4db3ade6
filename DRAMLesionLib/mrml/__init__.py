"""Results as nodes of a Slicer scene, and nodes as images of the library.

The only part of the library that knows MRML. It is imported by the Slicer module alone, needs no
Qt, and works without a main window.
"""
