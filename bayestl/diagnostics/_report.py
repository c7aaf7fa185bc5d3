"""One call that runs every check on a posterior: a small table, and plain words where it should not be trusted."""

from __future__ import annotations

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl._arguments import check_arguments, check_at_least
from bayestl._condition import of_part
from bayestl._log_joint import LogJoint
from bayestl._types import Key, Posterior, Prior
from bayestl.curvature import Kind
from bayestl.diagnostics._by_chain import by_chain, expected_targets, is_chain, num_draws
from bayestl.diagnostics._importance import log_importance_weights
from bayestl.diagnostics._left_out import left_out
from bayestl.diagnostics._mixing import ess, ess_tail, r_hat
from bayestl.diagnostics._psis import psis_khat
from bayestl.diagnostics._spectrum import widest_direction
from bayestl.diagnostics._spread import spread
from bayestl.diagnostics._table import Report, Row
from bayestl.gaussians import Gaussian
from bayestl.passes import first_examples
from bayestl.posteriors import Point, Samples

_DRAWS_AT_ONCE = 25
_NO_SPREAD = 1e-3


def report(
    key: Key,
    joint: LogJoint,
    posterior: Posterior,
    data: Any,
    *,
    history: dict[str, np.ndarray] | None = None,
    kind: Kind | None = None,
    num_samples: int = 200,
    num_inputs: int = 50,
    batch_size: int = 256,
) -> Report:
    """Whether a posterior can be trusted: every check that applies to it, in one small table.

    - Posteriors with a density (Gaussians, as from variational inference and Laplace): k-hat of importance sampling
      with the log joint of all data as its target; the smallest eigenvalue of the precision.
    - Laplace posteriors, given the ``kind`` of their curvature: the largest curvature that they leave out.
    - Chains: R-hat and effective sample sizes of what they predict for some inputs.
    - Samplers, given their ``history``: temperature, and step-to-noise ratio, over the last half of the run.
    - All: variance relative to the prior's, leaf by leaf.

    A posterior of a part of the parameters (:class:`~bayestl.posteriors.Part`) is compared with the log joint of that
    part, with the rest held fixed; fixed parameters do not count as parameters that fail to vary.

    Args:
        key: randomness of draws.
        joint: the target.
        posterior: what any method returned.
        data: the training data, in memory or a stream.
        history: that of the run, :attr:`FitResult.history`.
        kind: for a Laplace posterior, the curvature it was made from, such as ``btl.curvature.ggn``; see
            :func:`left_out`.
        num_samples: draws for k-hat; each takes a pass over all data.
        num_inputs: how many inputs the predictions of chains are compared at.
        batch_size: examples at a time.

    Returns:
        A :class:`Report`.

    Warns:
        UserWarning: the posterior should not be trusted, and why.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=3)
        >>> data = btl.data.arrays(jnp.ones((3, 1)), jnp.full(3, 2.0))
        >>> posterior = btl.gaussians.isotropic({"w": jnp.array([1.5])}, scale=0.5)      # the posterior itself
        >>> print(btl.diagnostics.report(jax.random.key(0), joint, posterior, data))
        Diagonal
          k-hat                              -inf  < 0.57
          smallest eigenvalue of precision      4
          variance over the prior's, w       0.25
    """
    check_arguments(report, locals())
    check_at_least(1, num_samples=num_samples, num_inputs=num_inputs)
    name = type(posterior).__name__
    joint, posterior = of_part(joint, posterior)
    rows: list[Row] = []
    if isinstance(posterior, Point):
        rows.append(Row("distinct parameters", 1, "> 1", "it is one set of parameters, without any uncertainty"))
    if isinstance(posterior, Samples):
        rows.append(_draws(posterior))
    if is_chain(posterior) and num_draws(posterior):
        rows += _mixing(joint, posterior, data, num_inputs)
    if history is not None:
        rows += _sampler(history)
    if callable(getattr(posterior, "log_prob", None)):
        rows.append(_khat(joint, posterior, data, key, num_samples, batch_size))
    if isinstance(posterior, Gaussian):
        rows.append(_precision(posterior))
        if kind is not None:
            rows.append(_left_out(left_out(key, joint, posterior, data, kind=kind, batch_size=batch_size)))
    has_draws = not isinstance(posterior, Samples) or num_draws(posterior) > 1
    if hasattr(type(joint.prior), "variance") and not isinstance(posterior, Point) and has_draws:
        rows += _spreads(posterior, joint.prior, key)
    table = Report(name, tuple(rows))
    for words in table.warnings:
        warnings.warn(f"this posterior should not be trusted as it is: {words}", UserWarning, stacklevel=2)
    return table


def _draws(posterior: Samples) -> Row:
    num = num_draws(posterior)
    words = "" if num > 1 else f"it holds {num} draws, too few for any uncertainty"
    return Row("draws", num, "> 1", words)


def _khat(joint: LogJoint, posterior: Posterior, data: Any, key: Key, num_samples: int, batch_size: int) -> Row:
    log_weights = []
    # A few draws at a time, since all of them may not fit in memory.
    for number, start in enumerate(range(0, num_samples, _DRAWS_AT_ONCE)):
        draws = posterior.sample(jax.random.fold_in(key, number), min(_DRAWS_AT_ONCE, num_samples - start))
        log_weights.append(log_importance_weights(joint, posterior, draws, data, batch_size=batch_size))
    khat = psis_khat(_without_rounding(np.concatenate(log_weights)))
    limit = min(0.7, 1 - 1 / math.log10(max(num_samples, 11)))
    words = ""
    if math.isnan(khat):
        words = f"its k-hat is unknown: {num_samples} draws are too few to fit a tail; give num_samples of at least 25"
    elif not khat < limit:
        words = (
            f"k-hat is {khat:.2f}: the approximation and the posterior differ too much for importance sampling "
            "to correct; compare it with a sampler, or take a richer approximation"
        )
    return Row("k-hat", khat, f"< {limit:.2g}", words)


