"""Images as raw inputs of a segmentation model: images of any size in, label maps out, the windows in the graph."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kseq.atomic import atomic_file
from kseq.data import ImageEncoder
from kseq.errors import InputError
from kseq.export.images import decoding_graph, png
from kseq.export.verification import check, check_outputs, difference

SETTINGS = {"channels", "window", "mean", "std", "overlap", "weighting", "batch_size"}
MOST_CLASSES = 256  # labels are bytes, and a PNG palette has as many colours


@dataclass(frozen=True)
class LabelMap:
    """The answer for one image.

    Attributes:
        kind: "image".
        given: the path of the image, as it was given.
        labels: the number of the most probable class at each pixel, uint8 `(height, width)`.
        class_names: by number.
        mask: the file that the labels were written to, if any.
    """

    kind: str
    given: str
    labels: np.ndarray
    class_names: list[str]
    mask: str | None = None

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels that each class has, by its name."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.class_names))
        return dict(zip(self.class_names, (counts / self.labels.size).tolist(), strict=True))


class Segmentation:
    """What a segmentation model reads whose card has `"segmentation"`, and what it answers; see `kseq.export.raw`.

    The card holds `{"channels": 1 or 3, "window": [height, width], "mean": […], "std": […]}`, of each channel, of
    values scaled to 0–1, and may hold the `"overlap"`, `"weighting"` and `"batch_size"` of
    `kseq.inference.SlidingWindow`. Pixels are read as they are: no image is resized, and one that is smaller than the
    window is padded with zeros, which is the mean.
    """

    kind = "image"
    purpose = "images to segment"  # apart from other kinds that read the same
    batch = 1  # an image at a time: they have different sizes

    def __init__(self, card: dict):
        settings = {"overlap": 0.5, "weighting": "gaussian", "batch_size": 4} | card["segmentation"]
        self.class_names = card["class_names"]
        if unknown := set(settings) - SETTINGS:
            raise InputError(f"card: 'segmentation' has no {', '.join(map(repr, sorted(unknown)))}; leave it out")
        size = settings.pop("window")
        self.encoder = ImageEncoder(size, *(settings.pop(name) for name in ("channels", "mean", "std")))
        self.settings = settings
        self.lengths = (max(size), 2 * max(size))
        self._windows = None

    def highest(self, name: str) -> int:
        """Above the integers that an image may hold."""
        return 256

    def check(self, model, path: Path) -> None:
        """Raise `InputError` if the card of the file at `path` does not fit its model."""
        check_outputs(model, path)
        wanted, reads = (*self.encoder.size, self.encoder.channels), model.inputs[0].shape[1:]
        answers = model.outputs[0].shape[1:]
        if len(model.inputs) != 1 or not _fits(reads, wanted):
            raise InputError(
                f"{path}: its card makes windows of shape {wanted}, the model reads {reads}; save it with another card"
            )
        if not _fits(answers, (*self.encoder.size, len(self.class_names))):
            raise InputError(
                f"{path}: its card names {len(self.class_names)} classes at each pixel of a window "
                f"{self.encoder.size}, the model answers {answers}; save it with another card"
            )
        if len(self.class_names) > MOST_CLASSES:
            raise InputError(
                f"{path}: {len(self.class_names)} classes; labels are bytes, {MOST_CLASSES} classes can be exported"
            )

    def read(self, arguments: list[str]) -> list[bytes]:
        """The content of the files, if all of them are images."""
        if not arguments:
            raise InputError("images: none given; give at least one PNG or JPEG file")
        for path in arguments:
            self.encoder.decode(path)
        return [Path(path).read_bytes() for path in arguments]

    def signatures(self, model) -> dict[str, tuple[list, Callable]]:
        """`serving_default` and `probabilities` of uint8 `(batch, height, width, channels)`, `encoded` of a file."""
        import tensorflow as tf

        from kseq.export.window_graph import window_graph

        slide, decode = window_graph(model, self.encoder, **self.settings), decoding_graph(self.encoder)
        names = tf.constant(self.class_names)

        def labels(images: tf.Tensor) -> tf.Tensor:
            return slide(images, lambda logits: tf.cast(tf.argmax(logits, axis=-1), tf.uint8))

        def label(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"labels": labels(images), "classes": tf.identity(names)}

        def probabilities(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"probabilities": slide(images, tf.nn.softmax), "classes": tf.identity(names)}

        def read(content: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"labels": labels(decode(content)[None])[0], "classes": tf.identity(names)}

        images = tf.TensorSpec([None, None, None, None], tf.uint8, name="images")
        return {
            "serving_default": ([images], label),
            "probabilities": ([images], probabilities),
            "encoded": ([tf.TensorSpec([], tf.string, name="image")], read),
        }

    def verify(self, model, signatures: dict[str, Callable]) -> Iterator[dict]:
        """Compare the signatures of a loaded SavedModel with `SlidingWindow` on images of two odd sizes.

        Of labels the difference is how much more probable than the class of the label the most probable class is, so
        they may differ only where two classes are as good as equal. What float32 loses of the logits is a share of the
        largest, and moves probabilities by no more: so differences are shares of the largest logit, if above 1.
        """
        import keras
        import tensorflow as tf

        random = np.random.default_rng(1)
        (height, width), channels = self.encoder.size, self.encoder.channels
        for shape in ((1, height + height // 2 + 1, width // 2 + 1), (2, height // 2 + 1, 2 * width - 1)):
            images = random.integers(0, 256, (*shape, channels)).astype("uint8")
            logits = np.stack([self._logits(model, image) for image in images])
            expected, largest = (
                keras.ops.convert_to_numpy(keras.ops.softmax(logits)),
                max(1.0, float(np.abs(logits).max())),
            )
            got = signatures["probabilities"](tf.constant(images))["probabilities"].numpy()
            yield check("probabilities", images.shape, difference(got, expected) / largest)
            labels = signatures["serving_default"](tf.constant(images))["labels"].numpy()
            yield check("serving_default", images.shape, _lost(labels, expected) / largest)
            labels = signatures["encoded"](tf.constant(png(images[0])))["labels"].numpy()
            yield check("encoded", images[0].shape, _lost(labels, expected[0]) / largest)

    def serve(self, signatures: dict[str, Callable], raw: list[bytes], given: list[str]) -> list[LabelMap]:
        """The answers of a loaded SavedModel."""
        import tensorflow as tf

        maps = [signatures["encoded"](tf.constant(content))["labels"].numpy() for content in raw]
        return [LabelMap(self.kind, name, labels, self.class_names) for name, labels in zip(given, maps, strict=True)]

    def answer(self, model, raw: list[bytes], given: list[str]) -> list[LabelMap]:
        """The answers of a Keras model."""
        maps = (self._logits(model, self.encoder.decode(content)).argmax(axis=-1).astype("uint8") for content in raw)
        return [LabelMap(self.kind, name, labels, self.class_names) for name, labels in zip(given, maps, strict=True)]

    def _logits(self, model, image: np.ndarray) -> np.ndarray:
        """The logits of a Keras model, `(height, width, classes)`, for a uint8 image."""
        from kseq.inference import SlidingWindow

        if self._windows is None or self._windows.model is not model:  # what is compiled is kept
            self._windows = SlidingWindow(model, self.encoder.size, **self.settings)
        return self._windows(replace(self.encoder, size=image.shape[:2])(image[None]))[0]


def mask_paths(output: Path | None, given: list[str]) -> list[Path | None]:
    """The file that the mask of each image is written to, `output` itself or in it; its folder is made.

    Raises:
        InputError: if `output` is no PNG file for one image and no folder for several, a mask is there already, or two
            images would get the same one.
    """
    if output is None:
        return [None] * len(given)
    single = len(given) == 1 and not output.is_dir()
    if single and output.suffix.lower() != ".png":
        raise InputError(f"output {output}: masks are PNG files; give a name that ends in .png, or a folder")
    if not output.parent.is_dir():
        raise InputError(f"output {output}: there is no folder {output.parent}; create it or give another")
    if not single and output.exists() and not output.is_dir():
        raise InputError(f"output {output}: a file, and there are {len(given)} images; give a folder")
    paths = [output] if single else [output / f"{Path(name).stem}.png" for name in given]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise InputError(f"output {output}: two images would be written to {path.name}; give them one by one")
        if path.exists():
            raise InputError(f"output {path}: exists; remove it or give another with --output")
    if not single:
        output.mkdir(exist_ok=True)
    return paths


def write_mask(labels: np.ndarray, path: Path) -> None:
    """Write labels as a PNG image of indexed colours, whose pixels are the labels."""
    from PIL import Image

    image = Image.fromarray(labels, "P")
    image.putpalette(palette().tobytes())
    with atomic_file(path) as temporary:
        image.save(temporary, "PNG")


def palette() -> np.ndarray:
    """256 colours that differ, uint8 `(256, 3)`, 0 black: those of the masks of PASCAL VOC.

    Bits 0, 3 and 6 of the label are the upper bits of red, bits 1, 4 and 7 of green, bits 2 and 5 of blue.
    """
    labels = np.arange(256)
    return np.stack(
        [sum((labels >> (3 * i + colour) & 1) << (7 - i) for i in range(3)) for colour in range(3)], axis=-1
    ).astype("uint8")


def _fits(shape: tuple[int | None, ...], wanted: tuple[int, ...]) -> bool:
    """Whether sizes of a model, of which some are free, are the wanted ones."""
    return len(shape) == len(wanted) and all(size in (None, want) for size, want in zip(shape, wanted, strict=True))


def _lost(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """By how much the class of a label is less probable than the best, at most; infinite if the shapes differ."""
    if labels.shape != probabilities.shape[:-1]:
        return float("inf")
    chosen = np.take_along_axis(probabilities, labels[..., None].astype(int), axis=-1)[..., 0]
    return float(np.max(probabilities.max(axis=-1) - chosen))
