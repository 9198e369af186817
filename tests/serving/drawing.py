"""Draws the test pictures of a LoRA and of its base model, as `onmodel evaluate` does before it measures them.

LORA BASE SUITE OUT
"""

import sys
from pathlib import Path

from onmodel.core.config import load
from onmodel.evaluation.suite import TestSuite
from onmodel.evaluation.tasks import Options, draw, make_tasks
from onmodel.evaluation.trial import Trial


def pictures(lora: Path, base: Path, suite: TestSuite, out: Path) -> int:
    """Draw what is missing in `out`; how many."""
    trial = Trial(lora.stem, lora, str(base), "zork", (), None)
    options = Options(device="cpu")
    return draw(make_tasks([trial], suite, options, output_dir=out), suite, options)


if __name__ == "__main__":
    lora, base, suite, out = map(Path, sys.argv[1:])
    print(pictures(lora, base, load(TestSuite, suite), out))
