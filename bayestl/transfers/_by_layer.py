"""A family with a scale for each layer, beside the best one with a shared scale."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import tune
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key
from bayestl.transfers._families import SOURCE, Families
from bayestl.tune import Criterion, Family, KFold, LayerScales, LeaveOut, Path

# Numbers a side of the layers' matrices.
_MOST = 2000


class Layered(NamedTuple):
    """The candidates with those of the layered family at their end.

    Attributes:
        families: F + 1; F where no factor won anything.
        path: theirs.
        log_prior: theirs, (F + 1, K).
        scales: what was learned.
    """

    families: Families
    path: Path
    log_prior: np.ndarray
    scales: LayerScales


def with_scales_of_layers(
    key: Key,
    joint: LogJoint,
    families: Families,
    path: Path,
    log_prior: np.ndarray,
    batch: Batch,
    criterion: Criterion,
    **options: Any,
) -> Layered:
    """Factors on the layers' variances around the best prior of the source, and that family's own path over scales.

    As the factors have seen the examples that judge them, each costs the family one nat beforehand: about what
    choosing a number gains by chance (Akaike 1974).

    Args:
        key: of the criterion and the path.
        joint: network and likelihood.
        families: those of a shared scale.
        path: their modes and scores.
        log_prior: (F, K), of each family and scale before the data.
        batch: the examples.
        criterion: of the path, climbed where it leaves groups out; the evidence else.
        **options: of the path.

    Raises:
        ValueError: matrices that are too large.
    """
    outputs = jax.eval_shape(lambda: joint.outputs(path.families[0].prior.mean, batch.inputs)[0])
    side = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(outputs))
    if side > _MOST:
        raise ValueError(
            f"by_layer=True needs a matrix for each layer with as many rows as there are outputs of all examples, "
            f"{side}; at most {_MOST} are possible: leave by_layer out, or give fewer examples"
        )
    of_source = [kind == SOURCE or SOURCE not in families.kinds for kind in families.kinds]
    is_candidate = np.array(of_source) & [tune.has_layer_scales(family.prior) for family in path.families]
    total = np.where(is_candidate[:, None], path.scores.sum(-1) + log_prior, -np.inf)
    family, scale = np.unravel_index(int(np.argmax(total)), total.shape)
    prior, likelihood = path.prior(int(family), int(scale)), path.likelihoods[family][scale]
    mode = jax.tree.map(jnp.asarray, path.params[family][scale])
    at_best = joint.replace(prior=prior, likelihood=likelihood)
    climbed: LeaveOut | KFold | tune.Evidence = tune.evidence()
    if isinstance(criterion, KFold) or (isinstance(criterion, LeaveOut) and criterion.has_gradient):
        climbed = criterion
    keys = jax.random.split(key)
    learned = tune.layer_scales(keys[0], at_best, mode, batch, climbed)
    if not np.any(learned.log_factors):
        return Layered(families, path._replace(steps=path.steps + learned.steps), log_prior, learned)
    open_in_scale = learned.prior.rescale(float(np.exp(-path.log_scales[family, scale])))
    own = Family(f"{path.families[family].name}, scale per layer", open_in_scale)
    extra = tune.path(keys[1], joint, [own], batch, path.log_scales[family], criterion, **options)
    cost = len(learned.names)
    grown = families._replace(
        families=(*families.families, own),
        kinds=(*families.kinds, families.kinds[family]),
        log_weights=(*families.log_weights, families.log_weights[family] - cost),
    )
    row = log_prior[family] - cost
    return Layered(grown, _joined(path, extra, learned.steps), np.concatenate([log_prior, row[None]]), learned)


def _joined(path: Path, extra: Path, steps: int) -> Path:
    """One path of the families of both."""
    left_out = None
    if path.left_out is not None and extra.left_out is not None:
        columns = zip(path.left_out[1:], extra.left_out[1:], strict=True)
        joined: list[Any] = [None if x is None or y is None else np.concatenate([x, y]) for x, y in columns]
        left_out = tune.LeftOut(path.left_out.rows, *joined)
    return path._replace(
        families=path.families + extra.families,
        log_scales=np.concatenate([path.log_scales, extra.log_scales]),
        params=path.params + extra.params,
        scores=np.concatenate([path.scores, extra.scores]),
        likelihoods=path.likelihoods + extra.likelihoods,
        steps=path.steps + extra.steps + steps,
        seconds=path.seconds + extra.seconds,
        left_out=left_out,
        unfinished=path.unfinished + extra.unfinished,
    )
