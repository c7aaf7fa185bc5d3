"""What each example's prediction would be had its group been left out, from the Gram matrix of the linearised network.

With W = [J_i^T L_i] and P = (I + W^T S0 W)^-1, leaving out a group B changes the whitened outputs of the others, R, by
du_R = -P_RB q, q = P_BB^-1 e_B, in one Newton step; the outputs of all move by dz = G (g_B, -L_R du_R), G = J S0 J^T.
"""

from __future__ import annotations

import numpy as np

from bayestl.tune._output_space import OutputSpace

_BISECTIONS = 12
_ROUNDING = 1e-9


def left_out_outputs(space: OutputSpace, gram: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of all examples after one Newton step away from each group, and half of what the line search needs.

    Args:
        space: N examples of F outputs at the mode.
        gram: ``G = J S0 J^T`` at the mode, (N F, N F).
        groups: (N,) group numbers 0, ..., G - 1; -1 for examples that are never left out.

    Returns:
        dz, (G, N, F), and (kappa, |du_R|^2) of each group, (G, 2).
    """
    num, width, columns = space.roots.shape
    whitened = np.einsum(
        "nfk,nfmh,mhl->nkml", space.roots, gram.reshape(num, width, num, width), space.roots, optimize=True
    )
    size = num * columns
    inverse = np.linalg.inv(np.eye(size) + whitened.reshape(size, size)).reshape(num, columns, num, columns)
    changes, numbers = [], []
    for group in range(groups.max() + 1):
        out = groups == group
        among = inverse[out][:, :, out].reshape(out.sum() * columns, -1)
        q = np.linalg.solve(among, space.residuals[out].ravel())
        of_group = q - space.residuals[out].ravel()  # du_B
        of_rest = -np.einsum("nkbl,bl->nk", inverse[:, :, out], q.reshape(-1, columns))
        force = np.where(out[:, None], space.gradients, -np.einsum("nfk,nk->nf", space.roots, of_rest))
        changes.append((gram @ force.ravel()).reshape(num, width))
        numbers.append((space.residuals[out].ravel() @ of_group, np.sum(of_rest[~out] ** 2)))
    return np.stack(changes), np.array(numbers)


def line_search(space: OutputSpace, changes: np.ndarray, numbers: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """How much of each group's step lowers what is left of the loss along it, (G,) in (0, 1].

    With f(eta) the loss without the group: ``f'(eta) = sum_R (grad at z + eta dz) . dz + b + eta c``,
    ``b = -kappa - sum_R g . dz`` and ``c = kappa - |du_R|^2``.
    """
    rest = groups[None] != np.arange(len(changes))[:, None]  # (G, N)
    kappa, squared = numbers.T
    b = -kappa - np.einsum("gn,nf,gnf->g", rest, space.gradients, changes)
    c = kappa - squared

    def derivative(steps: np.ndarray) -> np.ndarray:
        slopes = space.slopes(space.outputs + steps[:, None, None] * changes)
        return np.einsum("gn,gnf,gnf->g", rest, slopes, changes) + b + steps * c

    low, high = np.zeros(len(changes)), np.ones(len(changes))
    # For a quadratic loss the whole step ends at a derivative of 0, but for rounding.
    search = derivative(high) > _ROUNDING * np.abs(kappa)
    if not search.any():
        return high
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        above = derivative(middle) > 0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.where(search, 0.5 * (low + high), 1.0)


def held_out_log_probs(space: OutputSpace, gram: np.ndarray, groups: np.ndarray, search: bool = True) -> np.ndarray:
    """``log p(y_i)`` of each example without its group, (N,): the mean of the probabilities after a whole step and
    after that of the line search, or after a whole step alone. Examples of group -1 are NaN."""
    changes, numbers = left_out_outputs(space, gram, groups)
    each = space.log_probs(space.outputs + changes)
    if search:
        steps = line_search(space, changes, numbers, groups)
        searched = space.log_probs(space.outputs + steps[:, None, None] * changes)
        each = np.logaddexp(each, searched) - np.log(2)
    own = each[np.maximum(groups, 0), np.arange(len(groups))]
    return np.where(groups >= 0, own, np.nan)
