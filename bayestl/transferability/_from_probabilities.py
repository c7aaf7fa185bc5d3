"""Scores from the source's own classes: LEEP and NCE."""

from __future__ import annotations

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.transferability._checks import checked_probabilities, one_hot


def leep(probabilities: Numbers, labels: Numbers) -> float:
    """The log expected empirical prediction: how well the source's classes, taken for words, spell the target's.

    ``1/N sum_i log sum_z P(y_i | z) p(z | x_i)``, with P(y | z) the share of label y in the mass that the source gives
    its class z on the target's inputs. At most 0; larger is better. The source is asked for probabilities alone.

    Args:
        probabilities: of the source's K classes on the target's inputs, (N, K). Classes without mass count for nothing.
        labels: the target's, (N,), whole numbers.

    Raises:
        ValueError: rows that do not sum to 1, one class alone, shapes that differ.
        TypeError: labels that are not whole numbers.

    Reference:
        Nguyen et al. 2020, "LEEP: A New Measure to Evaluate Transferability of Learned Representations", equation 2.

    Example:
        >>> print(f"{btl.transferability.leep([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 0, 1]):.3f}")
        0.000
        >>> print(f"{btl.transferability.leep([[0.5, 0.5]] * 4, [0, 0, 1, 1]):.3f}")              # log 1/2
        -0.693
    """
    check_arguments(leep, locals())
    probabilities, places = checked_probabilities(probabilities, labels)
    joint = one_hot(places).T @ probabilities / len(places)
    given = _conditional(joint)
    # Every example has its own share in the mass of its label, so that none of these is 0.
    each = np.sum(given[places] * probabilities, axis=1)
    return float(np.mean(np.log(each)))


def nce(probabilities: Numbers, labels: Numbers) -> float:
    """The negative conditional entropy of the target's labels given the source's most probable class.

    ``-H(Y | Z) = sum_yz P(y, z) log P(y | z)``, with P(y, z) the share of examples of label y for which the source
    says z. At most 0; larger is better. Where several classes tie for the most probable, they share the example.

    Args:
        probabilities: of the source's K classes on the target's inputs, (N, K); for hard labels give one-hot rows.
        labels: the target's, (N,), whole numbers.

    Raises:
        ValueError: as :func:`leep`.
        TypeError: labels that are not whole numbers.

    Reference:
        Tran, Nguyen and Hassner 2019, "Transferability and Hardness of Supervised Classification Tasks", equation 6.

    Example:
        >>> print(f"{btl.transferability.nce([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], [0, 0, 1, 1]):.3f}")
        -0.693
    """
    check_arguments(nce, locals())
    probabilities, places = checked_probabilities(probabilities, labels)
    largest = probabilities == probabilities.max(axis=1, keepdims=True)
    said = largest / largest.sum(axis=1, keepdims=True)
    joint = one_hot(places).T @ said / len(places)
    given = _conditional(joint)
    logs = np.log(given, where=joint > 0, out=np.zeros_like(given))
    return float(np.sum(joint * logs))


def _conditional(joint: np.ndarray) -> np.ndarray:
    """P(y | z) from P(y, z); 0 for classes z without mass."""
    mass = joint.sum(axis=0)
    return np.divide(joint, mass, where=mass > 0, out=np.zeros_like(joint))
