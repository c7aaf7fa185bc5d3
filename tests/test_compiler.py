"""Programs that a compiler of JAX's is known to compute wrongly; docs/compilers.md has the story."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl.layers import _windows

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


@pytest.mark.x64
def test_a_value_compared_with_itself():
    """A pooling window's largest value, looked for by comparison, is not there where XLA computes it twice.

    The plain program is reported (``pytest -rP`` shows it): 15 of 216 windows with jaxlib 0.12 on AVX-512, none with
    0.10.2. The pooling of replayed networks is tested.
    """
    rng = np.random.default_rng(0)
    x, scale, offset = (jnp.asarray(rng.normal(size=shape)) for shape in ((3, 3, 4, 6), 6, 6))

    def normalised(x):
        mean = x.mean(-1, keepdims=True)
        variance = (x * x).mean(-1, keepdims=True) - mean * mean
        return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * scale) + offset

    @jax.jit
    def by_comparison(x):
        y = jnp.pad(normalised(x), ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-jnp.inf)
        windows = jnp.stack([y[:, i : i + 3, j : j + 4] for i in (0, 1) for j in (0, 1)])
        order = jax.lax.broadcasted_iota(jnp.int32, (4, 1, 1, 1, 1), 0)
        first = jnp.min(jnp.where(windows == windows.max(0), order, 99), 0)
        return jnp.sum(jnp.where(order == first, windows, 0), 0)

    y = np.asarray(x, np.float64)
    mean, second = y.mean(-1, keepdims=True), (y * y).mean(-1, keepdims=True)
    y = (y - mean) / np.sqrt(second - mean**2 + 1e-6) * np.asarray(scale) + np.asarray(offset)
    y = np.pad(y, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
    expected = np.max([y[:, i : i + 3, j : j + 4] for i in (0, 1) for j in (0, 1)], axis=0)
    print(f"windows whose largest value is missing: {np.sum(np.abs(by_comparison(x) - expected) > 1e-9)} of 216")

    window = {
        "window_dimensions": (1, 2, 2, 1),
        "window_strides": (1, 1, 1, 1),
        "padding": ((0, 0), (0, 1), (0, 1), (0, 0)),
    }
    pooling = {**window, "base_dilation": (1, 1, 1, 1), "window_dilation": (1, 1, 1, 1)}
    pooled = jax.jit(lambda x: _windows.pool("reduce_window_max", pooling, normalised(x)))(x)
    # A layer norm over six values: some twenty roundings of 1e-16, times numbers up to 10.
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-13)
