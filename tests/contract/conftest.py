"""Property tests run `GRPO_TEST_SCALE` times their examples, up to 3,000; the oracle beside them goes by its name."""

import os
import sys
from pathlib import Path

from hypothesis import settings

# `--import-mode=importlib` puts no test folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

SCALE = max(1, int(os.environ.get("GRPO_TEST_SCALE") or 1))
settings.register_profile("contract", max_examples=min(150 * SCALE, 3000), deadline=None, derandomize=SCALE == 1)
settings.load_profile("contract")
