"""A scale for each layer, by the gradient of a criterion."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import infer
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Data, Key, Params
from bayestl.gaussians import Gaussian
from bayestl.passes import whole
from bayestl.tune._by_layer import ByLayer, by_layer, rescaled
from bayestl.tune._criteria import Evidence, Fitted, KFold
from bayestl.tune._family import Family
from bayestl.tune._leave_out import LeaveOut
from bayestl.tune._path import path

# Log factors by which a layer's variance may differ from the shared one, and their standard deviation beforehand.
_MOST, _WIDTH = 8.0, 2.0
# Log factors of the warm-started path to the mode under the new scales.
_WARM = (-4.0, -2.0, 0.0)


@dataclasses.dataclass(frozen=True)
class LayerScales:
    """A prior with a scale for each layer beside one with a shared scale. Made by :func:`layer_scales`.

    Attributes:
        names: of the L layers, and "low rank" where the prior has such a part.
        log_factors: natural logarithms of the factors on their variances, (L,); 0 for all where nothing was won.
        prior: with these factors.
        params: its mode.
        score: what the criterion says of them, mean nats per example.
        shared_score: what it says of the shared scale.
        steps: gradient steps over all data.
    """

    names: tuple[str, ...]
    log_factors: np.ndarray
    prior: Gaussian
    params: Params
    score: float
    shared_score: float
    steps: int

    def __str__(self) -> str:
        pairs = zip(self.names, np.exp(0.5 * self.log_factors), strict=True)
        factors = ", ".join(f"{name} x {factor:.2g}" for name, factor in pairs)
        scores = f"{self.score:+.3f} nats per example, with a shared scale {self.shared_score:+.3f}"
        return f"scales of layers: {factors}; {scores}"


def layer_scales(
    key: Key,
    joint: LogJoint,
    params: Params,
    data: Data | Batch,
    criterion: LeaveOut | KFold | Evidence,
    *,
    rounds: int = 2,
    steps: int = 60,
) -> LayerScales:
    """A scale for each layer around a prior with a shared one, where that predicts what was left out better.

    In each round the network is made linear at the mode, and L-BFGS climbs the criterion in the log factors on the
    layers' variances, with a normal prior of deviation 2 on each; then the mode under the new scales is found anew, and
    judged by the criterion itself. The best of all rounds is returned, and the shared scale where none is better: never
    worse than that by the criterion, which has seen the same examples, so that small gains mean little.

    Args:
        key: of the criterion and the paths.
        joint: with the prior of the shared scale: independent parameters, as those of :func:`isotropic_family`, with a
            low-rank part beside them or without. That part has a factor of its own, named "low rank".
        params: its mode.
        data: in memory.
        criterion: :func:`leave_out` in its dual form; :func:`k_fold`, which has no gradient: the closed form of its
            groups is climbed, and the fits without them judge; or :func:`evidence`.
        rounds: how often the mode is found anew.
        steps: gradient steps at each of three scales on the way to a mode.

    Raises:
        TypeError: another criterion, or a prior of another structure.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 3))
        >>> batch = btl.Batch(jnp.tile(jnp.eye(3, 4), (2, 1)), jnp.tile(jnp.arange(3), 2))
        >>> prior = btl.tune.isotropic_family("source", net.params).prior.rescale(0.01)
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=6)
        >>> criterion = btl.tune.leave_out(btl.tune.groups_by_class(batch.targets))
        >>> result = btl.tune.layer_scales(jax.random.key(1), joint, net.params, batch, criterion, rounds=1, steps=5)
        >>> result.names, result.score >= result.shared_score
        (('dense_0', 'head'), True)
    """
    check_arguments(layer_scales, locals())
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; at least 1 is needed")
    infer.check_params(joint, params)
    batch = whole(data)
    climb = _function_of(criterion)
    prior: Any = joint.prior
    layered = by_layer(joint, params, batch)
    count = 0
    if isinstance(criterion, KFold):
        along = path(
            jax.random.fold_in(key, rounds), joint, [Family("shared", prior)], batch, _WARM, criterion, steps=steps
        )
        score, count = float(along.curve[0, -1]), along.steps
    else:
        score = float(np.mean(criterion(key, joint, Fitted(params, None), batch)))
    shared = best = LayerScales(layered.names, np.zeros(len(layered.names)), prior, params, score, score, count)
    current = best
    for number in range(rounds):
        if number:
            layered = by_layer(joint.replace(prior=current.prior), current.params, batch)
        more = _climbed(layered, climb, current.log_factors)
        factors = current.log_factors + more
        own = rescaled(prior, layered.names, factors)
        along = path(
            jax.random.fold_in(key, number), joint, [Family("layers", own)], batch, _WARM, criterion, steps=steps
        )
        count += along.steps
        at_mode = jax.tree.map(jnp.asarray, along.params[0][-1])
        current = LayerScales(layered.names, factors, own, at_mode, float(along.curve[0, -1]), score, count)
        best = current if current.score > best.score else best
    return dataclasses.replace(best if best.score > shared.score else shared, steps=count)


def _climbed(layered: ByLayer, climb: Callable[[ByLayer, np.ndarray], Any], so_far: np.ndarray) -> np.ndarray:
    """Log factors, on top of those so far, at which the criterion and the prior of the factors are highest."""

    def loss(more: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = climb(layered, more)
        total = so_far + more
        return 0.5 * np.sum((total / _WIDTH) ** 2) - value, total / _WIDTH**2 - gradient

    # Imported here, since it takes a tenth of a second.
    from scipy.optimize import minimize

    bounds = [(-_MOST - f, _MOST - f) for f in so_far]
    result = minimize(loss, np.zeros(len(so_far)), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30})
    return result.x


def _function_of(criterion: Any) -> Callable[[ByLayer, np.ndarray], tuple[float, np.ndarray]]:
    if isinstance(criterion, Evidence):
        return lambda layered, factors: layered.log_evidence(factors)
    has_groups = isinstance(criterion, KFold) and not np.all(criterion.left_out == 0)
    if not has_groups and not (isinstance(criterion, LeaveOut) and criterion.has_gradient):
        raise TypeError(
            f"criterion is a {type(criterion).__name__}; layer_scales needs the gradient of its criterion: "
            "leave_out(groups) without curvature and selection, k_fold(groups), both with more than one group, or "
            "evidence()"
        )
    return lambda layered, factors: layered.held_out(factors, criterion.left_out)
