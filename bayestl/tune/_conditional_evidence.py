"""How well a part of the data is predicted once the rest has been learned from: a difference of two evidences."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import infer
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key, Params
from bayestl.curvature import Builder, dual
from bayestl.tune._criteria import Fitted, checked_groups, example_weights


@dataclasses.dataclass(frozen=True)
class ConditionalEvidence:
    """The conditional evidence of each group. Made by :func:`conditional_evidence`."""

    second_parts: np.ndarray
    curvature: Builder
    batch_size: int | None

    @property
    def groups(self) -> np.ndarray:
        """The groups that fits are wanted without."""
        return self.second_parts

    def __call__(self, key: Key, joint: LogJoint, fitted: Fitted, batch: Batch) -> np.ndarray:
        """One number for each group, (G,)."""
        weights = example_weights(batch, len(self.second_parts))
        # The same shapes for every part, so that one program serves all of them.
        per_weight = 1.0 if joint.num_data is None else float(joint.num_data) / weights.sum()

        def log_evidence(params: Params, counted: np.ndarray) -> float:
            own = joint.replace(num_data=jnp.asarray(per_weight * counted.sum(), jnp.result_type(float)))
            given = Batch(batch.inputs, batch.targets, jnp.asarray(counted, jnp.result_type(float)))
            value = infer.log_evidence(key, own, params, given, curvature=self.curvature, batch_size=self.batch_size)
            return float(value)

        def log_evidence_without(group: int) -> float:
            first = np.where(self.second_parts == group, 0, weights)
            if not first.any():
                return 0.0  # nothing has been observed, which has probability 1
            return log_evidence(jax.tree.map(lambda x: x[group], fitted.parts), first)

        both = log_evidence(fitted.params, weights)
        return np.array([both - log_evidence_without(group) for group in range(self.second_parts.max() + 1)])


def conditional_evidence(
    groups: Any, *, curvature: Builder | None = None, batch_size: int | None = None
) -> ConditionalEvidence:
    """``log p(second part | first part)``, the log evidence of all data less that of the first part.

    The evidence is the sum of all predictions one example ahead, and its first ones, made from next to nothing, are
    bad at every scale that is good in the end. It asks how well the prior alone foresaw the data. Here the examples of
    the first part are learned from and no longer count, so that the question is the one that matters: how well do fits
    under this prior predict what comes next? Both evidences are by Laplace's method, each at its own mode, which the
    path finds. Unlike :func:`leave_out` and :func:`k_fold` it scores predictions of the whole posterior, for all
    examples of the second part together. Exact for linear networks under a normal likelihood.

    Args:
        groups: (N,) whole numbers. 0 for the second part and -1 for the first one; with more numbers, 0, 1, ..., each
            group in turn is the second part and all others the first. ``groups_by_class(labels, 2)`` predicts each half
            of every class from the other.
        curvature: its structure; None for ``curvature.dual()``, exact for few-shot targets.
        batch_size: examples seen at once; None for all.

    Returns:
        A :class:`Criterion` with one score for each group, nats for all its examples together.

    Raises:
        ValueError: anything but such groups.

    Reference:
        Lotfi, Izmailov, Benton, Goldblum and Wilson 2022, "Bayesian Model Selection, the Marginal Likelihood, and
        Generalization", section 5.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None)
        >>> batch = btl.Batch(jnp.ones((2, 1)), jnp.array([1.0, 3.0]))
        >>> family = btl.tune.isotropic_family("weight decay", net.params)
        >>> criterion = btl.tune.conditional_evidence([-1, 0])
        >>> path = btl.tune.path(jax.random.key(0), joint, [family], batch, [0.0], criterion)
        >>> exact = jax.scipy.stats.norm.logpdf(3.0, 0.5, 1.5**0.5)  # from N(1/2, 1/2) over w, given the first example
        >>> print(f"{path.scores.item():.3f}, and exactly {exact:.3f}")
        -3.205, and exactly -3.205
    """
    check_arguments(conditional_evidence, locals())
    return ConditionalEvidence(checked_groups(groups), dual() if curvature is None else curvature, batch_size)
