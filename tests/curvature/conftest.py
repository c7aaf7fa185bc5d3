"""Lets the tests here import the networks of tests/layers, and the linear-Gaussian problems of tests/infer."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "infer"))
sys.path.insert(0, str(Path(__file__).parent.parent / "layers"))
