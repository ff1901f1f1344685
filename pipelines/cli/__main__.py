"""`python -m pipelines.cli` is `gan`."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the current folder, from which nothing of a run is imported

from pipelines.cli import process

process()
