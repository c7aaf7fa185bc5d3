"""Published ImageNet networks: what they are called, what they want to see, and where a task cuts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

import bayestl as btl

IMAGENET = btl.data.normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Network(NamedTuple):
    """A published network, and where it is cut.

    Attributes:
        make: key, cut -> backbone.
        table: names and layouts of the published weights.
        weights: file name in the data directory, as its publisher calls it.
        cut: the last stage that stays as it is.
        end: the last stage that is used.
        channels: of the maps that ``end`` gives.
        normalize: what happens to pictures of bytes.
    """

    make: Any
    table: Any
    weights: str
    cut: str
    end: str
    channels: int
    normalize: Any


NETWORKS = {
    "mobilenet": Network(
        btl.pretrained.mobilenet,
        btl.pretrained.tables.MOBILENET,
        "mobilenet_1.0_224_imagenet_to_conv_pw_12.safetensors",
        "conv_pw_11",
        "conv_pw_12",
        1024,
        btl.data.normalize(0.5, 0.5),
    ),
    "vgg16": Network(
        btl.pretrained.vgg16,
        btl.pretrained.tables.VGG16,
        "vgg16-397923af.pth",
        "block4",
        "block5",
        512,
        IMAGENET,
    ),
    "resnet18": Network(
        btl.pretrained.resnet18,
        btl.pretrained.tables.RESNET18,
        "resnet18-f37072fd.pth",
        "layer3",
        "layer4",
        512,
        IMAGENET,
    ),
    "resnet50": Network(
        btl.pretrained.resnet50,
        btl.pretrained.tables.RESNET50,
        "resnet50-11ad3fa6.pth",
        "layer3",
        "layer4",
        2048,
        IMAGENET,
    ),
}


def published(network: Network, data_dir: Path) -> tuple[btl.pretrained.Backbone, btl.pretrained.Backbone]:
    """Body and tail with the published weights.

    Raises:
        SystemExit: the data directory does not have them.
    """
    path = data_dir / network.weights
    if not path.is_file():
        raise SystemExit(f"the data directory has no {network.weights}; put the published file there under this name")
    skeleton = nnx.eval_shape(lambda: network.make(jax.random.key(0), cut=network.end))
    net, _ = btl.pretrained.load(skeleton, btl.pretrained.read(path).arrays, network.table)
    net.eval()
    return as_run_here(net).split(network.cut)


def as_run_here(net: Any) -> Any:
    """On a CPU convolutions are written as products; accelerators have good ones."""
    return btl.pretrained.as_products(net) if jax.default_backend() == "cpu" else net


def stages(backbone: Any) -> dict[str, Any]:
    """The stages of a backbone by name."""
    return {name: getattr(backbone, name) for name in backbone.stages}
