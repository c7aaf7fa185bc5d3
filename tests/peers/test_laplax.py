"""The same weights and data in laplax: products with the GGN. Its squared error is |r|^2: a noise of sqrt(1/2)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl

SIZES, NUM = (4, 5, 3), 12


def network(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["a"]) @ params["b"]


def one(*, input: jax.Array, params: Any) -> jax.Array:
    return network(params, input)


@pytest.mark.x64
@pytest.mark.parametrize("task", ["cross_entropy", "mse"])
def test_product_with_the_ggn(task):
    ggn = pytest.importorskip("laplax.curv.ggn")
    rng = np.random.default_rng(0)
    params = {"a": jnp.asarray(rng.normal(size=SIZES[:2])), "b": jnp.asarray(rng.normal(size=SIZES[1:]))}
    inputs = jnp.asarray(rng.normal(size=(NUM, SIZES[0])))
    classes = task == "cross_entropy"
    targets = jnp.asarray(rng.integers(0, SIZES[2], NUM) if classes else rng.normal(size=(NUM, SIZES[2])))
    theirs = ggn.create_ggn_mv(
        one, params, {"input": inputs, "target": targets}, task, num_curv_samples=NUM, num_total_samples=NUM
    )
    vector = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)
    expected = theirs(vector)

    net = btl.nets.from_function(network, params)
    likelihood = btl.likelihoods.categorical() if classes else btl.likelihoods.normal(0.5**0.5)
    prior = btl.gaussians.isotropic(params, 1.0)
    joint = btl.LogJoint(net, likelihood, prior, num_data=NUM)
    ours = btl.infer.laplace(jax.random.key(0), joint, params, btl.data.arrays(inputs, targets))
    product = ours.precision_mv(vector)
    for name in params:
        np.testing.assert_allclose(product[name] - vector[name], expected[name], rtol=1e-4, atol=1e-10)
