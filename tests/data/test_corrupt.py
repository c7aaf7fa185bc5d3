"""Corruptions against SciPy, Pillow, colorsys and closed forms; their moments, and what grows with the severity."""

from __future__ import annotations

import colorsys
import io
import itertools
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import fft, ndimage

from bayestl import data
from bayestl._types import Batch
from bayestl.data._corrupt import _corrupted, corrupt
from bayestl.data._corrupt_blocks import jpeg
from bayestl.data._corrupt_blur import disc, half_normal, trail

KEY, OTHER = jax.random.key(0), jax.random.key(1)
RANDOM = {"gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "motion_blur", "fog"}
# One shape for all, so that few programs are compiled: odd sides, more than one block of JPEG, neither a square.
SHAPE = (4, 19, 13, 3)


def _smooth_pictures() -> np.ndarray:
    """Pictures with a little of everything, in colours that are neither gray nor full."""
    waves = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), (0, 1, 1, 0))
    waves = waves.mean(-1, keepdims=True) + 0.2 * waves
    pictures = 0.55 + 0.1 * waves / waves.std() + np.array([0.05, 0.0, -0.05])
    return np.clip(np.round(255 * pictures), 0, 255).astype(np.float32) / np.float32(255)


PICTURES = _smooth_pictures()
GRAY = np.full(SHAPE, 0.5, np.float32)


def corrupted(name: str, severity: int, pictures: np.ndarray = PICTURES, key: jax.Array = KEY, **options) -> np.ndarray:
    return np.asarray(corrupt(name, severity, **options).apply(key, pictures))


# ---------------------------------------------------------------- what all of them share


@pytest.mark.parametrize("name", data.CORRUPTIONS)
def test_severities_grow_and_keys_decide(name):
    made = [corrupted(name, severity) for severity in (1, 2, 3, 4, 5)]
    assert all(one.shape == SHAPE and one.dtype == np.float32 for one in made)
    assert all(one.min() >= 0 and one.max() <= 1 for one in made)
    distances = [np.abs(one - PICTURES).mean() for one in made]
    assert distances[0] > 1e-4
    assert np.all(np.diff(distances) > 0), distances
    np.testing.assert_array_equal(corrupted(name, 5), made[4])
    assert np.array_equal(corrupted(name, 5, key=OTHER), made[4]) == (name not in RANDOM)


# Their programs serve here again; fog 4 of ImageNet-C is not denser than 3, and three blurs have arrays of other sizes.
@pytest.mark.parametrize("name", sorted(set(data.CORRUPTIONS) - {"fog", "defocus_blur", "motion_blur", "zoom_blur"}))
def test_severities_of_imagenet_grow(name):
    distances = [np.abs(corrupted(name, severity, like="imagenet_c") - PICTURES).mean() for severity in (1, 2, 3, 4, 5)]
    assert np.all(np.diff(distances) > 0), distances


@pytest.mark.slow
@pytest.mark.parametrize("name", data.CORRUPTIONS)
def test_severities_grow_on_photographs_in_a_compiled_program(name, data_dir):
    with tarfile.open(data_dir / "cifar10_jpeg.tar.gz") as archive:
        members = [m for m in itertools.islice(archive, 4000) if m.name.endswith(".jpg")][::60][:64]
        photos = np.stack([np.asarray(Image.open(archive.extractfile(member))) for member in members])
    distances = []
    for severity in (1, 2, 3, 4, 5):
        program = jax.jit(corrupt(name, severity, maximum=255).apply)
        made = np.asarray(program(KEY, photos))
        np.testing.assert_array_equal(program(KEY, photos), made)
        distances.append(np.abs(made.astype(float) - photos).mean())
    # Severities 1 and 2 take saturation away, and 3 adds to colours that may be full already.
    steps = np.delete(np.diff(distances), 1) if name == "saturate" else np.diff(distances)
    assert np.all(steps > 0), distances


@pytest.mark.parametrize("name", data.CORRUPTIONS)
def test_any_size_dtype_and_key(name):
    transform = corrupt(name, 2)
    for shape, dtype in (((2, 1, 1, 1), jnp.float32), ((3, 5, 40, 1), jnp.bfloat16)):
        pictures = jax.ShapeDtypeStruct(shape, dtype)
        made = jax.eval_shape(transform.apply, jax.random.key(0, impl="rbg"), pictures)
        assert (made.shape, made.dtype) == (shape, dtype)


