"""The predictive of a regression's mixture."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bayestl import likelihoods
from bayestl._log_joint import LogJoint
from bayestl._types import Inputs
from bayestl.posteriors import Mixture, Point
from bayestl.predict import Predictive, linearized, monte_carlo


def predictive(
    joint: LogJoint, posterior: Mixture, noises: Sequence[float], inputs: Inputs, batch_size: int | None
) -> Predictive:
    """A mixture of normals, each of a linearised network, or of a mode, with its own noise."""
    means, deviations = [], []
    for component, noise in zip(posterior.components, noises, strict=True):
        of_member = joint.replace(likelihood=likelihoods.normal(noise))
        if isinstance(component, Point):
            predict = monte_carlo(jax.random.key(0), of_member, component, batch_size=batch_size)
        else:
            predict = linearized(of_member, component, batch_size=batch_size)
        each = predict(inputs)
        means.append(each.mean)
        deviations.append(jnp.sqrt(each.variance))
    outputs = (jnp.stack(means), jnp.log(jnp.stack(deviations)))
    return Predictive(outputs, likelihoods.normal(), jax.nn.log_softmax(posterior.log_weights))
