"""The Laplace approximation: a Gaussian at the mode, with the curvature there."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._condition import condition
from bayestl._data_size import sized, warn_of_size
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Data, Key, Params, Selection
from bayestl.curvature import Builder, Curvature, DenseCurvature, Kind, clipped_share, dense, ggn
from bayestl.gaussians import Gaussian
from bayestl.infer._checks import check_params
from bayestl.likelihoods import TargetCheck
from bayestl.passes import Batches, batches
from bayestl.training import all_finite

DENSE = dense()

# Share of negative eigenvalues in the output Hessians from which on the GGN is worth a warning.
_CLIPPED = 0.01


def laplace(
    key: Key,
    joint: LogJoint,
    params: Params,
    data: Data | Batch,
    *,
    curvature: Builder = DENSE,
    kind: Kind = ggn,
    selection: Selection = None,
    batch_size: int | None = 64,
) -> Any:
    """The Gaussian at the mode whose precision is the curvature of the log joint there.

    ``q(theta) = N(theta*, T (kappa H + Sigma0^-1)^-1)``, H the curvature of ``-log p(D | theta)`` summed over all data.
    Exact where the outputs are linear in the parameters and the likelihood is normal. The posterior is one of our
    Gaussians, and so the prior of the next task: with dense curvature :class:`~bayestl.gaussians.Dense`; with
    ``curvature.dual()`` and ``curvature.low_rank(r)`` :class:`~bayestl.gaussians.LowRank`, or dense under a dense
    prior; with ``curvature.kronecker()`` blocks of :class:`~bayestl.gaussians.Kronecker`, under a low-rank prior a
    :class:`~bayestl.gaussians.LowRank` on top of these.

    Data that do not fit in memory are read while the program runs, a batch ahead, in the order of their rows; an
    ``example`` that draws gives the same example every time. Most structures pass over them once; ``low_rank`` does so
    for each of its steps, but once for a last layer whose features fit. Only the first examples are checked before.

    The network runs deterministically, with the state that ``joint`` holds; a network whose outputs for one example
    depend on the others in its batch has no curvature that is a sum over examples, and is refused.

    Args:
        key: of sampled labels and of Lanczos' start; dense and dual curvature under the GGN do not use it.
        joint: the target; its prior a Gaussian of any structure that the curvature goes with, or None for the flat one
            (dense curvature only, and more data than parameters). If the data hold more or fewer examples than
            its ``num_data`` says, H counts as the joint counts.
        params: the mode theta*, as :func:`map_estimate` finds it. It is not looked for here.
        data: all the training data: :func:`bayestl.data.arrays`; :func:`bayestl.data.stream`, read anew for every pass
            over it; or one :class:`~bayestl.Batch`, whose weights count.
        curvature: the structure of H, from ``bayestl.curvature``.
        kind: which curvature; ``curvature.ggn``, ``curvature.empirical_fisher`` or ``curvature.fisher(num_samples)``.
        selection: path patterns of the parameters that are random, or a tree with ``None`` at the leaves left out; the
            rest stays as in ``params``, and the prior is conditioned on it (see :func:`condition`). None for all.
        batch_size: examples seen at once; None for all.

    Returns:
        A Gaussian with mean ``params``; with a selection a :class:`~bayestl.posteriors.Part`, whose draws are whole
        parameters and whose ``part`` is the Gaussian.

    Raises:
        ValueError: a curvature that is not positive definite; batch statistics in training mode; more rank than
            parameters; an empty selection; an example that cannot be read; whatever ``joint.check`` raises.
        TypeError: a prior that is not a Gaussian, or none that the curvature goes with; data that can be passed over in
            none of these ways.

    Warns:
        UserWarning: data of more or fewer examples than ``num_data`` of the log joint.
        RuntimeWarning: under a GGN, a likelihood whose output Hessians are far from positive semi-definite
            (:func:`bayestl.curvature.clipped_share`).

    Reference:
        MacKay 1992, "A Practical Bayesian Framework for Backpropagation Networks"; Daxberger et al. 2021, "Laplace
        Redux", section 2. Priors here may have any mean and any of our covariances.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=3)
        >>> data = btl.data.arrays(jnp.ones((3, 1)), jnp.full(3, 2.0))
        >>> posterior = btl.infer.laplace(jax.random.key(0), joint, {"w": jnp.array([1.5])}, data)
        >>> print(posterior.mean["w"], posterior.variance["w"])
        [1.5] [0.25]
    """
    check_arguments(laplace, locals(), skip=("data",))
    if selection is not None:
        check_params(joint, params)
        conditioned = condition(joint, params, selection)
        part = laplace(
            key, conditioned.joint, conditioned.params, data, curvature=curvature, kind=kind, batch_size=batch_size
        )
        return conditioned.whole(part)
    joint, params, passes, check = checked(joint, params, data, batch_size)
    _warn_of_clipping(joint, params, passes, kind)
    arrays, static = partition((joint, curvature, kind))
    posterior = passes.run(_posterior, static, arrays, key, params, passes, check=check)
    if _tree.is_concrete(posterior) and not bool(all_finite(posterior)):
        structure = passes.run(_curvature, static, arrays, key, params, passes)
        raise ValueError(_failure(joint, structure, params, posterior, passes))
    return posterior


def _warn_of_clipping(joint: LogJoint, params: Params, passes: Batches, kind: Kind) -> None:
    if kind is not ggn or not _tree.is_concrete((joint, params, passes)):
        return
    share = clipped_share(joint, params, passes, passes.batch_size)
    if share > _CLIPPED:
        warnings.warn(
            f"the log density of the likelihood is not concave in the outputs at these params: {share:.0%} of the "
            "eigenvalues of its Hessians, by size, are negative and set to 0 by the GGN; kind=curvature.fisher(num) "
            "clips nothing",
            RuntimeWarning,
            stacklevel=3,
        )


class Checked(NamedTuple):
    """What a curvature takes, and the check of targets that are read."""

    joint: LogJoint
    params: Params
    passes: Batches
    check: TargetCheck


def checked(joint: LogJoint, params: Params, data: Any, batch_size: int | None) -> Checked:
    """The log joint, parameters and passes over the data that a curvature takes, checked as far as values are known.

    A log joint that was not told how many data there are is told.
    """
    check_params(joint, params)
    if joint.prior is not None and not isinstance(joint.prior, Gaussian):
        raise TypeError(
            f"the Laplace approximation takes a Gaussian prior or None, and got a {type(joint.prior).__name__}, whose "
            "own curvature is not known; approximate it by a Gaussian first (sources.from_samples)"
        )
    passes = batches(data, batch_size)
    warn_of_size(joint, passes.total_weight(), stacklevel=3)
    joint = sized(joint, passes.total_weight())
    check = joint.check(params, passes.inputs, passes.targets, passes.weights)
    params = _tree.at_least_float32(params)
    if _tree.is_concrete((joint, params, passes)):
        _check_apart(joint, params, passes)
    return Checked(joint, params, passes, check)


def power(joint: LogJoint, passes: Batches) -> jax.Array:
    """What the curvature, a sum over the data, counts in the log joint: kappa, and the examples that N stands for."""
    return joint.kappa * joint.num_data / passes.total_weight()


@partial(jax.jit, static_argnums=0)
def _curvature(static: Static, arrays: list[Any], key: Key, params: Params, passes: Batches) -> Curvature:
    joint, curvature, kind = static.combine(arrays)
    return curvature(key, joint, params, passes, kind, passes.batch_size)


@partial(jax.jit, static_argnums=0)
def _posterior(static: Static, arrays: list[Any], key: Key, params: Params, passes: Batches) -> Gaussian:
    joint = static.combine(arrays)[0]
    structure = _curvature(static, arrays, key, params, passes)
    return structure.precision_update(joint.prior, params, power(joint, passes), joint.temperature)


def _check_apart(joint: LogJoint, params: Params, passes: Batches) -> None:
    """Raise when the outputs of the first example depend on which others are in its batch."""
    num = min(passes.num_examples, passes.batch_size, 8)
    together = jax.tree.map(lambda x: jnp.asarray(x)[:num], passes.inputs)
    alone = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), together)
    first, second = _outputs_twice(joint, params, together, alone)
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jnp.shape(x)[:1] != (num,):
            raise ValueError(
                f"the network's outputs have a leaf of shape {jnp.shape(x)} for {num} examples; every leaf needs the "
                f"examples as its leading axis"
            )
        x, y = np.asarray(x[0], np.float64), np.asarray(y[0], np.float64)
        # Rounding alone would be less, in bfloat16 too.
        if np.max(np.abs(x - y), initial=0) > 0.05 * np.max(np.abs(x), initial=0):
            raise ValueError(
                "the outputs of one example depend on the others in its batch: the network uses batch statistics "
                "(training mode) without a key, and its curvature is no sum over examples; let its apply use running "
                "statistics when key is None (as the networks of bayestl.nets do), see nets.frozen_state"
            )


@jax.jit
def _outputs_twice(joint: LogJoint, params: Params, first: Any, second: Any) -> tuple[Any, Any]:
    return joint.outputs(params, first)[0], joint.outputs(params, second)[0]


def _failure(joint: LogJoint, structure: Curvature, params: Params, posterior: Gaussian, passes: Batches) -> str:
    """What is wrong, where, and what to do."""
    ones = jax.tree.map(jnp.ones_like, params)
    bad = [path for path, x in _tree.by_paths(structure.mv(ones)).items() if not bool(jnp.all(jnp.isfinite(x)))]
    if bad:
        return (
            f"the curvature is not finite at {_tree.shown(bad)}: the network's outputs or their derivatives are not; "
            "look at them at these params"
        )
    under = "under the flat prior" if joint.prior is None else "under this prior"
    do = "give a Gaussian prior (gaussians.isotropic), or a selection of the parameters that the data determine"
    if not float(joint.kappa) > 0:
        do = "with kappa = 0 there is the prior alone, so give one"
    if isinstance(structure, DenseCurvature) and isinstance(joint.prior, Gaussian) and float(joint.kappa) > 0:
        ratio = float(power(joint, passes) * structure.spectrum(joint.prior)[-1])
        return (
            f"the data outweigh the prior by {ratio:.1e} in one direction and say next to nothing in another, where "
            "rounding hides the prior; give a narrower prior, inputs of like size, or curvature.dual()"
        )
    if isinstance(structure, DenseCurvature):
        values, vectors = np.linalg.eigh(np.asarray(structure.matrix, np.float64))
        shares = jax.tree.map(lambda x: float(np.sum(np.asarray(x) ** 2)), structure.unflat(jnp.asarray(vectors[:, 0])))
        share = _tree.by_paths(shares)
        where = max(share, key=lambda path: share[path])
        return (
            f"the curvature is not positive definite {under}: the smallest eigenvalue of H is {values[0]:.3g}, the "
            f"largest {values[-1]:.3g}, and {share[where]:.0%} of the smallest one's direction lies in {where!r}; {do}"
        )
    variance = _tree.by_paths(posterior.variance)
    where = [path for path, x in variance.items() if not bool(jnp.all(jnp.isfinite(x)))]
    return f"the curvature is not positive definite {under}: no finite variance at {_tree.shown(where)}; {do}"