def test_lengths_scale_with_the_shorter_side():
    blur = corrupt("motion_blur", 5, like="imagenet_c")
    assert blur.constants(224, 300) == (20, 15)
    assert blur.constants(500, 448) == (40, 30)
    assert blur.constants(8, 8) == blur.constants(32, 99) == pytest.approx((20 / 7, 15 / 7))
    assert corrupt("gaussian_noise", 5).constants(448, 448) == (0.1,)


def test_a_batch_in_a_compiled_program():
    transform = data.compose(data.normalize(0.0, 1.0), corrupt("contrast", 2), data.normalize(0.5, 0.5, scale=1))
    photos = np.round(255 * PICTURES).astype(np.uint8)
    batch = Batch(jnp.asarray(photos), jnp.arange(4), jnp.ones(4))
    made = jax.jit(transform)(KEY, batch)
    expected = 2 * corrupted("contrast", 2) - 1
    np.testing.assert_allclose(made.inputs, expected, atol=1e-5)
    np.testing.assert_array_equal(made.targets, batch.targets)
    rounded = corrupted("contrast", 2, photos, maximum=255)
    assert rounded.dtype == np.uint8
    np.testing.assert_allclose(rounded, 255 * corrupted("contrast", 2), atol=0.51)


def test_pictures_with_keys_of_their_own():
    keys, transform = jax.random.split(KEY, 4), corrupt("gaussian_noise", 3)
    made = jax.jit(jax.vmap(lambda key, one: transform.apply(key, one[None])[0]))(keys, PICTURES)
    noise = (np.asarray(made) - PICTURES).reshape(4, -1)
    alike = np.corrcoef(noise)[np.triu_indices(4, 1)]
    assert np.all(np.abs(alike) < 5 / np.sqrt(noise.shape[1]))


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize(("severity", "photons"), [(1, 500), (5, 50)])
def test_shot_noise_has_the_moments_of_poisson_counts(severity, photons):
    counts = photons * corrupted("shot_noise", severity, GRAY).astype(float).ravel()
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
    mean, num = photons / 2, counts.size
    assert abs(counts.mean() - mean) < 5 * np.sqrt(mean / num)
    # Fourth central moment of a Poisson number: mean + 3 mean^2.
    assert abs(counts.var() - mean) < 5 * np.sqrt((mean + 2 * mean**2) / num)


@pytest.mark.parametrize(("name", "scale"), [("gaussian_noise", 0.1), ("speckle_noise", 0.5 * 0.2)])
def test_normal_noise_has_its_variance(name, scale):
    noise = corrupted(name, 5, GRAY).astype(float).ravel() - 0.5
    assert abs(noise.mean()) < 5 * scale / np.sqrt(noise.size)
    assert abs(noise.var() - scale**2) < 5 * scale**2 * np.sqrt(2 / noise.size)


def test_impulse_noise_replaces_its_share():
    made, share = corrupted("impulse_noise", 5, GRAY), 0.07
    for value, expected in ((0.0, share / 2), (1.0, share / 2), (0.5, 1 - share)):
        assert abs((made == value).mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / made.size)


