"""Saved Gaussians: what comes back, what a file says of itself, and what happens to files that are not right."""

from __future__ import annotations

import json
import os
import pickle
from collections import namedtuple
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from flax import nnx
from gaussian_cases import BY_NAME, compiled, draw_problem, flat
from safetensors.numpy import load_file, save_file

import bayestl as btl
from bayestl import gaussians


def _equal(x: Any, y: Any) -> bool:
    """The same structure, dtypes and bits."""
    if jax.tree.structure(x) != jax.tree.structure(y):
        return False
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def _low_rank(mean: Any) -> gaussians.LowRank:
    """Rank two over any tree, from an orthonormal basis made by numpy."""
    leaves, treedef = jax.tree.flatten(mean)
    ends = np.cumsum([x.size for x in leaves])
    basis = np.split(np.linalg.qr(np.random.default_rng(0).normal(size=(ends[-1], 2)))[0].T, ends[:-1], axis=1)
    basis = [jnp.asarray(q.reshape(2, *x.shape), x.dtype) for q, x in zip(basis, leaves, strict=True)]
    diagonal = [jnp.asarray(0.5, x.dtype) for x in leaves]
    mean, diagonal, basis = (jax.tree.unflatten(treedef, part) for part in (leaves, diagonal, basis))
    return gaussians.LowRank(gaussians.Diagonal(mean, diagonal), basis, jnp.array([-0.5, 2.0]))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prior.safetensors"


# ---------------------------------------------------------------- round trips

Pair = namedtuple("Pair", ["first", "second"])

TREES = {
    "nested dict": {"body": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, "head": jnp.ones(())},
    "keys that look like paths": {
        "a/b": {"c.d": jnp.ones(2)},
        "a": {"b/c.d": jnp.zeros(3)},
        "~": jnp.ones(1),
        "": jnp.ones(2),
    },
    "integers as keys": {0: jnp.ones(2), 10: jnp.ones(3), 2: {"0": jnp.zeros(2)}, -1: jnp.ones(1)},
    "tuples and lists": (jnp.ones(2), [jnp.zeros((1, 2, 1)), {"x": (jnp.ones(3),)}], [[]], ()),
    "more than ten": [jnp.full(2, float(i)) for i in range(12)],
    "none": {"a": None, "b": [None, jnp.ones(2)], "c": {}},
    "one array": jnp.ones(3),
    "text of all kinds": {
        '"quoted"': jnp.ones(1),
        "Größe → μ": jnp.ones(2),
        "\n": jnp.ones(3),
        "__metadata__": jnp.ones(2),
    },
    "empty array": {"a": jnp.ones((0, 3)), "b": jnp.ones(2)},
}


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("build", [lambda mean: gaussians.isotropic(mean, 0.3), _low_rank])
def test_containers_and_keys_round_trip(path, tree, build):
    g = build(TREES[tree])
    gaussians.save(path, g)
    assert _equal(gaussians.load(path), g)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_structure_round_trips(path, name):
    problem = draw_problem(BY_NAME[name], "dict", 21)
    arguments = problem.mean, problem.ingredients
    g = compiled(BY_NAME[name].build, *arguments)(*arguments)
    gaussians.save(path, g)
    loaded = gaussians.load(path)
    assert _equal(loaded, g)
    assert type(loaded) is type(g)
    assert _equal(gaussians.load(path, like=g.mean), g)


def test_a_part_round_trips(path):
    """A marginal, with None at the leaves left out."""
    mean = TREES["nested dict"]
    blocks = gaussians.by_path({"head": gaussians.isotropic(mean, 1.0), "**": _low_rank(mean)})
    for g in (blocks.restrict("body/*"), blocks.restrict(["head", "body/bias"]), _low_rank(mean).restrict("body/**")):
        gaussians.save(path, g)
        assert _equal(gaussians.load(path), g)
        assert _equal(gaussians.load(path, like=g.mean), g)


@pytest.mark.x64
def test_dtypes_round_trip(path):
    g = _low_rank({"single": jnp.ones(3, jnp.float32), "double": jnp.ones(3, jnp.float64)})
    gaussians.save(path, g)
    assert {str(x.dtype) for x in jax.tree.leaves(g)} == {"float32", "float64"}
    assert _equal(gaussians.load(path), g)
    with jax.enable_x64(False), pytest.warns(UserWarning, match="holds float64, which JAX keeps as float32 unless"):
        assert {str(x.dtype) for x in jax.tree.leaves(gaussians.load(path))} == {"float32"}


