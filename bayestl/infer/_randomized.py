"""Per-member perturbed objectives for ensembles, whose solutions are spread like the posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key
from bayestl.gaussians import Gaussian
from bayestl.likelihoods import target_noise


class Randomized(NamedTuple):
    """The perturbation of one member's objective.

    Attributes:
        anchor: the mean of its prior.
        noise: added to its targets, in their shape; None for no noise.
    """

    anchor: Any
    noise: Any = None


Randomize = Callable[[Key, LogJoint, Batch], Randomized]


def random_anchors(key: Key, joint: LogJoint, data: Batch) -> Randomized:
    """For :func:`ensemble`: the prior of each member has a mean of its own, drawn from the prior.

    ``theta_m = argmin -log P(D | theta) + 1/2 (theta - a_m)^T Sigma^-1 (theta - a_m), a_m ~ N(mu, T Sigma)``. Where the
    data are uninformative, members are spread like the prior. In directions that the data determine they are less
    spread than the posterior; :func:`random_anchors_and_targets` corrects that for regression.

    Raises:
        TypeError: a prior that is not a Gaussian.

    Reference:
        Pearce, Leibfried and Brintrup 2020, "Uncertainty in Neural Networks: Approximately Bayesian Ensembling" (arXiv
        1810.05546).
    """
    if not isinstance(joint.prior, Gaussian):
        raise TypeError(
            f"random anchors are drawn from a Gaussian prior, and this one is {type(joint.prior).__name__}; "
            "give the log joint one, or use randomize=None"
        )
    draw = joint.prior.rescale(joint.temperature).sample(key, 1)
    return Randomized(jax.tree.map(lambda x: x[0], draw))


def random_anchors_and_targets(key: Key, joint: LogJoint, data: Batch) -> Randomized:
    """For :func:`ensemble`: every member has its own mean of the prior, and its own noise on the targets.

    As :func:`random_anchors`, with targets ``y + n_m, n_m ~ N(0, T/kappa scale^2)``. On linear-Gaussian problems the
    members' modes are independent draws from the posterior, exactly; for other problems only approximately so.

    Raises:
        TypeError: a prior that is not a Gaussian; a likelihood without additive noise of a given size
            (``likelihoods.normal(scale)``).

    Reference:
        Bardsley, Solonen, Haario and Laine 2014, "Randomize-Then-Optimize", SIAM Journal on Scientific Computing 36.
    """
    key_anchor, key_noise = jax.random.split(key)
    targets = jnp.asarray(data.targets)
    # The likelihood counts every example kappa N / (examples here) / T times.
    power = joint.kappa * joint.num_data / len(targets) / joint.temperature
    noise = target_noise(joint.likelihood, key_noise, targets, power)
    return random_anchors(key_anchor, joint, data)._replace(noise=noise)
