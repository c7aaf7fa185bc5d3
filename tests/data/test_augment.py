"""Augmentation pixel by pixel against SciPy, Keras and Pillow, the laws of what is drawn, and what is left alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage, stats

from bayestl import LogJoint, data, fit, infer, likelihoods, nets
from bayestl._types import Batch
from bayestl.data._augment import compose, normalize
from bayestl.data._augment_affine import AffineParameters, affine
from bayestl.data._augment_colour import ColorParameters, color_jitter
from bayestl.data._augment_crop import CropParameters, random_crop

MODES = ["nearest", "constant", "reflect", "wrap"]
# Coordinates carry a float32 error of a few 1e-5 pixels, and neighbours of noise differ by up to 255.
TOLERANCE = 4e-4 * 255

ORIGINAL = {"rotation": 40, "width_shift": 0.2, "height_shift": 0.2, "shear": 0.2, "zoom": 0.2, "horizontal_flip": True}
WILD = {"rotation": 180, "width_shift": 1, "height_shift": 1, "shear": 60, "zoom": (0.5, 3.0), "vertical_flip": True}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def batch_of(pictures: np.ndarray) -> Batch:
    num = len(pictures)
    return Batch(jnp.asarray(pictures), jnp.arange(num), jnp.arange(num) % 2)


TRANSFORMS = [
    affine(**ORIGINAL),
    affine(**WILD, fill_mode="wrap"),
    random_crop(padding=4),
    random_crop(size=(7, 9)),
    color_jitter(brightness=0.4, contrast=0.4, saturation=0.4),
    normalize(0.5, 0.5),
    compose(
        random_crop(2), affine(rotation=10), color_jitter(contrast=0.1), normalize((0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    ),
    compose(),
]
IDS = ["affine", "wild", "crop", "smaller crop", "colour", "normalize", "compose", "nothing"]
each_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=IDS)


# ---------------------------------------------------------------- the affine map


def sampling_matrix(p: dict[str, float], height: int, width: int) -> np.ndarray:
    """(row, column, 1) of the new picture to that of the old one, in float64, from the definition."""

    def at_centre(matrix: np.ndarray) -> np.ndarray:
        there = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
        return there @ matrix @ np.linalg.inv(there)

    a, s = np.deg2rad(p["rotation"]), np.deg2rad(p["shear"])
    rotation = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    shift = np.array([[1, 0, p["width_shift"] * width], [0, 1, p["height_shift"] * height], [0, 0, 1]])
    shear = np.array([[1, -np.sin(s), 0], [0, np.cos(s), 0], [0, 0, 1]])
    zoom = np.diag([p["column_zoom"], p["row_zoom"], 1])
    flips = np.diag([-1 if p["horizontal_flip"] else 1, -1 if p["vertical_flip"] else 1, 1])
    exchange = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    return exchange @ at_centre(rotation @ shift @ shear @ zoom @ flips) @ exchange


def one(parameters: AffineParameters, k: int) -> dict[str, float]:
    return {name: float(value[k]) for name, value in parameters._asdict().items()}


@pytest.mark.parametrize("shape", [(12, 33, 33, 3), (12, 20, 31, 1), (4, 1, 9, 1)])
@pytest.mark.parametrize("settings", [ORIGINAL, WILD], ids=["original recipe", "wild"])
@pytest.mark.parametrize("fill_mode", MODES)
def test_pixels_are_scipys(shape, settings, fill_mode):
    pictures, transform = noise(*shape), affine(**settings, fill_mode=fill_mode, fill_value=17)
    parameters = transform.draw(jax.random.key(1), shape)
    found = np.asarray(jax.jit(transform.apply)(parameters, pictures))
    assert found.dtype == np.float32
    for k, picture in enumerate(pictures):
        matrix = sampling_matrix(one(parameters, k), *shape[1:3])
        wanted = np.stack(
            [
                ndimage.affine_transform(
                    plane.astype(float), matrix[:2, :2], matrix[:2, 2], order=1, mode=fill_mode, cval=17
                )
                for plane in np.moveaxis(picture, -1, 0)
            ],
            -1,
        )
        where = np.moveaxis(np.indices(shape[1:3]), 0, -1) @ matrix[:2, :2].T + matrix[:2, 2]
        # Where rounding decides whether a place lies inside, either side is right.
        border = np.array(shape[1:3]) - 1
        clear = ((np.abs(where) > 2e-3) & (np.abs(where - border) > 2e-3)).all(-1) | (
            fill_mode in ("nearest", "reflect")
        )
        if fill_mode == "wrap":  # the period ends in a jump
            turns = where / np.maximum(border, 1)
            clear &= (np.abs(turns - np.round(turns)) * border > 2e-3).all(-1)
        assert clear.any() or min(shape[1:3]) == 1
        np.testing.assert_allclose(found[k][clear], wanted[clear], atol=TOLERANCE)


@pytest.mark.parametrize("fill_mode", MODES)
@pytest.mark.filterwarnings("ignore:Please import .affine_transform.")
def test_pixels_are_keras(fill_mode, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    image = pytest.importorskip("keras.src.legacy.preprocessing.image")
    size, num = 32, 16
    pictures, transform = noise(num, size, size, 3), affine(**ORIGINAL, vertical_flip=True, fill_mode=fill_mode)
    parameters = transform.draw(jax.random.key(2), pictures.shape)
    found = np.asarray(jax.jit(transform.apply)(parameters, pictures))
    generator = image.ImageDataGenerator(fill_mode=fill_mode)
    off = 0
    for k, picture in enumerate(pictures):
        p = one(parameters, k)
        settings = {
            "theta": p["rotation"],
            "tx": p["width_shift"] * size,  # Keras 3 exchanges the axes after this
            "ty": p["height_shift"] * size,
            "shear": p["shear"],
            "zx": p["column_zoom"],
            "zy": p["row_zoom"],
            "flip_horizontal": p["horizontal_flip"],
            "flip_vertical": p["vertical_flip"],
        }
        wanted = generator.apply_transform(picture.astype(np.float64), settings)
        off += int((np.abs(found[k] - wanted) > TOLERANCE).any(-1).sum())
    # In these modes rounding decides about places within .001 of the border: a few of 16 x 1024.
    assert off <= (0 if fill_mode in ("nearest", "reflect") else 20)


@pytest.mark.parametrize("fill_mode", MODES)
def test_nothing_drawn_is_nothing_done(fill_mode):
    pictures = noise(4, 9, 14, 3)
    out = jax.jit(affine(fill_mode=fill_mode, fill_value=99))(jax.random.key(0), batch_of(pictures))
    np.testing.assert_array_equal(out.inputs, pictures)


def test_flips_and_shifts_of_whole_pixels_are_exact():
    picture, zero = noise(1, 4, 8, 2), jnp.zeros(1)
    transform, no = affine(fill_mode="constant", fill_value=-1), jnp.zeros(1, bool)
    base = AffineParameters(zero, zero, zero, zero, zero + 1, zero + 1, no, no)
    apply = jax.jit(transform.apply)
    np.testing.assert_array_equal(apply(base._replace(horizontal_flip=~no), picture), picture[:, :, ::-1])
    np.testing.assert_array_equal(apply(base._replace(vertical_flip=~no), picture), picture[:, ::-1])
    moved = np.asarray(apply(base._replace(width_shift=zero + 0.25), picture))
    np.testing.assert_array_equal(moved[:, :, :6], picture[:, :, 2:])
    assert (moved[:, :, 6:] == -1).all()
    moved = np.asarray(apply(base._replace(height_shift=zero - 0.25), picture))
    np.testing.assert_array_equal(moved[:, 1:], picture[:, :3])
    assert (moved[:, 0] == -1).all()


def test_what_affine_draws():
    transform = affine(rotation=40, width_shift=0.2, height_shift=0.1, shear=5, zoom=(0.5, 2.0), horizontal_flip=True)
    num = 20_000
    drawn = transform.draw(jax.random.key(3), (num, 8, 8, 1))
    ranges = {
        "rotation": (-40, 40),
        "width_shift": (-0.2, 0.2),
        "height_shift": (-0.1, 0.1),
        "shear": (-5, 5),
        "column_zoom": (0.5, 2),
        "row_zoom": (0.5, 2),
    }
    numbers = np.stack([np.asarray(getattr(drawn, name), np.float64) for name in ranges])
    for values, (low, high) in zip(numbers, ranges.values(), strict=True):
        assert low <= values.min() < values.max() <= high
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-4
    # Correlations of independent draws have standard error 1 / sqrt(num); 15 of them stay within 4.5.
    assert np.abs(np.corrcoef(numbers) - np.eye(6)).max() < 4.5 / np.sqrt(num)
    assert abs(float(drawn.horizontal_flip.mean()) - 0.5) < 4.5 * 0.5 / np.sqrt(num)
    assert not drawn.vertical_flip.any()


# ---------------------------------------------------------------- crops


@pytest.mark.parametrize("fill_mode", MODES)
@pytest.mark.parametrize("size", [None, (5, 11)])
def test_crops_are_slices_of_padded_pictures(fill_mode, size):
    pictures, transform = noise(6, 8, 10, 3), random_crop(3, size=size, fill_mode=fill_mode, fill_value=7)
    height, width = size or (8, 10)
    parameters = transform.draw(jax.random.key(0), pictures.shape)
    found = np.asarray(jax.jit(transform.apply)(parameters, pictures))
    names = {"nearest": "edge", "constant": "constant", "reflect": "symmetric", "wrap": "wrap"}
    extra = {"constant_values": 7} if fill_mode == "constant" else {}
    padded = np.pad(pictures, ((0, 0), (3, 3), (3, 3), (0, 0)), mode=names[fill_mode], **extra)
    for k in range(6):
        row, column = int(parameters.row[k]), int(parameters.column[k])
        np.testing.assert_array_equal(found[k], padded[k, row : row + height, column : column + width])


def test_every_place_is_as_likely():
    num = 18_000
    drawn = random_crop(1, size=(2, 4)).draw(jax.random.key(5), (num, 4, 4, 1))  # rows 0 to 4, columns 0 to 2
    counts = np.zeros((5, 3))
    np.add.at(counts, (np.asarray(drawn.row), np.asarray(drawn.column)), 1)
    assert counts.sum() == num
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4


# ---------------------------------------------------------------- colours


def test_colours_by_their_definition():
    pictures, num = noise(16, 6, 5, 3), 16
    transform = color_jitter(brightness=0.5, contrast=0.6, saturation=0.7)
    parameters = transform.draw(jax.random.key(0), pictures.shape)
    luma = np.array([0.299, 0.587, 0.114])
    found = np.asarray(jax.jit(transform.apply)(parameters, pictures))
    for k in range(num):
        b, c, s = (float(factor[k]) for factor in parameters)
        x = np.clip(pictures[k] * b, 0, 255)
        x = np.clip((x @ luma).mean() * (1 - c) + c * x, 0, 255)
        x = np.clip((x @ luma)[..., None] * (1 - s) + s * x, 0, 255)
        # float32 carries 255 with an error of 1.5e-5; a handful of operations follow
        np.testing.assert_allclose(found[k], x, atol=3e-4)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
def test_colours_are_pillows(name, factor):
    enhance = pytest.importorskip("PIL.ImageEnhance")
    image = pytest.importorskip("PIL.Image")
    picture = noise(1, 12, 10, 3)
    kind = {"brightness": enhance.Brightness, "contrast": enhance.Contrast, "saturation": enhance.Color}[name]
    wanted = np.asarray(kind(image.fromarray(picture[0])).enhance(factor), np.float64)
    parameters = ColorParameters(jnp.ones(1), jnp.ones(1), jnp.ones(1))._replace(**{name: jnp.array([factor])})
    found = np.asarray(color_jitter().apply(parameters, picture))[0]
    # Pillow rounds gray (half a level, times |1 - factor|) and cuts the result (one level)
    np.testing.assert_allclose(found, wanted, atol=1.5)


def test_what_colours_draw():
    num = 20_000
    drawn = color_jitter(brightness=0.2, contrast=1.0, saturation=0.0).draw(jax.random.key(1), (num, 4, 4, 3))
    assert stats.kstest(drawn.brightness, stats.uniform(0.8, 0.4).cdf).pvalue > 1e-4
    assert stats.kstest(drawn.contrast, stats.uniform(0, 2).cdf).pvalue > 1e-4
    np.testing.assert_array_equal(drawn.saturation, 1)
    assert abs(np.corrcoef(drawn.brightness, drawn.contrast)[0, 1]) < 4.5 / np.sqrt(num)


def test_gray_pictures_and_pictures_up_to_one():
    gray = noise(3, 4, 4, 1) / np.float32(255)
    out = color_jitter(brightness=1, saturation=1, maximum=1)(jax.random.key(0), batch_of(gray)).inputs
    assert out.shape == gray.shape
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    assert float(out.max()) > 0.5


# ---------------------------------------------------------------- normalisation


@pytest.mark.parametrize(
    ("mean", "std", "scale"),
    [(0.5, 0.5, 1 / 255), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255), ([1, 2, 3], 2, 1)],
)
def test_normalize(mean, std, scale):
    pictures = noise(2, 3, 4, 3)
    found = normalize(mean, std, scale=scale).apply(pictures)
    wanted = (pictures.astype(np.float64) * scale - np.array(mean)) / np.array(std)
    # two roundings of numbers as large as the larger summand
    size = np.abs(pictures * scale / np.array(std)) + np.abs(np.array(mean) / np.array(std))
    assert found.dtype == jnp.float32
    assert (np.abs(found - wanted) <= 3 * size * np.finfo(np.float32).eps).all()
    np.testing.assert_array_equal(normalize(mean, std, scale=scale)(None, batch_of(pictures)).inputs, found)


# ---------------------------------------------------------------- laws of all of them

PROGRAMS = {id(transform): jax.jit(transform) for transform in TRANSFORMS}
DRAWS = {"affine", "wild", "crop", "smaller crop", "colour", "compose"}


@each_transform
def test_only_pictures_are_touched_and_become_float32(transform):
    batch = batch_of(noise(4, 12, 12, 3))
    out = PROGRAMS[id(transform)](jax.random.key(0), batch)
    np.testing.assert_array_equal(out.targets, batch.targets)
    np.testing.assert_array_equal(out.weights, batch.weights)
    assert out.inputs.dtype == (jnp.uint8 if transform == compose() else jnp.float32)
    assert len(out.inputs) == 4
    assert jax.eval_shape(transform, jax.random.key(0), batch._replace(weights=None)).weights is None


@pytest.mark.parametrize(("name", "transform"), [*zip(IDS, TRANSFORMS, strict=True)], ids=IDS)
def test_the_same_key_gives_the_same_and_every_picture_its_own(name, transform):
    same = batch_of(np.repeat(noise(1, 12, 12, 3), 4, axis=0))
    program = PROGRAMS[id(transform)]
    first, again, other = (np.asarray(program(jax.random.key(k), same).inputs) for k in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() == (name in DRAWS)
    different = len(np.unique(np.concatenate([first, other]).reshape(8, -1), axis=0))
    assert different > 4 if name in DRAWS else different == 1  # of crops, some may be alike by chance


@each_transform
def test_one_program_for_all_keys_and_under_vmap(transform):
    batch, keys = batch_of(noise(4, 12, 12, 3)), jax.random.split(jax.random.key(0), 3)
    program = PROGRAMS[id(transform)]
    alone = [np.asarray(program(key, batch).inputs) for key in keys]
    assert program._cache_size() == 1
    together = jax.jit(jax.vmap(lambda key: transform(key, batch).inputs))(keys)
    # The same numbers in another program: coordinates may round the other way, at most at the ends of a period.
    assert np.isclose(together, np.stack(alone), atol=TOLERANCE).mean() > 0.999


@each_transform
def test_made_again_it_is_the_same_static_argument(transform):
    kinds = {type(made).__name__: type(made) for made in TRANSFORMS}
    again = eval(repr(transform), kinds)
    assert again is not transform
    assert (again, hash(again)) == (transform, hash(transform))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32])
def test_other_dtypes_give_the_pixels_of_uint8(dtype):
    transform, pictures = affine(**ORIGINAL), noise(4, 12, 12, 3)
    wanted = PROGRAMS[id(TRANSFORMS[0])](jax.random.key(0), batch_of(pictures)).inputs
    found = jax.jit(transform)(jax.random.key(0), batch_of(pictures.astype(dtype))).inputs
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


def test_gradients_pass_through_the_pictures():
    transform = compose(affine(**ORIGINAL), normalize(0.5, 0.5))
    pictures = jnp.asarray(noise(2, 8, 8, 3), jnp.float32)
    grad = jax.jit(jax.grad(lambda x: transform(jax.random.key(0), Batch(x, None)).inputs.sum()))(pictures)
    assert bool(jnp.isfinite(grad).all())
    assert bool((grad != 0).any())


def test_compose_goes_in_order_with_a_key_for_each():
    batch, key = batch_of(noise(3, 8, 8, 3)), jax.random.key(4)
    crop, turn = random_crop(2), color_jitter(contrast=0.3)
    wanted = turn(jax.random.fold_in(key, 1), crop(jax.random.fold_in(key, 0), batch))
    np.testing.assert_array_equal(compose(crop, turn)(key, batch).inputs, wanted.inputs)


def test_a_fit_takes_it():
    net = nets.from_function(lambda p, x: x.reshape(len(x), -1) @ p["w"], {"w": jnp.zeros((108, 2))})
    joint = LogJoint(net, likelihoods.categorical(), None, num_data=20)
    train, method = data.arrays(noise(20, 6, 6, 3), np.arange(20) % 2), infer.map_estimate(joint, optax.sgd(1e-3))

    def fitted():
        options = {"steps": 3, "batch_size": 8, "progress": False}
        transform = compose(random_crop(1), normalize(0.5, 0.5))  # made again, and not compiled again
        return fit(jax.random.key(0), method, net.params, train, transform=transform, **options).params["w"]

    first = fitted()
    assert bool(jnp.isfinite(first).all() & (first != 0).any())
    np.testing.assert_array_equal(first, fitted())


@pytest.mark.x64
def test_float32_in_a_session_with_x64():
    batch = batch_of(noise(2, 12, 12, 3))
    for transform in TRANSFORMS[:-1]:
        assert jax.eval_shape(transform, jax.random.key(0), batch).inputs.dtype == jnp.float32


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: affine(rotation=-1), r"rotation is -1; give a number of degrees in \[0, 180\], 0 for none"),
        (lambda: affine(rotation=True), "rotation is True; give a number of degrees"),
        (lambda: affine(width_shift=1.5), r"width_shift is 1.5; give a number of widths in \[0, 1\]"),
        (lambda: affine(height_shift=float("nan")), "height_shift is nan; give a number of heights"),
        (lambda: affine(shear=90), r"shear is 90; give a number of degrees in \[0, 89\]"),
        (lambda: affine(zoom=1.0), r"zoom is 1.0; give a number in \[0, 1\), or a pair \(low, high\)"),
        (lambda: affine(zoom=(2.0, 1.0)), r"zoom is \(2.0, 1.0\); give a number"),
        (lambda: affine(zoom=(0.0, 1.0)), r"zoom is \(0.0, 1.0\)"),
        (
            lambda: affine(fill_mode="mirror"),
            "fill_mode is 'mirror'; give one of 'nearest', 'constant', 'reflect', 'wrap'",
        ),
        (lambda: affine(fill_value=float("inf")), "fill_value is inf; give a finite number"),
        (lambda: random_crop(-1), "padding is -1; give a whole number of pixels"),
        (lambda: random_crop(1.5), "padding is 1.5; give a whole number of pixels"),
        (lambda: random_crop(size=(0, 3)), r"size is \(0, 3\); give \(height, width\) in pixels"),
        (lambda: random_crop(fill_mode="edge"), "fill_mode is 'edge'; give one of"),
        (lambda: color_jitter(brightness=1.5), r"brightness is 1.5; give a number of shares in \[0, 1\]"),
        (lambda: color_jitter(maximum=0), "maximum is 0; give the value of white, 255 or 1"),
        (lambda: normalize(0.5, 0.0), "std is 0.0; give numbers > 0"),
        (lambda: normalize((0.1, 0.2), (1, 1, 1)), "mean has 2 numbers and std 3; give one for each channel"),
        (lambda: normalize(float("nan"), 1), "mean is nan; give finite numbers"),
        (lambda: normalize((), 1), r"mean is \(\); give finite numbers"),
        (lambda: normalize(0, 1, scale=0), "scale is 0; give a number > 0, such as 1 / 255 or 1"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("transform", TRANSFORMS[:-1], ids=IDS[:-1])
def test_what_is_no_batch_of_pictures(transform):
    with pytest.raises(
        ValueError, match=r"inputs has shape \(4, 12, 12\); pictures are \(B, height, width, channels\)"
    ):
        transform(jax.random.key(0), batch_of(noise(4, 12, 12)))
    with pytest.raises(TypeError, match=r"inputs is a dict; pictures are one array .*write a transform\(key, batch\)"):
        transform(jax.random.key(0), Batch({"left": jnp.zeros((2, 3, 3, 1))}, None))


def test_pictures_that_do_not_fit():
    with pytest.raises(
        ValueError, match=r"size \(9, 5\) is larger than pictures of 6 x 6 with padding=1; give a smaller"
    ):
        random_crop(1, size=(9, 5))(jax.random.key(0), batch_of(noise(1, 6, 6, 3)))
    with pytest.raises(ValueError, match="mean and std are for 3 channels, the pictures have 1"):
        normalize((0, 0, 0), 1).apply(noise(1, 6, 6, 1))
    with pytest.raises(ValueError, match="the pictures have 4 channels; colours are jittered in RGB or gray pictures"):
        color_jitter()(jax.random.key(0), batch_of(noise(1, 6, 6, 4)))
    with pytest.raises(TypeError, match="transform 1 is a int; give functions"):
        compose(affine(), 3)


def test_crop_parameters_are_whole_numbers():
    drawn = random_crop(2).draw(jax.random.key(0), (5, 4, 4, 1))
    assert isinstance(drawn, CropParameters)
    assert drawn.row.dtype == drawn.column.dtype == jnp.int32
