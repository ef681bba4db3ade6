"""Parts of the DRAMLesion module's panel and logic, each behind a small interface.

Nothing here imports more than Qt and MRML at file scope; the library comes when it is needed.
"""