def test_arrays_in_another_memory_order(path):
    kernel = np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    g = gaussians.Diagonal({"w": kernel}, {"w": np.asfortranarray(kernel + 1)})
    gaussians.save(path, g)
    np.testing.assert_array_equal(gaussians.load(path).mean["w"], kernel)


def test_the_file_is_as_large_as_its_numbers(path):
    """A variance shared by a leaf stays one number; nothing is stored twice."""
    gaussians.save(path, gaussians.isotropic({"w": jnp.ones((100, 100))}, 1.0))
    assert path.stat().st_size < 4 * 10_000 + 2_000


# ---------------------------------------------------------------- like


def _state() -> nnx.State:
    layers = {i: {"w": nnx.Param(jnp.full((i + 1,), float(i)))} for i in (0, 2, 10)}
    return nnx.State({"layers": layers, "scale": nnx.Param(jnp.ones(()))})


def test_a_state_needs_like(path):
    g = _low_rank(_state())
    gaussians.save(path, g)
    with pytest.raises(ValueError, match="in containers other than dict, list and tuple; pass like=params"):
        gaussians.load(path)
    assert _equal(gaussians.load(path, like=_state()), g)
    shapes = jax.eval_shape(lambda: _state())
    assert _equal(gaussians.load(path, like=shapes), g)


def test_a_state_becomes_a_dict(path):
    g = _low_rank(_state())
    gaussians.save(path, g)
    like = {"layers": {i: {"w": jnp.zeros(i + 1)} for i in (0, 2, 10)}, "scale": jnp.zeros(())}
    loaded = gaussians.load(path, like=like)
    assert jax.tree.structure(loaded.mean) == jax.tree.structure(like)
    np.testing.assert_array_equal(flat(loaded.mean), flat(g.mean))


def test_named_tuples_need_like(path):
    g = gaussians.isotropic(Pair(jnp.ones(2), {"x": jnp.zeros(3)}), 1.0)
    gaussians.save(path, g)
    with pytest.raises(ValueError, match="pass like=params"):
        gaussians.load(path)
    assert _equal(gaussians.load(path, like=g.mean), g)


@pytest.mark.parametrize("blocks", [False, True])
def test_a_dense_covariance_follows_the_order_of_like(path, blocks):
    """Keys sorted as text in the file, as integers in the target."""
    root = np.random.default_rng(0).normal(size=(6, 6))
    cov = root @ root.T + np.eye(6)
    text = {"1": jnp.zeros(1), "10": jnp.zeros(3), "2": jnp.zeros(2)}
    g = gaussians.dense(text, cov)
    gaussians.save(path, gaussians.by_path({"**": g}) if blocks else g)
    like = {1: jnp.zeros(1), 2: jnp.zeros(2), 10: jnp.zeros(3)}
    loaded = gaussians.load(path, like=like)
    point = {"1": jnp.array([0.1]), "10": jnp.array([0.2, 0.3, 0.4]), "2": jnp.array([0.5, 0.6])}
    # float32, D = 6
    np.testing.assert_allclose(loaded.log_prob({int(k): v for k, v in point.items()}), g.log_prob(point), rtol=1e-5)


def test_like_that_differs(path):
    gaussians.save(path, _low_rank(TREES["nested dict"]))
    like = {"body": {"kernel": jnp.ones((2, 4)), "bias": jnp.zeros(3)}, "new/head": jnp.ones(2), "neck": jnp.ones(1)}
    with pytest.raises(ValueError, match="file and like differ") as caught:
        gaussians.load(path, like=like)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "missing from the file 'neck', 'new~1head'" in message
    assert "unexpected in the file 'head'" in message
    assert "'body/kernel' has shape (2, 3) in the file against (2, 4) in like" in message
    assert "restrict" in message
    assert "gaussians.by_path(..., like=params)" in message


def test_many_differences_are_cut_short(path):
    gaussians.save(path, gaussians.isotropic({str(i): jnp.ones(2) for i in range(30)}, 1.0))
    with pytest.raises(
        ValueError, match=r"missing from the file .* and 26 more; unexpected in the file .* and 26 more"
    ):
        gaussians.load(path, like={f"x{i}": jnp.ones(2) for i in range(30)})
    with pytest.raises(ValueError, match="; 26 more shapes differ"):
        gaussians.load(path, like={str(i): jnp.ones(3) for i in range(30)})


