"""Networks as their authors' libraries build them, with random weights that leave nothing at its neutral value."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bayestl import nets, pretrained


def torchvision() -> Any:
    pytest.importorskip("torch")
    if "torchvision" not in sys.modules:
        # Its own operators, for detection, are compiled for one build of torch; these networks do not use them.
        sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
    return pytest.importorskip("torchvision")


def timm() -> Any:
    torchvision()
    return pytest.importorskip("timm")


def keras_applications(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras").applications


def pictures(size: int) -> np.ndarray:
    """(2, size, size, 3): a faint and a glaring picture, each with noise on a slope."""
    noise = np.random.default_rng(1).normal(size=(2, size, size, 3))
    slope = np.linspace(-1, 1, size)[:, None, None] * np.array([1, -1, 0.5])
    return ((noise + slope) * np.array([0.3, 3])[:, None, None, None]).astype(np.float32)


def random_like(arrays: dict[str, np.ndarray], fan_in: Callable[[str, tuple[int, ...]], int]) -> dict[str, np.ndarray]:
    """Random arrays of these shapes: kernels of variance 2 / fan-in, so that the input is still felt at the end."""
    rng = np.random.default_rng(0)

    def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith(("running_var", "moving_variance")):
            return rng.uniform(0.5, 2, shape)
        if name in ("cls_token", "pos_embed"):
            return 0.02 * rng.normal(size=shape)  # so small that the epsilon of the normalisation matters
        if len(shape) > 1:
            return rng.normal(size=shape) * np.sqrt(2 / fan_in(name, shape))
        return rng.uniform(0.5, 1.5, shape) if name.endswith(("weight", "gamma")) else 0.2 * rng.normal(size=shape)

    return {name: value(name, x.shape).astype(np.float32) if x.ndim else x for name, x in arrays.items()}


def torch_arrays(model: Any) -> dict[str, np.ndarray]:
    """The arrays of a torch model, after it was given random ones."""
    import torch

    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    arrays = random_like(arrays, lambda name, shape: int(np.prod(shape[1:])))
    model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    model.eval()
    return arrays


def torch_outputs(function: Callable[[Any], Any], inputs: np.ndarray) -> np.ndarray:
    """What a function from torch's (B, C, H, W) gives for (B, H, W, C)."""
    import torch

    with torch.no_grad():
        outputs = function(torch.tensor(inputs.transpose(0, 3, 1, 2))).numpy()
    return outputs.transpose(0, 2, 3, 1) if outputs.ndim == 4 else outputs


def keras_arrays(model: Any) -> dict[str, np.ndarray]:
    """The arrays of a Keras model, after it was given random ones."""
    arrays = {weight.path: weight.numpy() for weight in model.weights}
    arrays = random_like(arrays, lambda name, shape: int(np.prod(shape[: 2 if "conv_dw" in name else -1])))
    for weight in model.weights:
        weight.assign(arrays[weight.path])
    return arrays


def skeleton(make: Callable[..., nnx.Module], **arguments: Any) -> nnx.Module:
    """A network without values, which costs nothing."""
    return nnx.eval_shape(lambda: make(jax.random.key(0), **arguments))


def loaded(make: Callable[..., Any], arrays: dict[str, np.ndarray], table: Any, **arguments: Any) -> Any:
    return pretrained.load(skeleton(make, **arguments), arrays, table).net


def outputs(module: nnx.Module, inputs: np.ndarray) -> np.ndarray:
    net = nets.from_nnx(module)
    return np.asarray(jax.jit(lambda params, x: net(params, x))(net.params, jnp.asarray(inputs)))


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal to 1e-5 of the largest value, ten times what their float32 roundings come to.

    That is also below what an approximate GELU or another epsilon would change.
    """
    assert ours.shape == theirs.shape
    assert np.abs(theirs[0] - theirs[1]).max() > 0.01 * np.abs(theirs).max()  # the input is felt at the end
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
