"""Curvature of tables of look-ups: against its definition, against dense algebra, and what it takes of memory."""

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


def built(builder: Any, problem: networks.Problem, batch_size: int = 2) -> Any:
    joint, params, data = problem
    return jax.jit(lambda params: builder(KEY, joint, params, data, curvature.ggn, batch_size))(params)


def matrix(function: Any, params: Any) -> np.ndarray:
    """A matrix from its products with unit vectors."""
    flat, unflat = ravel_pytree(params)
    return np.asarray(jax.jit(jax.vmap(lambda e: ravel_pytree(function(unflat(e)))[0]))(jnp.eye(flat.size)))


def one_table(network: Any, tokens: np.ndarray, classes: int, **shapes: tuple[int, ...]) -> networks.Problem:
    net = btl.nets.from_function(network, {name: jnp.zeros(shape) for name, shape in shapes.items()})
    return networks.make(net, tokens, classes)


PER_ROW = np.array([[0.1], [0.5], [2.0], [0.3]])
TOKENS = np.array([[0, 3, 3], [1, 1, 1], [2, 0, 3], [4, 2, 0], [3, 1, 4]])


def _bag(params: Any, tokens: jax.Array) -> jax.Array:
    return jnp.tanh(params["table"][tokens]).sum(1) @ params["head"]