# ---------------------------------------------------------------- header


def test_header(path):
    mean = {"body": (jnp.ones((2, 3)),), "a/b": {7: jnp.zeros(4)}}
    g = gaussians.by_path({"body/*": _low_rank(mean), "**": gaussians.isotropic(mean, 1.0)})
    gaussians.save(
        path, g, source_task="digits", convention="1/2 variance, floor 1e-3 inside", notes={"rank": 2, "seed": [1]}
    )
    header = gaussians.read_header(path)
    assert header.source_task == "digits"
    assert header.convention == "1/2 variance, floor 1e-3 inside"
    assert header.notes == {"rank": 2, "seed": [1]}
    assert header.package_version == btl.__version__
    assert header.format_version == 2
    assert [p.path for p in header.parameters] == ["a~1b/7", "body/0"]
    assert [p.shape for p in header.parameters] == [(4,), (2, 3)]
    assert {p.dtype for p in header.parameters} == {"float32"}
    assert header.structure.kind == "blocks"
    low_rank, diagonal = header.structure.parts
    assert (low_rank.kind, low_rank.settings, low_rank.parameters) == ("low_rank", {"rank": 2}, ())
    assert [(b.kind, b.parameters) for b in (*low_rank.parts, diagonal)] == [("diagonal", (1,)), ("diagonal", (0,))]


def test_header_by_default(path):
    gaussians.save(path, gaussians.isotropic({"w": jnp.ones(2)}, 1.0))
    header = gaussians.read_header(path)
    assert header.convention == "covariance as stored, no further factor"
    assert (header.source_task, header.notes) == ("", None)


def test_the_layout_is_readable_by_others(path):
    """Plain safetensors: names made of field and path, and a JSON header with typed keys."""
    gaussians.save(path, _low_rank({"a": {0: jnp.ones(2)}, "b/c": jnp.ones(1)}))
    tensors = load_file(path)
    assert set(tensors) == {f"{f}/{p}" for f in ("mean", "diagonal", "basis") for p in ("a/0", "b~1c")} | {
        "eigenvalues"
    }
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "bayestl.gaussian"
    header = json.loads(metadata["header"])
    assert (header["format"], header["version"]) == ("bayestl.gaussian", 2)
    assert header["parameters"][0] == {"path": [["dict", "a"], ["dict", 0]], "shape": [2], "dtype": "float32"}
    base = {"kind": "diagonal", "parameters": [0, 1], "settings": {}}
    assert header["structure"] == {"kind": "low_rank", "parts": [base], "settings": {"rank": 2}}


def test_low_rank_on_low_rank(path):
    """Every level has names of its own; a base inside blocks too."""
    mean = {"a": jnp.ones(2), "b": jnp.zeros(3)}
    inner = _low_rank(mean)
    update = gaussians.LowRank(inner, inner.basis, jnp.array([1.0, 3.0]))
    twice = gaussians.LowRank(update, inner.basis, jnp.array([0.0, 5.0]))
    blocks = gaussians.Blocks((twice.restrict("b"), gaussians.isotropic(mean, 1.0).restrict("a")))
    for g in (twice, blocks):
        gaussians.save(path, g)
        assert _equal(gaussians.load(path), g)
        assert _equal(gaussians.load(path, like=mean), g)
    gaussians.save(path, twice)
    fields = ("mean", "diagonal", "basis", "basis_of_base", "basis_of_base_of_base")
    names = {f"{f}/{p}" for f in fields for p in mean}
    assert set(load_file(path)) == names | {"eigenvalues", "eigenvalues/base", "eigenvalues/base/base"}
    structure = gaussians.read_header(path).structure
    assert (structure.kind, structure.settings, structure.parameters) == ("low_rank", {"rank": 2}, ())
    assert structure.parts[0].parts[0].kind == "low_rank"


def _version_1(path, g: Any, structure: Any, renamed: dict[str, str]) -> None:
    """Rewrite the file of a Gaussian as version 0.1 of the package wrote it."""
    gaussians.save(path, g)

    def change(header, tensors):
        header |= {"version": 1, "structure": structure}
        for new, old in renamed.items():
            tensors[old] = tensors.pop(new)

    _tamper(path, change)


