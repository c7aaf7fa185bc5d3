"""MiniLM in the task with sentences, in small: a random encoder of the same stages, and words that say the label."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from benchmarks._records import Rows
from benchmarks.tasks import sentiment_config as names
from benchmarks.tasks import sentiment_encoder as encoders
from benchmarks.tasks import sentiment_minilm as task
from benchmarks.tasks import sentiment_minilm_report as reports

FILMS = names.FILMS
METHODS = (
    names.PROBE,
    *names.FROZEN_ENCODERS,
    names.FILMS_AS_IS,
    *(f"{FILMS}, {names.ADAPTER} {how}" for how in (names.MAP, names.LAPLACE, names.VI)),
)
CONFIG = names.EncoderConfig(
    targets=("custrev",), num_labels=(20,), dear_at=(20,), seeds=2, methods=METHODS, length=8, rank=2, steps=10,
    head_steps=60, head_scales=(0.2, 0.8), adapter_scales=(0.1,), draws=2, film_steps=60, film_rate=1e-2,
)  # fmt: skip
SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 16}


def small_encoder(data_dir: Path) -> btl.pretrained.Backbone:
    """Stands for the published one."""
    return btl.pretrained.bert(jax.random.key(0), SIZES)


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory) -> Path:
    """1300 sentences of 4 words each, of which 3 belong to their class, and a tokenizer of these words."""
    tokenizers = pytest.importorskip("tokenizers")
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "text").mkdir()
    (folder / encoders.FOLDER).mkdir()
    words = [[f"w{label}x{i}" for i in range(10)] for label in range(2)]
    for path in (names.SOURCE, names.TARGETS["custrev"][0]):
        labels = np.arange(1300) % 2
        chosen = [[*rng.choice(words[y], 3), *rng.choice(words[rng.integers(2)], 1)] for y in labels]
        lines = [f"{y} {' '.join(each)}\n" for y, each in zip(labels, chosen, strict=True)]
        (folder / path).write_text("".join(lines))
    rows = {word: row for row, word in enumerate(["[PAD]", "[UNK]", *words[0], *words[1]])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(rows, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / encoders.FOLDER / encoders.TOKENIZER))
    return folder


def test_cached_activations_go_on_to_what_the_whole_encoder_gives(data_folder, tmp_path):
    net, path = small_encoder(data_folder), data_folder / names.TARGETS["custrev"][0]
    behind = encoders.encoded(net, path, data_folder, tmp_path, 8).data.take(np.arange(5))
    again = encoders.encoded(net, path, data_folder, tmp_path, 8).data.take(np.arange(5))  # from the file
    assert behind.inputs.hidden.dtype == jnp.float16
    np.testing.assert_array_equal(behind.inputs.hidden, again.inputs.hidden)
    tokens = btl.data.text.encode(
        btl.data.text.read_labelled(path).texts[:5],
        btl.data.text.tokenizer(data_folder / encoders.FOLDER / encoders.TOKENIZER),
        8,
    ).tokens
    tail = encoders.tail_net(net, 2)
    vectors = encoders.features(tail, behind)
    np.testing.assert_allclose(vectors.inputs, net(jnp.asarray(tokens)), atol=5e-3)  # half precision in between
    head = encoders.head_net(tail)
    params = {"head": {"kernel": jnp.ones((16, 2)), "bias": jnp.arange(2.0)}}
    whole = btl.tree.restructure(
        {**btl.tree.by_paths(tail.params), "head/kernel": params["head"]["kernel"], "head/bias": jnp.arange(2.0)},
        tail.params,
    )
    np.testing.assert_allclose(head(params, vectors.inputs), tail(whole, behind.inputs), atol=1e-4)


@pytest.mark.slow
def test_a_small_run(data_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(task, "encoder", small_encoder)
    rows = Rows(tmp_path / "rows.jsonl", {})
    task.run(CONFIG, rows, data_folder, tmp_path / "cache", progress=False)
    assert {row["method"] for row in rows.rows} == set(METHODS)
    assert all(np.isfinite(row["nll"]) for row in rows.rows)
    assert len(rows.rows) == 2 * len(METHODS)

    def nll(method: str) -> float:
        return float(np.mean([row["nll"] for row in rows.rows if row["method"] == method]))

    # Source and target are the same task here, so that the source beats a new head, tuned alike, on 20 labels.
    assert nll(f"{FILMS}, {names.ADAPTER} {names.MAP}") < nll(f"{names.MINILM}, {names.FROZEN}")
    report = reports.report(CONFIG, rows)
    assert "### custrev with MiniLM, 20 labels" in report
    task.run(CONFIG, rows, tmp_path / "no data here", tmp_path, progress=False)  # nothing is missing


def test_an_unknown_method_is_refused():
    with pytest.raises(SystemExit, match="--minilm has SVM; there are: MiniLM, probe"):
        names.checked_encoder(CONFIG._replace(methods=("SVM",)))


def test_what_is_around_film_reviews_runs_where_their_classes_are_the_targets(tmp_path):
    rows = Rows(tmp_path / "rows.jsonl", {})
    config = names.EncoderConfig(num_labels=(20, 100), methods=names.ENCODER_METHODS)
    reviews, questions = (dict.fromkeys(task.missing(config, rows, target)) for target in names.TARGETS)
    around = {method for method in names.POSTERIORS if method.startswith(FILMS)}
    assert {method for n, method in reviews if n == 100} == set(names.ENCODER_METHODS)
    assert {method for n, method in questions if n == 100} == set(names.ENCODER_METHODS) - around - {names.FILMS_AS_IS}
    assert {method for n, method in reviews if n == 20} == set(names.ENCODER_METHODS) - set(names.DEAR)
