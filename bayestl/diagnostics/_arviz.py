"""Chains for ArviZ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.diagnostics._by_chain import by_chain, named, stats_by_chain
from bayestl.posteriors import Chain

# Our names to ArviZ's.
_NAMES = {"accept_prob": "acceptance_rate"}


def to_arviz(posterior: Chain, function: Callable[[Params], Any] | None = None) -> Any:
    """Chains as ArviZ takes them, for its tables and pictures: ``az.summary(to_arviz(chains))``.

    Args:
        posterior: chains, as for :func:`by_chain`.
        function: params -> pytree of arrays, what to export; None for the parameters.

    Returns:
        An ``arviz.InferenceData``, or a ``DataTree`` where ArviZ is of version 1 or later. Variables are named by their
        paths; those of :func:`~bayestl.bridges.nuts` come with divergences and acceptance probabilities.

    Raises:
        ImportError: ArviZ is not installed.
    """
    check_arguments(to_arviz, locals())
    try:
        import arviz
    except ImportError as error:
        raise ImportError("to_arviz needs ArviZ: pip install arviz") from error

    groups = {"posterior": {name: np.asarray(x) for name, x in named(by_chain(posterior, function)).items()}}
    stats = stats_by_chain(posterior)
    if stats:
        groups["sample_stats"] = {_NAMES.get(name, name): np.asarray(x) for name, x in stats.items()}
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict(groups)
    return arviz.from_dict(**groups)  # pyright: ignore