def test_files_of_version_1(path):
    """Low rank on a diagonal was one structure there, low rank on anything else another."""
    mean = {"a": jnp.ones(2), "b": jnp.zeros(3)}
    plain = _low_rank(mean)
    twice = gaussians.LowRank(gaussians.LowRank(plain, plain.basis, jnp.array([1.0, 3.0])), plain.basis, jnp.ones(2))
    own = {"kind": "low_rank", "parameters": [0, 1], "rank": 2}
    nested: Any = {"kind": "low_rank_update", "rank": 2, "base": {"kind": "low_rank_update", "rank": 2, "base": own}}
    renamed = {f"basis{'_of_base' * i}/{p}": f"update{'_of_base' * i}/{p}" for i in (0, 1) for p in mean}
    renamed |= {f"basis_of_base_of_base/{p}": f"basis/{p}" for p in mean}
    dense = gaussians.dense({"a": mean["a"], "b": None}, jnp.array([[2.0, 0.5], [0.5, 1.0]]))
    kernel = {"a": None, "b": jnp.zeros((2, 3))}
    kronecker = gaussians.kronecker(kernel, {"a": None, "b": jnp.eye(2) + 1}, {"a": None, "b": 2 * jnp.eye(3)}).parts[0]
    matrix = {"weights": 1, "bias": None, "steps": [["reshape", [1, 2, 3]]]}
    blocks = {
        "kind": "blocks",
        "blocks": [{"kind": "dense", "parameters": [0]}, {"kind": "kronecker", "parameters": [1], "matrix": matrix}],
    }
    for g, structure, names in (
        (plain, own, {}),
        (twice, nested, renamed),
        (gaussians.Blocks((dense, kronecker)), blocks, {}),
    ):
        _version_1(path, g, structure, names)
        assert gaussians.read_header(path).format_version == 1
        assert _equal(gaussians.load(path), g)


def test_wrong_structures_of_version_1(path):
    mean = {"a": jnp.ones(2), "b": jnp.zeros(3)}
    for structure, message in (
        ({"kind": "low_rank", "parameters": [0, 1]}, "has the settings .., not .'rank'."),
        ({"kind": "low_rank", "parameters": [0, 7], "rank": 2}, "does not cover every parameter exactly once"),
        ({"kind": "low_rank_update", "rank": 2}, "None is not a structure"),
        ({"kind": "blocks", "blocks": 3}, "holds no parts"),
        ({"kind": "banded", "parameters": [0, 1]}, "'banded' is not a structure"),
    ):
        _version_1(path, _low_rank(mean), structure, {})
        with pytest.raises(ValueError, match=message):
            gaussians.load(path)


# ---------------------------------------------------------------- writing


def test_writing_is_all_or_nothing(path, monkeypatch):
    gaussians.save(path, gaussians.isotropic({"w": jnp.ones(2)}, 1.0))
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        gaussians.save(path, gaussians.isotropic({"w": jnp.zeros(2)}, 1.0))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_file_is_replaced(path):
    for scale in (1.0, 2.0):
        gaussians.save(str(path), gaussians.isotropic({"w": jnp.ones(2)}, scale))
    np.testing.assert_array_equal(gaussians.load(str(path)).variance["w"], 4.0)


UNWRITABLE = [
    (lambda: {"w": jnp.ones(2)}, TypeError, "a dict cannot be saved; give a Gaussian made by bayestl.gaussians"),
    (lambda: gaussians.isotropic({True: jnp.ones(2)}, 1.0), TypeError, "keys must be text or integers"),
    (
        lambda: gaussians.Diagonal({"w": jnp.ones(2)}, {"w": jnp.array([1.0, -1.0])}),
        ValueError,
        "diagonal at 'w' has 1 of 2 values <= 0",
    ),
    (
        lambda: jax.vmap(lambda s: gaussians.isotropic({"w": jnp.ones(2)}, s))(jnp.ones(3)),
        ValueError,
        "'diagonal/w' of the Gaussian has shape .*save the Gaussians of a vmap one by one",
    ),
]


@pytest.mark.parametrize(("build", "error", "message"), UNWRITABLE)
def test_what_cannot_be_saved(path, build, error, message):
    with pytest.raises(error, match=message):
        gaussians.save(path, build())
    assert not path.exists()


def test_nothing_is_saved_from_inside_jit(path):
    def program(x):
        gaussians.save(path, gaussians.isotropic({"w": x}, 1.0))
        return x

    with pytest.raises(ValueError, match="holds tracers; save it outside jit, vmap and grad"):
        jax.jit(program)(jnp.ones(2))


