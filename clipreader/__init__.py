"""Read exact frames of video files as numpy arrays; used by `load_frames.py` and the suite."""

VERSION = "1.6.0"  # of the suite