def test_fog_lies_between_none_and_its_density():
    """Of a constant picture x the fog is (x + c p) x / (x + c), with p from 0 to 1 in every picture."""
    density, made = 1.5, corrupted("fog", 5, GRAY).astype(float)
    layer = (made * (0.5 + density) / 0.5 - 0.5) / density
    np.testing.assert_allclose(layer.min((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(layer.max((1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(layer[..., 0], layer[..., 2], atol=1e-5)
    assert np.abs(layer[0] - layer[1]).max() > 0.1
    # Neighbours are alike, as they are not in noise of single pixels.
    assert np.abs(np.diff(layer, axis=1)).mean() < 0.5 * layer.std()


# ---------------------------------------------------------------- blur


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur", "pixelate", "contrast"])
def test_what_is_constant_stays(name):
    constant = np.broadcast_to(np.float32([0.9, 0.2, 0.0]), SHAPE)
    np.testing.assert_allclose(corrupted(name, 5, constant), constant, atol=2e-6)


def test_gaussian_blur_is_scipys():
    for severity, sigma in ((1, 0.4), (5, 1.0)):
        expected = ndimage.gaussian_filter(PICTURES.astype(float), (0, sigma, sigma, 0), mode="nearest", truncate=4.0)
        np.testing.assert_allclose(corrupted("gaussian_blur", severity), expected, atol=2e-6)


def test_defocus_blur_is_scipys_convolution_with_a_disc():
    expected = ndimage.convolve(PICTURES.astype(float), disc(1.6)[None, :, :, None], mode="nearest")
    np.testing.assert_allclose(corrupted("defocus_blur", 5), expected, atol=2e-6)


def test_zoom_blur_is_the_mean_of_scipys_enlargements():
    middle = (np.array(SHAPE[1:3]) - 1) / 2
    enlarged = [
        ndimage.affine_transform(
            PICTURES.astype(float), [1, 1 / zoom, 1 / zoom, 1], [0, *(middle - middle / zoom), 0], order=1
        )
        for zoom in (1, *np.linspace(1, 1.1, 11))
    ]
    np.testing.assert_allclose(corrupted("zoom_blur", 2), np.mean(enlarged, 0), atol=2e-6)


@pytest.mark.parametrize("radius", [0.3, 1.6, 6.5])
def test_a_disc_has_its_area_and_its_spread(radius):
    kernel = disc(radius).astype(float)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    places = np.arange(len(kernel)) - len(kernel) // 2
    assert abs((kernel * places).sum()) < 1e-6
    assert len(kernel) // 2 == max(int(np.ceil(radius - 0.5)), 0)
    if radius > 1:
        assert kernel.max() == pytest.approx(1 / (np.pi * radius**2), rel=0.01)
    if radius > 6:  # a quarter of the radius squared along each axis, and the spread inside of a pixel
        assert (kernel.sum(0) * places**2).sum() == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.01)


def test_a_trail_lies_on_its_line():
    weights, angles = half_normal(9, 2.5), np.float32([-0.7, 0.0, 0.3])
    assert len(weights) == 11  # 4 sigma
    assert len(half_normal(2, 9)) == 5  # twice the radius
    np.testing.assert_allclose(weights[1:] / weights[0], np.exp(-0.5 * (np.arange(1, 11) / 2.5) ** 2), rtol=1e-5)
    kernels = np.asarray(jax.jit(jax.vmap(trail, (0, None)))(angles, weights)).astype(float)
    places, length = np.arange(21) - 10, (weights * np.arange(11)).sum()
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-6)
    # Sharing between neighbours is linear, so that the middle of the kernel is that of the line.
    np.testing.assert_allclose((kernels.sum(2) * places).sum(1), length * np.sin(angles), atol=1e-5)
    np.testing.assert_allclose((kernels.sum(1) * places).sum(1), length * np.cos(angles), atol=1e-5)


# ---------------------------------------------------------------- colours


def test_contrast_by_hand():
    mean = PICTURES.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(corrupted("contrast", 4), mean + 0.3 * (PICTURES - mean), atol=1e-6)


def _in_hsv(change) -> np.ndarray:
    """Every pixel of the first picture after a change of its hue, saturation and value by the standard library."""
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*map(float, x)))) for x in PICTURES[0].reshape(-1, 3)]
    return np.reshape(pixels, SHAPE[1:])


def test_brightness_and_saturation_are_those_of_hsv():
    brighter = _in_hsv(lambda h, s, v: (h, s, min(v + 0.3, 1)))
    np.testing.assert_allclose(corrupted("brightness", 5)[0], brighter, atol=1e-6)
    for severity, factor, more in ((2, 0.1, 0), (5, 2.5, 0.2)):
        expected = _in_hsv(lambda h, s, v, a=factor, b=more: (h, min(a * s + b, 1), v))
        np.testing.assert_allclose(corrupted("saturate", severity)[0], expected, atol=1e-6)


def test_gray_has_no_colour():
    gray = np.repeat(PICTURES[..., :1], 3, -1)
    np.testing.assert_array_equal(corrupted("saturate", 5, gray), gray)
    np.testing.assert_array_equal(corrupted("saturate", 5, gray[..., :1]), gray[..., :1])
    np.testing.assert_allclose(corrupted("brightness", 2, 0 * gray), 0.1, atol=1e-6)


