"""The demo is no installed package: its tests find it from the repository's root, as `make demo` does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
