"""The same weights and data in posteriors: the GGN as a posterior precision, and the law of its SGHMC."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

import bayestl as btl

SIZES, NUM, NOISE = (4, 5, 3), 12, 0.5


def network(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["a"]) @ params["b"]


@pytest.mark.x64
@pytest.mark.parametrize("structure", ["dense_ggn", "diag_ggn"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_precision(task, structure):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        laplace = pytest.importorskip("posteriors").laplace
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=SIZES[:2]), "b": rng.normal(size=SIZES[1:])}
    inputs = rng.normal(size=(NUM, SIZES[0]))
    targets = rng.integers(0, SIZES[2], NUM) if task == "classification" else rng.normal(size=(NUM, SIZES[2]))

    def forward(params: Any, batch: Any) -> Any:
        return torch.tanh(batch[0] @ params["a"]) @ params["b"], torch.tensor([])

    def log_likelihood(outputs: Any, batch: Any) -> Any:
        if task == "classification":
            return -torch.nn.functional.cross_entropy(outputs, batch[1], reduction="sum")
        return torch.distributions.Normal(outputs, NOISE).log_prob(batch[1]).sum()

    start = {"init_prec" if structure == "dense_ggn" else "init_prec_diag": 2.0}
    theirs = getattr(laplace, structure).build(forward, log_likelihood, **start)
    state = theirs.init({name: torch.from_numpy(x) for name, x in params.items()})
    state, _ = theirs.update(state, (torch.from_numpy(inputs), torch.from_numpy(targets)))

    net = btl.nets.from_function(network, jax.tree.map(jnp.asarray, params))
    likelihood = btl.likelihoods.categorical() if task == "classification" else btl.likelihoods.normal(NOISE)
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), 2.0**-0.5)
    joint = btl.LogJoint(net, likelihood, prior, num_data=NUM)
    curvature = btl.curvature.dense() if structure == "dense_ggn" else btl.curvature.diagonal()
    data = btl.data.arrays(inputs, targets)
    ours = btl.infer.laplace(jax.random.key(0), joint, net.params, data, curvature=curvature)
    diagonal = ours.precision_diagonal()
    if structure == "diag_ggn":
        for name, expected in state.prec_diag.items():
            np.testing.assert_allclose(diagonal[name], expected, rtol=1e-4)
        return
    expected = np.asarray(state.prec)
    flat = np.concatenate([np.asarray(diagonal[name]).ravel() for name in ("a", "b")])
    np.testing.assert_allclose(flat, np.diag(expected), rtol=1e-4)
    vector = {name: rng.normal(size=x.shape) for name, x in params.items()}
    product = ours.precision_mv(jax.tree.map(jnp.asarray, vector))
    flat = np.concatenate([np.asarray(product[name]).ravel() for name in ("a", "b")])
    given = np.concatenate([vector[name].ravel() for name in ("a", "b")])
    np.testing.assert_allclose(flat, expected @ given, rtol=1e-4)


STEP, FRICTION, CHAINS, STEPS = 0.1, 0.2, 20_000, 2000


@pytest.mark.x64
def test_their_sghmc_moves_by_the_old_momentum_and_so_is_too_wide():
    # A standard normal target. posteriors 0.1.3 moves theta by the momentum before its update: explicit Euler, which
    # takes STEP from the friction, so that the variance is about FRICTION / (FRICTION - STEP) = 2 in place of 1, and
    # without bound where the step is as large as the friction. Moved by the new momentum, as ours is, it is right.
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sghmc = pytest.importorskip("posteriors").sgmcmc.sghmc
    torch.manual_seed(0)

    def log_posterior(params: Any, batch: Any) -> Any:
        return -0.5 * torch.sum(params**2), torch.tensor([])

    transform = sghmc.build(log_posterior, lr=STEP, alpha=FRICTION)
    state = transform.init(torch.zeros(CHAINS, dtype=torch.float64))
    for _ in range(STEPS):
        state, _ = transform.update(state, None, inplace=False)
    kept, noise = 1 - STEP * FRICTION, 2 * FRICTION * STEP
    # The stationary law of (theta, m).
    theirs = float(solve_discrete_lyapunov([[1, STEP], [-STEP, kept]], np.diag([0.0, noise]))[0, 0])
    assert theirs > 2
    # A sample variance has relative error sqrt(2 / n); five of them. exp(-.005 x 2000) of the start is left.
    np.testing.assert_allclose(state.params.var().item(), theirs, rtol=5 * np.sqrt(2 / CHAINS))

    # The same step and friction in our terms, for as many chains at once: the parameters are independent.
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(CHAINS)})
    prior = btl.gaussians.isotropic(net.params, 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=1, kappa=0.0)
    data = btl.data.arrays(jnp.zeros((1, CHAINS)), jnp.zeros(1))
    sampler = btl.infer.sghmc(joint, STEP**2, friction=STEP * FRICTION, num_samples=1)
    chain = btl.fit(jax.random.key(0), sampler, net.params, data, steps=STEPS, batch_size=1, progress=False)
    # In m = v / STEP: theta <- theta + STEP m', so that A is that of the new momentum.
    step = np.array([[1 - STEP**2, STEP * kept], [-STEP, kept]])
    kick = np.outer([STEP, 1], [STEP, 1]) * noise
    ours = float(solve_discrete_lyapunov(step, kick)[0, 0])
    assert abs(ours - 1) < 0.01
    np.testing.assert_allclose(jnp.var(chain.posterior.params["w"]), ours, rtol=5 * np.sqrt(2 / CHAINS))
