"""Every posterior around the same prior, against long runs of NUTS, on two small problems."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._records import Rows, command_line, provenance
from benchmarks._tuning import scored
from benchmarks.tasks.posteriors_problems import PROBLEMS, Problem

NUTS, NUTS_AGAIN = "NUTS", "NUTS, another run"
DRAWS = 500
RANK = 10
MEMBERS = 8
PREDICTION_CHUNK = 100


class Config(NamedTuple):
    """What is run.

    Attributes:
        problems: names of the problems.
        methods: names of those that are run; NUTS always is.
        seeds: number of seeds: which examples, and all randomness.
        steps: steps of a method that trains, on all the data of the small targets.
        chain_steps: steps of a stochastic-gradient sampler.
        nuts_warmup: warm-up steps of each NUTS chain.
        nuts_samples: draws of each.
        nuts_chains: chains.
    """

    problems: tuple[str, ...] = ("yacht", "moons")
    methods: tuple[str, ...] = ()
    seeds: int = 5
    steps: int = 3000
    chain_steps: int = 20_000
    nuts_warmup: int = 500
    nuts_samples: int = 1000
    nuts_chains: int = 2


class Candidate(NamedTuple):
    """One setting of a method.

    Attributes:
        setting: what was chosen among.
        predict: inputs to predictive.
    """

    setting: dict[str, float]
    predict: Callable[[Any], Any]


Make = Callable[[Problem, Any, Any, Config], Iterable[Candidate]]
"""``(problem, the MAP, key, config) -> candidates``, among which validation data choose."""


def trained(joint: btl.LogJoint, method: btl.Inference, problem: Problem, key: Any, steps: int) -> btl.FitResult:
    """A run from the source's weights."""
    return btl.fit(key, method, problem.start, problem.train, steps=steps, batch_size=20, progress=False)


def decay(rate: float, steps: int) -> Any:
    """A rate that falls to a hundredth on the way."""
    return optax.cosine_decay_schedule(rate, steps, 0.01)


def averaged(problem: Problem, posterior: Any, key: Any, num: int | None = DRAWS) -> Callable[[Any], Any]:
    """Predictions averaged over draws."""
    return btl.predict.monte_carlo(key, problem.joint, posterior, num, sample_chunk=PREDICTION_CHUNK)


def mode(problem: Problem, key: Any, config: Config) -> Any:
    """The MAP, by Adam with a rate that falls."""
    method = btl.infer.map_estimate(problem.joint, optax.adam(decay(0.01, config.steps)))
    return trained(problem.joint, method, problem, key, config.steps).params


def map_point(problem: Problem, params: Any, key: Any, config: Config) -> Iterable[Candidate]:
    """The mode alone."""
    yield Candidate({}, averaged(problem, btl.Point(params), key, None))


def laplace(curvature: Any, linear: bool = True) -> Make:
    """Laplace with one structure of curvature, predictions linearised or by draws through the network."""

    def make(problem: Problem, params: Any, key: Any, config: Config) -> Iterable[Candidate]:
        posterior = btl.infer.laplace(key, problem.joint, params, problem.train, curvature=curvature)
        if linear:
            yield Candidate({}, btl.predict.linearized(problem.joint, posterior))
        else:
            yield Candidate({}, averaged(problem, posterior, key))

    return make


def fitted_by(method: Callable[[btl.LogJoint, float, Config], btl.Inference], rates: tuple[float, ...]) -> Make:
    """A method that trains, one candidate for each learning rate."""

    def make(problem: Problem, params: Any, key: Any, config: Config) -> Iterable[Candidate]:
        for rate in rates:
            result = trained(problem.joint, method(problem.joint, rate, config), problem, key, config.steps)
            yield Candidate({"learning_rate": rate}, averaged(problem, result.posterior, key))

    return make


def sampled_by(method: Callable[[btl.LogJoint, float, Config], btl.Inference], sizes: tuple[float, ...]) -> Make:
    """A stochastic-gradient sampler, one candidate for each step size; all draws are used.

    Step sizes are in units of 1 / (largest curvature of U, preconditioned by the prior's variances).
    """

    def make(problem: Problem, params: Any, key: Any, config: Config) -> Iterable[Candidate]:
        unit = 1 / sharpness(problem, params)
        for size in sizes:
            sampler = method(problem.joint, size * unit, config)
            result = trained(problem.joint, sampler, problem, key, config.chain_steps)
            yield Candidate({"step_size": size}, averaged(problem, result.posterior, key, None))

    return make


def sharpness(problem: Problem, params: Any) -> float:
    """The largest eigenvalue of ``I + Sigma0 H`` at the mode."""
    passes: Any = btl.passes.batches(problem.train, None)
    build: Any = btl.curvature.dual()
    curvature = build(jax.random.key(0), problem.joint, params, passes, btl.curvature.ggn, passes.batch_size)
    return 1 + float(curvature.spectrum(problem.joint.prior).max())


