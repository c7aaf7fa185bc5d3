"""Running statistics of batch normalisation, estimated anew from data."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._part import own_state
from bayestl._types import Apply, Batch, Data, Inputs, Key, Net, Params
from bayestl.nets._state import Policy, with_policy
from bayestl.passes import Batches, batches

if TYPE_CHECKING:
    from bayestl._log_joint import LogJoint


def reestimate_state(
    key: Key, net: Net | LogJoint, params: Params, data: Data | Batch | Batches, *, batch_size: int
) -> Any:
    """The state with every running statistic of batch normalisation estimated anew at ``params``.

    Statistics that moved along with other parameters do not fit an average of iterates or a posterior draw. One pass
    over the data, in a random order, gives those that do. The means m_b and variances v_b of batches of N_b examples
    are pooled by the law of total variance::

        m = 1/N sum_b N_b m_b        v = 1/N sum_b N_b (v_b + (m_b - m)^2)

    Of a layer that sees the data themselves these are the statistics of all the data, whatever the batch size; behind
    other layers batches normalise by their own, and larger ones come closer. Averages of the variances alone would be
    too small by what the means of batches differ: by 1/N_b of the variance, an eighth at eight examples.

    Everything else in the state stays. Put the result in place by ``joint.replace(state=...)`` or
    ``dataclasses.replace(net, state=...)``.

    Reference: Maddox et al. 2019, "A Simple Baseline for Bayesian Uncertainty in Deep Learning" (SWAG), algorithm 1
    and its batch-norm update.

    Args:
        net: network, or log joint of one.
        params: the parameters to estimate at; held fixed.
        data: every example counts once, whether held or read; of a :class:`~bayestl.Batch` those of weight 1.
        batch_size: examples per batch, in 2, ..., N; the larger the better. A last one alone joins the batch before.

    Raises:
        TypeError: the network's ``apply`` is not from one of the ``from_*`` functions.
        ValueError: ``batch_size`` out of range, or a network without batch normalisation; weights other than 0 and 1.

    Example:
        >>> from flax import nnx
        >>> net = btl.nets.from_nnx(nnx.BatchNorm(1, rngs=nnx.Rngs(0)))
        >>> data = btl.data.arrays(jnp.arange(4.0)[:, None], jnp.zeros(4))
        >>> state = btl.nets.reestimate_state(jax.random.key(0), net, net.params, data, batch_size=4)
        >>> float(state["mean"][0]), float(state["var"][0])
        (1.5, 1.25)
    """
    check_arguments(reestimate_state, locals())
    if not jax.tree.leaves(own_state(net.apply, net.state)):
        raise ValueError("the network has no state, so that nothing can be re-estimated")
    passes = batches(data)
    rows = _counted_rows(passes)
    if not 2 <= batch_size <= len(rows):
        raise ValueError(
            f"batch_size {batch_size} is not between 2 and the {len(rows)} examples of the data; one example has no "
            f"variance: give 2, ..., {len(rows)}, and {len(rows)} for the statistics of all examples at once"
        )
    apply = with_policy(net.apply, Policy.BATCH)
    key_order, key_noise = jax.random.split(key)
    rows = rows[np.asarray(jax.random.permutation(jax.random.fold_in(key_order, 0), len(rows)))]
    pooled, num_pooled = net.state, 0
    for number, block in enumerate(_blocks(rows, batch_size)):
        state = _batch_state(apply, params, net.state, passes.take(block).inputs, jax.random.fold_in(key_noise, number))
        num_pooled += len(block)
        pooled = state if number == 0 else _pooled(pooled, state, len(block) / num_pooled)
    return pooled


def _counted_rows(passes: Batches) -> np.ndarray:
    if passes.weights is None:
        return np.arange(passes.num_examples)
    weights = np.asarray(passes.weights)
    if not np.isin(weights, (0, 1)).all():
        raise ValueError(
            "weights of the data are other than 0 and 1, and batch normalisation counts all examples of a batch alike; "
            "repeat rows instead"
        )
    return np.flatnonzero(weights)


def _blocks(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The rows in blocks of ``batch_size``; what is left at the end is a shorter one, of at least two rows."""
    starts = [*range(0, len(rows), batch_size)]
    if len(rows) - starts[-1] == 1:
        starts.pop()
    return np.split(rows, starts[1:])


def _pooled(so_far: Any, new: Any, weight: float) -> Any:
    """Statistics of all batches so far and of one more, which holds the share ``weight`` of all their examples."""
    old, added = _tree.by_paths(so_far), _tree.by_paths(new)
    # What does not change stays exactly as it is: counts, and whatever is no statistic.
    moved = {
        path: x + weight * (added[path] - x) if jnp.issubdtype(x.dtype, jnp.inexact) else added[path]
        for path, x in old.items()
    }
    for mean, variance in _means_and_variances(old):
        apart = added[mean] - old[mean]
        moved[variance] = moved[variance] + weight * (1 - weight) * apart * apart
    return jax.tree_util.tree_map_with_path(lambda path, _: moved[_tree.path_string(path)], so_far)


def _means_and_variances(state: dict[str, jax.Array]) -> list[tuple[str, str]]:
    """Paths of the mean and the variance of each layer.

    Linen, NNX, Keras and Equinox all keep the two side by side, in this order, and no other numbers beside them. Two
    numbers side by side that are no statistics do not change, so that nothing is added to the second.
    """
    beside: dict[str, list[str]] = {}
    for path, x in state.items():
        if jnp.issubdtype(x.dtype, jnp.inexact):
            beside.setdefault(path.rpartition("/")[0], []).append(path)
    pairs = [(paths[0], paths[1]) for paths in beside.values() if len(paths) == 2]
    return [(mean, variance) for mean, variance in pairs if state[mean].shape == state[variance].shape]


@partial(jax.jit, static_argnums=0)
def _batch_state(apply: Apply, params: Params, state: Any, inputs: Inputs, key: Key) -> Any:
    return apply(params, state, inputs, key)[1]
