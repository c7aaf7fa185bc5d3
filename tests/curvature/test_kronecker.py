"""Kronecker-factored curvature against its definition in numpy, and against exact answers where it is exact."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import layer_networks as networks
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import bayestl as btl
from bayestl import curvature

KEY = jax.random.key(0)
SHARINGS = {"expand": curvature.expand, "reduce": curvature.reduce}


def built(builder: Any, joint: Any, params: Any, data: Any, batch_size: int = 2) -> Any:
    return jax.jit(lambda params: builder(KEY, joint, params, data, curvature.ggn, batch_size))(params)


def matrix(found: Any, params: Any) -> np.ndarray:
    """H from its products with unit vectors."""
    flat, unflat = ravel_pytree(params)
    return np.asarray(jax.jit(jax.vmap(lambda e: ravel_pytree(found.mv(unflat(e)))[0]))(jnp.eye(flat.size)))


def covariance(g: Any) -> np.ndarray:
    flat, unflat = ravel_pytree(g.mean)
    return np.asarray(jax.jit(jax.vmap(lambda e: ravel_pytree(g.covariance_mv(unflat(e)))[0]))(jnp.eye(flat.size)))


# ---------------------------------------------------------------- the definition


def _network(params, x):
    """A convolution with stride, a layer that its positions share, and one that sees their mean."""
    x = jax.lax.conv_general_dilated(x, params["conv"], (2, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jnp.tanh(x.reshape(x.shape[0], -1, x.shape[-1]) + params["conv_bias"])
    x = jnp.tanh(x @ params["shared"]).mean(1)
    return x @ params["head"] + params["head_bias"]


def _by_numpy(params: Any, x: np.ndarray, sharing: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Factors ``A, G`` of every layer, one example and one column after another."""
    pairs: dict[str, list] = {"conv": [], "shared": [], "head": []}
    for example in x:
        patches = np.stack([
            np.append(example[2 * i : 2 * i + 2, j : j + 2].ravel(), 1.0) for i in range(2) for j in range(2)
        ])  # fmt: skip
        first = np.tanh(patches @ np.vstack([params["conv"].reshape(8, 3), params["conv_bias"]]))
        second = np.tanh(first @ params["shared"])
        last = np.append(second.mean(0), 1.0)
        logits = last @ np.vstack([params["head"], params["head_bias"]])
        p = np.exp(logits) / np.exp(logits).sum()
        for j in range(3):
            column = np.sqrt(p[j]) * (np.eye(3)[j] - p)
            g_second = (1 - second**2) * (params["head"] @ column) / 4
            g_first = (1 - first**2) * (g_second @ params["shared"].T)
            pairs["head"].append((last[None], column[None]))
            pairs["shared"].append((first, g_second))
            pairs["conv"].append((patches, g_first))
    factors = {}
    for name, found in pairs.items():
        if sharing == "reduce":
            found = [(a.mean(0, keepdims=True), g.sum(0, keepdims=True)) for a, g in found]
        # Every example comes once per column, so that a mean over all pairs is one over the examples.
        positions = len(found[0][0])
        a = np.mean([a.T @ a for a, _ in found], 0) / positions
        factors[name] = a, np.sum([g.T @ g for _, g in found], 0)
    return factors


