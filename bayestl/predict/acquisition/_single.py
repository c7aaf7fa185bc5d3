"""What the label of each example would be worth, by itself."""

from __future__ import annotations

import numpy as np

from bayestl._arguments import check_arguments
from bayestl.predict._predictive import Predictive
from bayestl.predict.acquisition._draws import check_draws, class_draws, entropy


def bald(predictive: Predictive) -> np.ndarray:
    """What a label would tell of the parameters: the mutual information of class and parameters, (B,), nats.

    :meth:`Predictive.mutual_information` under the name that it has here, on the host.

    Args:
        predictive: of classes, with its draws.

    Raises:
        TypeError: another kind of predictive.

    Reference:
        Houlsby et al. 2011, "Bayesian Active Learning for Classification and Preference Learning".

    Example:
        >>> logits = 50.0 * jnp.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])  # they disagree at first
        >>> given = btl.predict.Predictive(logits, btl.likelihoods.categorical(), jnp.log(jnp.array([0.5, 0.5])))
        >>> btl.predict.acquisition.bald(given).round(3).tolist()
        [0.693, 0.0]
    """
    check_arguments(bald, locals())
    check_draws("predictive", predictive)
    return np.asarray(predictive.mutual_information(), np.float64)


def variation_ratio(predictive: Predictive) -> np.ndarray:
    """The share of draws that predict another class than most draws do, (B,).

    Args:
        predictive: of classes, with its draws.

    Raises:
        TypeError: another kind of predictive.

    Reference:
        Gal, Islam and Ghahramani 2017, "Deep Bayesian Active Learning with Image Data".

    Example:
        >>> logits = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]])
        >>> given = btl.predict.Predictive(logits, btl.likelihoods.categorical(), jnp.log(jnp.full(4, 0.25)))
        >>> btl.predict.acquisition.variation_ratio(given).tolist()
        [0.25]
    """
    check_arguments(variation_ratio, locals())
    votes, _ = _votes(predictive)
    return 1 - votes.max(-1)


def disagreement(predictive: Predictive) -> np.ndarray:
    """How often two different draws predict different classes, (B,).

    ``(1 - sum_c v_c^2) / (1 - sum_s w_s^2)``, v_c the weight of the draws that predict class c. Its mean over a data
    set estimates the error of one draw where the draws together are calibrated, without labels. 0 for a single draw.

    Args:
        predictive: of classes, with its draws.

    Raises:
        TypeError: another kind of predictive.

    Reference:
        Jiang et al. 2022, "Assessing Generalization of SGD via Disagreement".

    Example:
        >>> logits = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]])  # 3 of 6 pairs differ
        >>> given = btl.predict.Predictive(logits, btl.likelihoods.categorical(), jnp.log(jnp.full(4, 0.25)))
        >>> btl.predict.acquisition.disagreement(given).round(6).tolist()
        [0.5]
    """
    check_arguments(disagreement, locals())
    votes, weights = _votes(predictive)
    same = np.sum(weights**2)
    if same >= 1.0:
        return np.zeros(len(votes))
    return np.maximum(1 - np.sum(votes**2, -1), 0.0) / (1 - same)


def epig(pool: Predictive, targets: Predictive) -> np.ndarray:
    """What a label would tell of the labels of other inputs, (B,), nats: expected predictive information gain.

    The mean over the M target inputs of the mutual information of the two labels, whose joint probabilities are
    ``sum_s w_s p_s(y) p_s(y*)``. Unlike :func:`bald` it asks for nothing that does not matter where one predicts. Costs
    S B M C^2.

    Args:
        pool: of the B examples that could be labelled.
        targets: of M inputs as they will come, by the same draws in the same order.

    Raises:
        TypeError: another kind of predictive.
        ValueError: predictives of other draws.

    Reference:
        Bickford Smith et al. 2023, "Prediction-Oriented Bayesian Active Learning", equation 8.

    Example:
        >>> logits = 50.0 * jnp.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
        >>> given = btl.predict.Predictive(logits, btl.likelihoods.categorical(), jnp.log(jnp.array([0.5, 0.5])))
        >>> btl.predict.acquisition.epig(given, given).round(3).tolist()
        [0.347, 0.0]
    """
    check_arguments(epig, locals())
    probs, weights = class_draws("pool", pool)
    others, same = class_draws("targets", targets)
    if len(same) != len(weights) or not np.allclose(same, weights, atol=1e-6):
        raise ValueError(
            f"pool has {len(weights)} draws and targets {len(same)}, or other weights; predict both with the same "
            "function, so that draw s is the same parameters in both"
        )
    single = entropy(np.einsum("s,sbc->bc", weights, probs))
    total = np.zeros(len(single))
    for number in range(others.shape[1]):
        joint = np.einsum("s,sbc,sd->bcd", weights, probs, others[:, number])
        total += single + entropy(weights @ others[:, number]) - entropy(joint.reshape(len(joint), -1))
    return np.maximum(total / others.shape[1], 0.0)


def _votes(predictive: Predictive) -> tuple[np.ndarray, np.ndarray]:
    """The weight of the draws that predict each class, (B, C), and the weights of the draws, (S,)."""
    probs, weights = class_draws("predictive", predictive)
    return np.einsum("s,sbc->bc", weights, np.eye(probs.shape[-1])[probs.argmax(-1)]), weights
