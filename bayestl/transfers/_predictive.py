"""The predictive of a regression's mixture."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bayestl import likelihoods
from bayestl._log_joint import LogJoint
from bayestl._types import Inputs
from bayestl.posteriors import Mixture
from bayestl.predict import Predictive, linearized


def predictive(
    joint: LogJoint, posterior: Mixture, noises: Sequence[float], inputs: Inputs, batch_size: int | None
) -> Predictive:
    """A mixture of normals, each of a linearised network with its own noise."""
    means, deviations = [], []
    for component, noise in zip(posterior.components, noises, strict=True):
        of_member = joint.replace(likelihood=likelihoods.normal(noise))
        each = linearized(of_member, component, batch_size=batch_size)(inputs)
        means.append(each.mean)
        deviations.append(jnp.sqrt(each.variance))
    outputs = (jnp.stack(means), jnp.log(jnp.stack(deviations)))
    return Predictive(outputs, likelihoods.normal(), jax.nn.log_softmax(posterior.log_weights))
