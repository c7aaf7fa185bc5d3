"""Which rows are for training, for choosing hyperparameters, and for the final score."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from bayestl._arguments import check_arguments


class Split(NamedTuple):
    """Row numbers of disjoint parts, each sorted.

    Attributes:
        train: (n_train,) the pool that few-shot training sets are drawn from.
        validation: (n_validation,) for every choice of hyperparameter.
        test: (n_test,) for the final score only.
    """

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]


def few_shot(
    labels: Any, num_per_class: int, seed: int, *, among: Any = None, exclude: Any = ()
) -> Int[np.ndarray, " rows"]:
    """Row numbers of ``num_per_class`` examples of every class, sorted.

    Each seed orders all rows once, and the first suitable rows of each class are taken: with the same ``seed``, the
    rows of a larger ``num_per_class`` contain those of a smaller one, so a curve over the number of labels adds labels
    and never swaps them.

    Args:
        labels: (N,) class of each row; every class that occurs must be filled.
        num_per_class: examples per class, >= 0.
        seed: of ``numpy.random.default_rng``.
        among: row numbers to choose from; all rows by default.
        exclude: row numbers never chosen.

    Raises:
        ValueError: a class has too few rows left; labels are not one per row; a row outside the data.

    Example:
        >>> labels = np.array([0, 1, 0, 1, 0, 1])
        >>> one, two = (btl.data.few_shot(labels, n, seed=0) for n in (1, 2))
        >>> len(two), bool(np.isin(one, two).all())
        (4, True)
    """
    check_arguments(few_shot, locals())
    labels = class_labels(labels)
    if num_per_class < 0:
        raise ValueError(f"num_per_class is {num_per_class}; give the number of examples per class, 0 or more")
    free = np.ones(len(labels), bool) if among is None else _marked("among", among, len(labels))
    free &= ~_marked("exclude", exclude, len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[free[order]]
    chosen = []
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        if len(rows) < num_per_class:
            raise ValueError(
                f"class {label!s} has {len(rows)} rows to choose from and num_per_class asks for {num_per_class}; "
                f"ask for at most {len(rows)}, or exclude fewer rows"
            )
        chosen.append(rows[:num_per_class])
    return np.sort(np.concatenate(chosen))


def split(labels: Any, *, train_per_class: int | None, validation_per_class: int, seed: int, test: Any = None) -> Split:
    """A training pool, a validation set and a test set that share no row, fixed by ``seed`` alone.

    One seed for the whole study keeps validation and test fixed while training labels vary: draw each run's labels from
    the pool with :func:`few_shot`, whose seed is the run's. Validation rows are drawn first, so they depend neither on
    ``train_per_class`` nor on how many labels a run uses.

    Args:
        labels: (N,) class of each row.
        train_per_class: rows of each class in the training pool; ``None`` for all that is neither validation nor
            ``test``, which must then be given.
        validation_per_class: rows of each class for validation, >= 0.
        seed: of the split, not of a run.
        test: row numbers of a given test set; by default all rows that are left over.

    Raises:
        ValueError: a class has too few rows, or nothing is left for the test set.

    Example:
        >>> labels = np.arange(40) % 4
        >>> parts = btl.data.split(labels, train_per_class=5, validation_per_class=2, seed=0)
        >>> [len(part) for part in parts]
        [20, 8, 12]
        >>> train = btl.data.few_shot(labels, 3, seed=1, among=parts.train)
        >>> len(train), bool(np.isin(train, parts.validation).any())
        (12, False)
    """
    check_arguments(split, locals())
    labels = class_labels(labels)
    everything = np.arange(len(labels))
    held_out = np.flatnonzero(_marked("test", () if test is None else test, len(labels)))
    validation = few_shot(labels, validation_per_class, seed, exclude=held_out)
    used = np.concatenate([held_out, validation])
    if train_per_class is not None:
        train = few_shot(labels, train_per_class, seed, exclude=used)
    elif test is not None:
        train = np.setdiff1d(everything, used)
    else:
        raise ValueError("train_per_class=None takes every row for training; give it a number, or give the test rows")
    rest = np.setdiff1d(everything, np.concatenate([train, validation])) if test is None else held_out
    if len(rest) == 0:
        raise ValueError(
            f"no rows are left for the test set: {len(train)} for training and {len(validation)} for validation are "
            f"all {len(labels)}; ask for fewer per class"
        )
    return Split(train, validation, rest)


def class_labels(labels: Any) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"labels has shape {labels.shape}; give one class per row, shape (N,) with N >= 1")
    return labels


def _marked(name: str, rows: Any, num_rows: int) -> np.ndarray:
    """A mask (N,) of the rows in a list of row numbers."""
    rows = np.asarray(rows)
    marked = np.zeros(num_rows, bool)
    if rows.size == 0:
        return marked
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"{name} has shape {rows.shape} and dtype {rows.dtype}; give row numbers, integers (n,)")
    if rows.min() < 0 or rows.max() >= num_rows:
        raise ValueError(f"{name} holds rows from {rows.min()} to {rows.max()}; there are rows 0, ..., {num_rows - 1}")
    marked[rows] = True
    return marked
