"""The predictive of the network linearised around the posterior's mean: a generalised linear model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Apply, Inputs, Posterior
from bayestl.passes import looped, scanned
from bayestl.posteriors import Mixture
from bayestl.predict._gaussian_outputs import GaussianOutputs
from bayestl.predict._inputs import check_inputs
from bayestl.predict._jacobian import (
    Linearization,
    check_batch_size,
    checked_outputs_shape,
    held_batch_size,
    is_faster_alone,
    linearization,
    moments_of_chunk,
)
from bayestl.predict._layered import has_lookups, is_layered, layered_batch_size, layered_moments_of_chunk
from bayestl.predict._links import Link, default_link
from bayestl.predict._nan import warn_of_nan


def linearized(
    joint: LogJoint,
    posterior: Posterior,
    link: Link | None = None,
    *,
    batch_size: int | None = None,
) -> Callable[[Any], Any]:
    """A function from inputs to their predictive, the network made linear in its parameters at the posterior's mean.

    ``f(x; theta) ~ f(x; mu) + J(x) (theta - mu)``, so that with ``theta ~ N(mu, Sigma)`` the outputs are Gaussian,
    ``N(f(x; mu), J(x) Sigma J(x)^T)``: no draws of parameters. It is the predictive that belongs to a Laplace posterior
    with a GGN, under which that network *is* linear; draws of a Laplace posterior through the network itself, as
    :func:`monte_carlo` takes them, tend to fit far worse. For a network linear in its parameters it is exact.

    J is never held for all inputs: vector-Jacobian products give the C x D rows of ``batch_size`` examples at a time;
    under a Kronecker-factored posterior, and under a diagonal one of a network with look-ups, the inputs and output
    gradients of each layer take their place. The network
    runs deterministically, with the state that ``joint`` holds.

    Args:
        joint: a :class:`~bayestl.LogJoint`; its network, state and likelihood are used, its prior is not.
        posterior: a Gaussian; one of a part of the parameters with the rest held fixed, as ``laplace`` with a selection
            gives, where the network is linearised in that part; or a :class:`~bayestl.Mixture` of such, each linearised
            around its own mean.
        link: what makes a predictive of the Gaussian outputs: :func:`probit`, :func:`mean_field_0`,
            :func:`mean_field_1`, :func:`mean_field_2`, ``sampled(key, num_samples)``, :func:`gaussian_noise`, or any
            function of a :class:`GaussianOutputs`. By default that of the likelihood: the exact one for Gaussian
            noise, :func:`probit` for classes, whatever a likelihood gives as ``moderated``; and
            :func:`quadrature` for any other likelihood of one output per example.
        batch_size: examples whose Jacobians are held at once, each C x D numbers; None for as many as fit into 64 MiB
            (fewer for layers), or 1 for convolutional networks on a CPU, where that is fastest.

    Returns:
        A function of inputs. With the default links it gives a :class:`GaussianPredictive` or a :class:`Predictive`.

    Raises:
        TypeError: a posterior that is not a Gaussian; at the call, a likelihood of several outputs without a default
            link.
        ValueError: a batch_size below 1; outputs without a batch axis.

    Warns:
        RuntimeWarning: at the call, predictions that are NaN.

    Reference:
        Immer, Korzepa and Bauer 2021, "Improving predictions of Bayesian neural nets via local linearization", arXiv
        2008.08400.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=10)
        >>> posterior = btl.gaussians.isotropic({"w": jnp.array([1.0, 2.0])}, scale=2.0)
        >>> given = btl.predict.linearized(joint, posterior)(jnp.array([[1.0, 1.0]]))
        >>> given.mean.item(), given.variance.item(), given.function_variance().item()
        (3.0, 9.0, 8.0)
    """
    check_arguments(linearized, locals())
    check_batch_size(batch_size)
    apply, linearizations, log_weights = _components(joint, posterior)
    link = default_link if link is None else link

    def predict(inputs: Inputs) -> Any:
        check_inputs(inputs)
        each = [output_moments(apply, linear, inputs, batch_size) for linear in linearizations]
        mean, covariance = jax.tree.map(lambda *xs: jnp.stack(xs), *each)
        warn_of_nan((mean, covariance), inputs, 1)
        return link(GaussianOutputs(mean, covariance, joint.likelihood, log_weights))

    return predict


def output_moments(
    apply: Apply, linear: Linearization, inputs: Inputs, batch_size: int | None
) -> tuple[Any, jax.Array]:
    """Outputs at the mean, leaves (B, ...), and their covariances (B, F, F)."""
    shapes = checked_outputs_shape(apply, linear, inputs)
    layered = is_layered(linear.gaussian) or has_lookups(apply, linear, inputs)
    moments = layered_moments_of_chunk if layered else moments_of_chunk
    if batch_size is not None:
        size = batch_size
    elif layered:
        size = layered_batch_size(apply, linear, inputs)
    else:
        size = 1 if is_faster_alone(apply, linear, inputs) else held_batch_size(linear, shapes)

    def chunk(inputs: Inputs) -> tuple[Any, jax.Array]:
        return moments(linear, inputs, apply=apply)

    # A loop inside a program makes the gradients of convolutions slow on CPUs; around programs it does not.
    return looped(chunk, inputs, size) if _tree.is_concrete((linear, inputs)) else scanned(chunk, inputs, size)


def _components(joint: LogJoint, posterior: Posterior) -> tuple[Apply, list[Linearization], jax.Array]:
    """The network around each Gaussian of a posterior, and their normalised log weights."""
    if not isinstance(posterior, Mixture):
        apply, linear = linearization(joint, posterior)
        return apply, [linear], jnp.zeros(1)
    log_weights = jax.nn.log_softmax(jnp.asarray(posterior.log_weights))
    applies, linearizations = zip(*[linearization(joint, component) for component in posterior.components], strict=True)
    if any(apply != applies[0] for apply in applies):
        raise ValueError("the components of the mixture are about different parts of the parameters; give all the same")
    return applies[0], list(linearizations), log_weights
