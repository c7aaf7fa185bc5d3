"""Notes about choices at an edge."""

from __future__ import annotations

import numpy as np
import pytest

import bayestl as btl


def test_notes_say_which_limit_a_family_runs_to():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    first, second = btl.tune.edges(["narrow", "inside", "wide", "all alike"], scores)
    assert "'narrow'" in first
    assert "runs to 0" in first
    assert "'wide'" in second
    assert "runs to infinity" in second


def test_families_without_weight_are_passed_over():
    scores, weights = np.array([[3.0, 2.0], [1.0, 2.0]]), np.array([[0.03, 0.02], [0.5, 0.45]])
    (note,) = btl.tune.edges(["narrow", "wide"], scores, weights)
    assert "'wide'" in note


@pytest.mark.parametrize("weights", [None, np.ones((2, 3))])
def test_shapes_that_differ_are_refused(weights: np.ndarray | None):
    with pytest.raises(ValueError, match=r"one row for each of the \d families"):
        btl.tune.edges(["a", "b"] if weights is not None else ["a", "b", "c"], np.ones((2, 2)), weights)
