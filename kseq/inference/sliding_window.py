"""Segmentation of images larger than a model reads: windows that overlap, averaged with weights.

    y(v) = Σ_k w(v − s_k) · f(x[s_k : s_k + W])(v − s_k) / Σ_k w(v − s_k)

over the windows of size W that contain voxel v, with starts s_k and the model f. The weight w is 1 ("constant"), or a
Gaussian around the centre of the window with σ = W/8 along each axis ("gaussian"), because a model knows least about
what lies at the edge of its window. Windows form a grid and w is a product over the axes, so the fraction w / Σ w is a
product, too: of each axis we keep the share of every window in every voxel, and no map of the sums.

References: nnU-Net (Isensee et al., 2021, `nnunetv2/inference`), from which overlap, σ and evenly spread windows come,
and MONAI's `sliding_window_inference`. Deviations: MONAI moves only the last window and raises products of the weights
below 1e-3 to it, which are kept here; nnU-Net adds windows up in half precision, here it is float32.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from itertools import product

import keras
import numpy as np
from keras import ops

from kseq.backend.compile import compiled
from kseq.errors import InputError

WEIGHTINGS = ("gaussian", "constant")
SMALLEST = 1e-4  # of the weights along an axis, which a narrow Gaussian would let vanish; above 0 with σ = W/8 as well


class SlidingWindow:
    """Apply a segmentation model to images of any size, window by window.

    Called on an image it returns the model's logits at every voxel. An image of the window's size gets what the model
    answers; along an axis that is shorter than the window it is padded with zeros on both sides, as much as the model
    then sees beside it, and the answer is cropped. Windows of all images of a batch are computed together, `batch_size`
    at a time, of which the last is filled up, so that one shape is compiled.

    The output is a NumPy array, outside of the accelerator. Memory beside the images holds it and one batch of windows
    with what the model makes of it (for each mirror image in turn); an image that is padded is copied.

    Args:
        model: a segmentation model, windows `(batch, *window, channels)` to logits `(batch, *window, classes)`, or to a
            dict with `"logits"`. Or any function of such arrays, as the mean of several models or an ONNX session.
        window: sizes of the window, one an axis of space, of which there are 1 to 3; by default what `model` reads.
        overlap: the least share of a window, along each axis, that the next one covers again; from 0, below 1.
        weighting: "gaussian" or "constant".
        sigma_scale: standard deviation of the Gaussian as a share of the window.
        mirror_axes: axes of space, counted from 0, along which windows are also mirrored; all combinations are
            averaged, so it takes 2 to the power of their number as long.
        batch_size: windows computed together.
        activation: `None` for logits, or "softmax" for the probabilities of the averaged logits.
        pass_centre: whether the model has a second input, the centres of the windows `(batch, axes)`: float32, start +
            window / 2, in voxels of the image, whose first voxel reaches from 0 to 1.
        progress: whether to show a progress bar.

    Raises:
        InputError: for a `window` that is not the model's or is missing, and values out of range.
    """

    def __init__(
        self,
        model: keras.Model | Callable,
        window: Iterable[int] | None = None,
        *,
        overlap: float = 0.5,
        weighting: str = "gaussian",
        sigma_scale: float = 0.125,
        mirror_axes: Iterable[int] = (),
        batch_size: int = 4,
        activation: str | None = None,
        pass_centre: bool = False,
        progress: bool = False,
    ):
        tensors = getattr(model, "inputs", None) or []
        self.window = _window(window, tensors)
        self.mirror_axes = tuple(mirror_axes)
        check_weights(overlap, weighting, sigma_scale)
        if set(self.mirror_axes) - set(range(len(self.window))) or len(set(self.mirror_axes)) < len(self.mirror_axes):
            raise InputError(f"mirror_axes {self.mirror_axes}: give axes from 0 to {len(self.window) - 1}, each once")
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size}: give 1 or more")
        if activation not in (None, "softmax"):
            raise InputError(f"activation {activation!r}: give None (logits) or 'softmax'")
        if tensors and len(tensors) != 1 + pass_centre:
            raise InputError(
                f"pass_centre {pass_centre}: the model has {len(tensors)} inputs; give True for one that reads windows "
                "and their centres, False for one that reads windows alone"
            )
        self.model, self.batch_size, self.activation = model, batch_size, activation
        self.overlap, self.weighting, self.sigma_scale = overlap, weighting, sigma_scale
        self.pass_centre, self.progress = pass_centre, progress
        self.channels = tensors[0].shape[-1] if tensors else None
        self.dtype = tensors[0].dtype if tensors else None
        self._answer = _compiled(model) if isinstance(model, keras.Model) else lambda *x: _float32(_logits(model(*x)))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits, or probabilities, of `images`: float32 `(batch, *space, classes)`, or `(*space, classes)` of one.

        Args:
            images: `(batch, *space, channels)`, or one image without the axis of the batch.

        Raises:
            InputError: if they have another shape or hold NaN or infinity, which would spread over whole windows, or
                the model's logits are not at the resolution of its window.
        """
        given = np.asarray(images)
        images = self._checked(given)
        space = images.shape[1:-1]
        missing = [max(0, size - have) for size, have in zip(self.window, space, strict=True)]
        before = [size // 2 for size in missing]
        if any(missing):
            around = [(first, size - first) for first, size in zip(before, missing, strict=True)]
            images = np.pad(images, [(0, 0), *around, (0, 0)])
        grid = [self._axis(size, width) for size, width in zip(images.shape[1:-1], self.window, strict=True)]
        places = list(product(range(len(images)), *(range(len(starts)) for starts, _ in grid)))
        output = None
        for part in self._parts(places):
            corners = np.array([[starts[k] for (starts, _), k in zip(grid, ks, strict=True)] for _, *ks in part])
            boxes = [(n, *map(slice, c, c + self.window)) for (n, *_), c in zip(part, corners, strict=True)]
            logits = self._logits(np.stack([images[box] for box in boxes]), corners - before)
            if output is None:
                output = np.zeros((*images.shape[:-1], logits.shape[-1]), "float32")
            for (_, *ks), box, answer in zip(part, boxes, logits, strict=True):
                share = reduce(np.multiply.outer, [shares[k] for (_, shares), k in zip(grid, ks, strict=True)])
                output[box] += answer * share[..., None]
        kept = (slice(first, first + size) for first, size in zip(before, space, strict=True))
        output = output[(slice(None), *kept)]
        for image in output if self.activation else ():
            image -= image.max(axis=-1, keepdims=True)
            np.exp(image, out=image)
            image /= image.sum(axis=-1, keepdims=True)
        return output if given.ndim == images.ndim else output[0]

    def _checked(self, images: np.ndarray) -> np.ndarray:
        """`images` with an axis for the batch, if the model can read them."""
        rank, channels = len(self.window), self.channels
        batch = images[None] if images.ndim == rank + 1 else images
        if batch.ndim != rank + 2 or 0 in batch.shape or channels not in (None, batch.shape[-1]):
            axes = ("length", "height, width", "depth, height, width")[rank - 1]
            raise InputError(
                f"images: shape {images.shape}; give (batch, {axes}, {channels or 'channels'}), or one image without "
                "the batch, of sizes above 0"
            )
        if wrong := images.size - np.count_nonzero(np.isfinite(images)):
            raise InputError(
                f"images: {wrong:,} of {images.size:,} values are NaN or infinite; replace them, as by np.nan_to_num"
            )
        return batch

    def _axis(self, size: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Along an axis, the starts of the windows and the shares that they have in their voxels."""
        starts = window_starts(size, width, self.overlap)
        weights = window_weights(width, self.weighting, self.sigma_scale)
        return starts, window_shares(starts, weights).astype("float32")

    def _parts(self, places: list[tuple]) -> Iterator[list[tuple]]:
        """`places`, `batch_size` at a time, and a progress bar."""
        steps = range(0, len(places), self.batch_size)
        if self.progress:
            from rich.progress import track

            steps = track(steps, "windows")
        for step in steps:
            yield places[step : step + self.batch_size]

    def _logits(self, windows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """The mean of the model's answers to `windows` and their mirror images."""
        count, rank = len(windows), len(self.window)
        rows = np.minimum(np.arange(self.batch_size), count - 1)  # the last window again and again fills the batch
        windows = windows[rows].astype(self.dtype or windows.dtype, copy=False)
        centres = (starts[rows] + np.array(self.window) / 2).astype("float32")
        mean = None
        for i, chosen in enumerate(product((False, True), repeat=len(self.mirror_axes))):
            axes = [axis + 1 for axis, flip in zip(self.mirror_axes, chosen, strict=True) if flip]
            mirrored = np.ascontiguousarray(np.flip(windows, axes))
            logits = self._answer(mirrored, centres) if self.pass_centre else self._answer(mirrored)
            if logits.shape[: rank + 1] != windows.shape[:-1] or logits.ndim != rank + 2:
                raise InputError(
                    f"model: answers {logits.shape} to windows {windows.shape}; give one whose logits have the "
                    "resolution of its input"
                )
            logits = np.flip(logits[:count], axes)
            mean = np.array(logits) if mean is None else mean + (logits - mean) / (i + 1)
        return mean


def window_starts(size: int, window: int, overlap: float) -> np.ndarray:
    """Where windows begin along an axis of `size`, not below `window`: as few as overlap so much, evenly spread."""
    step = max(1, round(window * (1 - overlap)))
    count = -(-(size - window) // step) + 1
    return np.arange(count) * (size - window) // max(1, count - 1)


def window_weights(window: int, weighting: str, sigma_scale: float = 0.125) -> np.ndarray:
    """The weights of a window along an axis, `(window,)`, all above 0."""
    if weighting == "constant":
        return np.ones(window)
    distances = (np.arange(window) - (window - 1) / 2) / (sigma_scale * window)
    return np.maximum(np.exp(-(distances**2) / 2), SMALLEST)


def window_shares(starts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of each window in each voxel along an axis, `(windows, window)`; those of a voxel have the sum 1."""
    voxels = starts[:, None] + np.arange(len(weights))
    each = np.broadcast_to(weights, voxels.shape)
    return each / np.bincount(voxels.ravel(), each.ravel())[voxels]


def check_weights(overlap: float, weighting: str, sigma_scale: float = 0.125) -> None:
    """Raise `InputError` for what cannot be an overlap, a weighting or a `sigma_scale`."""
    if not 0 <= overlap < 1:
        raise InputError(f"overlap {overlap}: give a share of the window from 0, below 1")
    if weighting not in WEIGHTINGS:
        raise InputError(f"weighting {weighting!r}: choose one of {', '.join(WEIGHTINGS)}")
    if not 0 < sigma_scale < float("inf"):
        raise InputError(f"sigma_scale {sigma_scale}: give a share of the window above 0")


def _window(window: Iterable[int] | None, tensors: list) -> tuple[int, ...]:
    """The sizes of the window, if the inputs of the model allow them."""
    reads = tuple(tensors[0].shape[1:-1]) if tensors else ()
    if window is None and (not reads or None in reads):
        raise InputError(
            "window None: the model does not say what it reads; give (height, width), or as many sizes as it has axes"
        )
    window = tuple(reads if window is None else window)
    if not 1 <= len(window) <= 3 or min(window) < 1:
        raise InputError(f"window {window}: give 1 to 3 sizes, each 1 or more")
    pairs = zip(reads, window, strict=False)
    if tensors and (len(reads) != len(window) or any(size not in (None, wanted) for size, wanted in pairs)):
        raise InputError(f"window {window}: the model reads {reads}; give that, or leave it out")
    return window


def _compiled(model: keras.Model) -> Callable:
    def answer(*inputs):
        return ops.cast(_logits(model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)), "float32")

    run = compiled(answer, model.variables)
    return lambda *inputs: ops.convert_to_numpy(run(*inputs))


def _logits(answer):
    return answer["logits"] if isinstance(answer, dict) else answer


def _float32(logits) -> np.ndarray:
    return ops.convert_to_numpy(logits).astype("float32")
