"""NumPyro's guides for a model: how one is made, where it starts, and what it must cover."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.infer import autoguide, init_to_value

from bayestl._types import Batch, Key
from bayestl.bridges._numpyro_model import NumPyroModel

MakeGuide = Callable[[Any], Callable]
"""A class of AutoGuides, or any function from the model to a guide."""


def made_guide(make_guide: MakeGuide, model: NumPyroModel, values: Mapping[str, jax.Array] | None = None) -> Callable:
    """A fresh guide for the model, whose location starts at ``values`` of the sites (None: anywhere)."""
    guide = make_guide(model)
    if not callable(guide):
        raise TypeError(
            f"guide gave a {type(guide).__name__} for the model; give an AutoGuide class, or a function from the model "
            "to a guide"
        )
    if values is None:
        values = {name: jnp.zeros(size) for name, size in model.sites.sizes.items()}
    _start_at(guide, values)
    return guide


def _start_at(guide: Callable, values: Mapping[str, jax.Array]) -> None:
    if not isinstance(guide, autoguide.AutoGuide):
        return
    if guide.prototype_trace is not None:
        raise ValueError(
            f"guide gave back {type(guide).__name__} that has been used before; give a function that makes a new one "
            "each time it is called: lambda model: AutoNormal(model)"
        )
    guide.init_loc_fn = init_to_value(values=values)
    for part in guide if isinstance(guide, autoguide.AutoGuideList) else ():
        _start_at(part, values)


def reads_data(guide: Callable) -> bool:
    """Whether what the guide believes depends on data beyond its parameters."""
    if isinstance(guide, autoguide.AutoGuideList):
        return any(reads_data(part) for part in guide)
    readers = (autoguide.AutoLaplaceApproximation, autoguide.AutoDAIS, autoguide.AutoSemiDAIS)
    return isinstance(guide, readers)


def check_guide(guide: Callable, model: NumPyroModel, key: Key, batch: Batch | None) -> None:
    """Raise when the guide leaves a site out, or samples it in another shape. Sets the guide up on the model."""
    trace = handlers.trace(handlers.seed(guide, key)).get_trace(batch)
    samples = {name: site["value"] for name, site in trace.items() if site["type"] == "sample"}
    expected = [f"{model.sites.described(name)} of shape ({size},)" for name, size in model.sites.sizes.items()]
    for name, size in model.sites.sizes.items():
        if name not in samples:
            raise ValueError(
                f"guide misses the site {model.sites.described(name)}; the model has {', '.join(expected)}, the guide "
                f"samples {sorted(samples)}. A guide must sample every site: put several together with AutoGuideList"
            )
        if jnp.shape(samples[name]) != (size,):
            raise ValueError(
                f"guide samples the site {model.sites.described(name)} in shape {jnp.shape(samples[name])}; the model "
                f"has it in shape ({size},): its leaves one after another, as model.to_values(params) gives them"
            )
