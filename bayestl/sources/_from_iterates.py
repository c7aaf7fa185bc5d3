"""The source as the iterates of its own training: SWAG."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.gaussians import LowRank, low_rank
from bayestl.sources import conventions
from bayestl.training import Ring


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Iterates:
    """Running statistics of SGD iterates: K + 2 copies of the parameters, however long the run.

    The mean and the variance are over all iterates, by Welford's recurrence; the last K iterates are kept as they are,
    since deviations from a mean that is still moving would lose part of their spread.

    Attributes:
        mean: their mean.
        sum_squares: sum of squared deviations from the mean.
        last: the last K of them.
    """

    mean: Any
    sum_squares: Any
    last: Ring

    @property
    def count(self) -> Any:
        """Number of iterates seen, T."""
        return self.last.count

    @staticmethod
    def empty(params: Params, keep: int) -> Iterates:
        """No iterates yet; ``keep`` is K, ``params`` gives the shapes."""
        if keep < 2:
            raise ValueError(f"keep is {keep}; a covariance needs the last 2 iterates or more")
        _tree.check_floating("params", params)
        zeros = _tree.zeros_like(_tree.at_least_float32(params))
        return Iterates(zeros, zeros, Ring.empty(zeros, keep))

    @jax.jit
    def update(self, params: Params, adds: Any = True) -> Iterates:
        """With one more iterate; if ``wanted``, which may be traced."""
        _tree.check_same_structure("the new iterate", params, "the ones before", self.mean, "collect one network's")
        count = self.count + 1
        delta = _tree.sub(params, self.mean)
        mean = jax.tree.map(lambda m, d: m + d / count, self.mean, delta)
        squares = jax.tree.map(lambda s, d, p, m: s + d * (p - m), self.sum_squares, delta, params, mean)
        mean, squares = (
            jax.tree.map(lambda new, old: jnp.where(adds, new, old), new, old)
            for new, old in ((mean, self.mean), (squares, self.sum_squares))
        )
        return Iterates(mean, squares, self.last.add(params, adds))

    @property
    def variance(self) -> Params:
        """Variance of all iterates, divisor T."""
        return jax.tree.map(lambda s: s / self.count, self.sum_squares)

    def newest(self, num: int) -> Params:
        """The last ``num`` <= min(K, T) iterates, oldest first, leaves (num, *shape)."""
        return self.last.newest(num)


class IterateCollector:
    """A callback for :func:`bayestl.fit` that collects one iterate per chunk of steps.

    Args:
        keep: K, how many of the last iterates are kept as they are.
        after: iterates before this step are left out (the way from the initialisation).

    Attributes:
        iterates: the :class:`Iterates` so far; None before the first.
    """

    def __init__(self, keep: int, after: int = 0):
        check_arguments(IterateCollector.__init__, locals())
        if keep < 2:
            raise ValueError(f"keep is {keep}; a covariance needs the last 2 iterates or more")
        self._keep, self._after = keep, after
        self.iterates: Iterates | None = None

    def __call__(self, event: Any) -> None:
        """Take in the parameters after this chunk."""
        if event.step <= self._after:
            return
        params = event.posterior().params
        start = Iterates.empty(params, self._keep) if self.iterates is None else self.iterates
        self.iterates = start.update(params)


def from_iterates(
    iterates: Iterates | Iterable[Params] | Params,
    *,
    rank: int,
    eps: float,
    covariance_scale: float = 1.0,
    convention: Callable[[Any, Any, int], conventions.Coefficients] = conventions.swag,
) -> LowRank:
    """The Gaussian that SGD's iterates describe: a prior that knows which directions the source task left free.

    ``N(mean, c/2 (diag(v) + Dev^T Dev / (K - 1)) + eps I)``, with v the variance of all iterates (divisor T) and Dev
    the deviations of the last K from the final mean.

    Args:
        iterates: :class:`Iterates`; or a list (tuple, generator) of parameter trees; or one tree of stacked iterates
            with a leading axis T.
        rank: K >= 2, how many of the last iterates make the low-rank part.
        eps: floor on the diagonal, >= 0, a variance. Weights that never moved have a variance of 0, which would be an
            infinitely sharp prior.
        covariance_scale: c > 0, the number that multiplies the covariance (a ratio of variances, as in the papers; it
            is not a standard deviation).
        convention: one of ``sources.conventions``, to match published numbers.

    Raises:
        ValueError: fewer than 2 iterates, more rank than iterates, non-finite iterates, covariance_scale <= 0 or
            eps < 0, or a variance of 0 without a floor.

    Reference:
        Maddox et al. 2019, "A Simple Baseline for Bayesian Uncertainty in Deep Learning", section 3; as a prior:
        Shwartz-Ziv et al. 2022, "Pre-Train Your Loss". The deviations here are from the final mean, not a running one.

    Example:
        >>> iterates = [{"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([3.0, 0.0])}]
        >>> prior = btl.sources.from_iterates(iterates, rank=2, eps=0.5)
        >>> print(prior.mean["w"], prior.variance["w"].round(3))
        [2. 0.] [2.  0.5]
    """
    check_arguments(from_iterates, locals())
    if _tree.is_concrete(covariance_scale) and not float(covariance_scale) > 0:
        raise ValueError(f"covariance_scale is {covariance_scale}; it multiplies the covariance and must be above 0")
    if _tree.is_concrete(eps) and not float(eps) >= 0:
        raise ValueError(f"eps is {eps}; the floor of the variances must be 0 or more")
    if rank < 2:
        raise ValueError(f"rank is {rank}; at least 2 iterates are needed for a low-rank part")
    iterates = iterates if isinstance(iterates, Iterates) else _accumulate(iterates, rank)
    num_stored = min(int(iterates.count), iterates.last.capacity)
    if int(iterates.count) < 2:
        raise ValueError(
            f"from_iterates needs at least 2 iterates and got {int(iterates.count)}; use sources.point for one"
        )
    if rank > num_stored:
        raise ValueError(
            f"rank is {rank}, but only {num_stored} iterates were kept; collect with keep={rank}, or lower the rank"
        )
    coefficients = convention(covariance_scale, eps, rank)
    diagonal = jax.tree.map(lambda v: coefficients.variance * v + coefficients.floor, iterates.variance)
    deviations = jax.tree.map(lambda x, m: coefficients.deviations * (x - m), iterates.newest(rank), iterates.mean)
    return low_rank(iterates.mean, diagonal, _no_more_than_parameters(deviations, iterates.mean))


def _no_more_than_parameters(deviations: Params, mean: Params) -> Params:
    """At most D rows with the same ``Dev^T Dev``, by a QR decomposition; flat, since only tiny problems have K > D."""
    if jax.tree.leaves(deviations)[0].shape[0] <= _tree.size(mean):
        return deviations
    _, unravel = ravel_pytree(mean)
    rows = jax.vmap(lambda x: ravel_pytree(x)[0])(deviations)
    return jax.vmap(unravel)(jnp.linalg.qr(rows, mode="r"))


def _accumulate(iterates: Any, rank: int) -> Iterates:
    if not isinstance(iterates, list | tuple) and not hasattr(iterates, "__next__"):
        iterates = _unstack(iterates)
    accumulated: Iterates | None = None
    for params in iterates:
        if accumulated is None:
            accumulated = Iterates.empty(params, rank)
        accumulated = accumulated.update(_tree.at_least_float32(params))
    if accumulated is None:
        raise ValueError("from_iterates needs at least 2 iterates and got 0; use sources.point for one set of weights")
    return accumulated


def _unstack(stacked: Params) -> Iterable[Params]:
    lengths = {x.shape[0] if jnp.ndim(x) else 0 for x in jax.tree.leaves(stacked)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"stacked iterates need one leading axis T on every leaf; the leading lengths are {lengths}")
    return (jax.tree.map(lambda x, t=t: x[t], stacked) for t in range(lengths.pop()))
