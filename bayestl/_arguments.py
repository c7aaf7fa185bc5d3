"""Checks of arguments that many public functions share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl._types import Key


def check_key(function: str, key: Key, batched: bool = False) -> None:
    """Refuse anything but a random key where one is the first argument.

    Args:
        function: the name of the public function, for the message.
        key: what was given: a key of ``jax.random.key``, or an old-style one, uint32 (2,).
        batched: one key per member instead, with a leading axis.

    Raises:
        TypeError: anything else; most often the arguments are in another order.
    """
    if _ndim(key) == int(batched):
        return
    expected = "an array of random keys, one per member" if batched else "a random key"
    example = "jax.random.split(jax.random.key(0), num)" if batched else "jax.random.key(0)"
    raise TypeError(f"{function}'s first argument is {expected}; got {_name(key)}. Give {example}")


def _ndim(key: Key) -> int | None:
    """How many axes an array of keys has, those of the key data left out; None for what is no key."""
    if not isinstance(key, jax.Array | np.ndarray):
        return None
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key.ndim
    is_old_style = key.dtype == jnp.uint32 and key.ndim > 0 and key.shape[-1] == 2
    return key.ndim - 1 if is_old_style else None


def _name(value: Any) -> str:
    """What a value is, in a few words that fit after "got"."""
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIO' else 'a'} {name}"