def mean_field(joint: btl.LogJoint, rate: float, config: Config) -> btl.Inference:
    """Independent parameters."""
    return btl.infer.mean_field_vi(joint, optax.adam(decay(rate, config.steps)), num_samples=4)


def low_rank(joint: btl.LogJoint, rate: float, config: Config) -> btl.Inference:
    """Low rank plus diagonal."""
    return btl.infer.low_rank_vi(joint, optax.adam(decay(rate, config.steps)), rank=RANK, num_samples=4)


def ivon(joint: btl.LogJoint, rate: float, config: Config) -> btl.Inference:
    """IVON, whose Hessian estimate forgets within a tenth of the run."""
    return btl.infer.ivon(joint, decay(rate, config.steps), hessian_decay=1 - 10 / config.steps, num_samples=4)


def swag(joint: btl.LogJoint, rate: float, config: Config) -> btl.Inference:
    """SGD with a constant rate, its iterates of the second half."""
    start, every = config.steps // 2, max(config.steps // 100, 1)
    return btl.infer.swag(joint, optax.sgd(rate, momentum=0.9), rank=RANK, start=start, every=every, eps=1e-6)


def sgld(joint: btl.LogJoint, size: float, config: Config) -> btl.Inference:
    """Draws of the second half, preconditioned by the prior."""
    return btl.infer.sgld(joint, size, **collected(config), preconditioner=of_prior(joint))


def sghmc(joint: btl.LogJoint, size: float, config: Config) -> btl.Inference:
    """Draws of the second half, preconditioned by the prior."""
    return btl.infer.sghmc(joint, size, friction=0.1, **collected(config), preconditioner=of_prior(joint))


