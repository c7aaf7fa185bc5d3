"""Ensembles: one method from many starts in one program, as they are or randomised into draws from the posterior."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from bayestl._arguments import check_arguments
from bayestl._data_size import sized
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Data, Inference, Inputs, Key, Params, Targets
from bayestl.gaussians import Gaussian
from bayestl.infer._as_ensemble import as_ensemble
from bayestl.infer._randomized import Randomize, Randomized
from bayestl.passes import whole
from bayestl.posteriors import Mixture, Samples
from bayestl.training import Checkpoint, Transform, Vectorize, fit_many


def ensemble(
    key: Key,
    joint: LogJoint,
    starts: Params,
    data: Data,
    method: Callable[[LogJoint], Inference],
    *,
    steps: int,
    batch_size: int | None = None,
    randomize: Randomize | None = None,
    transform: Transform | None = None,
    chunk_size: int = 100,
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
    vectorize: Vectorize | None = None,
) -> Samples | Mixture:
    """One posterior from several runs of a method, all of them in one compiled program.

    With :func:`map_estimate` it is a deep ensemble: members differ in their starts and in the order of their batches,
    and the posterior holds one sample for each. With :func:`swag` it is multi-SWAG, with :func:`mean_field_vi` a
    mixture of Gaussians.

    Members of a deep ensemble are not samples from the posterior: they coincide wherever the mode is unique. With
    :func:`random_anchors` or :func:`random_anchors_and_targets` each minimises a perturbed objective, and the solutions
    are spread like the posterior.

    For the history and the states of the members use :func:`~bayestl.fit_many` and :func:`as_ensemble`, of which this
    is the short form.

    Args:
        key: randomness of the members.
        joint: the target.
        starts: where members start, leaves with a leading axis M: networks initialised with M keys; draws of the prior.
        data: all the training data, on the device; shared, not copied.
        method: log joint -> method, such as ``lambda joint: btl.infer.map_estimate(joint, optax.adam(1e-3))``. Given
            as a named function, a second ensemble of the same log joint compiles nothing.
        steps: number of steps.
        batch_size: examples per step, 1 to N; by default 64, or N where that is less.
        randomize: None; or what makes a member's problem, ``(key, joint, all data) -> Randomized``.
        transform: ``(key, batch) -> batch``, inside the compiled program.
        chunk_size: steps between reports.
        checkpoint: save all members as they go, and go on from the last checkpoint.
        progress: show a progress bar.
        vectorize: ``jax.vmap`` side by side, :func:`~bayestl.sequentially` one after another; by default what is
            faster, see :func:`~bayestl.fit_many`.

    Returns:
        A :class:`~bayestl.Samples` with one draw for each member of a point method; a :class:`~bayestl.Mixture` of
        the members' posteriors for others.

    Raises:
        ValueError: leading axes that differ; no member that came through; a randomisation that the problem does not
            bear; and whatever :func:`~bayestl.fit_many` raises.

    Warns:
        RuntimeWarning: members that became non-finite, which are left out; members with running statistics of their
            own, which the posterior does not hold.

    Reference:
        Lakshminarayanan, Pritzel and Blundell 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles" (arXiv 1612.01474).

    Example:
        >>> def network(key):
        ...     return btl.nets.mlp(key, (1, 8, 1)).params
        >>> net = btl.nets.mlp(jax.random.key(0), (1, 8, 1))
        >>> prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(0.1), prior, num_data=20)
        >>> x = jnp.linspace(-1.0, 1.0, 20)[:, None]
        >>> starts = jax.vmap(network)(jax.random.split(jax.random.key(1), 5))
        >>> posterior = btl.infer.ensemble(
        ...     jax.random.key(2), joint, starts, btl.data.arrays(x, jnp.sin(3 * x)),
        ...     lambda joint: btl.infer.map_estimate(joint, optax.adam(1e-2)), steps=100, progress=False,
        ... )
        >>> predict = btl.predict.monte_carlo(jax.random.key(3), joint, posterior)
        >>> predict(jnp.zeros((4, 1))).outputs.shape
        (5, 4, 1)
    """
    check_arguments(ensemble, locals(), skip=("data",))
    num_members = _leading_axis(starts)
    key_randomize, key_run = jax.random.split(key)
    problems = Randomized(None)
    if randomize is not None:
        examples, keys = whole(data), jax.random.split(key_randomize, num_members)
        with_size = sized(joint, jax.tree.leaves(examples.inputs)[0].shape[0])
        problems = jax.vmap(lambda key: randomize(key, with_size, examples))(keys)
    if problems.noise is not None:
        data = _with_rows(data)
        transform = None if transform is None else _BesideRows(transform)
    result = fit_many(
        jax.random.split(key_run, num_members),
        _Members(method, joint),
        problems,
        starts,
        data,
        steps=steps,
        batch_size=batch_size,
        transform=transform,
        chunk_size=chunk_size,
        checkpoint=checkpoint,
        progress=progress,
        params_axis=0,
        vectorize=vectorize,
    )
    return as_ensemble(result)


@dataclasses.dataclass(frozen=True)
class _Members:
    """A member's problem -> method. Equal for the same function and log joint, so that their program is used again."""

    method: Callable[[LogJoint], Inference]
    joint: LogJoint

    def __call__(self, problem: Randomized) -> Inference:
        joint = self.joint
        if problem.anchor is not None:
            joint = joint.replace(prior=_recentred(joint.prior, problem.anchor))
        inference = self.method(joint)
        if problem.noise is None:
            return inference
        step, check = Partial(_noisy_step, inference.step, problem.noise), Partial(_noisy_check, inference.check)
        return inference._replace(step=step, check=check)


def _recentred(prior: Any, mean: Params) -> Any:
    """The same covariance around another mean."""
    return prior.around(mean) if isinstance(prior, Gaussian) else dataclasses.replace(prior, mean=mean)


def _with_rows(data: Any) -> Any:
    """The data with targets (y, number of the example), by which every member finds its noise."""
    if not dataclasses.is_dataclass(data) or not isinstance(data, Data) or data.resident() is None:
        raise TypeError(f"data is a {type(data).__name__}; noise on the targets needs btl.data.arrays(inputs, targets)")
    arrays: Any = data
    return dataclasses.replace(arrays, targets=(arrays.targets, jnp.arange(arrays.num_examples)))


@dataclasses.dataclass(frozen=True)
class _BesideRows:
    """A transform that sees the targets alone."""

    transform: Transform

    def __call__(self, key: Key, batch: Batch) -> Batch:
        targets, rows = batch.targets
        batch = self.transform(key, batch._replace(targets=targets))
        return batch._replace(targets=(batch.targets, rows))


def _noisy_step(step: Any, noise: jax.Array, key: Key, state: Any, batch: Batch) -> tuple[Any, Any]:
    targets, rows = batch.targets
    return step(key, state, batch._replace(targets=targets + noise[rows]))


def _noisy_check(check: Any, params: Params, inputs: Inputs, targets: Targets) -> None:
    check(params, inputs, targets[0])


def _leading_axis(starts: Params) -> int:
    lengths = {jnp.shape(x)[0] if jnp.ndim(x) else 0 for x in jax.tree.leaves(starts)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "starts need one leading axis M on every leaf, one entry per member; the leading lengths are "
            f"{sorted(lengths)}"
        )
    return lengths.pop()
