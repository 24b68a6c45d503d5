import io
import json

import numpy as np
import pytest
from PIL import Image

from kseq.data import ImageEncoder
from kseq.errors import InputError

random = np.random.default_rng(0)
COLOURS = random.integers(0, 256, (13, 17, 3)).astype("uint8")
GREY = COLOURS[..., :1]
grey = ImageEncoder((28, 28), 1, (0.1307,), (0.3081,))
rgb = ImageEncoder((20, 24), 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def file(image: Image.Image, format: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def by_pillow(encoder: ImageEncoder, image: np.ndarray) -> np.ndarray:
    """`image`, floats 0–1, resized by Pillow in float32, a channel at a time."""
    planes = [Image.fromarray(plane.astype("float32")) for plane in np.moveaxis(image, -1, 0)]
    resized = np.stack([plane.resize(encoder.size[::-1], Image.Resampling.BILINEAR) for plane in planes], axis=-1)
    return (resized - encoder.mean) / encoder.std


@pytest.mark.parametrize("size", [(28, 28), (20, 24), (10, 12), (7, 200), (331, 500), (1, 1), (1000, 3)])
def test_images_are_resized_as_by_pillow(size):
    images = random.random((2, *size, 3), "float32")
    encoded = rgb(images)
    assert encoded.shape == (2, 20, 24, 3)
    assert encoded.dtype == np.float32
    for row, image in zip(encoded, images, strict=True):
        np.testing.assert_allclose(row, by_pillow(rgb, image), atol=3e-6)


def test_the_right_size_is_only_scaled():
    images = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1)
    encoder = ImageEncoder((16, 16), 1, (0.5,), (0.25,))
    np.testing.assert_allclose(encoder(images)[0, :, :, 0], (images[0, :, :, 0] / 255 - 0.5) / 0.25, atol=1e-6)


def test_bytes_and_floats_arrays_and_lists_with_and_without_the_channel_agree():
    images = random.integers(0, 256, (3, 8, 9, 1)).astype("uint8")
    expected = grey(images)
    for same in (images[..., 0], list(images), tuple(images[..., 0]), (images / 255).astype("float32"), images / 255):
        np.testing.assert_allclose(grey(same), expected, atol=1e-5)


def test_a_list_holds_images_of_different_sizes():
    images = [random.integers(0, 256, (*size, 3)).astype("uint8") for size in ((5, 6), (20, 24), (99, 30))]
    encoded = rgb(images)
    for row, image in zip(encoded, images, strict=True):
        np.testing.assert_array_equal(row, rgb(image[None])[0])


def test_config_round_trip():
    for encoder in (grey, rgb):
        assert ImageEncoder(**json.loads(json.dumps(encoder.get_config()))) == encoder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 28), 1, (0,), (1,)), r"size \(0, 28\): give \(height, width\)"),
        (((28,), 1, (0,), (1,)), r"size \(28,\): give \(height, width\)"),
        (((28, 28), 4, (0,), (1,)), r"channels 4: give 1 \(grey\) or 3"),
        (((28, 28), 3, (0,), (1, 1, 1)), r"mean \(0,\): give 3 numbers, one a channel"),
        (((28, 28), 1, (0,), (1, 1)), r"std \(1, 1\): give 1 numbers"),
        (((28, 28), 1, (float("nan"),), (1,)), r"mean \(nan,\): give 1 numbers"),
        (((28, 28), 1, (0,), (0,)), r"std \(0,\): values are divided by it"),
    ],
)
def test_encoders_that_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        ImageEncoder(*arguments)


