"""Random numbers on the host from a random key of JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bayestl._types import Key


def generator(key: Key, *parts: int) -> np.random.Generator:
    """A numpy generator whose numbers are a function of a JAX random key, and of which part of its use they are for."""
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return np.random.default_rng([*np.asarray(data).ravel().tolist(), *parts])
