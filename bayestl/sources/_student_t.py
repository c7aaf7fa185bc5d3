"""Heavy tails: most of the network stays at the source, and what must leave may."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Key, Params, Scalar
from bayestl.gaussians import Gaussian


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class StudentT:
    """A Student-t distribution around a source's weights, as a prior. Made by :func:`student_t`.

    Attributes:
        parts: Gaussians, the location and the shape of each independent part.
        degrees: nu > 0, degrees of freedom.
        each: whether every parameter is a part of its own, with the variances of ``parts``; otherwise each of ``parts``
            has one multivariate distribution.
    """

    parts: tuple[Gaussian, ...]
    degrees: jax.Array
    each: bool = dataclasses.field(metadata={"static": True})

    @property
    def mean(self) -> Params:
        """The location, which is the mean where there is one (nu > 1)."""
        return _tree.merge(*(part.mean for part in self.parts))

    @property
    def variance(self) -> Params:
        """Marginal variances, ``nu / (nu - 2)`` times those of the shape; infinite up to nu = 2."""
        factor = jnp.where(self.degrees > 2, self.degrees / jnp.where(self.degrees > 2, self.degrees - 2, 1), jnp.inf)
        return _tree.merge(*(_tree.scale(factor, part.variance) for part in self.parts))

    def log_prob(self, params: Params) -> jax.Array:
        """Log density at ``params`` in nats, a scalar."""
        check_arguments(StudentT.log_prob, locals())
        return _tree.total(self._log_prob(part, _tree.like_selection(params, part.mean)) for part in self.parts)

    def _log_prob(self, part: Gaussian, params: Params) -> jax.Array:
        size = _tree.size(part.mean)
        if not self.each:
            constant = 0.5 * part.log_det_covariance() + self._constant(size)
            distance = part.squared_mahalanobis(params)
            return -constant - 0.5 * (self.degrees + size) * jnp.log1p(distance / self.degrees)
        squares = jax.tree.map(lambda x, m, v: (x - m) ** 2 / v, params, part.mean, part.variance)
        tails = _tree.total(jnp.sum(jnp.log1p(s / self.degrees)) for s in jax.tree.leaves(squares))
        constant = 0.5 * part.log_det_covariance() + size * self._constant(1)
        return -constant - 0.5 * (self.degrees + 1) * tails

    def _constant(self, size: int) -> jax.Array:
        """``-log`` of the density of ``size`` standard ones at 0."""
        half = 0.5 * self.degrees
        return gammaln(half) - gammaln(half + 0.5 * size) + 0.5 * size * jnp.log(self.degrees * math.pi)

    def sample(self, key: Key, num_samples: int) -> Params:
        """``num_samples`` independent draws; leaves have a leading axis of that length."""
        check_arguments(StudentT.sample, locals())
        draws = []
        for number, part in enumerate(self.parts):
            normal, chi2 = jax.random.split(jax.random.fold_in(key, number))
            deviations = jax.vmap(part.unwhiten)(_tree.normal_like(normal, part.mean, num_samples))
            if self.each:
                leaves, treedef = jax.tree.flatten(deviations)
                keys = jax.random.split(chi2, len(leaves))
                roots = [self._root(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
                deviations = jax.tree.unflatten(treedef, [x * r for x, r in zip(leaves, roots, strict=True)])
            else:
                root = self._root(chi2, (num_samples,))
                deviations = jax.tree.map(lambda x, r=root: x * r.reshape(-1, *[1] * (x.ndim - 1)), deviations)
            draws.append(jax.tree.map(jnp.add, part.mean, deviations))
        return _tree.merge(*draws)

    def _root(self, key: Key, shape: tuple[int, ...]) -> jax.Array:
        """``sqrt(nu / chi^2_nu)``."""
        half = 0.5 * self.degrees
        return jnp.sqrt(half / jax.random.gamma(key, half, shape))

    def __repr__(self) -> str:
        parts = "every parameter its own" if self.each else f"{len(self.parts)} parts"
        return f"StudentT(D={_tree.size(self.mean)}, degrees={self.degrees}, {parts})"


def student_t(gaussian: Gaussian, degrees: Scalar, *, groups: Sequence[str] | None = None) -> StudentT:
    """A Student-t prior with the location and the shape of a Gaussian: heavy tails for what has to leave the source.

    A Gaussian pulls the harder the further a weight has gone; here the pull fades beyond about ``sqrt(nu)`` scales.
    With one distribution per group of parameters a whole layer may leave while the others stay.

    Args:
        gaussian: the location and the shape: a source as ``sources`` makes it.
        degrees: nu > 0: 1 is Cauchy, from 30 on all but the Gaussian itself.
        groups: patterns of paths, which must claim every parameter once: one multivariate distribution for each. None:
            every parameter for itself, for Gaussians whose parameters are independent.

    Raises:
        TypeError: no Gaussian.
        ValueError: degrees that are not positive, correlated parameters without groups, groups that overlap or leave
            parameters out.

    Reference:
        Lange, Little and Taylor 1989, "Robust Statistical Modeling Using the t Distribution".

    Example:
        >>> source = btl.sources.point({"w": jnp.zeros(1)}, scale=1.0)
        >>> cauchy = btl.sources.student_t(source, degrees=1.0)
        >>> print(f"{cauchy.log_prob({'w': jnp.array([3.0])}):.4f}")              # -log(10 pi)
        -3.4473
    """
    check_arguments(student_t, locals())
    if not isinstance(gaussian, Gaussian):
        raise TypeError(f"gaussian is a {type(gaussian).__name__}; give the Gaussian whose location and shape it has")
    if _tree.is_concrete(degrees) and not (float(degrees) > 0 and math.isfinite(degrees)):
        raise ValueError(f"degrees is {degrees}; give a number above 0, or take the Gaussian itself")
    degrees = jnp.asarray(degrees, jnp.result_type(float))
    if groups is None:
        if gaussian.independent_variances() is None:
            raise ValueError(
                "the parameters of this Gaussian are correlated, and cannot each have a distribution of its own; name "
                "groups, such as groups=['**'] for one over all"
            )
        return StudentT((gaussian,), degrees, True)
    have = _tree.paths(gaussian.mean)
    owners = {path: [group for group in groups if _tree.matches(group, path)] for path in have}
    for path, claims in owners.items():
        if len(claims) != 1:
            what = "no group claims" if not claims else f"groups {claims[0]!r} and {claims[1]!r} both claim"
            raise ValueError(f"{what} {path!r}; every parameter belongs to one group")
    return StudentT(tuple(gaussian.restrict(group) for group in groups), degrees, False)
