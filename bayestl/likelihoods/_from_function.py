"""Any other likelihood."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpyro.distributions as dist

from bayestl._types import Outputs
from bayestl.likelihoods._families import root_of_distribution, with_own_derivatives
from bayestl.likelihoods._raw import at_least_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FromFunction:
    """A function from outputs to a distribution. Made by :func:`from_function`.

    Attributes:
        fn: the function, static.
    """

    fn: Callable[[Any], dist.Distribution] = dataclasses.field(metadata={"static": True})

    def __call__(self, outputs: Outputs) -> dist.Distribution:
        """``fn`` of the outputs, which are converted to at least float32."""
        return with_own_derivatives(self.fn(at_least_float32(outputs)))

    def hessian_root(self, outputs: Outputs) -> Any:
        """The root of the Fisher information in the distribution's parameters, pulled back to the outputs; None unless
        the density is numpyro's categorical, Bernoulli or normal one."""
        return root_of_distribution(self, at_least_float32(outputs))


def from_function(fn: Callable[[Any], dist.Distribution]) -> FromFunction:
    """Likelihood from any function of the raw outputs that returns a numpyro distribution.

    Use it for counts, heavy tails, several labels per example: anything that numpyro has a distribution for.

    Args:
        fn: from outputs (any pytree, leaves (B, ...)) to a distribution whose ``batch_shape`` is exactly (B,); move
            every other axis into the event with ``to_event``. It is static: define it once, at module level, because
            programs are compiled again for a new function object.

    Raises:
        TypeError: ``fn`` is not callable.

    Example:
        >>> import numpyro.distributions as dist
        >>> labels = btl.likelihoods.from_function(lambda logits: dist.BernoulliLogits(logits).to_event(1))
        >>> labels(jnp.zeros((4, 6))).batch_shape
        (4,)
    """
    if not callable(fn):
        raise TypeError(f"fn must be a function from outputs to a numpyro distribution, but is {type(fn).__name__}")
    return FromFunction(fn)
