"""The names of torchvision, timm, pytorch_resnet_cifar10 and Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Sequence

from bayestl.pretrained._layouts import (
    AS_IS,
    CONV,
    DENSE,
    DENSE_OF_CONV,
    DENSE_OF_MAPS,
    VGG16_DEPTHS,
    Entry,
    Layout,
    Rows,
)


def _layer(name: str, path: str, layout: Layout) -> Rows:
    """A convolution or a dense layer."""
    return {f"{name}.weight": Entry(f"{path}/kernel", layout), f"{name}.bias": Entry(f"{path}/bias", AS_IS)}


def _norm(name: str, path: str) -> Rows:
    """Layer normalisation, and what batch normalisation shares with it."""
    return {f"{name}.weight": Entry(f"{path}/scale", AS_IS), f"{name}.bias": Entry(f"{path}/bias", AS_IS)}


def _batch_norm(name: str, path: str) -> Rows:
    return {
        **_norm(name, path),
        f"{name}.running_mean": Entry(f"{path}/mean", AS_IS),
        f"{name}.running_var": Entry(f"{path}/var", AS_IS),
        f"{name}.num_batches_tracked": None,
    }


def _conv_norm(conv: str, norm: str, conv_path: str, norm_path: str) -> Rows:
    kernel = Entry(f"{conv_path}/kernel", CONV)
    return {f"{conv}.weight": kernel, **_batch_norm(norm, norm_path)}


def resnet(depths: Sequence[int], convolutions: int, head: str, downsampled: Sequence[int]) -> Rows:
    """Blocks of some convolutions; ``downsampled``: the layers whose first shortcut has parameters."""
    rows = _conv_norm("conv1", "bn1", "stem/conv1", "stem/bn1")
    for layer, depth in enumerate(depths, start=1):
        for block in range(depth):
            name, path = f"layer{layer}.{block}", f"layer{layer}/{block}"
            for n in range(1, convolutions + 1):
                rows |= _conv_norm(f"{name}.conv{n}", f"{name}.bn{n}", f"{path}/conv{n}", f"{path}/bn{n}")
        if layer in downsampled:
            name, path = f"layer{layer}.0.downsample", f"layer{layer}/0/downsample"
            rows |= _conv_norm(f"{name}.0", f"{name}.1", f"{path}/conv", f"{path}/bn")
    return rows | _layer(head, "head", DENSE)


def vgg16() -> Rows:
    """torchvision's names, and timm's of the dense layers, which it keeps as convolutions."""
    rows: Rows = {}
    position = 0
    for block, depth in enumerate(VGG16_DEPTHS, start=1):
        for n in range(1, depth + 1):
            rows |= _layer(f"features.{position}", f"block{block}/conv{n}", CONV)
            position += 2  # the activation counts
        position += 1  # and so does the pooling
    rows |= _layer("classifier.0", "dense/fc1", DENSE_OF_MAPS) | _layer("pre_logits.fc1", "dense/fc1", DENSE_OF_MAPS)
    rows |= _layer("classifier.3", "dense/fc2", DENSE) | _layer("pre_logits.fc2", "dense/fc2", DENSE_OF_CONV)
    return rows | _layer("classifier.6", "head", DENSE) | _layer("head.fc", "head", DENSE)


def vit(depth: int) -> Rows:
    """A vision transformer with queries, keys and values in one dense layer."""
    rows: Rows = {
        "cls_token": Entry("embed/cls_token", AS_IS),
        "pos_embed": Entry("embed/pos_embed", AS_IS),
        **_layer("patch_embed.proj", "embed/patches", CONV),
    }
    for n in range(depth):
        name, path = f"blocks.{n}", f"block{n}"
        for norm in ("norm1", "norm2"):
            rows |= _norm(f"{name}.{norm}", f"{path}/{norm}")
        for dense in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            rows |= _layer(f"{name}.{dense}", f"{path}/{dense.replace('.', '/')}", DENSE)
    return rows | _norm("norm", "pool/norm") | _layer("head", "head", DENSE)


def bert(num_layers: int) -> Rows:
    """An encoder as ``BertModel`` names it, without its pooler and what ``BertForPreTraining`` has beside it."""
    rows: Rows = {
        "embeddings.word_embeddings.weight": Entry("embed/words/embedding", AS_IS),
        "embeddings.position_embeddings.weight": Entry("embed/positions/embedding", AS_IS),
        "embeddings.token_type_embeddings.weight": Entry("embed/segments/embedding", AS_IS),
        **_text_norm("embeddings.LayerNorm", "embed/norm"),
    }
    for n in range(num_layers):
        name, path = f"encoder.layer.{n}", f"block{n}"
        for part in ("query", "key", "value"):
            rows |= _layer(f"{name}.attention.self.{part}", f"{path}/attention/{part}", DENSE)
        rows |= _layer(f"{name}.attention.output.dense", f"{path}/attention/output", DENSE)
        rows |= _text_norm(f"{name}.attention.output.LayerNorm", f"{path}/norm1")
        rows |= _layer(f"{name}.intermediate.dense", f"{path}/mlp/fc1", DENSE)
        rows |= _layer(f"{name}.output.dense", f"{path}/mlp/fc2", DENSE)
        rows |= _text_norm(f"{name}.output.LayerNorm", f"{path}/norm2")
    return rows | dict.fromkeys(_NOT_IN_THE_ENCODER) | _layer("classifier", "head", DENSE)


_NOT_IN_THE_ENCODER = (
    "embeddings.position_ids",
    *(f"pooler.dense.{kind}" for kind in ("weight", "bias")),
    *(f"cls.seq_relationship.{kind}" for kind in ("weight", "bias")),
    *(f"cls.predictions.{part}.{kind}" for part in ("decoder", "transform.dense") for kind in ("weight", "bias")),
    *(f"cls.predictions.transform.LayerNorm.{kind}" for kind in ("weight", "bias", "gamma", "beta")),
    "cls.predictions.bias",
)


def _text_norm(name: str, path: str) -> Rows:
    """Layer normalisation, under the names of today and those of the first checkpoints."""
    scale, bias = Entry(f"{path}/scale", AS_IS), Entry(f"{path}/bias", AS_IS)
    return {**_norm(name, path), f"{name}.gamma": scale, f"{name}.beta": bias}
