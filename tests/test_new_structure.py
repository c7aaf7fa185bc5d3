"""A covariance structure that the package does not know, in this file alone: everything must work with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import bayestl as btl
from bayestl import curvature, gaussians
from bayestl.gaussians import Gaussian, Parameter, Shape, Shapes, Stored

pytestmark = pytest.mark.x64
KEY = jax.random.key(0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Equicorrelated(Gaussian, kind="equicorrelated"):
    """Leaves of n numbers with covariance ``a (I + b P)``, P the projection to their common part, 1/n in every entry.

    Attributes:
        mean: pytree of means.
        variances: a, one number per leaf.
        strengths: b, likewise.
    """

    mean: Any
    variances: Any
    strengths: Any

    def _along(self, v: Any, power: float) -> Any:
        def leaf(x: Any, a: Any, b: Any) -> Any:
            return a**power * (x + ((1 + b) ** power - 1) * jnp.mean(x))

        return jax.tree.map(leaf, v, self.variances, self.strengths)

    def precision_quadratic(self, v):
        return btl.tree.vdot(v, self.precision_mv(v))

    def precision_mv(self, v):
        return self._along(v, -1.0)

    def covariance_mv(self, v):
        return self._along(v, 1.0)

    def whiten(self, v):
        return self._along(v, -0.5)

    def unwhiten(self, v):
        return self._along(v, 0.5)

    def log_det_covariance(self):
        def leaf(m: Any, a: Any, b: Any) -> Any:
            return m.size * jnp.log(a) + jnp.log1p(b)

        return sum(jax.tree.leaves(jax.tree.map(leaf, self.mean, self.variances, self.strengths)))

    def variance(self):
        def leaf(m: Any, a: Any, b: Any) -> Any:
            return jnp.full(m.shape, a * (1 + b / m.size))

        return jax.tree.map(leaf, self.mean, self.variances, self.strengths)

    def precision_diagonal(self):
        def leaf(m: Any, a: Any, b: Any) -> Any:
            return (1 - b / (1 + b) / m.size) / a

        return jax.tree.map(leaf, self.mean, self.variances, self.strengths)

    def around(self, mean):
        return dataclasses.replace(self, mean=mean)

    def rescale(self, c):
        factors = c if jax.tree.structure(c) == jax.tree.structure(self.mean) else jax.tree.map(lambda _: c, self.mean)
        return dataclasses.replace(self, variances=jax.tree.map(jnp.multiply, self.variances, factors))

    def inflate(self, eps):
        variances = jax.tree.map(lambda a: a + eps, self.variances)
        strengths = jax.tree.map(lambda a, b, c: a * b / c, self.variances, self.strengths, variances)
        return Equicorrelated(self.mean, variances, strengths)

    def restrict(self, selection):
        part = btl.tree.as_selection(self.mean, selection)
        return Equicorrelated(part, *(btl.tree.like_selection(x, part) for x in (self.variances, self.strengths)))

    def condition(self, values, selection):
        return self.restrict(selection)

    def realign(self, like):
        fields = (self.mean, self.variances, self.strengths)
        return Equicorrelated(*(btl.tree.restructure(btl.tree.by_paths(x), like) for x in fields))

    def _trace(self, diagonal: Any, quadratic: Any, scales: Any, strengths: Any) -> Any:
        total = 0.0
        marks = btl.tree.by_paths(self.mean)
        for path, m in marks.items():
            a, b = (btl.tree.by_paths(x)[path] for x in (scales, strengths))
            ones = jax.tree_util.tree_map_with_path(
                lambda p, x, path=path: jnp.full(x.shape, float(btl.tree.path_string(p) == path)), self.mean
            )
            every = jnp.sum(jnp.broadcast_to(btl.tree.by_paths(diagonal)[path], m.shape))
            total += a * (every + b / m.size * quadratic(ones))
        return total

    def trace(self, diagonal, quadratic, dual=None):
        return self._trace(diagonal, quadratic, self.variances, self.strengths)

    def precision_trace(self, diagonal, quadratic):
        inverse = jax.tree.map(lambda a: 1 / a, self.variances)
        return self._trace(diagonal, quadratic, inverse, jax.tree.map(lambda b: -b / (1 + b), self.strengths))

    @property
    def num_directions(self):
        return len(jax.tree.leaves(self.mean))

    def stored(self):
        return Stored({"mean": self.mean, "variances": self.variances, "strengths": self.strengths})

    @classmethod
    def stored_shapes(cls, settings: Mapping[str, Any], parameters: Sequence[Parameter]) -> Shapes:
        numbers = {p.path: Shape(()) for p in parameters}
        mean = {p.path: Shape(p.shape) for p in parameters}
        return Shapes({"mean": mean, "variances": numbers, "strengths": numbers}, {})

    @classmethod
    def from_stored(cls, stored):
        return Equicorrelated(**stored.trees)

    def check_values(self):
        if any(float(a) <= 0 for a in jax.tree.leaves(self.variances)):
            raise ValueError("variances must be positive")


def _joint(prior: Any) -> tuple[Any, Any, Any, np.ndarray, np.ndarray]:
    """A linear network of seven parameters, whose posterior is known; the noise has a standard deviation of 1/2."""
    rng = np.random.default_rng(0)
    params = {"a": jnp.asarray(rng.normal(size=3)), "b": jnp.asarray(rng.normal(size=(2, 2)))}
    inputs, targets = rng.normal(size=(4, 7)), rng.normal(size=4)
    net = btl.nets.from_function(lambda p, x: x @ jnp.concatenate([p["a"], p["b"].reshape(-1)]), params)
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.5), prior(params), num_data=4)
    return joint, params, btl.data.arrays(inputs, targets), inputs, targets


def _new(params: Any) -> Equicorrelated:
    mean = jax.tree.map(lambda x: 0.1 + 0 * x, params)
    variances, strengths = (
        {"a": jnp.asarray(0.5), "b": jnp.asarray(2.0)},
        {"a": jnp.asarray(3.0), "b": jnp.asarray(0.7)},
    )
    return Equicorrelated(mean, variances, strengths)


def _new_and_old(params: Any) -> gaussians.Gaussian:
    return gaussians.by_path(
        {"a": _new(params), "b": gaussians.diagonal(params, {"a": 1.0, "b": jnp.array([[2.0], [3.0]])})}
    )


def _covariance(prior: str) -> np.ndarray:
    result = np.zeros((7, 7))
    result[:3, :3] = 0.5 * (np.eye(3) + 3.0 * np.full((3, 3), 1 / 3))
    new = 2.0 * (np.eye(4) + 0.7 * np.full((4, 4), 1 / 4))
    result[3:, 3:] = new if prior == "new" else np.diag([2.0, 2.0, 3.0, 3.0])
    return result


PRIORS = {"new": _new, "new and old": _new_and_old}
BUILDERS = {"new": [curvature.dense(), curvature.dual()], "new and old": [curvature.low_rank(7)]}


def _matrix(mv: Any, like: Any) -> np.ndarray:
    flat, unflat = ravel_pytree(like)
    return np.asarray(jax.jit(jax.vmap(lambda e: ravel_pytree(mv(unflat(e)))[0]))(jnp.eye(flat.size)))


@pytest.mark.parametrize("name", PRIORS)
def test_laplace_evidence_divergence_files_and_predictions(name, tmp_path):
    joint, params, data, inputs, targets = _joint(PRIORS[name])
    prior, sigma = joint.prior, _covariance(name)
    np.testing.assert_allclose(_matrix(prior.covariance_mv, params), sigma, rtol=1e-12, atol=1e-14)
    truth = np.linalg.inv(4 * inputs.T @ inputs + np.linalg.inv(sigma))
    mean = np.asarray(ravel_pytree(prior.mean)[0])
    mode = mean + truth @ (4 * inputs.T @ (targets - inputs @ mean))
    at = ravel_pytree(params)[1](jnp.asarray(mode))
    marginal = inputs @ sigma @ inputs.T + 0.25 * np.eye(4)
    r = targets - inputs @ mean
    evidence = -0.5 * (4 * np.log(2 * np.pi) + np.linalg.slogdet(marginal)[1] + r @ np.linalg.solve(marginal, r))
    shift = mode - mean
    kl = np.trace(np.linalg.solve(sigma, truth)) - 7 + shift @ np.linalg.solve(sigma, shift)
    kl = 0.5 * (kl + np.linalg.slogdet(sigma)[1] - np.linalg.slogdet(truth)[1])
    for builder in BUILDERS[name]:
        posterior = btl.infer.laplace(KEY, joint, at, data, curvature=builder)
        np.testing.assert_allclose(_matrix(posterior.covariance_mv, params), truth, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(btl.infer.log_evidence(KEY, joint, at, data, curvature=builder), evidence, rtol=1e-9)
    np.testing.assert_allclose(gaussians.kl_divergence(posterior, prior), kl, rtol=1e-9)
    gaussians.save(tmp_path / "posterior", posterior)
    loaded = gaussians.load(tmp_path / "posterior")
    assert jax.tree.structure(loaded) == jax.tree.structure(posterior)
    jax.tree.map(np.testing.assert_array_equal, loaded, posterior)
    given = btl.predict.linearized(joint, loaded, lambda outputs: outputs)(inputs)
    each = np.einsum("ni,ij,nj->n", inputs, truth, inputs)
    np.testing.assert_allclose(np.ravel(given.covariance[0]), each, rtol=1e-8)


def test_divergence_between_new_ones():
    _, params, *_ = _joint(_new)
    q = _new(params)
    p = q.inflate(0.3).rescale(2.0)
    covariance_q = _covariance("new")
    covariance_p = 2 * (covariance_q + 0.3 * np.eye(7))
    kl = np.trace(np.linalg.solve(covariance_p, covariance_q)) - 7
    kl = 0.5 * (kl + np.linalg.slogdet(covariance_p)[1] - np.linalg.slogdet(covariance_q)[1])
    np.testing.assert_allclose(gaussians.kl_divergence(q, p), kl, rtol=1e-10)


def test_what_it_has_no_closed_form_for_is_refused():
    joint, params, data, *_ = _joint(_new)
    with pytest.raises(TypeError, match="diagonal precision on top of a Equicorrelated Gaussian has no closed form"):
        btl.infer.laplace(KEY, joint, params, data, curvature=curvature.diagonal())


def test_a_structure_without_a_name_is_not_saved(tmp_path):
    class Nameless(Equicorrelated):
        kind = ""
        stored = Gaussian.stored

    _, params, *_ = _joint(_new)
    g = _new(params)
    with pytest.raises(TypeError, match="a Nameless cannot be saved: its class has no kind"):
        gaussians.save(tmp_path / "g", Nameless(g.mean, g.variances, g.strengths))
