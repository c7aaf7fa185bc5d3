"""A choice of settings by a part of the training set, then one more run on all of it, for all seeds side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bayestl as btl


class Search(NamedTuple):
    """What was chosen for each of R seeds, and the runs with it.

    Attributes:
        settings: the chosen setting of each seed, with the ``steps`` at which its run was read.
        validation: its mean score on the held-out part.
        fitted: the runs on whole training sets, M members of R seeds, the seed's number running fastest.
        num_tried: settings, each at every step count.
        seconds: of the search, and of the runs after it, compilation included.
    """

    settings: list[dict[str, float]]
    validation: list[float]
    fitted: btl.ManyResult
    num_tried: int
    seconds: tuple[float, float]

    def posterior(self, run: int) -> Any:
        """That of one seed, leaves with a leading axis of members."""
        return jax.tree.map(lambda x: x[run :: len(self.settings)], self.fitted.posterior)


def stacked(trees: Sequence[Any]) -> Any:
    """Trees with a leading axis."""
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


def search(
    keys: jax.Array,
    inference: Callable[[int, Any], btl.Inference],
    settings: dict[str, np.ndarray],
    starts: Sequence[Sequence[Any]],
    train: Sequence[Any],
    places: Sequence[tuple[np.ndarray, np.ndarray]],
    nll: Callable[[Any, Any, Any], jax.Array],
    *,
    steps: int,
    batch_size: int,
) -> Search:
    """All settings on the fitted part of each training set, then the best one of each seed on the whole of it.

    Args:
        keys: (R,), one for each seed.
        inference: number of examples, setting -> inference.
        settings: name to values.
        starts: for each member of an ensemble the start of every seed; the first is that of the search.
        train: the training set of each seed, equally large.
        places: rows of it that are fitted while settings are chosen, and rows that choose.
        nll: posterior, inputs, targets -> mean negative log likelihood.
        steps: of every run.
        batch_size: examples per step.
    """
    num_runs, members = len(train), len(starts)
    held_out = [data.take(choosing) for data, (_, choosing) in zip(train, places, strict=True)]

    def score(posterior: Any, state: Any, run: int) -> jax.Array:
        return -nll(posterior, held_out[run].inputs, held_out[run].targets)

    grid = btl.tune.grid(
        keys,
        functools.partial(inference, len(places[0][0])),
        settings,
        stacked(starts[0]),
        btl.data.stack([data.take(rows) for data, (rows, _) in zip(train, places, strict=True)]),
        score,
        steps=steps,
        batch_size=min(batch_size, len(places[0][0])),
        params_axis=0,
        data_axis=0,
    )
    best = np.array([grid.best(run)[1] for run in range(num_runs)])
    fitted = btl.fit_many(
        jnp.concatenate([jax.vmap(jax.random.fold_in, (0, None))(keys, member) for member in range(members)]),
        functools.partial(inference, train[0].num_examples),
        {name: jnp.tile(jnp.asarray(values[best]), members) for name, values in settings.items()},
        stacked([start for of_member in starts for start in of_member]),
        btl.data.stack([*train] * members),
        steps=steps,
        batch_size=min(batch_size, train[0].num_examples),
        params_axis=0,
        data_axis=0,
        progress=False,
    )
    return Search(
        [grid.setting(run) for run in range(num_runs)],
        [-float(grid.scores[run, 0, place]) for run, place in enumerate(best)],
        fitted,
        len(next(iter(settings.values()))),
        (grid.seconds + grid.compile_seconds, fitted.seconds + fitted.compile_seconds),
    )
