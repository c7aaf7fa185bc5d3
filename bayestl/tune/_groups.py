"""Which examples are left out together."""

from __future__ import annotations

import jax
import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Key, Numbers


def groups_by_class(labels: Numbers, num_groups: int | None = None) -> np.ndarray:
    """One example of every class in each group: the k-th of each class is in group k.

    To leave out one example alone says little where labels are few: with one example per class it takes the class away.
    A class with fewer examples than there are groups is missing from some of them. One with a single example is never
    left out, since nothing would be left of it, unless every class has but one: then all examples are one group, and
    what is predicted without it is the prior's prediction.

    Args:
        labels: (N,) whole numbers.
        num_groups: at most so many, for more examples per class; None for up to 10.

    Returns:
        (N,) the number of each example's group; -1 for examples that are never left out.

    Raises:
        ValueError: labels of another shape, or fewer than 2 groups.

    Example:
        >>> print(btl.tune.groups_by_class(jnp.array([0, 0, 0, 1, 1, 1, 2])))
        [ 0  1  2  0  1  2 -1]
    """
    check_arguments(groups_by_class, locals())
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels have shape {labels.shape}; groups by class need one class per example, shape (N,)")
    if np.any(labels != labels):
        raise ValueError("labels hold NaN; give the number of a class for every example")
    most = 10 if num_groups is None else num_groups
    if most < 2:
        raise ValueError(f"num_groups is {num_groups}; at least 2 are needed, so that something is left")
    classes, counts = np.unique(labels, return_counts=True)
    if counts.max() == 1:
        return np.zeros(len(labels), int)
    count = min(int(counts.max()), most)
    groups = np.full(len(labels), -1)
    for number, (label, size) in enumerate(zip(classes, counts, strict=True)):
        if size > 1:
            # Each class begins at another group, so that those with few examples do not all meet in the first ones.
            offset = 0 if size % count == 0 else number
            groups[labels == label] = (np.arange(size) + offset) % count
    return groups


def random_groups(key: Key, num_examples: int, num_groups: int = 10) -> np.ndarray:
    """Groups of nearly equal size, at random.

    Args:
        key: which examples are together.
        num_examples: N.
        num_groups: how many; N at most.

    Returns:
        (N,) the number of each example's group.

    Raises:
        ValueError: fewer than 2 groups or examples.

    Example:
        >>> np.bincount(btl.tune.random_groups(jax.random.key(0), 7, 3))
        array([3, 2, 2])
    """
    check_arguments(random_groups, locals())
    if num_groups < 2 or num_examples < 2:
        raise ValueError(f"{num_groups} groups of {num_examples} examples; at least 2 of both are needed")
    order = np.asarray(jax.random.permutation(key, num_examples))
    groups = np.empty(num_examples, int)
    groups[order] = np.arange(num_examples) % min(num_groups, num_examples)
    return groups
