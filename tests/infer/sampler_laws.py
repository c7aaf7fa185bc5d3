"""The exact laws of samplers on linear-Gaussian problems with full batches: numpy in float64, no sampler.

There a step is an affine map with Gaussian noise, ``z <- A z + b + N(0, Q)``, so that the law after any number of steps
is a Gaussian with known mean and covariance; z is theta for SGLD, (theta, v) for SGHMC.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
from scipy.linalg import block_diag, solve_discrete_lyapunov

import bayestl as btl
from bayestl._static import partition

SIZE = 6


class Target(NamedTuple):
    """``U = 1/2 (theta - mean)^T hessian (theta - mean)``."""

    mean: np.ndarray
    hessian: np.ndarray


class Step(NamedTuple):
    """``z <- A z + b + N(0, Q)``."""

    A: np.ndarray
    b: np.ndarray
    Q: np.ndarray


class Law(NamedTuple):
    """A Gaussian over z."""

    mean: np.ndarray
    covariance: np.ndarray

    def theta(self, size: int) -> Law:
        return Law(self.mean[:size], self.covariance[:size, :size])


def target(structure: Any, problem: Any, kappa: float = 1.0, temperature: float = 1.0, flat: bool = False) -> Target:
    """The tempered target of a problem."""
    prior = structure.covariance(problem.prior[1])
    prior_mean, prior = (0 * problem.prior[0], 1e14 * np.eye(len(prior))) if flat else (problem.prior[0], prior)
    if kappa == 0:
        return Target(prior_mean, np.linalg.inv(prior) / temperature)
    mean, covariance, _ = lg.solve(problem.inputs, problem.targets, problem.noise, prior_mean, prior, kappa)
    return Target(mean, np.linalg.inv(covariance) / temperature)


def sgld_step(target: Target, eps: float, P: Any = 1.0, noisy: bool = True) -> Step:
    """``theta <- theta - eps/2 P grad U + sqrt(eps P) xi``."""
    P = np.broadcast_to(P, target.mean.shape)
    drift = eps / 2 * P[:, None] * target.hessian
    return Step(np.eye(len(P)) - drift, drift @ target.mean, noisy * eps * np.diag(P))


def sghmc_step(target: Target, rate: float, friction: float, P: Any = 1.0, noisy: bool = True) -> Step:
    """``v <- (1 - alpha) v - lr P grad U + sqrt(2 alpha lr P) xi; theta <- theta + v``."""
    P = np.broadcast_to(P, target.mean.shape)
    eye, drift = np.eye(len(P)), rate * P[:, None] * target.hessian
    A = np.block([[eye - drift, (1 - friction) * eye], [-drift, (1 - friction) * eye]])
    b = np.concatenate([drift @ target.mean, drift @ target.mean])
    Q = 2 * friction * rate * noisy * np.kron(np.ones((2, 2)), np.diag(P))
    return Step(A, b, Q)


def sghmc_start(theta: np.ndarray, rate: float, P: Any = 1.0) -> Law:
    """theta given, v ~ N(0, lr P)."""
    P = np.broadcast_to(P, theta.shape)
    return Law(np.concatenate([theta, 0 * theta]), block_diag(0 * np.diag(P), rate * np.diag(P)))


def known(theta: np.ndarray) -> Law:
    return Law(theta, np.zeros((len(theta), len(theta))))


def after(start: Law, steps: Sequence[Step]) -> Law:
    """The law after these steps."""
    mean, covariance = start
    for A, b, Q in steps:
        mean, covariance = A @ mean + b, A @ covariance @ A.T + Q
    return Law(mean, covariance)


def stationary(step: Step) -> Law:
    mean = np.linalg.solve(np.eye(len(step.b)) - step.A, step.b)
    return Law(mean, solve_discrete_lyapunov(step.A, step.Q))


# ---------------------------------------------------------------- many chains


def run(inference: btl.Inference, problem: Any, steps: int, chains: int, seed: int = 0) -> tuple[np.ndarray, Any]:
    """Parameters of independent chains after ``steps`` full-batch steps from 0, (chains, D); the last infos."""
    batch = btl.Batch(jnp.asarray(problem.inputs), jnp.asarray(problem.targets))
    dynamic, static = partition((inference.init, inference.step))
    return _run(static, steps, dynamic, batch, jax.random.split(jax.random.key(seed), chains))


# The method's arrays are arguments: tempered otherwise, it runs the same program.
@partial(jax.jit, static_argnums=(0, 1))
def _run(static: Any, steps: int, dynamic: Any, batch: btl.Batch, keys: Any) -> tuple[Any, Any]:
    init, step = static.combine(dynamic)
    start = lg.tree(jnp.zeros(batch.inputs.shape[1]))

    def chain(key: Any) -> Any:
        first, *_ = keys = jax.random.split(key, steps + 1)
        state, infos = jax.lax.scan(lambda state, key: step(key, state, batch), init(first, start), keys[1:])
        flat = jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(state.params)])
        return flat, jax.tree.map(lambda x: x[-1], infos)

    return jax.vmap(chain)(keys)


def assert_law(draws: Any, law: Law) -> None:
    """Independent draws against a Gaussian: the mean, and every number of the covariance.

    In coordinates where the law is standard normal, the mean of n draws has standard deviation 1 / sqrt(n) in each,
    an entry of the covariance 1 / sqrt(n) off the diagonal and sqrt(2 / n) on it. Five of them are allowed.
    """
    mean_error, covariance_error = _standardised(draws, law)
    assert mean_error < 5, f"the mean is {mean_error:.1f} standard deviations off"
    assert covariance_error < 5, f"the covariance is {covariance_error:.1f} standard deviations off"


def covariance_error(draws: Any, covariance: np.ndarray) -> float:
    """How many standard deviations the covariance of draws is from another one."""
    return _standardised(draws, Law(np.asarray(draws).mean(0), covariance))[1]


def _standardised(draws: Any, law: Law) -> tuple[float, float]:
    draws = np.asarray(draws, np.float64)
    n, size = draws.shape
    white = np.linalg.solve(np.linalg.cholesky(law.covariance), (draws - law.mean).T)
    error = white @ white.T / n - np.eye(size)
    spread = np.sqrt((1 + np.eye(size)) / n)
    return float(np.abs(white.mean(1)).max() * np.sqrt(n)), float(np.abs(error / spread).max())


class Variant(NamedTuple):
    """A way to temper or precondition, and what it is to the oracle."""

    name: str
    kappa: float = 1.0
    temperature: float = 1.0
    flat: bool = False
    preconditioned: bool = False


VARIANTS = [
    Variant("cold", temperature=0.5),
    Variant("kappa 2", kappa=2.0),
    Variant("no data", kappa=0.0, temperature=2.0),
    Variant("flat", flat=True),
    Variant("preconditioned", preconditioned=True),
]


def case(structure: Any, variant: Variant, size: int = SIZE, num: int = 20) -> tuple[Any, btl.LogJoint, Target, Any]:
    """The problem, its log joint, its target, and the preconditioner, flat (1 where there is none)."""
    problem = lg.draw(structure, size, num, seed=11)
    joint = lg.joint(structure, problem, kappa=variant.kappa, temperature=variant.temperature)
    joint = joint.replace(prior=None) if variant.flat else joint
    P = np.diag(structure.covariance(problem.prior[1])) if variant.preconditioned else np.ones(size)
    return problem, joint, target(structure, problem, *variant[1:4]), P


def largest(target: Target, P: Any) -> float:
    """The largest curvature, preconditioned."""
    roots = np.sqrt(np.broadcast_to(P, target.mean.shape))
    return float(np.linalg.eigvalsh(roots[:, None] * target.hessian * roots)[-1])


# ---------------------------------------------------------------- one chain


class Sampler(NamedTuple):
    """For the conformance list: a sampler, how it is made, and its law for one chain from 0."""

    name: str
    make: Any
    law: Any
    """``(posterior, problem, slack)``; slack is how far rounding may move a draw."""


def assert_path(draws: Any, start: Law, steps: Sequence[Step], wanted: Sequence[int], slack: float) -> None:
    """The draws of one chain against the exact law of its path: their mean, and every number of their covariance.

    ``wanted`` are the steps, counted from 1, whose draws are given. Draws of one chain depend on each other, so the
    errors of the two averages are taken from the covariances C(s, t) between any two of them: the mean over t has the
    covariance ``1/n^2 sum_st C(s, t)``, and for Gaussians the mean of d_i d_j over t the variance
    ``1/n^2 sum_st C_ii(s, t) C_jj(s, t) + C_ij(s, t) C_ji(s, t)``. Five standard deviations are allowed.
    """
    n, size = draws.shape
    assert n == len(wanted)
    means, between = _path(start, steps, wanted, size)
    spread = np.sqrt(np.einsum("stii->i", between)) / n
    deviations = draws - means
    assert np.all(np.abs(deviations.mean(0)) < 5 * spread + slack)
    within = np.einsum("stii,stjj->ij", between, between) + np.einsum("stij,stji->ij", between, between)
    found, expected = deviations.T @ deviations / n, np.einsum("ttij->ij", between) / n
    sd = np.sqrt(np.diag(expected))
    allowed = 5 * np.sqrt(within) / n + slack * (sd[:, None] + sd) + slack**2
    assert np.all(np.abs(found - expected) < allowed)


def _path(start: Law, steps: Sequence[Step], wanted: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of theta (n, D) at the wanted steps, and covariances between them, (n, n, D, D)."""
    n, (mean, covariance) = len(wanted), start
    means, between = np.zeros((n, size)), np.zeros((n, n, size, size))
    # Covariances of the present z with the draws so far.
    with_draws, found = np.zeros((n, len(mean), size)), 0
    for count, (A, b, Q) in enumerate(steps, start=1):
        mean, covariance, with_draws = A @ mean + b, A @ covariance @ A.T + Q, A @ with_draws
        if found < n and count == wanted[found]:
            with_draws[found] = covariance[:, :size]
            means[found] = mean[:size]
            between[found, : found + 1] = with_draws[: found + 1, :size]
            between[: found + 1, found] = with_draws[: found + 1, :size].swapaxes(1, 2)
            found += 1
    return means, between


