"""How many data there are, taken from the data where a log joint was not told, and compared with them where it was."""

from __future__ import annotations

import math
import warnings
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._log_joint import LogJoint

Tree = TypeVar("Tree")


def sized(tree: Tree, num_examples: Any) -> Tree:
    """The same method, or log joint, with N in every log joint of it that was given none.

    Args:
        tree: a :class:`~bayestl.LogJoint`, or an :class:`~bayestl.Inference` made of ``jax.tree_util.Partial``.
            What a function has closed over is not reached, and keeps what it was given.
        num_examples: N of the data, each example counted by its weight.

    Example:
        >>> from bayestl._data_size import sized
        >>> net = btl.nets.mlp(jax.random.key(0), (2, 1))
        >>> print(sized(btl.LogJoint(net, btl.likelihoods.normal(1.0), None), 20).num_data)
        20.0
    """

    def leaf(x: Any) -> Any:
        if not _is_joint(x) or x.num_data is not None:
            return x
        return x.replace(num_data=jnp.asarray(num_examples, jnp.result_type(float)))

    return jax.tree.map(leaf, tree, is_leaf=_is_joint)


def repeated(tree: Tree, times: Any) -> Tree:
    """The same method, or log joint, with ``times`` as many data in every log joint of it that was given a number."""

    def leaf(x: Any) -> Any:
        return x.replace(num_data=x.num_data * times) if _is_joint(x) and x.num_data is not None else x

    return jax.tree.map(leaf, tree, is_leaf=_is_joint)


def with_prior(tree: Tree, prior: Any) -> Tree:
    """The same method, or log joint, with another prior in every log joint of it."""
    return jax.tree.map(lambda x: x.replace(prior=prior) if _is_joint(x) else x, tree, is_leaf=_is_joint)


def warn_of_size(tree: Any, num_examples: Any, stacklevel: int = 2) -> None:
    """Warn, once, where a log joint was given another N than the data have; numbers that are traced are let through.

    Args:
        tree: as for :func:`sized`.
        num_examples: N of the data, each example counted by its weight.
        stacklevel: whose line the warning shows, as in ``warnings.warn``; 2 is the caller's.
    """
    if not _tree.is_concrete(num_examples):
        return
    num = float(num_examples)
    for joint in filter(_is_joint, jax.tree.leaves(tree, is_leaf=_is_joint)):
        if joint.allow_other_size or joint.num_data is None or not _tree.is_concrete(joint.num_data):
            continue
        given = float(joint.num_data)
        if not math.isclose(given, num, rel_tol=1e-6):
            warnings.warn(
                f"num_data is {given:g} and the data have {num:g} examples, so that each counts {given / num:.3g} "
                "times. Leave num_data out, and it is taken from the data; or say LogJoint(..., allow_other_size=True) "
                "where they differ on purpose: for a part of the data, or augmented copies",
                UserWarning,
                stacklevel=stacklevel + 1,
            )
            return


def _is_joint(x: Any) -> bool:
    return isinstance(x, LogJoint)