@pytest.mark.x64
@pytest.mark.parametrize("sharing", SHARINGS)
def test_it_is_as_defined(sharing):
    shapes = {"conv": (2, 2, 2, 3), "conv_bias": (3,), "head": (4, 3), "head_bias": (3,), "shared": (3, 4)}
    net = btl.nets.from_function(_network, {name: jnp.zeros(shape) for name, shape in shapes.items()})
    problem = networks.make(net, networks.normal(5, 5, 3, 2), 3)
    truth = _by_numpy(jax.device_get(problem.params), problem.data.inputs, sharing)
    mask = jnp.array([1, 1, 0, 1, 1])
    extra = btl.Batch(problem.data.inputs.at[2].set(jnp.nan), problem.data.targets, mask)
    found = built(curvature.kronecker(SHARINGS[sharing]), problem.joint, problem.params, problem.data)
    masked = built(curvature.kronecker(SHARINGS[sharing]), problem.joint, problem.params, extra)
    kept = _by_numpy(jax.device_get(problem.params), np.delete(problem.data.inputs, 2, 0), sharing)
    assert not jax.tree.leaves(found.diagonal)
    for which, factors in ((found, truth), (masked, kept)):
        for layer in which.layers:
            a, g = factors[layer.layout.weights]
            np.testing.assert_allclose(layer.inputs[0], a, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(layer.outputs[0], g, rtol=1e-10, atol=1e-12)
    assert [layer.layout.bias for layer in found.layers] == ["conv_bias", "head_bias", None]


# ---------------------------------------------------------------- where it is exact


def _dense_problem(num: int, likelihood: Any, prior: Any, **tempers: float) -> Any:
    rng = np.random.default_rng(3)
    params = {"b": jnp.asarray(rng.normal(size=3)), "w": jnp.asarray(rng.normal(size=(4, 3)))}
    net = btl.nets.from_function(lambda params, x: x @ params["w"] + params["b"], params)
    data = btl.data.arrays(rng.normal(size=(num, 4)), rng.normal(size=(num, 3)))
    joint = btl.LogJoint(net, likelihood, None if prior is None else prior(params), num_data=num, **tempers)
    return joint, params, data


PRIORS = {
    "isotropic": lambda params: btl.gaussians.isotropic(params, 0.7),
    "isotropic by path": lambda params: btl.gaussians.by_path(
        {"b": btl.gaussians.isotropic(params, 2.0), "w": btl.gaussians.isotropic(params, 0.3)}
    ),
    "flat": None,
}


@pytest.mark.x64
@pytest.mark.parametrize("name", PRIORS)
def test_a_regression_with_several_outputs_is_exact(name):
    """``H = X^T X (x) I / noise^2``, X with a column of ones: posterior, evidence and all, at any kappa and T."""
    joint, params, data = _dense_problem(9, btl.likelihoods.normal(0.5), PRIORS[name], kappa=0.7, temperature=1.3)
    x = np.hstack([np.asarray(data.inputs), np.ones((9, 1))])
    h = np.kron(x.T @ x, np.eye(3)) / 0.25
    order = np.concatenate([np.arange(12, 15), np.arange(12)])  # the bias comes first
    h = h[np.ix_(order, order)]
    prior = np.zeros((15, 15)) if joint.prior is None else np.linalg.inv(covariance(joint.prior))
    truth = 1.3 * np.linalg.inv(0.7 * h + prior)
    posterior = btl.infer.laplace(KEY, joint, params, data, curvature=curvature.kronecker(), batch_size=4)
    np.testing.assert_allclose(covariance(posterior), truth, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(posterior.log_det_covariance(), np.linalg.slogdet(truth)[1], rtol=1e-8)
    jax.tree.map(np.testing.assert_array_equal, posterior.mean, params)
    found = built(curvature.kronecker(), joint, params, data)
    assert isinstance(found, curvature.Curvature)
    np.testing.assert_allclose(matrix(found, params), h, rtol=1e-8, atol=1e-9)
    if joint.prior is not None:
        ratio = np.linalg.slogdet(np.eye(15) + 0.7 * np.linalg.solve(prior, h))[1]
        np.testing.assert_allclose(found.log_det_ratio(joint.prior, 0.7), ratio, rtol=1e-8)
    apart = matrix(built(curvature.kronecker(bias=curvature.separate), joint, params, data), params)
    np.testing.assert_allclose(apart[:3, :3], h[:3, :3], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(apart[3:, 3:], h[3:, 3:], rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(apart[:3, 3:], 0)


@pytest.mark.x64
def test_one_datum_is_exact():
    joint, params, data = _dense_problem(1, btl.likelihoods.categorical(), None)
    data = btl.data.arrays(data.inputs, np.array([2]))
    truth = built(curvature.dense(), joint, params, data).matrix
    found = matrix(built(curvature.kronecker(), joint, params, data), params)
    np.testing.assert_allclose(found, truth, rtol=1e-10, atol=1e-12)


def _deep_linear(params, x):
    """Sequences (B, P, 2) through two layers that the positions share."""
    return (x @ params["first"] + params["bias"]) @ params["second"]


@pytest.mark.x64
@pytest.mark.parametrize("sharing", SHARINGS)
def test_deep_linear_networks_are_exact_in_the_setting_of_each_approximation(sharing):
    """Squares at every position for expand; at the mean over positions for reduce: then every block is exact."""

    def network(params, x):
        y = _deep_linear(params, x)
        return y.mean(1) if sharing == "reduce" else y

    shapes = {"bias": jnp.zeros(3), "first": jnp.zeros((2, 3)), "second": jnp.zeros((3, 2))}
    problem = networks.make(btl.nets.from_function(network, shapes), networks.normal(4, 5, 2), None)
    joint, params, data = problem
    truth = np.array(built(curvature.dense(), joint, params, data).matrix)
    truth[:9, 9:], truth[9:, :9] = 0, 0  # between the layers
    found = matrix(built(curvature.kronecker(SHARINGS[sharing]), joint, params, data), params)
    np.testing.assert_allclose(found, truth, rtol=1e-9, atol=1e-10)
    other = curvature.kronecker(curvature.reduce if sharing == "expand" else curvature.expand)
    assert np.max(np.abs(matrix(built(other, joint, params, data), params) - truth)) > 0.1 * np.max(truth)


@pytest.mark.x64
def test_groups_have_factors_of_their_own():
    """One datum at one position: exact within every group."""

    def network(params, x):
        x = jax.lax.conv_general_dilated(
            x, params["kernel"], (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=2
        )
        return (x + params["bias"])[:, 0]

    shapes = {"bias": jnp.zeros(4), "kernel": jnp.zeros((3, 1, 4))}
    joint, params, data = networks.make(btl.nets.from_function(network, shapes), networks.normal(1, 3, 2), 4)
    truth = np.array(built(curvature.dense(), joint, params, data).matrix)
    group = np.concatenate([np.arange(4), np.tile(np.arange(4), 3)]) // 2
    truth[group[:, None] != group] = 0
    found = built(curvature.kronecker(), joint, params, data)
    assert found.layers[0].inputs.shape == (2, 4, 4)
    np.testing.assert_allclose(matrix(found, params), truth, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- posteriors


@pytest.mark.x64
def test_posterior_of_a_network_with_all_kinds_of_parameters():
    """Layers and diagonal parts under a prior by path: what dense algebra makes of the same H."""
    joint, params, data = networks.odd()
    scales = jax.tree.map(lambda x: 0.5 + 0.1 * x.size, params)
    prior = btl.gaussians.by_path(
        {
            "scanned/**": btl.gaussians.low_rank(params, 0.3, jax.tree.map(lambda x: jnp.ones((1, *x.shape)), params)),
            "**": btl.gaussians.isotropic(params, scales),
        }
    )
    joint = joint.replace(prior=prior)

    @jax.jit
    def queried(joint, params):
        found: Any = curvature.kronecker()(KEY, joint, params, data, curvature.ggn, 3)
        posterior = found.precision_update(joint.prior, params, 0.4, 2.0)
        return found, posterior, found.log_det_ratio(joint.prior, 0.4)

    found, posterior, ratio = queried(joint, params)
    assert [layer.layout.paths for layer in found.layers] == [
        ("embedding",),
        ("head/kernel", "output"),
        ("heads",),
        ("scanned/kernel", "scanned/bias"),
    ]
    h, sigma = matrix(found, params), covariance(prior)
    truth = 2 * np.linalg.inv(0.4 * h + np.linalg.inv(sigma))
    np.testing.assert_allclose(covariance(posterior), truth, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ratio, np.linalg.slogdet(np.eye(len(h)) + 0.4 * sigma @ h)[1], rtol=1e-8)
    inside = btl.tree.select(params, ["embedding", "head/kernel", "output", "heads", "scanned/**"])
    outside = btl.tree.complement(params, inside)
    exact = built(curvature.diagonal(), joint, params, data).diagonal
    exact = btl.tree.like_selection(exact, outside)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-14), found.diagonal, exact)


def test_no_data_gives_the_prior_and_a_posterior_is_a_prior():
    joint, params, data = _dense_problem(9, btl.likelihoods.normal(0.5), PRIORS["isotropic by path"], kappa=0.0)
    joint, params = jax.tree.map(lambda x: x.astype(jnp.float32), (joint, params))
    posterior = btl.infer.laplace(KEY, joint, params, data, curvature=curvature.kronecker())
    np.testing.assert_allclose(posterior.variance["w"], 0.09, rtol=1e-5)
    np.testing.assert_allclose(posterior.variance["b"], 4.0, rtol=1e-5)
    again = btl.LogJoint(btl.Net(params, (), joint.apply), joint.likelihood, posterior, num_data=9)
    assert np.isfinite(again(params, btl.Batch(data.inputs, data.targets)))
    assert posterior.sample(KEY, 3)["w"].shape == (3, 4, 3)


def test_the_flat_prior_needs_more_data_than_inputs():
    joint, params, data = _dense_problem(3, btl.likelihoods.normal(0.5), None)
    joint, params = jax.tree.map(lambda x: x.astype(jnp.float32), (joint, params))
    with pytest.raises(ValueError, match="not positive definite under the flat prior: no finite variance at 'b', 'w'"):
        btl.infer.laplace(KEY, joint, params, data, curvature=curvature.kronecker())


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (
            lambda params: btl.gaussians.diagonal(params, jax.tree.map(jnp.ones_like, params)),
            "one variance per parameter or per row, .*, and 'w' has more than one variance in a row of its matrix",
        ),
        (
            lambda params: btl.gaussians.dense(params, jnp.eye(btl.tree.size(params))),
            "'w' belongs to a Dense Gaussian; .* dense.. with every prior",
        ),
    ],
)
def test_other_priors_are_refused(prior, message):
    joint, params, data = _dense_problem(4, btl.likelihoods.normal(0.5), prior)
    with pytest.raises(ValueError, match=message):
        btl.infer.laplace(KEY, joint, params, data, curvature=curvature.kronecker())
