"""Which rows are for what: stratified, nested, disjoint, and fixed by the seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bayestl import data

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 30, 20]))


def counts(rows: np.ndarray, labels: np.ndarray = LABELS) -> list[int]:
    return np.bincount(labels[rows], minlength=3).tolist()


@pytest.mark.parametrize("num_per_class", [0, 1, 3, 20])
def test_few_shot_is_stratified_and_sorted(num_per_class):
    rows = data.few_shot(LABELS, num_per_class, seed=4)
    assert counts(rows) == [num_per_class] * 3
    assert np.all(np.diff(rows) > 0)


def test_few_shot_sets_are_nested_and_seeded():
    sets = [set(data.few_shot(LABELS, n, seed=4).tolist()) for n in (1, 3, 10, 20)]
    assert all(small < large for small, large in itertools.pairwise(sets))
    assert set(data.few_shot(LABELS, 3, seed=4).tolist()) == sets[1]
    assert len({tuple(data.few_shot(LABELS, 3, seed=seed)) for seed in range(10)}) == 10


def test_few_shot_covers_all_rows_over_seeds():
    """Every row is drawn with probability 5/40 or more; 200 seeds miss one with probability 90 (35/40)^200 < 1e-9."""
    drawn = np.concatenate([data.few_shot(LABELS, 5, seed=seed) for seed in range(200)])
    np.testing.assert_array_equal(np.unique(drawn), np.arange(len(LABELS)))


def test_few_shot_respects_among_and_exclude():
    among, exclude = np.arange(0, 90, 2), np.arange(0, 90, 6)
    rows = data.few_shot(LABELS, 3, seed=1, among=among, exclude=exclude)
    assert counts(rows) == [3, 3, 3]
    assert np.isin(rows, among).all()
    assert not np.isin(rows, exclude).any()


def test_few_shot_takes_labels_of_any_kind():
    names = np.array(["cat", "dog", "bird"])[LABELS]
    assert counts(data.few_shot(names, 2, seed=0)) == [2, 2, 2]


def test_split_parts_are_disjoint_stratified_and_complete():
    parts = data.split(LABELS, train_per_class=8, validation_per_class=5, seed=3)
    assert counts(parts.train) == [8, 8, 8]
    assert counts(parts.validation) == [5, 5, 5]
    assert counts(parts.test) == [27, 17, 7]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(90))


def test_validation_does_not_depend_on_the_training_pool():
    small, large = (data.split(LABELS, train_per_class=n, validation_per_class=5, seed=3) for n in (1, 14))
    np.testing.assert_array_equal(small.validation, large.validation)
    assert np.isin(small.train, large.train).all()
    assert not np.array_equal(
        small.validation, data.split(LABELS, train_per_class=1, validation_per_class=5, seed=4).validation
    )


def test_runs_draw_from_the_pool_and_leave_validation_and_test_alone():
    parts = data.split(LABELS, train_per_class=12, validation_per_class=4, seed=0)
    held_out = np.concatenate([parts.validation, parts.test])
    for seed in range(20):
        one, ten = (data.few_shot(LABELS, n, seed, among=parts.train) for n in (1, 10))
        assert np.isin(one, ten).all()
        assert not np.isin(ten, held_out).any()


def test_a_given_test_set_is_kept():
    test = np.arange(30)
    parts = data.split(LABELS, train_per_class=None, validation_per_class=2, seed=0, test=test)
    np.testing.assert_array_equal(parts.test, test)
    assert len(parts.train) == 90 - 30 - 6
    assert not np.isin(np.concatenate([parts.train, parts.validation]), test).any()
    assert not np.isin(parts.train, parts.validation).any()
    smaller = data.split(LABELS, train_per_class=2, validation_per_class=2, seed=0, test=test)
    np.testing.assert_array_equal(smaller.test, test)
    assert counts(smaller.train) == [2, 2, 2]


# ---------------------------------------------------------------- refusals


def test_too_few_rows_of_a_class():
    with pytest.raises(ValueError, match="class 2 has 20 rows to choose from and num_per_class asks for 21"):
        data.few_shot(LABELS, 21, seed=0)
    with pytest.raises(ValueError, match="class 1 has 0 rows to choose from and num_per_class asks for 1"):
        data.few_shot(LABELS, 1, seed=0, exclude=np.flatnonzero(LABELS == 1))


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_per_class is -1"):
        data.few_shot(LABELS, -1, seed=0)
    with pytest.raises(ValueError, match=r"labels has shape \(3, 2\); give one class per row"):
        data.few_shot(np.zeros((3, 2)), 1, seed=0)
    with pytest.raises(ValueError, match=r"exclude holds rows from 3 to 90; there are rows 0, ..., 89"):
        data.few_shot(LABELS, 1, seed=0, exclude=[3, 90])
    with pytest.raises(ValueError, match=r"among has shape \(90,\) and dtype bool; give row numbers"):
        data.few_shot(LABELS, 1, seed=0, among=LABELS == 0)


def test_split_needs_a_test_set():
    with pytest.raises(ValueError, match="train_per_class=None takes every row"):
        data.split(LABELS, train_per_class=None, validation_per_class=2, seed=0)
    with pytest.raises(ValueError, match="no rows are left for the test set: 4 for training and 2 for validation"):
        data.split([0, 1, 0, 1, 0, 1], train_per_class=2, validation_per_class=1, seed=0)
    with pytest.raises(ValueError, match=r"test holds rows from 0 to 90"):
        data.split(LABELS, train_per_class=1, validation_per_class=1, seed=0, test=[0, 90])
