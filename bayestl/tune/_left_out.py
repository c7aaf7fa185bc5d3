"""What was predicted of examples without them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class LeftOut(NamedTuple):
    """Predictions of examples by fits that have not seen them: what a criterion's score is made of.

    :func:`leave_out`, :func:`k_fold` and :func:`linear_leave_one_out` give them by their method ``predictions``, with
    the arguments of a criterion; a :class:`Path` holds those of every family and scale.

    Attributes:
        rows: (M,), which examples of the data.
        outputs: raw outputs of the network, (..., M, F), F numbers of each example in the order of its leaves.
        deviations: (..., M, F), standard deviations of real targets around ``outputs``, where the prediction is of a
            whole posterior; None where it is of one fit.
        log_probs: (..., M), of the targets, nats.
    """

    rows: np.ndarray
    outputs: np.ndarray
    deviations: np.ndarray | None
    log_probs: np.ndarray