def test_constants_are_saved_and_loaded_inside_jit(path):
    g = _low_rank({"w": jnp.ones(3)})

    def program(x):
        gaussians.save(path, g)
        return gaussians.load(path).log_prob({"w": x})

    # float32, D = 3
    np.testing.assert_allclose(jax.jit(program)(jnp.zeros(3)), g.log_prob({"w": jnp.zeros(3)}), rtol=1e-6)


@pytest.mark.parametrize("notes", [jnp.ones(2), float("nan"), {1, 2}])
def test_notes_that_are_no_json(path, notes):
    with pytest.raises((TypeError, ValueError), match="the header cannot be written, notes must be a JSON value"):
        gaussians.save(path, gaussians.isotropic({"w": jnp.ones(2)}, 1.0), notes=notes)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        gaussians.save(tmp_path / "none" / "x.safetensors", gaussians.isotropic({"w": jnp.ones(2)}, 1.0))


# ---------------------------------------------------------------- files that are not right


def _readers():
    return [gaussians.load, gaussians.read_header]


@pytest.mark.parametrize("read", _readers())
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff" * 200, pickle.dumps({"w": 1}), b"\x08" + b"\0" * 7 + b"{}      "]
)
def test_other_files(path, content, read):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"prior\.safetensors.*(cannot be read as a safetensors file|not a Gaussian)"):
        read(path)


@pytest.mark.parametrize("read", _readers())
def test_truncated_files(path, low_rank_file, read):
    """Wherever the file is cut."""
    for length in range(0, len(low_rank_file), 37):
        path.write_bytes(low_rank_file[:length])
        with pytest.raises(ValueError, match=r"cannot be read as a safetensors file: .* or was cut short"):
            read(path)


def test_plain_weights(path):
    save_file({"w": np.ones(2)}, path, {"format": "np"})
    with pytest.raises(ValueError, match=r"not a Gaussian that gaussians\.save wrote: plain weights become one with"):
        gaussians.load(path)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        gaussians.load(tmp_path / "none")
    with pytest.raises(ValueError, match="is a folder"):
        gaussians.load(tmp_path)


@pytest.fixture(scope="module")
def low_rank_file(tmp_path_factory) -> bytes:
    """What is in the file of a low-rank Gaussian with the parameters b, of shape (3,), and w, of shape (4, 5)."""
    path = tmp_path_factory.mktemp("io") / "whole"
    gaussians.save(path, _low_rank({"w": jnp.ones((4, 5)), "b": jnp.ones(3)}))
    return path.read_bytes()


def _tamper(path, change) -> None:
    """Rewrite a file after ``change(header, tensors)``; a returned text replaces the header."""
    with safetensors.safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["header"])
    tensors = load_file(path)
    text = change(header, tensors)
    metadata = {"format": "bayestl.gaussian", "header": text if isinstance(text, str) else json.dumps(header)}
    save_file({name: np.asarray(x, order="C") for name, x in tensors.items()}, path, metadata)


def _set(*keys):
    """A change that sets one value deep inside the header."""
    *inner, last, value = keys

    def change(header, tensors):
        for key in inner:
            header = header[key]
        header[last] = value

    return change


