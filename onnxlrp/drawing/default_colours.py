"""The colours of whatever is drawn; benchmarks/colours.py measures how well they read."""

DEFAULT_COLOURS = "orange-blue"
