"""Which examples are left out together."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import bayestl as btl


def test_every_group_holds_one_example_of_each_class():
    labels = np.array([2, 0, 1, 1, 2, 0, 0, 1, 2])
    groups = btl.tune.groups_by_class(labels)
    for group in range(3):
        assert sorted(labels[groups == group]) == [0, 1, 2]


def test_unbalanced_classes_share_the_groups():
    labels = np.repeat([0, 1, 2, 3], [5, 2, 2, 1])
    groups = btl.tune.groups_by_class(labels)
    assert groups.max() == 4
    assert sorted(groups[labels == 0]) == [0, 1, 2, 3, 4]
    # Something of every class is always left, the two small ones meet in no group by default, the single one stays.
    assert len(set(groups[labels == 1])) == len(set(groups[labels == 2])) == 2
    assert groups[labels == 3].tolist() == [-1]


def test_one_example_each_is_one_group():
    assert btl.tune.groups_by_class([3, 1, 2]).tolist() == [0, 0, 0]


def test_many_examples_share_a_few_groups():
    labels = np.repeat([0, 1], 25)
    groups = btl.tune.groups_by_class(labels, 5)
    assert np.bincount(groups[labels == 0]).tolist() == np.bincount(groups[labels == 1]).tolist() == [5] * 5


def test_random_groups_are_of_nearly_equal_size():
    groups = btl.tune.random_groups(jax.random.key(0), 23, 5)
    assert sorted(np.bincount(groups)) == [4, 4, 5, 5, 5]
    assert not np.array_equal(groups, btl.tune.random_groups(jax.random.key(1), 23, 5))


def test_labels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"labels have shape \(2, 2\)"):
        btl.tune.groups_by_class(np.zeros((2, 2), int))