_BASE = ("structure", "parts", 0, "parameters")
HEADERS = {
    "another format": (_set("format", "other"), "its format is not 'bayestl.gaussian'"),
    "newer": (_set("version", 3), "format version 3, and this bayestl reads up to 2: upgrade bayestl"),
    "no version": (_set("version", None), "version None is not a positive integer"),
    "version of truth": (_set("version", True), "version True is not a positive integer"),
    "an unknown field": (_set("extra", 1), "its fields are"),
    "a missing field": (lambda h, t: h.pop("notes"), "its fields are"),
    "no JSON": (lambda h, t: "{", "its header is not valid"),
    "a list": (lambda h, t: "[1]", "its format is not"),
    "NaN": (_set("notes", float("nan")), "NaN is not allowed"),
    "a field twice": (lambda h, t: json.dumps(h)[:-1] + ', "notes": 1}', "a field occurs twice"),
    "deep": (lambda h, t: json.dumps(h)[:-1] + ', "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    "deep containers": (
        lambda h, t: json.dumps(h).replace('"containers": {', '"containers": ' + '{"list": [' * 300 + "{")[:-1]
        + "]}" * 300 + "}",
        "its header is not valid|nested too deeply",
    ),
    "long integers": (lambda h, t: json.dumps(h)[:-1] + ', "x": ' + "9" * 10_000 + "}", "its header is not valid"),
    "text that is none": (_set("source_task", 3), "source_task is not text"),
    "no parameters": (_set("parameters", []), "parameters is not a list of some"),
    "a parameter that is none": (_set("parameters", 0, 7), "7 is not a parameter"),
    "a path of another kind": (_set("parameters", 0, "path", [["file", "w"]]), "is not an entry of a path"),
    "a path without types": (_set("parameters", 0, "path", ["b"]), "'b' is not an entry of a path"),
    "a path of truth": (_set("parameters", 0, "path", [["dict", True]]), "is not an entry of a path"),
    "one path twice": (_set("parameters", 0, "path", [["dict", "w"]]), "two parameters have one path"),
    "negative shape": (_set("parameters", 0, "shape", [-3]), r"\[-3\] is not a shape"),
    "another dtype": (_set("parameters", 0, "dtype", "int32"), "dtype 'int32' is not float32 or float64"),
    "an unhashable dtype": (_set("parameters", 0, "dtype", ["float32"]), "is not float32 or float64"),
    "an unknown structure": (_set("structure", "kind", "banded"), "is not a structure"),
    "a structure that is none": (_set("structure", "low_rank"), "is not a structure"),
    "an unhashable structure": (_set("structure", "kind", ["low_rank"]), "is not a structure"),
    "fields of another structure": (_set("structure", "parameters", [0, 1]), "has the fields"),
    "rank 0": (_set("structure", "settings", "rank", 0), "rank 0 is not a positive integer"),
    "rank of text": (_set("structure", "settings", "rank", "2"), "rank '2' is not a positive integer"),
    "no settings": (_set("structure", "settings", 3), "the settings of structure 'low_rank' are 3"),
    "other settings": (_set("structure", "settings", {}), r"has the settings \[\], not \['rank'\]"),
    "a parameter left out": (_set(*_BASE, [0]), "does not cover every parameter exactly once"),
    "a parameter twice": (_set(*_BASE, [0, 0, 1]), "does not cover every parameter exactly once"),
    "out of range": (_set(*_BASE, [0, 5]), "does not cover every parameter exactly once"),
    "out of order": (_set(*_BASE, [1, 0]), "out of order"),
    "two bases": (lambda h, t: h["structure"]["parts"].append(h["structure"]["parts"][0]), "has 2 parts, not 1"),
    "no base": (_set("structure", "parts", []), "structure 'low_rank' holds no parts"),
    "empty blocks": (_set("structure", {"kind": "blocks", "settings": {}, "parts": []}), "'blocks' holds no parts"),
    "other containers": (_set("containers", {"list": [0, 1]}), "containers and the paths of parameters disagree"),
    "a leaf left out": (_set("containers", {"dict": [["b", 0]]}), "containers and the paths of parameters disagree"),
    "swapped leaves": (_set("containers", {"dict": [["b", 1], ["w", 0]]}), "every parameter once, in order"),
    "a container of another kind": (_set("containers", {"set": [0, 1]}), "is not a container"),
    "keys twice": (_set("containers", {"dict": [["b", 0], ["b", 1]]}), "a key of a dict is given twice"),
    "keys without order": (_set("containers", {"dict": [["b", 0], [1, 1]]}), "its header is not valid"),
    "keys that are none": (_set("containers", {"dict": [[["b"], 0]]}), "are not the entries of a dict"),
    "rank of another size": (_set("structure", "settings", "rank", 3), "'basis/b' is F32 of shape"),
    "another structure": (
        _set("structure", {"kind": "diagonal", "parameters": [0, 1], "settings": {}}),
        r"header and tensors disagree: missing \[\], not announced \['basis/b'",
    ),
    "shape of another size": (_set("parameters", 0, "shape", [4]), r"of shape \(2, 3\); .* of shape \(2, 4\) is"),
    "dtype of another size": (_set("parameters", 0, "dtype", "float64"), "'mean/b' is F32 of shape .3,.; F64 of shape"),
}  # fmt: skip


