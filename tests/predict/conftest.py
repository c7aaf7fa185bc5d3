"""Lets the tests here import the modules of Gaussians and of exactly solved problems."""

import sys
from pathlib import Path

for room in ("gaussians", "infer"):
    sys.path.insert(0, str(Path(__file__).parent.parent / room))