def cyclical(joint: btl.LogJoint, size: float, config: Config) -> btl.Inference:
    """Ten cycles, draws of the last half of each."""
    length = config.chain_steps // 10
    every = max(config.chain_steps // (2 * DRAWS), 1)
    options = {"cycle_length": length, "num_samples": DRAWS, "exploration": 0.5, "every": every}
    return btl.infer.cyclical_sghmc(joint, size, **options, preconditioner=of_prior(joint))


def of_prior(joint: btl.LogJoint) -> Any:
    """The prior's variances."""
    return btl.infer.prior_preconditioner(joint.prior)


def collected(config: Config) -> dict[str, int]:
    """Draws of the second half of a chain."""
    half = config.chain_steps // 2
    return {"num_samples": DRAWS, "start": half, "every": max(half // DRAWS, 1)}


def by_adam(config: Config) -> Callable[[btl.LogJoint], btl.Inference]:
    """A member of a deep ensemble."""
    return lambda joint: btl.infer.map_estimate(joint, optax.adam(decay(0.01, config.steps)))


def by_swag(config: Config) -> Callable[[btl.LogJoint], btl.Inference]:
    """A member of multi-SWAG."""
    return lambda joint: swag(joint, 0.001, config)


def ensemble(member: Callable[[Config], Any], randomize: Any = None, num_draws: int | None = None) -> Make:
    """Members that start from draws of the prior, all in one program; ``num_draws`` where members are Gaussians."""

    def make(problem: Problem, params: Any, key: Any, config: Config) -> Iterable[Candidate]:
        prior: Any = problem.joint.prior
        posterior = btl.infer.ensemble(
            key,
            problem.joint,
            prior.sample(key, MEMBERS),
            problem.train,
            member(config),
            steps=config.steps,
            batch_size=20,
            randomize=randomize,
            progress=False,
        )
        yield Candidate({}, averaged(problem, posterior, key, num_draws))

    return make


def dropout(problem: Problem, params: Any, key: Any, config: Config) -> Iterable[Candidate]:
    """Trained with dropout, and averaged over it."""
    method = btl.infer.map_estimate(problem.dropout, optax.adam(decay(0.01, config.steps)))
    result = trained(problem.dropout, method, problem, key, config.steps)
    yield Candidate({}, btl.predict.mc_dropout(key, problem.dropout, result.params, DRAWS))


def nuts(problem: Problem, params: Any, key: Any, config: Config) -> Iterable[Candidate]:
    """Draws from the posterior itself."""
    chains = btl.bridges.nuts(
        key,
        problem.joint,
        params,
        problem.train,
        num_warmup=config.nuts_warmup,
        num_samples=config.nuts_samples,
        num_chains=config.nuts_chains,
        progress=False,
    )
    yield Candidate({}, averaged(problem, chains, key, None))


RATES = (0.001, 0.003, 0.01)
METHODS: dict[str, Make] = {
    "MAP": map_point,
    "Laplace, dense": laplace(btl.curvature.dense()),
    "Laplace, dense, draws": laplace(btl.curvature.dense(), linear=False),
    "Laplace, dual": laplace(btl.curvature.dual()),
    "Laplace, low rank 20": laplace(btl.curvature.low_rank(20)),
    "Laplace, Kronecker": laplace(btl.curvature.kronecker()),
    "Laplace, diagonal": laplace(btl.curvature.diagonal()),
    "mean-field VI": fitted_by(mean_field, RATES),
    "low-rank VI": fitted_by(low_rank, RATES),
    "IVON": fitted_by(ivon, (0.01, 0.03, 0.1)),
    "SWAG": fitted_by(swag, (0.0003, 0.001, 0.003)),
    "multi-SWAG": ensemble(by_swag, num_draws=DRAWS),
    "deep ensemble": ensemble(by_adam),
    "ensemble, random anchors": ensemble(by_adam, btl.infer.random_anchors),
    "MC dropout": dropout,
    "SGLD": sampled_by(sgld, (0.1, 0.3, 1.0)),
    "SGHMC": sampled_by(sghmc, (0.01, 0.03, 0.1)),
    "cyclical SGHMC": sampled_by(cyclical, (0.03, 0.1, 0.3)),
    NUTS_AGAIN: nuts,
}


def total_variation(problem: Problem, predictive: Any, reference: Any) -> float:
    """``1/2 integral |p - p_ref|`` of the predictive of one example, averaged over examples: in [0, 1]."""
    inputs = problem.test[0]
    p, q = (density(problem, each(inputs)) for each in (predictive, reference))
    step = 1.0 if problem.grid is None else float(problem.grid[1] - problem.grid[0])
    return float(0.5 * step * np.abs(p - q).sum(-1).mean())


def density(problem: Problem, predictive: Any) -> np.ndarray:
    """Class probabilities (B, C), or densities at the grid (B, G)."""
    if problem.grid is None:
        return np.asarray(predictive.probs, np.float64)
    at = jax.lax.map(lambda y: predictive.log_prob(jnp.full(problem.test[1].shape, y)), jnp.asarray(problem.grid))
    return np.exp(np.asarray(at, np.float64)).T


def agreement(problem: Problem, predictive: Any, reference: Any) -> float | None:
    """How often both prefer the same class; None for regression."""
    if problem.grid is not None:
        return None
    a, b = (np.asarray(each(problem.test[0]).probs).argmax(-1) for each in (predictive, reference))
    return float((a == b).mean())


def run(config: Config, rows: Rows, data_dir: Path, progress: bool = True) -> None:
    """Run what is missing in ``rows``: for each problem and seed NUTS, then all others against it."""
    origin = provenance(command_line())
    names = [name for name in METHODS if not config.methods or name in config.methods]
    for name in config.problems:
        for seed in range(config.seeds):
            missing = [m for m in [NUTS, *names] if not rows.have(problem=name, seed=seed, method=m)]
            if not missing:
                continue
            print(f"{name}, seed {seed}: {', '.join(missing)}", flush=True)
            for row in run_seed(PROBLEMS[name](seed, data_dir), missing, seed, config):
                rows.add([{"task": "posteriors", "problem": name, "seed": seed, **row, **origin}])
                if progress:
                    print(f"  {row['method']}: nll {row['nll']:.3f}, tv {row['total_variation']:.3f}", flush=True)
            # Each seed compiles some hundreds of programs, and a process may have some 65,000 memory maps.
            jax.clear_caches()


def run_seed(problem: Problem, names: list[str], seed: int, config: Config) -> Iterable[dict[str, Any]]:
    """A row for each method of one problem and seed."""
    key = jax.random.fold_in(jax.random.key(1), seed)
    params = mode(problem, jax.random.fold_in(key, 0), config)
    began = time.perf_counter()
    (reference,) = nuts(problem, params, jax.random.fold_in(key, 1), config)
    candidates = {NUTS: [reference]}
    for name in names:
        if name != NUTS:
            began = time.perf_counter()
            try:
                # Of its own, so that a run that goes on draws what one never stopped would have drawn.
                own_key = jax.random.fold_in(key, 3 + list(METHODS).index(name))
                candidates[name] = list(METHODS[name](problem, params, own_key, config))
            except ValueError as error:
                print(f"  {name}: not possible here: {error}", flush=True)
                continue
        seconds = time.perf_counter() - began
        nlls = [
            float(btl.metrics.nll(c.predict(problem.validation[0]), problem.validation[1])) for c in candidates[name]
        ]
        if not np.isfinite(nlls).any():
            print(f"  {name}: no setting came through", flush=True)
            continue
        best = candidates[name][int(np.nanargmin(nlls))]
        yield {
            "method": name,
            **row_scores(best.predict(problem.test[0]), problem),
            "total_variation": total_variation(problem, best.predict, reference.predict),
            "agreement": agreement(problem, best.predict, reference.predict),
            "setting": best.setting,
            "validation_nll": float(np.nanmin(nlls)),
            "settings_tried": len(candidates[name]),
            "parameters": btl.tree.size(problem.start),
            "seconds": seconds,
            "kappa": 1.0,
            "temperature": 1.0,
            "state_policy": "none",
        }


def row_scores(predictive: Any, problem: Problem) -> dict[str, Any]:
    """Scores on the test set; reliability bins where there are classes."""
    if problem.grid is None:
        return scored(predictive, problem.test[1])
    return dict(btl.metrics.report(predictive, problem.test[1]))
