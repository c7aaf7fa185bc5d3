"""BERT encoders against published numbers, against transformers, and masks."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from originals import random_like

from bayestl import nets, pretrained, tree
from bayestl.pretrained import tables

CONFIG = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 12,
}
TEXTS = np.array([[3, 7, 49, 4, 0, 0], [3, 8, 9, 10, 11, 4]])


@pytest.fixture(scope="module")
def small():
    net = nets.from_nnx(pretrained.bert(jax.random.key(0), CONFIG))
    # Embeddings that matter beside the rest, so that every part is felt.
    params = jax.tree.map(lambda x: x * 20 if x.ndim > 1 else x, net.params)
    return jax.jit(lambda inputs: net(params, inputs))


def test_published_sentence_vectors(data_dir):
    """The numbers that the data directory's own page gives for all-MiniLM-L6-v2."""
    folder = data_dir / "minilm"
    config = json.loads((folder / "config.json").read_text())
    weights = pretrained.read(folder / "all-MiniLM-L6-v2.fp16.safetensors")
    skeleton = nnx.eval_shape(lambda: pretrained.bert(jax.random.key(0), config))
    loaded, report = pretrained.load(skeleton, weights.arrays, tables.bert(config["num_hidden_layers"]))
    assert report.ignored == ("pooler.dense.bias", "pooler.dense.weight")
    net = nets.from_nnx(loaded)
    assert {leaf.dtype for leaf in jax.tree.leaves(net.params)} == {jnp.dtype("float32")}
    assert sum(leaf.size for leaf in jax.tree.leaves(net.params)) == 22_713_216 - 384 * 385  # without the pooler
    ids = np.array([[101, 1037, 4248, 3231, 6251, 1012, 102, 0, 0]])
    (vector,) = np.asarray(jax.jit(lambda x: net(net.params, x))(ids))
    np.testing.assert_allclose(vector[:5], [0.33057, 0.37511, 0.19854, 0.54618, -0.03708], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(vector), 5.42787, atol=1e-3)


def test_every_parameter_has_a_name():
    net = nnx.eval_shape(lambda: pretrained.bert(jax.random.key(0), CONFIG, num_classes=2))
    assert {entry.path for entry in tables.bert(2).values() if entry} == set(tree.paths(nnx.state(net, nnx.Param)))


@pytest.mark.parametrize("pooling", ["mean_of_tokens", "first_token"])
def test_outputs_are_those_of_transformers(pooling):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.BertModel(transformers.BertConfig(**CONFIG)).eval()
    arrays = {name: x.numpy() for name, x in model.state_dict().items() if x.is_floating_point()}
    arrays = random_like(arrays, lambda name, shape: shape[1])
    model.load_state_dict({name: torch.tensor(x) for name, x in arrays.items()}, strict=False)
    mask, segments = (TEXTS != 0).astype(int), (np.arange(6) > 2).astype(int) + 0 * TEXTS
    with torch.no_grad():
        inputs = {"input_ids": TEXTS, "attention_mask": mask, "token_type_ids": segments}
        hidden = model(**{name: torch.tensor(x) for name, x in inputs.items()}).last_hidden_state.numpy()
    theirs = (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None] if "mean" in pooling else hidden[:, 0]
    skeleton = nnx.eval_shape(lambda: pretrained.bert(jax.random.key(0), CONFIG, pooling=getattr(pretrained, pooling)))
    net = nets.from_nnx(pretrained.load(skeleton, arrays, tables.bert(2)).net)
    ours = np.asarray(net(net.params, jax.tree.map(jnp.asarray, inputs)))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_padding_changes_nothing(small):
    vectors = small(TEXTS)
    np.testing.assert_allclose(small(TEXTS[:1, :4]), vectors[:1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(small(np.pad(TEXTS, ((0, 0), (0, 5)))), vectors, rtol=1e-5, atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.1


def test_a_text_without_tokens_is_finite(small):
    np.testing.assert_array_equal(small(np.zeros((1, 6), int)), np.zeros((1, 24)))


def test_masks_and_segments_may_be_given(small):
    same = small({"input_ids": TEXTS, "attention_mask": (TEXTS != 0).astype(int), "token_type_ids": 0 * TEXTS})
    np.testing.assert_array_equal(same, small(TEXTS))
    masked = small({"input_ids": TEXTS, "attention_mask": np.arange(6) < 3 + 0 * TEXTS})
    np.testing.assert_allclose(masked, small(TEXTS[:, :3]), rtol=1e-5, atol=1e-6)
    assert np.abs(small({"input_ids": TEXTS, "token_type_ids": 1 + 0 * TEXTS}) - same).max() > 0.1


def test_tokens_outside_the_vocabulary_are_not_mistaken_for_words(small):
    outside = np.array([[3, 7, CONFIG["vocab_size"], 4], [3, -1, 4, 4], [3, 7, 4, 4]])
    np.testing.assert_array_equal(np.isnan(small(outside)).all(1), [True, True, False])
    marked = {"input_ids": np.array([[3, 7, -1, -1]]), "attention_mask": np.array([[1, 1, 0, 0]])}
    np.testing.assert_allclose(small(marked), small(np.array([[3, 7]])), rtol=1e-5, atol=1e-6)  # padding by -1


def test_stages_carry_their_masks():
    body, rest = pretrained.bert(jax.random.key(0), CONFIG, num_classes=3).split("block0")
    tokens = body(TEXTS)
    assert tokens.hidden.shape == (2, 6, 24)
    np.testing.assert_array_equal(tokens.mask, TEXTS != 0)
    assert rest(tokens).shape == (2, 3)


def test_refusals(small):
    make = lambda **other: pretrained.bert(jax.random.key(0), CONFIG | other)  # noqa: E731
    with pytest.raises(ValueError, match="config lacks 'vocab_size'"):
        pretrained.bert(jax.random.key(0), {name: CONFIG[name] for name in CONFIG if name != "vocab_size"})
    with pytest.raises(ValueError, match=r"config\['hidden_act'\] is 'relu', which is another network than BERT"):
        make(hidden_act="relu")
    with pytest.raises(ValueError, match=r"config\['hidden_size'\] is 0; give an integer >= 1"):
        make(hidden_size=0)
    with pytest.raises(ValueError, match="hidden_size of 24 and 5 attention heads; the heads must divide it"):
        make(num_attention_heads=5)
    with pytest.raises(ValueError, match="inputs have 13 tokens per text; this network has positions for 12"):
        small(np.ones((1, 13), int))
    with pytest.raises(ValueError, match=r"input_ids has shape \(2, 6\) and dtype float32; give whole numbers"):
        small(TEXTS.astype(np.float32))
    with pytest.raises(ValueError, match=r"inputs have the entries \['ids'\]; give token numbers"):
        small({"ids": TEXTS})
    with pytest.raises(ValueError, match="num_layers is 0"):
        tables.bert(0)
