"""What goes where, what is reported, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from originals import skeleton

from bayestl import nets, pretrained, tree
from bayestl.pretrained import tables
from bayestl.pretrained.tables import Entry

KEY = jax.random.key(0)
TABLE = {
    "conv.weight": Entry("body/kernel", tables.CONV),
    "conv.bias": Entry("body/bias", tables.AS_IS),
    "bn.weight": Entry("norm/scale", tables.AS_IS),
    "bn.bias": Entry("norm/bias", tables.AS_IS),
    "bn.running_mean": Entry("norm/mean", tables.AS_IS),
    "bn.running_var": Entry("norm/var", tables.AS_IS),
    "bn.num_batches_tracked": None,
    "fc.weight": Entry("head/kernel", tables.DENSE),
    "fc.bias": Entry("head/bias", tables.AS_IS),
}
SHAPES = {
    "conv.weight": (4, 3, 2, 2),
    "conv.bias": (4,),
    "bn.weight": (4,),
    "bn.bias": (4,),
    "bn.running_mean": (4,),
    "bn.running_var": (4,),
    "bn.num_batches_tracked": (),
    "fc.weight": (5, 4),
    "fc.bias": (5,),
}


def make(outputs: int = 5) -> pretrained.Backbone:
    rngs = nnx.Rngs(0)
    body, norm = nnx.Conv(3, 4, (2, 2), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
    return pretrained.Backbone({"body": body, "norm": norm, "head": nnx.Linear(4, outputs, rngs=rngs)})


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: np.asarray(rng.uniform(1, 2, shape), np.float32) for name, shape in SHAPES.items()}


def values(net) -> dict[str, np.ndarray]:
    """Copies, by path."""
    return {path: np.array(leaf) for path, leaf in tree.by_paths(nnx.state(net)).items()}


def test_every_number_goes_to_its_place(arrays):
    net = make()
    before = values(net)
    found, report = pretrained.load(net, arrays, TABLE)
    ours = values(found)
    o, i, h, w = 3, 1, 0, 1
    assert ours["body/kernel"][h, w, i, o] == arrays["conv.weight"][o, i, h, w]
    np.testing.assert_array_equal(ours["head/kernel"][:, 2], arrays["fc.weight"][2])
    for name in ("conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "fc.bias"):
        np.testing.assert_array_equal(ours[TABLE[name].path], arrays[name])
    jax.tree.map(np.testing.assert_array_equal, values(net), before)  # what was given stays as it is
    assert report.complete
    assert report.mapped == {name: entry.path for name, entry in TABLE.items() if entry}
    assert report.reshaped == {"conv.weight": "OIHW -> HWIO", "fc.weight": "OI -> IO"}
    assert report.ignored == ("bn.num_batches_tracked",)
    assert (report.new, report.left_out, report.unused, report.missing, report.mismatched) == ((),) * 5
    assert "mapped: 8 arrays, 2 of them in another memory layout\nignored: 1: 'bn.num" in str(report)


def test_a_net_and_a_skeleton_load_like_a_module(arrays):
    expected = values(pretrained.load(make(), arrays, TABLE).net)
    abstract = pretrained.load(nnx.eval_shape(make), arrays, TABLE).net
    net = pretrained.load(nets.from_nnx(make()), arrays, TABLE).net
    jax.tree.map(np.testing.assert_array_equal, values(abstract), expected)
    ours = {path: np.asarray(x) for part in (net.params, net.state) for path, x in tree.by_paths(part).items()}
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_loaded_arrays_are_copies_in_the_networks_dtype(arrays):
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    found = pretrained.load(make(), halves, TABLE).net
    expected = halves["bn.running_mean"].astype(np.float32)
    halves["bn.running_mean"][:] = 0
    assert found.norm.mean[...].dtype == jnp.float32
    np.testing.assert_array_equal(found.norm.mean[...], expected)


def test_what_was_cut_off_or_is_new_is_left_out(arrays):
    body = make().split("norm")[0]
    report = pretrained.load(body, arrays, TABLE).report
    assert report.left_out == ("fc.weight", "fc.bias")
    assert report.complete
    net = make(outputs=2)
    found, report = pretrained.load(net, arrays, TABLE, new=["head/**"])
    assert report.left_out == ("fc.weight", "fc.bias")
    assert report.new == ("head/bias", "head/kernel")
    np.testing.assert_array_equal(found.head.kernel[...], net.head.kernel[...])
    without = {name: array for name, array in arrays.items() if not name.startswith("fc")}
    assert pretrained.load(net, without, TABLE, new="head/**").report.left_out == ()


def test_rename(arrays):
    prefixed = {f"module.{name}": array for name, array in arrays.items()}
    with pytest.raises(ValueError, match=r"every name begins with 'module\.': give rename=lambda name: "):
        pretrained.load(make(), prefixed, TABLE)
    foreign = prefixed | {"ema_decay": np.zeros(1, np.float32)}
    with pytest.raises(ValueError, match=rf"{len(arrays)} of {len(foreign)} names begin with 'module\.': give rename="):
        pretrained.load(make(), foreign, TABLE)
    found = pretrained.load(make(), prefixed, TABLE, rename=lambda name: name.removeprefix("module.")).net
    jax.tree.map(np.testing.assert_array_equal, values(found), values(pretrained.load(make(), arrays, TABLE).net))
    with pytest.raises(ValueError, match=r"rename gives 'x' to two arrays, 'module\.conv\.bias' is the second"):
        pretrained.load(make(), prefixed, TABLE, rename=lambda name: "x")


def test_not_strict_loads_what_fits_and_says_what_did_not(arrays):
    del arrays["conv.bias"]
    arrays["more.weight"] = np.ones((2, 2), np.float32)
    net = make(outputs=2)
    found, report = pretrained.load(net, arrays, TABLE, strict=False)
    assert not report.complete
    assert (report.missing, report.unused) == (("body/bias",), ("more.weight",))
    assert [(m.name, m.path, m.array_shape, m.parameter_shape) for m in report.mismatched] == [
        ("fc.weight", "head/kernel", (5, 4), (4, 2)),
        ("fc.bias", "head/bias", (5,), (2,)),
    ]
    np.testing.assert_array_equal(found.norm.mean[...], arrays["bn.running_mean"])
    np.testing.assert_array_equal(found.head.kernel[...], net.head.kernel[...])
    assert "'fc.bias' of shape (5,) does not fit 'head/bias' of shape (2,)" in str(report)


def test_missing_layers(arrays):
    del arrays["conv.bias"]
    message = r"arrays are missing: the file was cut short.*missing: 1: 'body/bias'.*would be named 'conv\.bias'"
    with pytest.raises(ValueError, match=f"(?s){message}"):
        pretrained.load(make(), arrays, TABLE)


def test_extra_layers(arrays):
    arrays["conv2.weight"] = np.ones((4, 4, 2, 2), np.float32)
    with pytest.raises(ValueError, match=r"(?s)more layers than this network.*unused: 1: 'conv2\.weight'"):
        pretrained.load(make(), arrays, TABLE)


def test_another_number_of_classes(arrays):
    message = (
        r'only the head differs: give new=\["head/\*\*"\].*of shape \(5, 4\) does not fit \'head/kernel\' of shape'
    )
    with pytest.raises(ValueError, match=f"(?s){message}"):
        pretrained.load(make(outputs=2), arrays, TABLE)


@pytest.mark.parametrize(
    ("network", "checkpoint", "message"),
    [
        (pretrained.resnet18, pretrained.resnet50, "probably another architecture"),
        (pretrained.resnet50, pretrained.resnet18, "probably another architecture"),
        (pretrained.cifar_resnet56, pretrained.cifar_resnet20, "of a smaller network"),
        (pretrained.cifar_resnet20, pretrained.cifar_resnet56, "has more layers than this network"),
        (pretrained.vit_ti16, pretrained.resnet50, "no array fits: .*choose its table"),
    ],
)
def test_another_architecture(network, checkpoint, message):
    names = {make: getattr(tables, make.__name__.upper()) for make in (network, checkpoint)}
    shapes = {path: leaf.shape for path, leaf in tree.by_paths(nnx.state(skeleton(checkpoint))).items()}
    rows = [(name, entry) for name, entry in names[checkpoint].items() if entry]
    arrays = {name: _original_order(entry.layout, np.zeros(shapes[entry.path], np.float32)) for name, entry in rows}
    with pytest.raises(ValueError, match=f"(?s)the arrays do not fit the network: .*{message}"):
        pretrained.load(skeleton(network), arrays, names[network])


def _original_order(layout, array):
    if layout is tables.CONV:
        return array.transpose(3, 2, 0, 1)
    return array.T if layout is tables.DENSE else array


def test_another_picture_size():
    net = skeleton(pretrained.vit_ti16, image_size=32, cut="embed")
    arrays = {
        "cls_token": np.zeros((1, 1, 192), np.float32),
        "pos_embed": np.zeros((1, 197, 192), np.float32),
        "patch_embed.proj.weight": np.zeros((192, 3, 16, 16), np.float32),
        "patch_embed.proj.bias": np.zeros(192, np.float32),
    }
    with pytest.raises(ValueError, match="only the position embedding differs: make the network with the image_size"):
        pretrained.load(net, arrays, tables.VIT_TI16)


def test_arrays_of_another_kind(arrays):
    for name, array in (("fc.bias", np.ones(5, np.int8)), ("fc.weight", np.ones((5, 4), bool))):
        with pytest.raises(TypeError, match=rf"arrays\['{name}'\] has dtype {array.dtype}; weights must be floating"):
            pretrained.load(make(), {**arrays, name: array}, TABLE)
    for bad in (np.nan, np.inf, 1e300):  # the last one is too large for float32
        with pytest.raises(ValueError, match=r"arrays\['fc\.bias'\] has values that are not finite"):
            pretrained.load(make(), {**arrays, "fc.bias": np.full(5, bad)}, TABLE)
    with pytest.raises(ValueError, match=r"'fc\.weight' of shape \(20,\) does not fit"):
        pretrained.load(make(), {**arrays, "fc.weight": np.ones(20, np.float32)}, TABLE)


def test_refusals(arrays):
    with pytest.raises(TypeError, match="arrays is list; give a mapping of name to array"):
        pretrained.load(make(), list(arrays.values()), TABLE)
    with pytest.raises(TypeError, match=r"net is dict; give an nnx\.Module"):
        pretrained.load({}, arrays, TABLE)
    with pytest.raises(ValueError, match=r"new: pattern 'top/\*\*' matches nothing; the paths are"):
        pretrained.load(make(), arrays, TABLE, new=["top/**"])
    with pytest.raises(ValueError, match=r"net has no values at 'head/bias', .*make it without nnx\.eval_shape"):
        pretrained.load(nnx.eval_shape(make), arrays, TABLE, new=["head/**"])
    twice = {**TABLE, "linear.bias": TABLE["fc.bias"]}
    with pytest.raises(ValueError, match=r"arrays holds 'head/bias' under two names, 'linear\.bias' is the second"):
        pretrained.load(make(), {**arrays, "linear.bias": arrays["fc.bias"]}, twice)


@pytest.mark.parametrize(
    ("layout", "found", "wanted"),
    [
        (tables.CONV, (5, 3, 2, 4), (2, 4, 3, 5)),
        (tables.DENSE, (5, 3), (3, 5)),
        (tables.DENSE_OF_MAPS, (5, 3 * 49), (3 * 49, 5)),
        (tables.DENSE_OF_CONV, (5, 3, 1, 1), (3, 5)),
        (tables.DEPTHWISE, (3, 2, 5, 1), (3, 2, 1, 5)),
        (tables.ONE_BY_ONE, (1, 1, 3, 5), (3, 5)),
    ],
)
def test_layouts_give_the_same_linear_map(layout, found, wanted):
    """As an einsum on the axes that each layout's name spells out."""
    array = np.arange(np.prod(found), dtype=np.float32).reshape(found)
    ours = layout.apply(array)
    assert ours.shape == wanted
    if layout is tables.DENSE_OF_MAPS:
        maps = np.random.default_rng(0).normal(size=(3, 7, 7))
        expected = array.astype(float) @ maps.reshape(-1)
        np.testing.assert_allclose(maps.transpose(1, 2, 0).reshape(-1) @ ours.astype(float), expected)
    else:
        theirs, mine = layout.name.replace("1", "").split(" -> ")
        np.testing.assert_array_equal(ours.squeeze(), np.einsum(f"{theirs}->{mine}", array.squeeze()))
