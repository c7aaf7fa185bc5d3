"""Rows of ``btl.transfer``, which sees no validation data, beside those of the methods that do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import bayestl as btl
from benchmarks._tuning import PREDICTION_BATCH, scored


def run_transfer(
    net: Callable[[int], btl.Net],
    source: Any,
    likelihood: Any,
    pool: Any,
    validation: Any,
    test: Any,
    places: Sequence[np.ndarray],
    **settings: Any,
) -> list[dict[str, Any]]:
    """A row for each seed; validation data are scored for comparison alone.

    Args:
        net: seed -> the freshly initialised network.
        source: as for :func:`bayestl.transfer`.
        likelihood: of the target.
        pool: all examples that may be labelled.
        validation: examples that only the row sees.
        test: scored once.
        places: of each seed's labelled examples in the pool.
        settings: of the transfer.
    """
    rows = []
    for seed, labelled in enumerate(places):
        result = btl.transfer(jax.random.key(seed), net(seed), source, pool.take(labelled), likelihood, **settings)
        on_validation, on_test = (
            result.predict(np.asarray(data.inputs), batch_size=PREDICTION_BATCH) for data in (validation, test)
        )
        rows.append(
            {
                "seed": seed,
                **scored(on_test, test.targets),
                "probs": np.asarray(on_test.probs, float).round(4).tolist(),
                "setting": {f"trust in {row.name}": row.weight for row in result.trust},
                "validation_nll": float(btl.metrics.nll(on_validation, validation.targets)),
                "settings_tried": sum(len(row.weights) for row in result.trust),
                "frozen_members": 0,
                "verdict": None if result.verdict is None else result.verdict.outcome,
                "gradient_steps": result.steps,
                "parameters": btl.tree.size(net(seed).params),
                "state_policy": btl.nets.state_policy(net(seed)),
                "seconds": result.seconds,
                # The first run's seconds hold it.
                "compile_seconds": 0.0,
            }
        )
    return rows