def _without_rounding(log_weights: np.ndarray) -> np.ndarray:
    """Weights that differ by less than float32 resolves are made equal; otherwise their tail would be rounding."""
    size = 1e-6 * max(1.0, float(np.max(np.abs(log_weights))))
    return np.zeros_like(log_weights) if np.ptp(log_weights) < size else log_weights


def _mixing(joint: LogJoint, posterior: Posterior, data: Any, num_inputs: int) -> list[Row]:
    inputs = jax.tree.map(lambda x: jnp.asarray(x)[:num_inputs], first_examples(data).inputs)
    values = np.asarray(by_chain(posterior, expected_targets(joint, inputs)))
    num_chains, num = values.shape[:2]
    if num < 4:
        return [Row("draws per chain", num, ">= 4", f"its chains hold {num} draws, too few to see whether they mixed")]
    flat = values.reshape(num_chains, num, -1)
    bad = int(np.sum(~np.all(np.isfinite(flat), axis=2)))
    if bad:
        words = f"{bad} of its {num_chains * num} draws predict NaN or infinity; take smaller steps"
        return [Row("R-hat", math.nan, "<= 1.01", words)]
    flat = flat[..., np.ptp(flat, axis=(0, 1)) > 0]
    if not flat.size:
        return [Row("R-hat", math.nan, "<= 1.01", "every draw predicts the same: there is no variability at all")]
    # NaN stays NaN, which meets no limit. But a tail may consist of one value, which has no effective sample size.
    worst, bulk, tail = float(np.max(r_hat(flat))), float(np.min(ess(flat))), float(np.fmin.reduce(ess_tail(flat)))
    enough = 100 * num_chains
    not_mixed = f"R-hat is {worst:.3g}: its chains (or their halves) disagree; run them longer"
    too_few = "is worth {:.0f} independent draws, fewer than " + f"{enough}; run it longer"
    return [
        Row("R-hat of predictions, largest", worst, "<= 1.01", "" if worst <= 1.01 else not_mixed),
        Row("effective draws, bulk, fewest", bulk, f">= {enough}", "" if bulk >= enough else too_few.format(bulk)),
        Row("effective draws, tails, fewest", tail, f">= {enough}", "" if tail >= enough else too_few.format(tail)),
    ]


def _sampler(history: dict[str, np.ndarray]) -> list[Row]:
    rows = []
    if "temperature" in history:
        value = _last_half(history, "temperature")
        rows.append(Row("temperature, last half of the run", value, "near 1", _about_temperature(value)))
    if "step_to_noise" in history:
        rows.append(Row("step-to-noise ratio, last half", _last_half(history, "step_to_noise"), "<< 1"))
    return rows


def _about_temperature(value: float) -> str:
    """What is wrong with it, in plain words; "" if nothing is."""
    if 0.8 < value < 1.25:
        return ""
    if not math.isfinite(value):
        return (
            f"its temperature was {value} in the last half of the run: no step there added noise, or some steps were "
            "not finite; run it longer, or take smaller steps"
        )
    return (
        f"its temperature was {value:.3g} instead of 1, which makes it too {'wide' if value > 1 else 'narrow'}; take "
        "smaller steps, or larger batches"
    )


def _last_half(history: dict[str, np.ndarray], name: str) -> float:
    """The mean over the steps with noise in the last half of the run, and over chains."""
    half = {key: np.asarray(history[key], np.float64) for key in (name, "noisy") if key in history}
    half = {key: values[..., values.shape[-1] // 2 :] for key, values in half.items()}
    values = half[name][half.get("noisy", np.ones_like(half[name])) > 0]
    return float(np.mean(values)) if values.size else math.nan


def _precision(gaussian: Gaussian) -> Row:
    smallest = 1 / widest_direction(gaussian)
    words = "" if smallest > 0 and math.isfinite(smallest) else "its precision is not positive definite"
    return Row("smallest eigenvalue of precision", smallest, "", words)


def _left_out(value: float) -> Row:
    words = ""
    if not value < 1:
        words = (
            f"its curvature misses a direction in which data and prior have {1 + value:.3g} times its precision, so "
            "its variance there is too large by that factor; keep more of the curvature (a higher rank, or another "
            "structure)"
        )
    return Row("largest curvature left out", value, "< 1", words)


def _spreads(posterior: Posterior, prior: Prior | None, key: Key) -> list[Row]:
    ratios = spread(key, posterior, prior)
    most = float(np.max([*ratios.values()]))  # NaN if one is
    words = ""
    if not most > _NO_SPREAD:
        words = (
            f"its variance is at most {most:.1g} of the prior's in every leaf: it hardly varies at all. That can be "
            "right for a few parameters and very many examples; in a network it means that the method has not spread "
            "out (too few steps, steps too small, or a scale that was never learned)"
        )
    rows = [Row(f"variance over the prior's, {path or 'params'}", value) for path, value in ratios.items()]
    return [*rows[:-1], rows[-1]._replace(warning=words)]
