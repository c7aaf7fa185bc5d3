"""From a source and a few examples to predictions: how much to trust the source, found without validation data."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, likelihoods, transferability, tune
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Data, Key, Likelihood, Net
from bayestl.passes import whole
from bayestl.posteriors import Samples
from bayestl.transferability import Verdict
from bayestl.transfers import _regression
from bayestl.transfers._by_layer import with_scales_of_layers
from bayestl.transfers._data import Plan, plan_for
from bayestl.transfers._families import SCRATCH, SOURCE, Families, families_of
from bayestl.transfers._held_out import held_out, mixture, weights_without_each
from bayestl.transfers._left_out import left_out_predictions
from bayestl.transfers._result import TransferResult, Trust
from bayestl.transfers._untrained import logit_variance, scale_prior_at_modes
from bayestl.tune import Criterion, Path, Weights

# The variance of a classifier's logits where no source says it.
_TYPICAL_LOGITS = 20.0
# Examples whose outputs say how much a prior lets outputs vary.
_ENOUGH = 128


def transfer(
    key: Key,
    net: Net,
    source: Any,
    train: Data | Batch,
    likelihood: Likelihood,
    new: str | Sequence[str] = (),
    *,
    head: str | Sequence[str] | None = None,
    criterion: Criterion | None = None,
    num_scales: int | None = None,
    steps: int = 60,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    keep: int = 8,
    by_layer: bool = False,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
) -> TransferResult:
    """A target's posterior from a source and a few examples, and how far to trust that source; no validation data.

    Families of priors are held against each other: around the source, around the source with its last layer at zero,
    and around a fresh network with its last layer at zero, each at ``num_scales`` scales. Where the source's own head
    is too sure of the examples, another is around the source with a smaller head. A path of modes goes
    through the scales of each; at every mode a criterion says how each example is predicted without it; and the modes
    predict together, weighted by that: half pseudo-BMA+, half stacking. For regression with one noise (given, or
    learned where ``likelihoods.normal()`` has none) half of the weights are the evidence's, and the members are Laplace
    posteriors of the linearised network; for more than 2000 targets, and under a ``criterion``, the noise is learned
    from what is left out, and they are modes. Every part is public:
    :func:`bayestl.tune.path`, :func:`bayestl.tune.average`, :func:`bayestl.transferability.verdict`.

    Args:
        key: all randomness.
        net: the target's network, freshly initialised. Where its parameters *are* the source's, fresh ones of the same
            spread are drawn.
        source: what the source left: a pytree of weights, a network or result that holds one (its running statistics
            come along), a Gaussian (every one that ``sources`` makes), a ``sources.mixture``, iterates of SGD, a few
            draws, the path of a file of ``btl.save``, a ``pretrained.WeightFile``; or a list of such.
        train: the target's examples, in memory.
        likelihood: outputs to a distribution over targets.
        new: path patterns of parameters that the source does not have, e.g. ``"head/**"``.
        head: path patterns of the last layer; None to find it.
        criterion: None for fits without each group of examples; for the closed form where it is exact, as for last
            layers, and for few examples where fits would be dear.
        num_scales: per family; None for 13, and for 7 where parameters and examples are many.
        steps: gradient steps at each scale.
        batch_size: examples that a step sees; None for all, and for 64 where parameters and examples are many: then a
            fifth of the examples is left out once, instead of each.
        learning_rate: of the loss per datum; None for one from the network's curvature.
        keep: members of the mixture, the heaviest ones.
        by_layer: add a family around the source whose layers have scales of their own, learned by the gradient of the
            criterion (:func:`bayestl.tune.layer_scales`); it about doubles the cost. What was learned is in ``layers``.
        progress: print a line after every scale.
        checkpoint: a folder for this call alone, written to after every scale. The same call goes on from there after
            an interruption, to the same bits.

    Raises:
        ValueError: a source whose network differs, or that shares nothing; real targets that are all the same; fewer
            than 2 examples; a checkpoint of another call; ``by_layer`` with too many examples; a noise that is to be
            learned by a ``criterion`` without predictions.
        TypeError: examples that are not in memory.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 3))
        >>> source = btl.nets.mlp(jax.random.key(1), (4, 8, 3)).params
        >>> train = btl.Batch(jnp.tile(jnp.eye(3, 4), (2, 1)), jnp.tile(jnp.arange(3), 2))
        >>> result = btl.transfer(
        ...     jax.random.key(2), net, source, train, btl.likelihoods.categorical(), num_scales=3, steps=5
        ... )
        >>> [row.name for row in result.trust]
        ['source', 'source, head at zero', 'source, head times 0.53', 'fresh, head at zero']
        >>> result.predict(jnp.ones((2, 4))).probs.shape
        (2, 3)
    """
    check_arguments(transfer, locals())
    began = time.perf_counter()
    keys = jax.random.split(key, 4)
    batch = whole(train)
    is_normal = _regression.is_regression(likelihood, net, batch)
    is_regression = is_normal and criterion is None and _regression.is_small(batch)
    start = _regression.with_start(likelihood, batch) if is_normal else likelihood
    joint = LogJoint(net, start, None, num_data=len(jax.tree.leaves(batch.inputs)[0]))
    joint.check(net.params, batch.inputs, batch.targets, batch.weights)
    outputs = joint.outputs(net.params, batch.inputs)[0]
    is_class = likelihoods.describe(joint.likelihood, outputs).is_class
    plan = plan_for(keys[0], joint, outputs, batch, net.params)
    if is_regression:
        plan = _regression.PLAN
    if criterion is not None:
        plan = plan._replace(criterion=criterion, name=f"Judged by {type(criterion).__name__}", is_untrained=False)
        if start is not likelihood and not hasattr(criterion, "predictions"):
            raise ValueError(
                f"criterion is a {type(criterion).__name__}, which gives no predictions of left-out examples, from "
                "which the noise could be learned; give likelihoods.normal(scale), or another criterion"
            )
    families = families_of(
        keys[1], joint, net, source, _patterns(new), None if head is None else _patterns(head), batch, is_class
    )
    joint = joint.replace(state=families.state)
    typical = _typical_variance(joint, families, batch)
    some = _some_inputs(keys[1], batch)
    variances = np.array([tune.mean_prior_variance(joint, f.prior, some) for f in families.families])
    scales = tune.scales_around(variances, typical, plan.num_scales if num_scales is None else num_scales)
    options: dict[str, Any] = {
        "steps": steps,
        "batch_size": plan.batch_size if batch_size is None else batch_size,
        "learning_rate": learning_rate,
        "learn": tune.noise_by_evidence if is_regression and start is not likelihood else None,
        "report": print if progress else None,
    }
    path = tune.path(keys[2], joint, families.families, batch, scales, plan.criterion, checkpoint=checkpoint, **options)
    log_prior = tune.scale_prior(scales, variances, typical) + np.array(families.log_weights)[:, None]
    if plan.is_untrained:
        log_prior = scale_prior_at_modes(joint, path, batch, typical, log_prior)
    layers = None
    if by_layer and plan.is_untrained:
        plan = plan._replace(notes=(*plan.notes, "with one example of each class no scales of layers can be learned"))
    elif by_layer:
        key = jax.random.fold_in(keys[2], 1)
        families, path, log_prior, layers = with_scales_of_layers(
            key, joint, families, path, log_prior, batch, plan.criterion, **options
        )
        plan = plan._replace(notes=(*plan.notes, str(layers)))
    is_noise_left_out = is_normal and not is_regression and path.left_out is not None
    if is_noise_left_out:
        path = _regression.with_noise_of_left_out(path, start, batch, start is not likelihood)
    if is_regression:
        weights, without_each = _regression.weigh(keys[3], joint, path, log_prior, batch)
    else:
        scores = path.scores.reshape(-1, path.scores.shape[-1])
        if is_class:
            log_prior = log_prior + tune.further_error(scores).reshape(log_prior.shape)
        weights = tune.average(keys[3], scores, log_prior.ravel())
        without_each = weights_without_each(keys[3], scores, log_prior.ravel())
    result = _result(keys[3], joint, plan, families, path, weights, without_each, log_prior, keep, began)
    if not plan.is_untrained:
        result = dataclasses.replace(result, left_out=left_out_predictions(joint, path, without_each, keep, batch))
    result = dataclasses.replace(result, layers=layers)
    if is_noise_left_out:
        return _regression.with_own_noise(result, path)
    return _regression.around_modes(keys[3], result, path, batch) if is_regression else result


def _result(
    key: Key,
    joint: LogJoint,
    plan: Plan,
    families: Families,
    path: Path,
    weights: Weights,
    without_each: np.ndarray,
    log_prior: np.ndarray,
    keep: int,
    began: float,
) -> TransferResult:
    shape = path.log_scales.shape
    # One network is asked to predict well by itself, which the heaviest of a mixture need not do.
    alone = path.scores.sum(-1) + log_prior
    order = np.argsort(-weights.weights, kind="stable")
    best = int(np.argmax(alone))
    heaviest = np.array([best, *order[order != best][: keep - 1]])
    places = [np.unravel_index(number, shape) for number in heaviest]
    share = weights.weights[heaviest] / weights.weights[heaviest].sum()
    draws = jax.tree.map(lambda *xs: jnp.stack(xs), *(path.params[f][k] for f, k in places))
    predicted = held_out(path.scores.reshape(-1, path.scores.shape[-1]), without_each, log_prior.ravel(), keep)
    names = [family.name for family in families.families]
    notes = [*plan.notes, *tune.edges(names, alone, weights.weights.reshape(shape)), *path.unfinished]
    if families.merged:
        notes.append(
            f"the same as a fresh network with its last layer at zero, and counted once: {', '.join(families.merged)}; "
            "the last layer is all that is trained"
        )
    if families.head is None:
        notes.append(
            "no last layer was found whose zero silences the network, so that priors with a head at zero are missing; "
            "name it with head="
        )
    return TransferResult(
        joint=joint,
        posterior=Samples(draws, jnp.log(jnp.asarray(share, jnp.float32))),
        prior=path.prior(int(places[0][0]), int(places[0][1])),
        places=tuple((int(f), int(k)) for f, k in places),
        noises=None,
        trust=_trust(families, path, weights),
        held_out=float(predicted.mixture.mean()),
        single_cost=float(predicted.mixture.mean() - predicted.single.mean()),
        verdict=_verdict(key, families, path, log_prior, predicted.mixture, plan.is_untrained),
        notes=tuple(notes),
        criterion=plan.name,
        steps=path.steps,
        seconds=time.perf_counter() - began,
    )


def _trust(families: Families, path: Path, weights: Weights) -> tuple[Trust, ...]:
    shape = path.log_scales.shape
    each, errors = weights.weights.reshape(shape), weights.errors.reshape(shape)
    rows = []
    for number, (family, kind) in enumerate(zip(families.families, families.kinds, strict=True)):
        variance = family.prior.variance
        typical = sum(float(jnp.sum(v)) for v in jax.tree.leaves(variance)) / _tree.size(variance)
        log_scales = path.log_scales[number]
        columns = [log_scales, np.sqrt(np.exp(log_scales) * typical), each[number], errors[number]]
        columns += [path.curve[number], path.errors[number]]
        rows.append(Trust(family.name, kind, *(tuple(map(float, column)) for column in columns)))
    return tuple(rows)


def _verdict(
    key: Key, families: Families, path: Path, log_prior: np.ndarray, transferred: np.ndarray, is_untrained: bool
) -> Verdict:
    """The mixture against a mixture of what knows nothing of the source, and against the source as a start alone.

    The weights of both have not seen what they are compared on. Where every group holds all examples, what is predicted
    without them is predicted by no training at all."""
    kinds = np.array(families.kinds)
    scratch = path.scores[kinds == SCRATCH].reshape(-1, path.scores.shape[-1])
    candidates = {SCRATCH: mixture(scratch, weights_without_each(key, scratch, log_prior[kinds == SCRATCH].ravel()))}
    if not is_untrained and SOURCE in families.kinds:
        # The widest prior around the source hardly holds the weights: what is left of the source is the start.
        candidates["initialisation only"] = path.scores[kinds == SOURCE][0, -1]
    # What differs by rounding is the same.
    same = {name: np.where(np.abs(each - transferred) < 1e-5, transferred, each) for name, each in candidates.items()}
    floor = np.log(1e-14)
    return transferability.verdict(
        key, {name: np.maximum(each, floor) for name, each in {**same, "transfer": transferred}.items()}
    )


def _some_inputs(key: Key, batch: Batch) -> Any:
    """Some of the inputs: enough for a mean over examples of what costs memory for each pair of them."""
    num = len(jax.tree.leaves(batch.inputs)[0])
    if num <= _ENOUGH:
        return batch.inputs
    rows = np.asarray(jax.random.permutation(key, num)[:_ENOUGH])
    return jax.tree.map(lambda x: x[rows], batch.inputs)


def _typical_variance(joint: LogJoint, families: Families, batch: Batch) -> float:
    """The variance of outputs that one expects: that of the source's centred logits, or of real targets."""
    outputs = joint.outputs(families.families[0].prior.mean, batch.inputs)[0]
    if not likelihoods.describe(joint.likelihood, outputs).is_class:
        targets = [np.asarray(y, np.float64) for y in jax.tree.leaves(batch.targets)]
        return float(np.mean([np.var(y, axis=0).mean() for y in targets]))
    if families.reference is None:
        return _TYPICAL_LOGITS
    # A source that is hardly trained, or sure beyond measure, says little about the target's logits.
    return float(np.clip(logit_variance(joint, families.reference, batch), 2.0, 200.0))


def _patterns(patterns: str | Sequence[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)
