"""Noise on pictures in [0, 1]: normal, of counted light, of broken pixels, and in proportion to the light."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl._types import Key

Pictures = Float[Array, "batch height width channels"]


def gaussian_noise(key: Key, pictures: Pictures, scale: float) -> Pictures:
    """x + scale e with e standard normal, for every pixel and channel on its own."""
    return pictures + scale * jax.random.normal(key, pictures.shape, pictures.dtype)


def shot_noise(key: Key, pictures: Pictures, photons: float) -> Pictures:
    """n / photons with n Poisson of mean photons x: mean x, variance x / photons."""
    # JAX draws Poisson numbers with its default generator only; the bits of a key of any other give it one.
    key = jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")
    return jax.random.poisson(key, photons * pictures).astype(pictures.dtype) / photons


def impulse_noise(key: Key, pictures: Pictures, share: float) -> Pictures:
    """A share of the values is replaced: half of them by 0, half by 1."""
    place = jax.random.uniform(key, pictures.shape, pictures.dtype)
    return jnp.where(place < share / 2, 0.0, jnp.where(place < share, 1.0, pictures))


def speckle_noise(key: Key, pictures: Pictures, scale: float) -> Pictures:
    """x + x scale e with e standard normal."""
    return pictures * (1 + scale * jax.random.normal(key, pictures.shape, pictures.dtype))