@pytest.mark.x64
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_the_input_factor_counts_rows(sharing):
    """``A_vv = 1/N sum_n sum_p [row_np = v] / P`` for expand, ``1/N sum_n (sum_p [row_np = v] / P)^2`` for reduce, and
    G from the output gradients of the rows: in numpy, example by example."""
    problem = one_table(_bag, TOKENS, 3, head=(2, 3), table=(6, 2))
    table, head = np.asarray(problem.params["table"]), np.asarray(problem.params["head"])
    counts, g = np.zeros(6), np.zeros((2, 2))
    for rows in TOKENS:
        hidden = np.tanh(table[rows])
        logits = hidden.sum(0) @ head
        p = np.exp(logits) / np.exp(logits).sum()
        one_hot = np.eye(6)[rows]
        counts += (one_hot.sum(0) / 3 if sharing == "expand" else one_hot.mean(0) ** 2) / len(TOKENS)
        for j in range(3):
            gradient = (1 - hidden**2) * (head @ (np.sqrt(p[j]) * (np.eye(3)[j] - p)))
            gradient = gradient if sharing == "expand" else gradient.sum(0, keepdims=True)
            g += gradient.T @ gradient
    (factors,) = (
        layer
        for layer in built(curvature.kronecker(getattr(curvature, sharing)), problem).layers
        if layer.layout.weights == "table"
    )
    assert factors.inputs.shape == (6, 1, 1)
    assert factors.outputs.shape == (1, 2, 2)
    np.testing.assert_allclose(factors.inputs[:, 0, 0], counts, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(factors.outputs[0], g, rtol=1e-10)


@pytest.mark.x64
def test_one_example_of_one_row_is_exact():
    problem = one_table(lambda params, tokens: params["table"][tokens], np.array([2]), 3, table=(4, 3))
    truth = built(curvature.dense(), problem).matrix
    given = matrix(built(curvature.kronecker(), problem).mv, problem.params)
    np.testing.assert_allclose(given, truth, rtol=1e-10, atol=1e-14)


@pytest.mark.x64
def test_a_regression_on_rows_is_exact():
    """Every example is one row with an output of its own: ``H = diag(counts) (x) I / noise^2``."""
    problem = one_table(lambda params, tokens: params["table"][tokens], np.array([2, 0, 2, 2]), 3, table=(4, 3))
    joint = btl.LogJoint(
        btl.Net(problem.params, (), problem.joint.apply), btl.likelihoods.normal(0.5), None, num_data=4
    )
    data = btl.data.arrays(problem.data.inputs, jnp.zeros((4, 3)))
    regression = networks.Problem(joint, problem.params, data)
    expected = np.kron(np.diag([1.0, 0, 3, 0]), np.eye(3)) / 0.25
    given = built(curvature.kronecker(), regression)
    np.testing.assert_allclose(matrix(given.mv, problem.params), expected, rtol=1e-10, atol=1e-14)
    for prior in (
        btl.gaussians.isotropic(problem.params, 0.7),
        btl.gaussians.low_rank(problem.params, 0.3, {"table": jnp.asarray(networks.normal(2, 4, 3))}),
        # One variance for every row.
        btl.gaussians.diagonal(problem.params, {"table": PER_ROW}),
        btl.gaussians.low_rank(problem.params, {"table": PER_ROW}, {"table": jnp.asarray(networks.normal(2, 4, 3))}),
    ):
        posterior = jax.jit(lambda prior: given.precision_update(prior, problem.params, 0.4, 2.0))(prior)
        covariance = matrix(prior.covariance_mv, problem.params)
        truth = 2 * np.linalg.inv(0.4 * expected + np.linalg.inv(covariance))
        np.testing.assert_allclose(matrix(posterior.covariance_mv, problem.params), truth, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(posterior.log_det_covariance(), np.linalg.slogdet(truth)[1], rtol=1e-8)
        ratio = np.linalg.slogdet(np.eye(12) + 0.4 * covariance @ expected)[1]
        np.testing.assert_allclose(jax.jit(given.log_det_ratio)(prior, 0.4), ratio, rtol=1e-8)


@pytest.mark.x64
def test_a_table_that_is_the_output_layer_too_has_its_exact_diagonal():
    problem = networks.tied()
    given = built(curvature.kronecker(), problem)
    assert [layer.layout.weights for layer in given.layers] == ["kernel"]
    truth = np.diag(built(curvature.dense(), problem).matrix)[-10:]
    np.testing.assert_allclose(np.ravel(given.diagonal["table"]), truth, rtol=1e-10)


def test_a_posterior_with_look_ups_comes_back_from_a_file(tmp_path):
    problem = one_table(_bag, TOKENS, 3, head=(2, 3), table=(6, 2))
    params = jax.tree.map(lambda x: x.astype(jnp.float32), problem.params)
    net = btl.Net(params, (), problem.joint.apply)
    prior = btl.gaussians.isotropic(params, 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=5)
    posterior = btl.infer.laplace(KEY, joint, params, problem.data, curvature=curvature.kronecker())
    btl.gaussians.save(tmp_path / "posterior.safetensors", posterior, source_task="tokens")
    loaded = btl.gaussians.load(tmp_path / "posterior.safetensors")
    jax.tree.map(np.testing.assert_array_equal, loaded.variance, posterior.variance)


# ---------------------------------------------------------------- memory

ROWS, LENGTH, EXAMPLES = 60_000, 50, 64


def _large() -> networks.Problem:
    """60,000 word vectors of 50 numbers, 64 texts of 8 words."""
    params = {"head": jnp.ones((LENGTH, 2)), "table": jnp.zeros((ROWS, LENGTH))}
    net = btl.nets.from_function(_bag, params)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=EXAMPLES)
    tokens = np.random.default_rng(0).integers(0, ROWS, (EXAMPLES, 8))
    return networks.Problem(joint, params, btl.data.arrays(tokens, np.zeros(EXAMPLES, int)))


def sizes_in(jaxpr: Any) -> set[int]:
    """How many numbers each array in a program holds, in those inside of it too."""
    sizes = set()
    for eqn in jaxpr.eqns:
        sizes |= {getattr(var.aval, "size", 0) for var in (*eqn.invars, *eqn.outvars)}
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                sizes |= sizes_in(inner)
    return sizes


@pytest.mark.parametrize("name", ["diagonal", "kronecker"])
def test_nothing_larger_than_the_table_arises(name):
    """Neither V x V = 3.6e9 numbers nor N x V x D = 1.9e8 for the curvature and its posterior: V x D is the largest."""
    problem = _large()
    prior = jax.eval_shape(lambda params: btl.gaussians.isotropic(params, 1.0), problem.params)

    def posterior(params: Any, prior: Any) -> Any:
        builder: Any = getattr(curvature, name)()
        built = builder(KEY, problem.joint, params, problem.data, curvature.ggn, EXAMPLES)
        return built.precision_update(prior, params, 1.0, 1.0)

    sizes = sizes_in(jax.make_jaxpr(posterior)(problem.params, prior).jaxpr)
    assert max(sizes) == ROWS * LENGTH
    # Of the compiled program: the table and what is made of it, a few copies at most.
    memory = jax.jit(posterior).lower(problem.params, prior).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 8 * 4 * ROWS * LENGTH
