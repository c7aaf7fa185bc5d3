"""Programs that a compiler of JAX's is known to compute wrongly; docs/compilers.md has the story."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl

pytestmark = pytest.mark.optimized  # what XLA makes of these programs is what they are about


def test_a_product_and_a_sum_over_its_leading_axis():
    """The smallest such program is reported (``pytest -rP`` shows it); log densities of such a network are tested.

    On CPUs jaxlib 0.10.2 fuses product and sum, and is off by up to 90% from 32,769 rows of float32 on; 0.11.0, 0.11.2,
    0.12.0 and 0.12.0.1 are right.
    """
    rng = np.random.default_rng(0)
    x, w, targets = (rng.normal(size=shape).astype(np.float32) for shape in ((32_800, 3), (3, 3), (32_800, 3)))
    squares = np.asarray(jax.jit(lambda x, w: jnp.sum((w @ x.T) ** 2, axis=0))(x, w))
    truth = np.sum((x.astype(float) @ w.astype(float).T) ** 2, axis=1)
    print(f"relative error of the plain program: {np.max(np.abs(squares - truth)) / np.max(truth):.1e}")

    net = btl.nets.from_function(lambda params, x: jax.vmap(lambda row: params["w"] @ row)(x), {"w": jnp.asarray(w)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=len(x))
    batch = btl.Batch(jnp.asarray(x), jnp.asarray(targets))
    log_likelihoods = jax.jit(joint.log_likelihoods)(net.params, batch)
    residual = x.astype(float) @ w.astype(float).T - targets
    expected = -0.5 * np.sum(residual**2, axis=1) - 1.5 * np.log(2 * np.pi)
    # Three squares of four rounded terms each: about ten roundings of 6e-8.
    np.testing.assert_allclose(log_likelihoods, expected, rtol=0, atol=1e-6 * np.max(np.abs(expected)))
