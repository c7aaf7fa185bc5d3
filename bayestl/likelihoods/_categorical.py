"""One class out of several."""

from __future__ import annotations

import dataclasses

import jax
import numpyro.distributions as dist
from jaxtyping import Array, Float

from bayestl.likelihoods._raw import at_least_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Categorical:
    """Softmax over the last axis of the outputs. Made by :func:`categorical`."""

    def __call__(self, outputs: Float[Array, "B C"]) -> dist.Distribution:
        """Distribution over labels in 0 .. C-1, batch shape (B,)."""
        # numpyro's own eager check would stop a diverged run before `fit` can say at which step it happened.
        return dist.CategoricalLogits(at_least_float32(outputs), validate_args=False)


def categorical() -> Categorical:
    """Likelihood for classification into C classes: logits (B, C), integer labels (B,).

    The equation is ``log p(y | f) = f_y - log sum_c exp f_c``.

    Example:
        >>> likelihood = btl.likelihoods.categorical()
        >>> logits = jnp.zeros((2, 4))
        >>> likelihood(logits).log_prob(jnp.array([0, 3])).shape
        (2,)
    """
    return Categorical()
