"""Kronecker-factored posteriors, whose covariances of outputs are computed layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import gaussians, likelihoods, predict


def positive(rng, size):
    root = rng.normal(size=(size, size)) / np.sqrt(size)
    return root @ root.T + 0.1 * np.eye(size)


def matrix_normal(rng, params):
    """A Gaussian with a Kronecker-factored covariance per leaf, and these covariances in numpy."""
    sizes = {path: (x.size // x.shape[-1], x.shape[-1]) for path, x in btl.tree.by_paths(params).items()}
    rows, columns = ({path: positive(rng, size[i]) for path, size in sizes.items()} for i in (0, 1))
    as_tree = jax.tree.unflatten
    structure = jax.tree.structure(params)
    posterior = gaussians.kronecker(params, as_tree(structure, rows.values()), as_tree(structure, columns.values()))
    return posterior, {path: np.kron(rows[path], columns[path]) for path in sizes}


def expected(network, params, inputs, covariances):
    """``J Sigma J^T`` for parameters that are independent from leaf to leaf."""
    jac = btl.tree.by_paths(jax.jacrev(network)(params, inputs))
    total = 0
    for path, covariance in covariances.items():
        rows = np.asarray(jac[path]).reshape(*jac[path].shape[:2], -1)
        total += rows @ covariance @ rows.transpose(0, 2, 1)
    return total


def raw(outputs):
    return outputs


def moments(network, params, posterior, inputs, **settings):
    model = btl.LogJoint(btl.nets.from_function(network, params), likelihoods.categorical(), None, num_data=10)
    return predict.linearized(model, posterior, raw, **settings)(inputs)


def dense_layers(params, inputs):
    # The bias of the head enters twice, so that it is no part of a layer; `gain` is a layer of no kind.
    hidden = jnp.tanh(inputs @ params["first"]["kernel"] + params["first"]["bias"]) * params["gain"]
    return hidden @ params["head"]["kernel"] + params["head"]["bias"] * jnp.tanh(params["head"]["bias"])


def dense_params(rng):
    shapes = {"first": {"bias": (4,), "kernel": (3, 4)}, "gain": (4,), "head": {"bias": (2,), "kernel": (4, 2)}}
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s)), shapes, is_leaf=lambda x: isinstance(x, tuple))


@pytest.mark.x64
@pytest.mark.parametrize("batch_size", [None, 2])
def test_dense_layers(batch_size):
    rng = np.random.default_rng(0)
    params, inputs = dense_params(rng), rng.normal(size=(5, 3))
    posterior, covariances = matrix_normal(rng, params)
    given = moments(dense_layers, params, posterior, inputs, batch_size=batch_size)
    wanted = expected(dense_layers, params, inputs, covariances)
    np.testing.assert_allclose(given.covariance[0], wanted, rtol=1e-9, atol=1e-12)  # float64 rounding
    np.testing.assert_allclose(given.mean[0], dense_layers(params, inputs), rtol=1e-12)


@pytest.mark.x64
def test_convolutions_beside_other_blocks():
    rng = np.random.default_rng(1)
    net = btl.nets.conv_net(jax.random.key(0), (4, 4, 2), (3,), num_classes=2, activation=jax.nn.tanh)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), net.params)
    inputs = jnp.asarray(rng.normal(size=(3, 4, 4, 2)))
    kronecker, covariances = matrix_normal(rng, params)
    variances = jax.tree.map(lambda x: rng.uniform(0.1, 2.0, size=x.shape), params)
    head = gaussians.diagonal(params, variances)
    posterior = gaussians.by_path({"head/**": head, "**": kronecker})
    for path, x in btl.tree.by_paths(variances).items():
        if path.startswith("head"):
            covariances[path] = np.diag(np.ravel(x))

    def network(params, inputs):
        return net(params, inputs)

    given = moments(network, params, posterior, inputs)
    wanted = expected(network, params, inputs, covariances)
    np.testing.assert_allclose(given.covariance[0], wanted, rtol=1e-9, atol=1e-12)  # float64 rounding


@pytest.mark.x64
def test_a_laplace_posterior_with_joined_biases_and_with_a_part():
    rng = np.random.default_rng(2)
    net = btl.nets.mlp(jax.random.key(0), (3, 4, 2), jax.nn.tanh)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), net.params)
    prior = gaussians.isotropic(params, scale=0.7)
    model = btl.LogJoint(net, likelihoods.categorical(), prior, num_data=6)
    data = btl.data.arrays(rng.normal(size=(6, 3)), np.arange(6) % 2)
    inputs = jnp.asarray(rng.normal(size=(5, 3)))
    for selection in (None, "head/**"):
        posterior = btl.infer.laplace(
            jax.random.key(0), model, params, data, curvature=btl.curvature.kronecker(), selection=selection
        )
        gaussian = posterior if selection is None else posterior.part
        # A layer with its bias is one block, B diag(lam) B^T with B = diag(d) Q_in (x) Q_out, bias last.
        wanted = 0
        jac = btl.tree.by_paths(jax.jacrev(lambda p: net(p, inputs))(params))
        for block in gaussian.blocks():
            kernel, bias = (np.asarray(jac[path]).reshape(5, 2, -1) for path in block.layout.paths)
            scale = np.broadcast_to(block.scale, block.inputs.shape[1])
            basis = np.kron(scale[:, None] * np.asarray(block.inputs[0]), np.asarray(block.outputs[0]))
            covariance = basis * np.ravel(block.spectrum) @ basis.T
            rows = np.concatenate([kernel, bias], axis=2)
            wanted += rows @ covariance @ rows.transpose(0, 2, 1)
        given = predict.linearized(model, posterior, raw)(inputs)
        np.testing.assert_allclose(given.covariance[0], wanted, rtol=1e-9, atol=1e-12)  # float64 rounding
        together = predict.linearized_joint(model, posterior)(inputs).output_covariance.reshape(5, 2, 5, 2)
        diagonal = np.stack([together[b, :, b] for b in range(5)])
        np.testing.assert_allclose(diagonal, wanted, rtol=1e-9, atol=1e-12)


def test_under_jit_and_vmap():
    rng = np.random.default_rng(3)
    params, inputs = dense_params(rng), jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    posterior, _ = matrix_normal(rng, params)

    def variance(scale, inputs):
        return moments(dense_layers, params, posterior.rescale(scale), inputs, batch_size=2).variance

    together = jax.jit(jax.vmap(variance, in_axes=(0, None)))(jnp.array([1.0, 4.0]), inputs)
    np.testing.assert_allclose(together[1], 4 * together[0], rtol=1e-4)  # float32 sums
    np.testing.assert_allclose(together[0], variance(1.0, inputs), rtol=1e-4)


# ---------------------------------------------------------------- look-ups, layers in loops


TOKENS = np.array([[0, 3, 3], [1, 1, 1], [2, 0, 3], [4, 2, 0], [3, 1, 4]])


def bag_of_rows(params, tokens):
    """One table for two sequences, and a layer in a loop whose steps have weights of their own."""
    x = jnp.tanh(params["table"][tokens]).sum(1) + params["table"][tokens[:, 0]]
    x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["stack"])
    return x @ params["head"]


def bag_params(rng):
    shapes = {"head": (2, 3), "stack": (2, 2, 2), "table": (6, 2)}
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


@pytest.mark.x64
def test_look_ups_under_a_diagonal_posterior():
    rng = np.random.default_rng(4)
    params = bag_params(rng)
    variances = jax.tree.map(lambda x: rng.uniform(0.1, 2.0, size=x.shape), params)
    covariances = {path: np.diag(np.ravel(x)) for path, x in btl.tree.by_paths(variances).items()}
    given = moments(bag_of_rows, params, gaussians.diagonal(params, variances), TOKENS)
    wanted = expected(bag_of_rows, params, TOKENS, covariances)
    np.testing.assert_allclose(given.covariance[0], wanted, rtol=1e-9, atol=1e-12)  # float64 rounding


@pytest.mark.x64
def test_look_ups_and_loops_under_a_kronecker_posterior():
    """Against J Sigma J^T with the covariance that the posterior itself writes out."""
    rng = np.random.default_rng(5)
    params = bag_params(rng)
    net = btl.nets.from_function(bag_of_rows, params)
    prior = gaussians.isotropic(params, scale=0.7)
    model = btl.LogJoint(net, likelihoods.categorical(), prior, num_data=5)
    data = btl.data.arrays(TOKENS, np.arange(5) % 3)
    posterior = btl.infer.laplace(jax.random.key(0), model, params, data, curvature=btl.curvature.kronecker())
    flat, unflat = jax.flatten_util.ravel_pytree(params)
    covariance = jax.vmap(lambda e: jax.flatten_util.ravel_pytree(posterior.covariance_mv(unflat(e)))[0])(
        jnp.eye(flat.size)
    )
    rows = np.asarray(jax.jacrev(lambda flat: bag_of_rows(unflat(flat), TOKENS))(flat))
    given = predict.linearized(model, posterior, raw)(TOKENS)
    wanted = rows @ np.asarray(covariance) @ rows.transpose(0, 2, 1)
    np.testing.assert_allclose(given.covariance[0], wanted, rtol=1e-9, atol=1e-12)  # float64 rounding


def test_predictions_hold_no_jacobian_of_a_table():
    """60,000 rows of 50 numbers, 16 texts: a Jacobian of the table would be 16 x 3 x 60,000 x 50 numbers."""
    shapes = {"head": (50, 3), "stack": (2, 50, 50), "table": (60_000, 50)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    posterior = jax.eval_shape(lambda params: gaussians.isotropic(params, 1.0), params)
    tokens = np.random.default_rng(0).integers(0, 60_000, (16, 8))

    def variances(posterior, params):
        model = btl.LogJoint(btl.nets.from_function(bag_of_rows, params), likelihoods.categorical(), None, num_data=10)
        return predict.linearized(model, posterior, raw, batch_size=16)(tokens).covariance

    memory = jax.jit(variances).lower(posterior, params).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 8 * 4 * 60_000 * 50
