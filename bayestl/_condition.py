"""Inference on a part of the parameters, the rest held fixed, and posteriors of parts beside log joints of wholes.

A log joint and a posterior are each about all parameters or about some. :func:`condition` makes the log joint of a
part, :class:`~bayestl.posteriors.Part` is the posterior of one that draws whole parameters, and the functions below
bring a pair of them to the same parameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._part import PartApply, with_fixed
from bayestl._types import Net, Params, Posterior, Selection
from bayestl.gaussians import Gaussian
from bayestl.posteriors import Part, Point, Samples, check_equal


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

    def whole(self, posterior: Posterior) -> Part:
        """A posterior of the selected parameters as one of all, whose draws hold the others as they are fixed.

        Raises:
            ValueError: a posterior of other parameters.
        """
        names, selected, rest = _names(posterior), set(_tree.paths(self.params)), _tree.at_least_float32(self.rest)
        if isinstance(posterior, Part) and names == selected | set(_tree.paths(rest)):
            raise ValueError("the posterior draws whole parameters already; it needs no others beside it")
        _check_same(names, selected, "the selected parameters are")
        if isinstance(posterior, Part):  # of a part of the part
            return Part(posterior.part, _tree.merge(posterior.rest, rest))
        return Part(posterior, rest)


def condition(joint: LogJoint, params: Params, selection: Selection) -> Conditioned:
    """The log joint of a part of the parameters, given that the others stay as in ``params``.

    ``log p(D | theta_S, theta_R) + log p(theta_S | theta_R)``, tempered as before: the prior is *conditioned* on the
    fixed parameters, not their marginal taken, so that a correlated prior tells the part what the rest says about it.
    Any method and any predictive take the result in place of a log joint of the whole.

    Args:
        joint: of all parameters; its prior a Gaussian, a :class:`~bayestl.posteriors.Part` (the posterior of the same
            part in the task before), or None.
        params: all parameters; the fixed ones keep these values.
        selection: path patterns of the parameters that stay random, or the tree of ``params`` with ``None`` at the
            leaves left out.

    Raises:
        ValueError: an empty selection, or one that matches nothing; with a prior of a part, a selection that reaches
            beyond that part, or other values of the parameters that it holds fixed.
        TypeError: a prior that cannot be conditioned.

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
    check_arguments(condition, locals())
    if isinstance(selection, str | list | tuple) and not selection:
        have = _tree.shown(_tree.paths(params))
        raise ValueError(f"the selection is empty, so that nothing is left to infer; the paths are {have}")
    joint.check_paths("params", params)
    part = _tree.as_selection(params, selection)
    rest = _tree.complement(params, part)
    prior: Any = joint.prior
    if prior is not None:
        if not isinstance(prior, Gaussian | Part):
            raise TypeError(
                f"the prior is a {type(prior).__name__}, which cannot be conditioned on the parameters that are held "
                "fixed; give a Gaussian, or None"
            )
        prior = prior.condition(params, part)
    net = Net(part, with_fixed(joint.state, rest), PartApply(joint.apply))
    options = {name: getattr(joint, name) for name in ("num_data", "kappa", "temperature", "allow_other_size")}
    return Conditioned(LogJoint(net, joint.likelihood, prior, **options), part, rest)


# ---------------------------------------------------------------- a pair of them


def for_draws(joint: LogJoint, params: Params) -> LogJoint:
    """A log joint, for its network alone, that takes parameters as a posterior draws them.

    Parameters that ``joint`` holds fixed and the posterior draws are those that the posterior draws.

    Raises:
        ValueError: parameters that the network has are missing, or others are there.
    """
    names = set(_tree.paths(params))
    joint = _released(joint, names)
    _check_same(names, set(joint.paths), "this log joint takes")
    return joint


def without_rest(joint: LogJoint, posterior: Posterior) -> tuple[LogJoint, Any]:
    """A posterior of a part as the posterior of its random parameters, and a log joint whose network holds the rest.

    For predictions: what is fixed need not be copied for every draw, nor be differentiated. The prior is dropped. All
    other posteriors come back as they are.
    """
    while isinstance(posterior, Part):
        fixed = set(_tree.paths(posterior.rest))
        joint = _released(joint, fixed)
        if not fixed <= set(joint.paths):
            _check_same(fixed, fixed & set(joint.paths), "of what it holds fixed this log joint has")
        random = tuple(path for path in joint.paths if path not in fixed)
        network = PartApply(joint.apply), with_fixed(joint.state, posterior.rest)
        joint, posterior = joint.with_network(*network, random), posterior.part
    return joint, posterior


def of_part(joint: LogJoint, posterior: Posterior) -> tuple[LogJoint, Any]:
    """Of a posterior of a part, the log joint of its random parameters and their posterior; all others as they are.

    For comparisons of densities: the prior is conditioned on the rest.

    Raises:
        ValueError: a log joint and a posterior of different parameters; a rest held at different values.
    """
    while isinstance(posterior, Part):
        random, rest = _zeros(posterior.part), posterior.rest
        if isinstance(joint.apply, PartApply) and set(joint.paths) == set(_tree.paths(random)):
            fix = "both must hold the same values: condition the log joint on those of the posterior"
            check_equal("the fixed parameters of the log joint", joint.state["frozen"], rest, fix)
        else:
            joint = condition(joint, _tree.merge(random, rest), random).joint
        posterior = posterior.part
    if hasattr(posterior, "sample"):
        _check_same(_names(posterior), set(joint.paths), "this log joint is about")
    return joint, posterior


def _released(joint: LogJoint, names: set[str]) -> LogJoint:
    """A log joint, for its network alone, that holds none of ``names`` fixed."""
    while isinstance(joint.apply, PartApply):
        fixed = _tree.paths(joint.state["frozen"])
        if names.isdisjoint(fixed):
            break
        joint = joint.with_network(joint.apply.apply, joint.state["net"], (*joint.paths, *fixed))
    return joint


def _check_same(names: set[str], expected: set[str], about: str) -> None:
    if names == expected:
        return
    differing = sorted(names - expected) or sorted(expected - names)
    lacks = "has none of" if names < expected else "draws"
    raise ValueError(
        f"the posterior and the log joint are of different parameters: the posterior {lacks} "
        f"{_tree.shown(differing, 4)}, and {about} {_tree.shown(sorted(expected), 4)}; a posterior of a part goes with "
        "infer.condition(...).joint, or as infer.condition(...).whole(posterior) with the log joint of all"
    )


def _names(posterior: Posterior) -> set[str]:
    return set(_tree.paths(_one(posterior)))


def _zeros(posterior: Posterior) -> Params:
    """Zeros in the shapes of one draw."""
    return _tree.zeros_like(_one(posterior))


def _one(posterior: Posterior) -> Params:
    """A tree with the structure and the shapes of one draw."""
    if isinstance(posterior, Gaussian):
        return posterior.mean
    if isinstance(posterior, Point):
        return posterior.params
    if isinstance(posterior, Samples):
        lead = posterior.log_weights.ndim
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[lead:], x.dtype), posterior.draws)
    draws = jax.eval_shape(lambda key: posterior.sample(key, 1), jax.random.key(0))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), draws)