# ---------------------------------------------------------------- blocks


def test_pixelate_is_pillows_box_filter():
    pictures = PICTURES[:1, :16, :10, :1]
    for severity, blocks in ((1, (15, 9)), (5, (10, 6))):
        small = Image.fromarray(pictures[0, :, :, 0]).resize(blocks[::-1], Image.Resampling.BOX)
        expected = np.asarray(small.resize((10, 16), Image.Resampling.BOX))
        np.testing.assert_allclose(corrupted("pixelate", severity, pictures)[0, :, :, 0], expected, atol=2e-6)


def _pillow(picture: np.ndarray, quality: int, **options) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(np.round(255 * picture).astype(np.uint8).squeeze()).save(file, "JPEG", quality=quality, **options)
    return Image.open(file)


def test_a_block_of_jpeg_is_scipys_cosine_transform():
    block = PICTURES[:1, :8, :8, :1]
    for severity, quality in ((1, 80), (5, 40)):
        table = np.reshape(_pillow(block[0], quality).quantization[0], (8, 8))
        coefficients = fft.dctn(255 * block[0, :, :, 0].astype(float) - 128, norm="ortho")
        expected = (fft.idctn(np.round(coefficients / table) * table, norm="ortho") + 128) / 255
        np.testing.assert_allclose(corrupted("jpeg", severity, block)[0, :, :, 0], np.clip(expected, 0, 1), atol=2e-6)
    # At quality 100 all steps are 1: no coefficient moves by more than 1/2, so no pixel by more than 64 / 8 / 2.
    finest = np.asarray(_corrupted(KEY, jnp.asarray(block), (100.0,), 1.0, jpeg))
    assert 0 < np.abs(255 * (finest - block)).max() <= 4


@pytest.mark.parametrize(("severity", "quality"), [(1, 80), (3, 58), (5, 40)])
def test_jpeg_is_pillows_up_to_its_rounding_to_bytes(severity, quality):
    """Pillow rounds colours to bytes before the transform, so that a few coefficients fall to the next multiple."""
    ours = corrupted("jpeg", severity)
    theirs = np.stack([np.asarray(_pillow(picture, quality)) for picture in PICTURES]) / 255
    all_colours = np.stack([np.asarray(_pillow(picture, quality, subsampling=0)) for picture in PICTURES]) / 255
    distance = np.abs(ours - theirs)
    assert np.median(distance) < 1.5 / 255
    assert distance.mean() < 0.3 * np.abs(PICTURES - theirs).mean()
    assert distance.mean() < 0.5 * np.abs(all_colours - theirs).mean()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: corrupt("snow", 1), "name is 'snow'; give one of 'gaussian_noise', 'shot_noise'"),
        (lambda: corrupt("fog", 0), r"severity is 0; give 1 \(mild\) to 5 \(severe\), and the pictures themselves"),
        (lambda: corrupt("fog", 6), "severity is 6; give 1"),
        (lambda: corrupt("fog", 1, like="mnist_c"), "like is 'mnist_c'; give one of 'cifar10_c', 'imagenet_c'"),
        (lambda: corrupt("fog", 1, maximum=0), "maximum is 0; give the value of white"),
        (lambda: corrupted("fog", 1, 255 * PICTURES), "values from .* to .* and maximum is 1; give pictures from 0"),
        (lambda: corrupted("fog", 1, np.nan * PICTURES), "values from nan to nan"),
        (lambda: corrupted("fog", 1, np.ones(SHAPE, np.uint8)), r"the pictures are uint8 and maximum is 1; corrupt\("),
        (lambda: corrupted("fog", 1, PICTURES[0]), r"inputs has shape \(19, 13, 3\); pictures are \(B, height"),
        (lambda: corrupted("fog", 1, PICTURES[:, :0]), "pictures without a pixel cannot be corrupted"),
        (lambda: corrupted("jpeg", 1, PICTURES[..., :2]), "the pictures have 2 channels; jpeg is of RGB or gray"),
    ],
)
def test_what_cannot_be_corrupted(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_pictures_are_numbers():
    with pytest.raises(TypeError, match="inputs has dtype bool; give pictures as floats or as bytes"):
        corrupted("fog", 1, PICTURES > 0.5)
