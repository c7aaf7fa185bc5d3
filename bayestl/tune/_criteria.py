"""How well each example would have been predicted without it: by closed forms, by fits without it, by other data."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import infer
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Data, Key, Params
from bayestl.curvature import Builder, dual
from bayestl.passes import whole
from bayestl.tune._left_out import LeftOut


class Fitted(NamedTuple):
    """What a criterion looks at: the fits under one prior.

    Attributes:
        params: the mode of all the data.
        parts: the modes of the criterion's subsets, leaves with a leading axis G; of no length where it asks for none.
    """

    params: Params
    parts: Params


class Criterion(Protocol):
    """What decides between priors: a score for each example, of predictions made without that example.

    Attributes:
        groups: (N,) whole numbers where fits without each group are wanted beside that of all data; else None. The
            path fits them all in one program.
    """

    @property
    def groups(self) -> np.ndarray | None: ...

    def __call__(self, key: Key, joint: LogJoint, fitted: Fitted, batch: Batch) -> np.ndarray:
        """Log predictive probabilities in nats, (M,), of M examples; under ``joint``, which holds the prior."""
        ...


@dataclasses.dataclass(frozen=True)
class KFold:
    """Predictions of fits without each group. Made by :func:`k_fold`."""

    left_out: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """The groups that fits are wanted without."""
        return self.left_out

    def __call__(self, key: Key, joint: LogJoint, fitted: Fitted, batch: Batch) -> np.ndarray:
        """(M,) for the M examples that are left out at some time."""
        return self.predictions(key, joint, fitted, batch).log_probs

    def predictions(self, key: Key, joint: LogJoint, fitted: Fitted, batch: Batch) -> LeftOut:
        """Of each of these examples, by the fit without its group."""
        prior: Any = joint.prior
        if np.all(self.left_out == 0):
            return predicted_at(joint, prior.mean, batch)
        rows = np.flatnonzero(self.left_out >= 0)
        if self.left_out.max() == 0:
            # One group alone needs no predictions of the others.
            part = jax.tree.map(lambda x: x[rows], batch)
            return predicted_at(joint, jax.tree.map(lambda x: x[0], fitted.parts), part)._replace(rows=rows)
        log_probs, outputs = _each(joint.replace(prior=None), fitted.parts, batch)
        place = self.left_out[rows], rows
        return LeftOut(rows, np.asarray(outputs)[place], None, np.asarray(log_probs, np.float64)[place])


def k_fold(groups: Any) -> KFold:
    """Predictions of every group of examples by a fit without it, along the same path as the fit of all data.

    For any network and likelihood, without curvature; the dearest, and the best where there are many examples.

    Args:
        groups: as for :func:`leave_out`.
    """
    return KFold(checked_groups(groups))


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The Laplace evidence. Made by :func:`evidence`."""

    curvature: Builder
    batch_size: int | None

    @property
    def groups(self) -> None:
        """No fits beside that of all data."""
        return None

    def __call__(self, key: Key, joint: LogJoint, fitted: Fitted, batch: Batch) -> np.ndarray:
        """One number for all examples together, (1,)."""
        value = infer.log_evidence(
            key, joint, fitted.params, batch, curvature=self.curvature, batch_size=self.batch_size
        )
        return np.asarray(value, np.float64)[None]


def evidence(*, curvature: Builder | None = None, batch_size: int | None = None) -> Evidence:
    """The log evidence by Laplace's method: one number, as if there were one example.

    A good guide for regression. For classes it is the sum of all predictions one example ahead, whose first ones punish
    the scale that is best with all data.

    Args:
        curvature: its structure; None for ``curvature.dual()``, exact for few-shot targets.
        batch_size: examples seen at once; None for all.
    """
    check_arguments(evidence, locals())
    return Evidence(dual() if curvature is None else curvature, batch_size)


@dataclasses.dataclass(frozen=True)
class Validation:
    """Other data. Made by :func:`validation`."""

    batch: Batch

    @property
    def groups(self) -> None:
        """No fits beside that of all data."""
        return None

    def __call__(self, key: Key, joint: LogJoint, fitted: Fitted, batch: Batch) -> np.ndarray:
        """(M,) for the M examples of the validation data."""
        return predicted_at(joint, fitted.params, self.batch).log_probs


def validation(data: Data | Batch) -> Validation:
    """Predictions of examples that no fit has used.

    Args:
        data: in memory.
    """
    check_arguments(validation, locals())
    return Validation(whole(data))


def example_weights(batch: Batch, num: int) -> np.ndarray:
    """How often each of ``num`` examples counts, (N,) in float64."""
    return np.ones(num) if batch.weights is None else np.asarray(batch.weights, np.float64)


def checked_groups(groups: Any) -> np.ndarray:
    """Groups as whole numbers 0, ..., G - 1, each with an example, and -1.

    Raises:
        ValueError: anything else.
    """
    groups = np.asarray(groups)
    fits = groups.ndim == 1 and np.issubdtype(groups.dtype, np.integer) and len(groups) > 0 and groups.max() >= 0
    if not fits or set(np.unique(groups)) - {-1} != set(range(groups.max() + 1)):
        raise ValueError(
            f"groups are {groups!r}; give one whole number per example, 0, 1, ... without gaps, and -1 for examples "
            "that are never left out: tune.groups_by_class(labels) or tune.random_groups(key, num_examples)"
        )
    return groups


def predicted_at(joint: LogJoint, params: Params, batch: Batch) -> LeftOut:
    """Predictions of all N examples at some parameters."""
    params = jax.tree.map(lambda x: jnp.asarray(x)[None], params)
    log_probs, outputs = _each(joint.replace(prior=None), params, batch)
    log_probs = np.asarray(log_probs, np.float64)[0]
    return LeftOut(np.arange(len(log_probs)), np.asarray(outputs)[0], None, log_probs)


@jax.jit
def _each(joint: LogJoint, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Log probabilities (G, N) and outputs (G, N, F) at each of the parameters, leaves (G, ...)."""

    def at(one: Params) -> tuple[jax.Array, jax.Array]:
        leaves = jax.tree.leaves(joint.outputs(one, batch.inputs)[0])
        return joint.log_likelihoods(one, batch), jnp.concatenate([x.reshape(len(x), -1) for x in leaves], -1)

    return jax.lax.map(at, params)
