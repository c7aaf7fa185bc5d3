"""Inference on a part of the parameters, with the rest held fixed."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._log_joint import LogJoint
from bayestl._part import PartApply, with_fixed
from bayestl._types import Key, Net, Params
from bayestl.gaussians import Gaussian


class Conditioned(NamedTuple):
    """A log joint of some parameters given the others.

    Attributes:
        joint: the log joint of the selected parameters; what every method and every predictive takes.
        params: the selected parameters, ``None`` at the leaves left out: where to start.
        rest: the others, which are fixed.
    """

    joint: LogJoint
    params: Params
    rest: Params


def condition(joint: LogJoint, params: Params, selection: Any) -> Conditioned:
    """The log joint of a part of the parameters, given that the others stay as in ``params``.

    ``log p(D | theta_S, theta_R) + log p(theta_S | theta_R)``, tempered as before: the prior is *conditioned* on the
    fixed parameters, not their marginal taken, so that a correlated prior tells the part what the rest says about it.
    Any method and any predictive take the result in place of a log joint of the whole.

    Args:
        joint: of all parameters; its prior a Gaussian, or None.
        params: all parameters; the fixed ones keep these values.
        selection: path patterns of the parameters that stay random, or the tree of ``params`` with ``None`` at the
            leaves left out.

    Raises:
        ValueError: an empty selection, or one that matches nothing.
        TypeError: a prior that is no Gaussian.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 3))
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=20)
        >>> head = btl.infer.condition(joint, net.params, "head/**")
        >>> btl.tree.paths(head.params)
        ['head/bias', 'head/kernel']
        >>> head.joint.prior
        Diagonal(D=27, paths=['head/bias', 'head/kernel'])
    """
    if isinstance(selection, str | list | tuple) and not selection:
        have = _tree.shown(_tree.paths(params))
        raise ValueError(f"the selection is empty, so that nothing is left to infer; the paths are {have}")
    part = _tree.as_selection(params, selection)
    rest = _tree.complement(params, part)
    prior = joint.prior
    if prior is not None:
        if not isinstance(prior, Gaussian):
            raise TypeError(
                f"the prior is a {type(prior).__name__}, which cannot be conditioned on the parameters that are held "
                "fixed; give a Gaussian, or None"
            )
        prior = prior.condition(params, part)
    net = Net(part, with_fixed(joint.state, rest), PartApply(joint.apply))
    numbers = {"num_data": joint.num_data, "kappa": joint.kappa, "temperature": joint.temperature}
    return Conditioned(LogJoint(net, joint.likelihood, prior, **numbers), part, rest)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PartPosterior:
    """A posterior of a part of the parameters beside the values that the rest is held at.

    Its draws are whole parameters, so that predictives take it like any other. ``part`` is a Gaussian, and may be the
    prior of these parameters in the next task.

    Attributes:
        part: Gaussian over the selected parameters, ``None`` at the leaves left out.
        rest: the fixed parameters, ``None`` at the selected ones.
    """

    part: Gaussian
    rest: Any

    @property
    def mean(self) -> Params:
        """All parameters: the mean of the part, and the rest."""
        return _tree.merge(self.part.mean, self.rest)

    def sample(self, key: Key, num: int) -> Params:
        """``num`` independent draws of all parameters, those held fixed the same in each."""
        fixed = jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), self.rest)
        return _tree.merge(self.part.sample(key, num), fixed)

    def variance(self) -> Params:
        """Marginal variances of all parameters, 0 for those held fixed."""
        return _tree.merge(self.part.variance(), _tree.zeros_like(self.rest))

    def covariance_mv(self, v: Params) -> Params:
        """``Sigma v``, over all parameters, with rows and columns of zeros for those held fixed."""
        inside = self.part.covariance_mv(_tree.like_selection(v, self.part.mean))
        return _tree.merge(inside, _tree.zeros_like(self.rest))

    def unwhiten(self, v: Params) -> Params:
        """``S v`` with ``S S^T = Sigma``, over all parameters."""
        return _tree.merge(self.part.unwhiten(_tree.like_selection(v, self.part.mean)), _tree.zeros_like(self.rest))
