"""The names of keras.applications."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bayestl.pretrained._layouts import AS_IS, DEPTHWISE, ONE_BY_ONE, VGG16_DEPTHS, Entry, Layout, Rows


def keras_names(layers: Mapping[str, str]) -> Callable[[str], str]:
    """How to ``rename`` the arrays of a ``.weights.h5`` or ``.keras`` file, which numbers layers and variables.

    Args:
        layers: ``metadata["layers"]`` of what :func:`read` gave: where a layer is in the file -> its name.

    Example:
        >>> rename = btl.pretrained.tables.keras_names({"layers/conv2d": "conv1"})
        >>> rename("layers/conv2d/vars/0")
        'conv1/vars/0'
    """

    def rename(name: str) -> str:
        folder, middle, number = name.rpartition("/vars/")
        return f"{layers.get(folder, folder)}{middle}{number}"

    return rename


def _rows(layer: str, weights: Mapping[str, Entry]) -> Rows:
    """One layer's variables, by name and by number."""
    by_name: Rows = {f"{layer}/{weight}": entry for weight, entry in weights.items()}
    return by_name | {f"{layer}/vars/{n}": entry for n, entry in enumerate(weights.values())}


def _layer(layer: str, path: str, layout: Layout = AS_IS) -> Rows:
    return _rows(layer, {"kernel": Entry(f"{path}/kernel", layout), "bias": Entry(f"{path}/bias", AS_IS)})


def _batch_norm(layer: str, path: str) -> Rows:
    ours = {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"}
    return _rows(layer, {theirs: Entry(f"{path}/{name}", AS_IS) for theirs, name in ours.items()})


def mobilenet() -> Rows:
    """Depthwise kernels have had two names."""
    rows = _rows("conv1", {"kernel": Entry("conv1/conv/kernel", AS_IS)}) | _batch_norm("conv1_bn", "conv1/bn")
    for n in range(1, 14):
        depthwise, pointwise = f"conv_dw_{n}", f"conv_pw_{n}"
        kernel = Entry(f"{depthwise}/conv/kernel", DEPTHWISE)
        rows |= _rows(depthwise, {"kernel": kernel}) | {f"{depthwise}/depthwise_kernel": kernel}
        rows |= _rows(pointwise, {"kernel": Entry(f"{pointwise}/conv/kernel", AS_IS)})
        for layer in (depthwise, pointwise):
            rows |= _batch_norm(f"{layer}_bn", f"{layer}/bn")
    return rows | _layer("conv_preds", "head", ONE_BY_ONE)


def vgg16() -> Rows:
    """The flattened map is in our order already."""
    rows: Rows = {}
    for block, depth in enumerate(VGG16_DEPTHS, start=1):
        for n in range(1, depth + 1):
            rows |= _layer(f"block{block}_conv{n}", f"block{block}/conv{n}")
    for layer, path in (("fc1", "dense/fc1"), ("fc2", "dense/fc2"), ("predictions", "head")):
        rows |= _layer(layer, path)
    return rows
