"""The conformance list: every likelihood, with outputs to try it at. A new likelihood is one more line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bayestl import likelihoods


class Case(NamedTuple):
    """One likelihood.

    Attributes:
        make: makes it, in the precision of the test.
        outputs: numpy generator and number of examples -> raw outputs.
        link_error: how far the probability or density of its default link may be from quadrature; None where the
            outputs of an example are too many for quadrature.
        noise: standard deviation of the targets' noise, for likelihoods that give random targets.
        support: ``outputs -> targets (T, B), widths (T, 1)`` to sum over, where the Hessian depends on the target; its
            mean is then taken as that of the squared score, which is the same for densities.
    """

    make: Callable[[], Any]
    outputs: Callable[[np.random.Generator, int], Any]
    link_error: float | None = None
    noise: Any = None
    support: Any = None


def _array(*shape: int) -> Callable[[np.random.Generator, int], Any]:
    return lambda rng, num: jnp.asarray(1.5 * rng.normal(size=(num, *shape)))


def _pair(*shape: int) -> Callable[[np.random.Generator, int], Any]:
    def outputs(rng: np.random.Generator, num: int) -> Any:
        return jnp.asarray(rng.normal(size=(num, *shape))), jnp.asarray(0.5 * rng.normal(size=(num, *shape)))

    return outputs


def _whole(highest: int) -> Callable[[Any], Any]:
    def support(outputs: Any) -> Any:
        return jnp.broadcast_to(jnp.arange(highest + 1)[:, None], (highest + 1, len(outputs))), jnp.ones(
            (highest + 1, 1)
        )

    return support


def _shares(outputs: Any) -> Any:
    # In the logit of the target, where the density has no poles.
    places = jnp.linspace(-30, 30, 6001)
    targets = jax.nn.sigmoid(places)
    widths = (places[1] - places[0]) * targets * jax.nn.sigmoid(-places)
    return jnp.broadcast_to(targets[:, None], (6001, len(outputs))), widths[:, None]


def _real(outputs: Any) -> Any:
    # Around the location in sinh of an even grid, dense in the middle and far in the tails.
    places = jnp.linspace(-14, 14, 8000)  # an even number, so that none is the location itself
    widths = (places[1] - places[0]) * jnp.cosh(places)
    location = jnp.asarray(outputs)
    return location + jnp.sinh(places)[:, None], widths[:, None]


def _real_of_pairs(outputs: Any) -> Any:
    return _real(outputs[..., 0])


def several_labels(outputs: jax.Array) -> dist.Distribution:
    return dist.BernoulliLogits(outputs).to_event(1)


def several_classes(outputs: jax.Array) -> dist.Distribution:
    return dist.CategoricalLogits(2 * outputs.reshape(-1, 2, 3)).to_event(1)


def own_normal(outputs: jax.Array) -> dist.Distribution:
    return dist.Normal(3 * outputs, 0.5).to_event(1)


def counts(outputs: jax.Array) -> dist.Distribution:
    return dist.Poisson(jnp.exp(outputs))


def counts_and_zeros(outputs: jax.Array) -> dist.Distribution:
    return dist.ZeroInflatedPoisson(jax.nn.sigmoid(outputs[..., 0]), jnp.exp(outputs[..., 1]))


SCALES = (0.5, 2.0, 1.0)
# Minus a log density that is not convex in the outputs has Hessians with negative eigenvalues, which are cut off.
NOT_CONVEX = ("focal", "zero inflated")
# MacKay's approximation of an averaged probability is off by at most 0.02.
CASES = {
    "categorical": Case(likelihoods.categorical, _array(4)),
    "categorical, two classes": Case(likelihoods.categorical, _array(2)),
    "bernoulli": Case(likelihoods.bernoulli, _array(), link_error=0.02),
    "normal": Case(lambda: likelihoods.normal(jnp.array(SCALES)), _array(3), noise=np.array(SCALES)),
    "normal, one output": Case(lambda: likelihoods.normal(0.3), _array(), link_error=1e-9, noise=0.3),
    "normal, learned noise": Case(likelihoods.normal, _pair()),
    "normal, learned noise, two outputs": Case(likelihoods.normal, _pair(2)),
    "several labels": Case(lambda: likelihoods.from_function(several_labels), _array(3)),
    "several classes, scaled": Case(lambda: likelihoods.from_function(several_classes), _array(6)),
    "normal from a function": Case(lambda: likelihoods.from_function(own_normal), _array(2)),
    "class weighted": Case(lambda: likelihoods.class_weighted(likelihoods.categorical(), [1.0, 0.2, 3.0]), _array(3)),
    "label smoothed": Case(lambda: likelihoods.label_smoothed(likelihoods.categorical(), 0.1), _array(3)),
    "focal": Case(lambda: likelihoods.focal(likelihoods.categorical(), 2.0), _array(3)),
    "counts from a function": Case(lambda: likelihoods.from_function(counts), _array(), link_error=1e-6),
    "zero inflated": Case(lambda: likelihoods.from_function(counts_and_zeros), _array(2)),
    "poisson": Case(likelihoods.poisson, _array(), link_error=1e-6),
    "poisson, several": Case(likelihoods.poisson, _array(3)),
    "negative binomial": Case(
        lambda: likelihoods.negative_binomial(2.0), _array(), link_error=1e-6, support=_whole(1500)
    ),
    "student t": Case(lambda: likelihoods.student_t(4.0, 0.5), _array(), link_error=2e-3, support=_real),
    "laplace": Case(lambda: likelihoods.laplace(0.5), _array(), link_error=0.05, support=_real),
    "beta": Case(lambda: likelihoods.beta(3.0), _array(), link_error=1e-6, support=_shares),
    "multi label": Case(likelihoods.multi_label, _array(3)),
    "ordinal": Case(lambda: likelihoods.ordinal([-1.0, 0.5, 1.0]), _array(), link_error=1e-6, support=_whole(3)),
    "heteroscedastic normal": Case(likelihoods.heteroscedastic_normal, _array(2), support=_real_of_pairs),
}