def spoilt(*places: tuple[int, ...]) -> np.ndarray:
    images = np.zeros((4, 28, 28, 1))
    for place in places:
        images[place] = np.nan
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "images: none given; give at least one"),
        (np.zeros((0, 28, 28, 1), "uint8"), "images: none given"),
        (np.zeros((28, 28), "uint8"), r"images: shape \(28, 28\); the model reads \(images, height, width, 1\)"),
        (np.zeros((28, 28, 1), "uint8"), r"images: shape \(28, 28, 1\); the model reads"),
        (np.zeros((2, 28, 28, 3), "uint8"), r"images: shape \(2, 28, 28, 3\); the model reads \(images, height"),
        (np.zeros((2, 0, 28, 1), "uint8"), r"images: shape \(2, 0, 28, 1\)"),
        ([GREY, COLOURS], r"image 1: shape \(13, 17, 3\); the model reads \(height, width, 1\), give that"),
        (np.zeros((2, 28, 28, 1), "int64"), "images: int64 values; give uint8, 0–255, or floats, 0–1"),
        ([GREY, GREY > 9], "image 1: bool values"),
        ([["a"]], "image 0: <U1 values|image 0: shape"),
        (spoilt((2, 3, 3), (3, 0)), "images: 29 values are NaN or infinite, the first in image 2; mend it"),
        ([GREY, np.full((9, 9), np.inf)], "image 1: 81 values are NaN or infinite; mend it or leave it out"),
        (np.full((1, 28, 28, 1), 255.0), "images: floats from 0 to 255; give 0–1, or 0–255 as uint8"),
        ([np.full((9, 9), -1.0)], "image 0: floats from -1 to 1; give 0–1"),
    ],
)
def test_images_that_cannot_be_read(images, message):
    with pytest.raises(InputError, match=message) as caught:
        grey(images)
    assert "\n" not in str(caught.value)


SIXTEEN = random.integers(0, 65_536, (13, 17)).astype("uint16")
PALETTE = Image.fromarray(COLOURS).quantize(16)
ALPHA = np.dstack([COLOURS, GREY])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (file(Image.fromarray(COLOURS)), COLOURS),
        (file(Image.fromarray(GREY[..., 0])), np.repeat(GREY, 3, axis=-1)),
        (file(Image.fromarray(ALPHA)), COLOURS),
        (file(Image.merge("LA", 2 * [Image.fromarray(GREY[..., 0])])), np.repeat(GREY, 3, axis=-1)),
        (file(PALETTE), np.asarray(PALETTE.convert("RGB"))),
        (file(PALETTE, transparency=3), np.asarray(PALETTE.convert("RGB"))),
        (file(Image.fromarray(GREY[..., 0] > 99)), np.repeat(np.where(GREY > 99, 255, 0), 3, axis=-1)),
        (file(Image.fromarray(SIXTEEN)), np.repeat(SIXTEEN[..., None] >> 8, 3, axis=-1)),
    ],
    ids=["colours", "grey", "alpha", "grey and alpha", "palette", "transparent palette", "black and white", "16 bits"],
)
def test_every_kind_of_png(content, expected):
    decoded = rgb.decode(content)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, expected)
    np.testing.assert_allclose(grey.decode(content), expected @ np.array([[0.299], [0.587], [0.114]]), atol=0.5 + 1e-9)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_files(tmp_path, mode):
    smooth = Image.fromarray(COLOURS[:4, :5]).resize((60, 47), Image.Resampling.BICUBIC)
    (tmp_path / "picture.jpg").write_bytes(file(smooth.convert(mode), "JPEG", quality=95, subsampling=0))
    for path in (tmp_path / "picture.jpg", str(tmp_path / "picture.jpg")):
        decoded = rgb.decode(path)
        assert decoded.shape == (47, 60, 3)
        assert np.abs(decoded - np.asarray(smooth.convert(mode).convert("RGB"), "float32")).mean() < 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a PNG or JPEG image; convert it"),
        (b"hello", "not a PNG or JPEG image"),
        (file(Image.fromarray(COLOURS), "GIF"), "not a PNG or JPEG image"),
        (file(Image.fromarray(COLOURS))[:300], "damaged .*[Tt]runcated.*; copy or save it again"),
        (file(Image.fromarray(COLOURS))[:20], "not a PNG or JPEG image|damaged"),
        (file(Image.new("RGB", (9, 12)))[:-13], "damaged"),  # all pixels are there
        (file(Image.fromarray(COLOURS), "JPEG")[:-20], "damaged .*truncated"),
    ],
)
def test_bytes_that_are_no_complete_image(tmp_path, content, message):
    with pytest.raises(InputError, match=f"^image: {message}"):
        rgb.decode(content)
    (tmp_path / "some.png").write_bytes(content)
    with pytest.raises(InputError, match=f"^image '.*some.png': {message}") as caught:
        rgb.decode(tmp_path / "some.png")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"missing.png': cannot be read \(No such file or directory\); give a PNG"):
        rgb.decode(tmp_path / "missing.png")
    with pytest.raises(InputError, match="cannot be read .*Is a directory"):
        rgb.decode(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        rgb.decode("a\0b")
