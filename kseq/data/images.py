"""Images of any size as arrays of one size: the encoding that image models read."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kseq.errors import InputError, shorten

GREY = np.array([299, 587, 114])  # thousandths of red, green and blue in grey (ITU-R BT.601)
OUTSIDE = 0.5  # how far floats may lie outside 0–1: what interpolation overshoots is read, values of 0–255 are not


@dataclass(frozen=True)
class ImageEncoder:
    """Turn images into what an image model reads: resized to `size`, scaled to 0–1, minus `mean`, over `std`.

    Sizes change by bilinear interpolation with half-pixel centres; where an image shrinks, the triangle is widened to
    what one new pixel covers (antialiasing), as in Pillow and `tf.image.resize(antialias=True)`. Height and width are
    scaled each by its own factor.

    Attributes:
        size: `(height, width)` that the model reads.
        channels: 1 (grey) or 3 (red, green, blue).
        mean: of each channel, of values scaled to 0–1.
        std: of each channel, of values scaled to 0–1.

    Raises:
        InputError: for a size below 1, other channels, and a `mean` or `std` that is not one number a channel.
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        for name in ("size", "mean", "std"):  # lists from JSON become tuples, so that equal encoders are equal
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.size) != 2 or min(self.size) < 1:
            raise InputError(f"size {self.size}: give (height, width), each 1 or more")
        if self.channels not in (1, 3):
            raise InputError(f"channels {self.channels}: give 1 (grey) or 3 (red, green, blue)")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels or not np.isfinite(values).all():
                raise InputError(f"{name} {values}: give {self.channels} numbers, one a channel")
        if min(self.std) <= 0:
            raise InputError(f"std {self.std}: values are divided by it; give numbers above 0")

    def __call__(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Encode `images` as a float32 array of shape `(images, *size, channels)`.

        Args:
            images: `(images, height, width, channels)`, or a list of images `(height, width, channels)` of different
                sizes; one channel may go without its axis. Either uint8, 0–255, or floats, 0–1.

        Raises:
            InputError: for no image, another shape or type, NaN, infinite values, and floats far outside 0–1.
        """
        if isinstance(images, list | tuple):
            arrays = [np.asarray(image) for image in images]
            batches = [self._batch(a[None], f"image {i}", a.shape, "height, width") for i, a in enumerate(arrays)]
        else:
            array = np.asarray(images)
            batches = [self._batch(array, "images", array.shape, "images, height, width")]
        if not sum(map(len, batches)):
            raise InputError("images: none given; give at least one")
        return np.concatenate([self._encode(batch) for batch in batches])

    def decode(self, source: str | os.PathLike | bytes) -> np.ndarray:
        """Read a PNG or JPEG file, or the bytes of one, as a uint8 array `(height, width, channels)`.

        Palettes become colours, transparency is dropped, 16-bit values keep their upper 8 bits, grey is repeated for
        three channels, and colours become grey by 0.299, 0.587 and 0.114. The image stays as it is stored: a camera's
        note to turn it (EXIF) is not followed.

        Raises:
            InputError: if there is no such file, or it is not a complete PNG or JPEG image.
        """
        from PIL import Image, UnidentifiedImageError

        if isinstance(source, bytes):
            name, content = "image", source
        else:
            name = f"image {shorten(os.fspath(source), 200)}"
            try:
                content = Path(source).read_bytes()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise InputError(f"{name}: cannot be read ({reason}); give a PNG or JPEG file") from error
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
                image.verify()  # to its end, which Pillow does not miss if all pixels are there
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
                if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
                    colours = np.repeat((np.asarray(image) >> 8).astype("uint8")[..., None], 3, axis=-1)
                else:
                    colours = np.asarray(image.convert("RGB"))
        except UnidentifiedImageError as error:
            raise InputError(f"{name}: not a PNG or JPEG image; convert it, or give another") from error
        except Exception as error:  # whatever damaged bytes make Pillow raise
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise InputError(f"{name}: damaged ({reason}); copy or save it again") from error
        if self.channels == 3:
            return colours
        return ((colours @ GREY + 500) // 1000).astype("uint8")[..., None]

    def _batch(self, images: np.ndarray, name: str, shape: tuple[int, ...], wanted: str) -> np.ndarray:
        """`images` with all four axes, if they can be read; what is refused is called `name`, of `shape`."""
        if self.channels == 1 and images.ndim == 3 and images.shape[-1] != 1:  # with 1, most likely a single image
            images = images[..., None]
        if images.ndim != 4 or images.shape[-1] != self.channels or 0 in images.shape[1:]:
            raise InputError(f"{name}: shape {shape}; the model reads ({wanted}, {self.channels}), give that")
        if images.dtype == np.uint8:
            return images
        if not np.issubdtype(images.dtype, np.floating):
            raise InputError(f"{name}: {images.dtype} values; give uint8, 0–255, or floats, 0–1")
        unfit = ~np.isfinite(images)
        if unfit.any():
            first = f", the first in image {unfit.any(axis=(1, 2, 3)).argmax()}" if len(images) > 1 else ""
            raise InputError(f"{name}: {unfit.sum():,} values are NaN or infinite{first}; mend it or leave it out")
        low, high = images.min(initial=0), images.max(initial=1)
        if low < -OUTSIDE or high > 1 + OUTSIDE:
            raise InputError(f"{name}: floats from {low:.3g} to {high:.3g}; give 0–1, or 0–255 as uint8")
        return images

    def _encode(self, images: np.ndarray) -> np.ndarray:
        batch, height, width, channels = images.shape
        values = images.astype("float32")
        if height != self.size[0]:
            rows = values.reshape(batch, height, width * channels)
            values = (bilinear(height, self.size[0]) @ rows).reshape(batch, -1, width, channels)
        if width != self.size[1]:
            columns = np.tensordot(values, bilinear(width, self.size[1]), axes=(2, 1))  # (…, channels, width)
            values = np.ascontiguousarray(np.swapaxes(columns, 2, 3))
        scaled = values / np.float32(255 if images.dtype == np.uint8 else 1)
        return (scaled - np.array(self.mean, "float32")) / np.array(self.std, "float32")

    def get_config(self) -> dict:
        """The arguments that make this encoder again."""
        return {"size": list(self.size), "channels": self.channels, "mean": list(self.mean), "std": list(self.std)}


def bilinear(source: int, target: int) -> np.ndarray:
    """What each old pixel of a row adds to each new one: float32 `(target, source)`, each row with the sum 1."""
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale - 0.5  # of the new pixels, counted in old ones
    distances = np.abs(np.arange(source) - centres[:, None]) / max(scale, 1)
    weights = np.maximum(1 - distances, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype("float32")
