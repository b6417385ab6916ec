"""Exact frames of video files, as numpy arrays: what `load_frames.py` and the suite read with."""

VERSION = "1.3.0"  # of the suite
