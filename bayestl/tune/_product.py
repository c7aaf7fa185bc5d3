"""Settings of a grid."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayestl._arguments import check_arguments


def product(**axes: Any) -> dict[str, np.ndarray]:
    """All combinations of the values of some settings: one array for each, the last one changing fastest.

    Args:
        axes: for each setting its values, numbers.

    Raises:
        ValueError: no setting, or one without values.

    Example:
        >>> btl.tune.product(scale=[0.1, 1.0], rate=[1.0, 2.0, 3.0])["scale"]
        array([0.1, 0.1, 0.1, 1. , 1. , 1. ], dtype=float32)
    """
    check_arguments(product, locals())
    values = {name: np.asarray(each) for name, each in axes.items()}
    if not values or any(x.ndim != 1 or not len(x) or x.dtype.kind not in "iuf" for x in values.values()):
        raise ValueError(f"the axes are {axes!r}; give each setting a list of numbers, as in product(scale=[0.1, 1.0])")
    mesh = np.meshgrid(*(each.astype(np.float32) for each in values.values()), indexing="ij")
    return {name: axis.ravel() for name, axis in zip(values, mesh, strict=True)}
