"""Images as raw inputs: the graphs that read them, the images that verify these, and what `kseq predict` reads."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kseq.data import ImageEncoder
from kseq.data.images import GREY
from kseq.errors import InputError
from kseq.export.classification import Classification, Trial
from kseq.export.verification import BATCHES

MAGIC = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff"}  # how their bytes begin


class Images(Classification):
    """What a model reads whose card has the `"images"` of an `ImageEncoder`; see `kseq.export.raw_input`."""

    kind = "image"
    signature = "encoded"

    def __init__(self, card: dict):
        super().__init__(card)
        self.encoder = ImageEncoder(**card["images"])
        self.shape = (*self.encoder.size, self.encoder.channels)
        self.lengths = (max(self.encoder.size), 2 * max(self.encoder.size))

    def read(self, arguments: list[str]) -> list[bytes]:
        """The content of the files, if all of them are images."""
        if not arguments:
            raise InputError("images: none given; give at least one PNG or JPEG file")
        for path in arguments:
            self.encoder.decode(path)
        return [Path(path).read_bytes() for path in arguments]

    def encode(self, contents: list[bytes]) -> np.ndarray:
        """Model inputs `(images, height, width, channels)`."""
        return self.encoder([self.encoder.decode(content) for content in contents])

    def graphs(self) -> dict:
        """`serving_default`: uint8 `(batch, height, width, channels)`, any size; `encoded`: PNG or JPEG `(batch,)`."""
        import tensorflow as tf

        encode, decode = image_graph(self.encoder), decoding_graph(self.encoder)

        def read(contents: tf.Tensor) -> tf.Tensor:
            each = tf.TensorSpec(self.shape, tf.float32)
            return tf.map_fn(lambda content: encode(decode(content)[None])[0], contents, fn_output_signature=each)

        return {
            "serving_default": (tf.TensorSpec([None, None, None, None], tf.uint8, name="images"), encode),
            "encoded": (tf.TensorSpec([None], tf.string, name="images"), read),
        }

    def trials(self) -> Iterator[Trial]:
        """Random images at two batch sizes, smaller and larger than the model reads them, as arrays and as PNG."""
        random = np.random.default_rng(1)
        height, width, channels = self.shape
        sizes = ((height // 2 + 1, width // 2 + 1), (2 * height + 1, width + 2))
        for batch, size in zip(BATCHES, sizes, strict=True):
            images = random.integers(0, 256, (batch, *size, channels)).astype("uint8")
            yield Trial("serving_default", images.shape, images, self.encoder(images))
            uneven = [image[: size[0] - i] for i, image in enumerate(images[:height])]  # each of another height
            yield Trial("encoded", (len(uneven),), [png(image) for image in uneven], self.encoder(uneven))


def image_graph(encoder: ImageEncoder):
    """`encoder` of uint8 images as TensorFlow operations; other channels fail with InvalidArgumentError."""
    import tensorflow as tf

    def encode(images: tf.Tensor) -> tf.Tensor:
        images = checked_graph(images, encoder)
        batch, height, width = tf.unstack(tf.shape(images)[:3])
        # Not tf.image.resize, whose float32 coordinates differ from the encoder by up to 1e-4.
        rows = tf.reshape(tf.cast(images, tf.float32), (batch, height, width * encoder.channels))
        rows = tf.matmul(bilinear_graph(height, encoder.size[0]), rows)
        values = tf.reshape(rows, (batch, encoder.size[0], width, encoder.channels))
        values = tf.einsum("ow,bhwc->bhoc", bilinear_graph(width, encoder.size[1]), values)
        values = tf.ensure_shape(values, (None, *encoder.size, encoder.channels))
        return (values / 255 - np.array(encoder.mean, "float32")) / np.array(encoder.std, "float32")

    return encode


def checked_graph(images, encoder: ImageEncoder):
    """`images`, of which other channels than those of `encoder` and sizes of 0 fail with InvalidArgumentError."""
    import tensorflow as tf

    message, shape = f"images: (batch, height, width, {encoder.channels}) can be read, got", tf.shape(images)
    fits = tf.reduce_all(shape[1:] > 0) & (shape[-1] == encoder.channels)
    with tf.control_dependencies([tf.debugging.Assert(fits, [message, shape], summarize=4)]):
        return tf.identity(images)


def bilinear_graph(source, target: int):
    """`kseq.data.images.bilinear` for a `source` that is a tensor."""
    import tensorflow as tf

    source = tf.cast(source, tf.float64)
    scale = source / target
    centres = (tf.range(target, dtype=tf.float64) + 0.5) * scale - 0.5
    distances = tf.abs(tf.range(source, dtype=tf.float64) - centres[:, None]) / tf.maximum(scale, 1)
    weights = tf.maximum(1 - distances, 0)
    return tf.cast(weights / tf.reduce_sum(weights, axis=1, keepdims=True), tf.float32)


def decoding_graph(encoder: ImageEncoder):
    """`encoder.decode` as TensorFlow operations; other bytes fail with InvalidArgumentError."""
    import tensorflow as tf

    message = "images: only PNG and JPEG images can be read, got other bytes, so many:"

    def decode(content: tf.Tensor) -> tf.Tensor:
        known = [tf.strings.substr(content, 0, len(start)) == start for start in MAGIC.values()]
        with tf.control_dependencies(
            [tf.debugging.Assert(tf.reduce_any(known), [message, tf.strings.length(content)])]
        ):
            content = tf.identity(content)
        # It reads PNG too, and alone offers the exact arithmetic that Pillow uses.
        colours = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
        if encoder.channels == 3:
            return colours
        grey = tf.reduce_sum(tf.cast(colours, tf.int32) * GREY.astype("int32"), axis=-1, keepdims=True)
        return tf.cast((grey + 500) // 1000, tf.uint8)

    return decode


def png(image: np.ndarray) -> bytes:
    """A uint8 image `(height, width, channels)` as the bytes of a PNG file."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image if image.shape[-1] == 3 else image[..., 0]).save(content, "PNG")
    return content.getvalue()
