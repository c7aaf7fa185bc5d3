"""Lets the tests here import the networks beside them, and the linear-Gaussian problems of the inference methods."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "infer"))
sys.path.insert(0, str(Path(__file__).parent))
