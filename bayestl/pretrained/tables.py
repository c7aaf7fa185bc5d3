"""Which array of a published checkpoint is which of our parameters: one table per architecture, for :func:`load`.

A table goes from the original name to an :class:`Entry`: our path, and the change of memory layout. ``None`` in its
place marks an array that no network needs (torch's counts of batches). Where releases of a library name the same array
differently, the table holds every name. Names that only begin differently, with ``module.``, go by ``rename``. A table
of your own is a dict of the same kind.
"""

from __future__ import annotations

from bayestl._arguments import check_arguments
from bayestl.pretrained import _keras_names, _torch_names
from bayestl.pretrained._keras_names import keras_names
from bayestl.pretrained._layouts import (
    AS_IS,
    CONV,
    DENSE,
    DENSE_OF_CONV,
    DENSE_OF_MAPS,
    DEPTHWISE,
    ONE_BY_ONE,
    Entry,
    Layout,
    Table,
)

__all__ = [
    "AS_IS",
    "CIFAR_RESNET20",
    "CIFAR_RESNET56",
    "CONV",
    "DENSE",
    "DENSE_OF_CONV",
    "DENSE_OF_MAPS",
    "DEPTHWISE",
    "MOBILENET",
    "ONE_BY_ONE",
    "RESNET18",
    "RESNET50",
    "VGG16",
    "VGG16_KERAS",
    "VIT_B16",
    "VIT_TI16",
    "Entry",
    "Layout",
    "Table",
    "bert",
    "keras_names",
]

RESNET18: Table = _torch_names.resnet((2, 2, 2, 2), 2, "fc", downsampled=(2, 3, 4))
"""ResNet-18 of torchvision and timm, for :func:`resnet18`."""

RESNET50: Table = _torch_names.resnet((3, 4, 6, 3), 3, "fc", downsampled=(1, 2, 3, 4))
"""ResNet-50 of torchvision and timm, for :func:`resnet50`."""

CIFAR_RESNET20: Table = _torch_names.resnet((3, 3, 3), 2, "linear", downsampled=())
"""ResNet-20 of pytorch_resnet_cifar10, for :func:`cifar_resnet20`."""

CIFAR_RESNET56: Table = _torch_names.resnet((9, 9, 9), 2, "linear", downsampled=())
"""ResNet-56 of pytorch_resnet_cifar10, for :func:`cifar_resnet56`."""

VGG16: Table = _torch_names.vgg16()
"""VGG-16 of torchvision and timm, for :func:`vgg16`."""

VGG16_KERAS: Table = _keras_names.vgg16()
"""VGG-16 of ``keras.applications``, for :func:`vgg16`."""

MOBILENET: Table = _keras_names.mobilenet()
"""MobileNet v1 of ``keras.applications``, for :func:`mobilenet`."""

VIT_TI16: Table = _torch_names.vit(depth=12)
"""timm's ``vit_tiny_patch16_*``, for :func:`vit_ti16`."""

VIT_B16: Table = _torch_names.vit(depth=12)
"""timm's ``vit_base_patch16_*``, for :func:`vit_b16`."""


def bert(num_layers: int) -> Table:
    """BERT encoders under the names of Hugging Face's ``BertModel``, for :func:`bert`.

    Checkpoints of a whole model have ``bert.`` before each name:
    ``load(..., rename=lambda name: name.removeprefix("bert."))``.

    Args:
        num_layers: ``num_hidden_layers`` of its configuration, >= 1.

    Raises:
        ValueError: fewer than one layer.

    Example:
        >>> btl.pretrained.tables.bert(6)["encoder.layer.0.attention.self.query.weight"].path
        'block0/attention/query/kernel'
    """
    check_arguments(bert, locals())
    if num_layers < 1:
        raise ValueError(f"num_layers is {num_layers}; give the number of the encoder's layers, at least 1")
    return _torch_names.bert(num_layers)