EPS, RATE, EVERY, CYCLE, PART, KEPT = 1.5e-3, 7.5e-4, 5, 50, 0.6, 300


def _one_chain(make_step: Any, cyclical: bool, with_velocity: bool, posterior: Any, problem: Any, slack: float) -> None:
    aim = Target(problem.mean, np.linalg.inv(problem.covariance))
    counts = range(1500)
    schedule = [(np.cos(np.pi * (c % CYCLE) / CYCLE) + 1) / 2 if cyclical else 1.0 for c in counts]
    noisy = [not cyclical or c % CYCLE >= PART * CYCLE for c in counts]
    steps = [make_step(aim, part, is_noisy) for part, is_noisy in zip(schedule, noisy, strict=True)]
    wanted = [c + 1 for c in counts if (c + 1) % EVERY == 0 and noisy[c]][-KEPT:]
    zeros = np.zeros(len(aim.mean))
    draws = np.concatenate([np.asarray(x).reshape(len(wanted), -1) for x in jax.tree.leaves(posterior.draws)], axis=1)
    assert_path(draws, sghmc_start(zeros, RATE) if with_velocity else known(zeros), steps, wanted, slack)


def _langevin(aim: Target, part: float, noisy: bool) -> Step:
    return sgld_step(aim, part * EPS, noisy=noisy)


def _hamiltonian(aim: Target, part: float, noisy: bool) -> Step:
    return sghmc_step(aim, part * RATE, 0.2, noisy=noisy)


_DRAWS = {"num_samples": KEPT, "every": EVERY}
_CYCLES = {"cycle_length": CYCLE, "exploration": PART, **_DRAWS}
SAMPLERS = [
    Sampler("sgld", lambda joint: btl.infer.sgld(joint, EPS, **_DRAWS), partial(_one_chain, _langevin, False, False)),
    Sampler(
        "sghmc",
        lambda joint: btl.infer.sghmc(joint, RATE, friction=0.2, **_DRAWS),
        partial(_one_chain, _hamiltonian, False, True),
    ),
    Sampler(
        "cyclical_sgld",
        lambda joint: btl.infer.cyclical_sgld(joint, EPS, **_CYCLES),
        partial(_one_chain, _langevin, True, False),
    ),
    Sampler(
        "cyclical_sghmc",
        lambda joint: btl.infer.cyclical_sghmc(joint, RATE, friction=0.2, **_CYCLES),
        partial(_one_chain, _hamiltonian, True, True),
    ),
]
