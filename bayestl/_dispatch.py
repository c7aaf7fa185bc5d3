"""Whether a training step belongs inside a compiled loop. Loops over batches and draws: see ``_convolutions``.

XLA on a CPU runs a convolution inside a loop on one thread and with slow code (jax issue 12868): a step of a small
ConvNet takes some 20 times as long as the same step dispatched from Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax


def loops_on_host(jaxpr: Any, platform: str | None = None) -> bool:
    """Whether the steps of a loop are to be dispatched from Python, one by one, and not looped over in the program.

    Args:
        jaxpr: of the step, or of a program that holds it: ``jax.make_jaxpr(step)(...)``, ``jitted.trace(...).jaxpr``.
        platform: where it runs; by default JAX's default backend.

    Example:
        >>> from bayestl._dispatch import loops_on_host
        >>> smooth = jax.make_jaxpr(lambda x: jnp.convolve(x, jnp.ones(3)))(jnp.ones(8))
        >>> loops_on_host(smooth, "cpu"), loops_on_host(smooth, "gpu")
        (True, False)
    """
    on_cpu = (platform or jax.default_backend()) == "cpu"
    return on_cpu and any(equation.primitive.name == "conv_general_dilated" for equation in equations(jaxpr))


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a program, those of the programs inside it included."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from equations(inner)