@pytest.mark.parametrize("read", _readers())
@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_are_not_right(path, low_rank_file, case, read):
    change, message = HEADERS[case]
    path.write_bytes(low_rank_file)
    _tamper(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def _edit(name, edit):
    def change(header, tensors):
        tensors[name] = np.asarray(edit(tensors[name].copy()))

    return change


def _put(index, value):
    def edit(x):
        x[index] = value
        return x

    return edit


LOW_RANK_VALUES = {
    "mean": (_edit("mean/b", _put(0, np.nan)), "mean at 'b' has 1 non-finite of 3 values"),
    "diagonal": (_edit("diagonal/w", _put((), -1.0)), "diagonal at 'w' has 1 of 1 values <= 0"),
    "infinite variance": (_edit("diagonal/w", _put((), np.inf)), "diagonal at 'w' has 1 non-finite of 1 values"),
    "eigenvalues": (_edit("eigenvalues", _put(0, -1.0)), "eigenvalues must be greater than -1; the smallest is -1"),
    "infinite eigenvalue": (_edit("eigenvalues", _put(0, np.inf)), "eigenvalues has 1 non-finite of 2 values"),
    "basis": (_edit("basis/w", lambda x: 2 * x), "the columns of basis are not orthonormal: off by"),
    "collinear basis": (_edit("basis/w", _put(0, 0.0)), "the columns of basis are not orthonormal: off by"),
    "infinite basis": (_edit("basis/w", _put((0, 0, 0), np.inf)), "basis at 'w' has 1 non-finite of 40 values"),
    "half precision": (_edit("mean/b", lambda x: x.astype(np.float16)), "'mean/b' is F16 of shape .3,.; F32 of shape"),
    "integers": (_edit("diagonal/w", lambda x: x.astype(np.int32)), "'diagonal/w' is I32 .*F32 or F64 of shape"),
    "another shape": (
        _edit("diagonal/w", lambda x: np.ones(20, np.float32)),
        r"shape \(20,\); .* one that broadcasts to \(4, 5\) is",
    ),
    "a tensor more": (lambda h, t: t.update(other=np.ones(2)), r"missing \[\], not announced \['other'\]"),
    "a tensor less": (lambda h, t: t.pop("eigenvalues"), r"missing \['eigenvalues'\], not announced \[\]"),
}


@pytest.mark.parametrize("case", LOW_RANK_VALUES)
def test_values_that_no_gaussian_has(path, low_rank_file, case):
    change, message = LOW_RANK_VALUES[case]
    path.write_bytes(low_rank_file)
    _tamper(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        gaussians.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_put((0, 1), 0.5), "cholesky is not lower triangular"),
        (_put((1, 1), 0.0), "the diagonal of cholesky has 1 of 2 values <= 0"),
        (_put((1, 0), np.nan), "cholesky has 1 non-finite of 4 values"),
    ],
)
@pytest.mark.parametrize("blocks", [False, True])
def test_cholesky_factors_that_are_none(path, edit, message, blocks):
    g = gaussians.dense({"w": jnp.ones(2)}, jnp.eye(2))
    gaussians.save(path, gaussians.by_path({"**": g}) if blocks else g)
    _tamper(path, _edit("cholesky/0" if blocks else "cholesky", edit))
    with pytest.raises(ValueError, match=message):
        gaussians.load(path)


def test_lost_rank_is_no_mistake(path):
    """Zero columns beside others, also when equal eigenvalues have mixed them."""
    g = _low_rank({"w": jnp.ones(3)})
    turn = jnp.array([[0.6, 0.8], [-0.8, 0.6]])
    mixed = {"w": turn @ jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])}
    for basis, lam in (({"w": g.basis["w"].at[0].set(0)}, jnp.array([0.0, 2.0])), (mixed, jnp.zeros(2))):
        lost = gaussians.LowRank(g.base, basis, lam)
        gaussians.save(path, lost)
        assert _equal(gaussians.load(path), lost)
    # A zero column under an eigenvalue that counts would make the determinant wrong.
    wrong = gaussians.LowRank(g.base, {"w": g.basis["w"].at[0].set(0)}, jnp.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="the columns of basis are not orthonormal"):
        gaussians.save(path, wrong)


def test_nothing_is_unpickled():
    """The reader's modules never import what could run code from a file."""
    import ast
    from pathlib import Path

    folder = Path(gaussians.__file__).parent
    names = ("_io", "_header", "_header_1", "../_containers", "_stored", "_storable", "_target")
    for name in names:
        nodes = ast.walk(ast.parse((folder / f"{name}.py").read_text()))
        imported = {a.name for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names}
        assert not imported & {"pickle", "marshal", "shelve", "joblib", "importlib"}
