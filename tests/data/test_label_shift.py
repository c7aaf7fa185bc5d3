"""Label shift: exact counts without replacement, multinomial ones with it, and nothing but the key decides."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats

from bayestl import data

KEY = jax.random.key(0)
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 30, 20]))


def counts(rows: np.ndarray, labels: np.ndarray = LABELS) -> list[int]:
    return np.bincount(labels[rows], minlength=3).tolist()


def test_counts_without_replacement_are_exact():
    rows = data.label_shift(KEY, LABELS, class_weights=[1, 2, 1], num=40)
    assert rows.dtype == np.int32
    assert rows.shape == (40,)
    assert counts(rows) == [10, 20, 10]
    assert len(np.unique(rows)) == 40
    assert np.any(np.diff(rows) < 0)  # in random order
    # 7 (0.5, 0.3, 0.2) = (3.5, 2.1, 1.4): the largest remainder takes the row that is left.
    assert counts(data.label_shift(KEY, LABELS, class_weights=[5, 3, 2], num=7)) == [4, 2, 1]
    # In floats 10 * 0.3 is not 3 for every way to write 0.3; no row goes to another class for that.
    assert counts(data.label_shift(KEY, LABELS, class_weights=[0.1, 0.3, 0.6], num=10)) == [1, 3, 6]


@pytest.mark.parametrize("weights", [(1, 2, 1), (4, 1, 1), (0, 1, 3), (1, 1, 1), (0.001, 1, 1)])
def test_by_default_no_class_runs_out_and_no_more_fit(weights):
    rows = data.label_shift(KEY, LABELS, class_weights=weights)
    assert np.all(np.array(counts(rows)) <= [40, 30, 20])
    # By enumeration: no larger number of rows fits.
    for num in range(len(rows) + 1, 91):
        with pytest.raises(ValueError, match="ask for a smaller num, or give replace=True"):
            data.label_shift(KEY, LABELS, class_weights=weights, num=num)


def test_frequencies_with_replacement():
    weights, num = np.array([0.7, 0.2, 0.1]), 20_000
    rows = data.label_shift(KEY, LABELS, class_weights=weights, num=num, replace=True)
    shares = np.array(counts(rows)) / num
    assert np.all(np.abs(shares - weights) < 5 * np.sqrt(weights * (1 - weights) / num))
    # Inside of a class all rows are equally likely.
    times = np.bincount(rows, minlength=90)[LABELS == 0]
    mean = shares[0] * num / 40
    assert np.all(np.abs(times - mean) < 5 * np.sqrt(mean))
    assert len(data.label_shift(KEY, LABELS, class_weights=weights, replace=True)) == 90


def test_dirichlet_frequencies_have_their_moments():
    """One share of a symmetric Dirichlet of three is Beta(a, 2 a)."""
    concentration, num, repeats = 0.5, 1000, 150
    made = [
        data.label_shift(key, LABELS, concentration=concentration, num=num, replace=True)
        for key in np.asarray(jax.random.bits(KEY, (repeats, 2), "uint32"))
    ]
    shares = np.array([counts(rows) for rows in made]) / num
    mean, variance, excess = stats.beta.stats(concentration, 2 * concentration, moments="mvk")
    np.testing.assert_allclose(shares.mean(0), mean, atol=5 * np.sqrt(variance / repeats))
    np.testing.assert_allclose(shares.var(0), variance, atol=5 * variance * np.sqrt((excess + 2) / repeats))


def test_the_key_decides():
    first, again = (data.label_shift(KEY, LABELS, concentration=1.0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, data.label_shift(jax.random.key(1), LABELS, concentration=1.0))


def test_classes_of_any_kind():
    names = np.array(["bird", "cat", "dog"])[LABELS]
    rows = data.label_shift(KEY, names, class_weights=[0, 1, 0], num=5)
    assert set(names[rows]) == {"cat"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either class_weights or a concentration, and not both"),
        ({"class_weights": [1, 1, 1], "concentration": 1.0}, "and not both"),
        ({"class_weights": [1, 1]}, r"class_weights has shape \(2,\) and labels 3 classes; give one weight for each"),
        ({"class_weights": [1, -1, 1]}, "give finite numbers >= 0, at least one of them > 0"),
        ({"class_weights": [0, 0, 0]}, "give finite numbers >= 0, at least one of them > 0"),
        ({"concentration": 0.0}, "concentration is 0.0; give a number > 0"),
        ({"concentration": 1.0, "num": 0}, "num is 0; give the number of rows, at least 1"),
        ({"class_weights": [1, 1, 1], "num": 90}, "class 2 has 20 rows and would need 30; ask for a smaller num"),
    ],
)
def test_what_cannot_be_drawn(options, message):
    with pytest.raises(ValueError, match=message):
        data.label_shift(KEY, LABELS, **options)
