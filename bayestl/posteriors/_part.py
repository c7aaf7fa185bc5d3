"""A posterior of a part of the parameters, the rest held fixed."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Key, Params, Posterior, Scalar, Selection
from bayestl.gaussians import Gaussian


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Part:
    """A posterior of a part of the parameters beside the values that the rest is held at.

    Its draws are whole parameters, so that everything takes it like any other posterior: predictives, diagnostics, and
    :class:`~bayestl.LogJoint` as the prior of the next task, which :func:`~bayestl.infer.condition` (or
    ``laplace(selection=...)``) turns into the log joint of the same part, or of less. As
    ``laplace(selection=...)`` and :meth:`Conditioned.whole <bayestl.infer.Conditioned.whole>` give it.

    Attributes:
        part: the posterior of the random parameters, of any kind; its trees have ``None`` at the leaves left out.
        rest: the fixed parameters, ``None`` at the random ones.

    Example:
        >>> head = btl.gaussians.isotropic({"body": None, "head": jnp.zeros(2)}, scale=2.0)
        >>> posterior = btl.posteriors.Part(head, {"body": jnp.ones(3), "head": None})
        >>> print(posterior.mean["body"], posterior.variance["head"])
        [1. 1. 1.] [4. 4.]
        >>> posterior.sample(jax.random.key(0), 5)["body"].shape
        (5, 3)
    """

    part: Posterior
    rest: Params

    @property
    def mean(self) -> Params:
        """All parameters: the mean of the part, and the rest."""
        return _tree.merge(self._gaussian.mean, self.rest)

    def sample(self, key: Key, num_samples: int) -> Params:
        """``num_samples`` independent draws of all parameters, those held fixed the same in each."""
        check_arguments(Part.sample, locals())
        fixed = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_samples, *x.shape)), self.rest)
        return _tree.merge(self.part.sample(key, num_samples), fixed)

    @property
    def variance(self) -> Params:
        """Marginal variances of all parameters, 0 for those held fixed."""
        return _tree.merge(self._gaussian.variance, _tree.zeros_like(self.rest))

    def covariance_mv(self, v: Params) -> Params:
        """``Sigma v``, over all parameters, with rows and columns of zeros for those held fixed."""
        inside = self._gaussian.covariance_mv(_tree.like_selection(v, self._gaussian.mean))
        return _tree.merge(inside, _tree.zeros_like(self.rest))

    def unwhiten(self, v: Params) -> Params:
        """``S v`` with ``S S^T = Sigma``, over all parameters."""
        inside = self._gaussian.unwhiten(_tree.like_selection(v, self._gaussian.mean))
        return _tree.merge(inside, _tree.zeros_like(self.rest))

    def rescale(self, c: Any) -> Part:
        """The covariance of the part times ``c`` > 0, as of a Gaussian."""
        return Part(self._gaussian.rescale(c), self.rest)

    def inflate(self, eps: Scalar) -> Part:
        """``eps`` added to the variances of the part, as of a Gaussian."""
        return Part(self._gaussian.inflate(eps), self.rest)

    def log_prob(self, params: Params) -> jax.Array:
        """There is no density over all parameters, since those held fixed have none.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"a posterior that holds {_tree.shown(_tree.paths(self.rest), 4)} fixed has no density over all "
            "parameters; take the log joint of its part, infer.condition(joint, params, selection), or say "
            "laplace(selection=...)"
        )

    def condition(self, values: Params, selection: Selection) -> Posterior:
        """The posterior of a selection of the random parameters, given that all other leaves are as in ``values``.

        Args:
            values: all parameters; those held fixed here must have the values that they are held at.
            selection: the leaves that stay random: path patterns, or a tree with ``None`` at the leaves left out.

        Raises:
            ValueError: a selection of parameters that are held fixed; values other than those.
        """
        selected = _tree.as_selection(values, selection)
        names = set(_tree.paths(selected))
        fixed = [path for path in _tree.paths(self.rest) if path in names]
        if fixed:
            raise ValueError(
                f"the selection holds {_tree.shown(fixed, 4)}, which this prior, a posterior of a part, holds fixed; "
                "select among the parameters that were random in it"
            )
        check_equal("params", values, self.rest, "start from posterior.mean of that posterior")
        part = _tree.complement(values, self.rest)
        if names == set(_tree.paths(part)):
            return self.part
        return self._gaussian.condition(_tree.like_selection(values, part), selected)

    @property
    def _gaussian(self) -> Gaussian:
        """The part, of which something is asked that only Gaussians have."""
        if not isinstance(self.part, Gaussian):
            raise AttributeError(f"the random part is a {type(self.part).__name__}; only of Gaussians is that known")
        return self.part


def check_equal(name: str, params: Params, fixed: Params, fix: str) -> None:
    """Raise when concrete parameters differ from the values at which some of them are held."""
    values = _tree.by_paths(params)
    for path, leaf in _tree.by_paths(fixed).items():
        other = values[path]
        if _tree.is_concrete((leaf, other)) and not np.array_equal(_wide(leaf), _wide(other)):
            raise ValueError(f"{name} and the values that parameters are held at differ at {path!r}; {fix}")


def _wide(x: jax.Array) -> np.ndarray:
    return np.asarray(_tree.at_least_float32(x))
