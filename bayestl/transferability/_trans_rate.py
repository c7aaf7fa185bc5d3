"""TransRate: what the features are worth in nats, and what is left of that within classes."""

from __future__ import annotations

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.transferability._checks import checked_features, checked_labels


def trans_rate(features: Numbers, labels: Numbers, distortion: float = 1e-4) -> float:
    """The coding rate of the features less that within classes, an estimate of their mutual information with labels.

    ``R(Z) - sum_c N_c / N R(Z_c)``, ``R(Z) = 1/2 log det (I + Z^T Z / (N eps))``, Z the features less their mean.
    Larger is better. It changes with the scale of the features, so compare sources whose features have the same.

    Args:
        features: of the target's inputs, (N, D).
        labels: the target's, (N,), whole numbers. Classes are weighted by their share; the authors' code weights them
            equally, which is the same for balanced ones.
        distortion: eps > 0.

    Raises:
        ValueError: shapes that differ, one class alone, non-finite features, a distortion that is not positive.
        TypeError: labels that are not whole numbers.

    Reference:
        Huang et al. 2022, "Frustratingly Easy Transferability Estimation", equations 4 to 6.

    Example:
        >>> print(f"{btl.transferability.trans_rate([[-1.0], [1.0]], [0, 1], distortion=1.0):.4f}")  # 1/2 log 2 twice
        0.0000
    """
    check_arguments(trans_rate, locals())
    features = checked_features(features)
    places, _ = checked_labels(labels, len(features))
    if not distortion > 0:
        raise ValueError(f"distortion is {distortion}; give a number above 0")
    centred = features - features.mean(axis=0)
    within = sum(np.mean(places == c) * _rate(centred[places == c], distortion) for c in range(int(places.max()) + 1))
    return float(_rate(centred, distortion) - within)


def _rate(features: np.ndarray, distortion: float) -> float:
    singular = np.linalg.svd(features, compute_uv=False)
    return 0.5 * float(np.sum(np.log1p(singular**2 / (len(features) * distortion))))
