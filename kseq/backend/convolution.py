"""Convolutions of channels-last maps in the form that each backend computes fastest, and the portable form."""

from functools import partial
from math import prod

import keras
import numpy as np
from keras import ops

from kseq.backend.affine import affine
from kseq.backend.scan import with_gradient

Padding = str | tuple[tuple[int, int], ...]


def convolution(x, kernel, bias=None, *, strides: tuple[int, ...], padding: Padding = "same"):
    """The convolution of a map, plus b unless it is `None`.

    A kernel of one place is a product of matrices, on every backend at least as fast, and one whose stride is its size,
    over a map that it fills, is that behind a reshape. A 3-D convolution on CPU is `flat_convolution` on JAX, 2–30
    times faster there, and on PyTorch, 1–7 times. On JAX the gradient of the kernel of an image of many pixels is
    `by_image`. All else is `portable_convolution`.

    Args:
        x: `(batch, *space, channels)`, one to three axes of space.
        kernel: `(*kernel_size, channels, filters)`.
        bias: b, `(filters,)`.
        strides: places from one window to the next, along each axis.
        padding: "same" or "valid" as in Keras, or the zeros before and behind each axis.
    """
    size, space = tuple(kernel.shape[:-2]), tuple(x.shape[1:-1])
    if strides == size and padding != "valid" and _pads_nothing(padding, size, space):
        padding = "valid"
    if padding == "valid" and strides == size and None not in space and _fills(size, space):
        return _by_patches(x, kernel, bias)
    if len(space) == 3 and None not in space and _flat_is_faster(x):
        return flat_convolution(x, kernel, bias, strides=strides, padding=padding)
    if len(space) == 2 and None not in space and keras.backend.backend() == "torch":
        return viewed_convolution(x, kernel, bias, strides=strides, padding=padding)
    if len(space) == 2 and all(isinstance(n, int) for n in x.shape) and _by_image_is_faster(x, kernel):
        return by_image(x, kernel, bias, strides=strides, padding=padding)
    return portable_convolution(x, kernel, bias, strides=strides, padding=padding)


def portable_convolution(x, kernel, bias=None, *, strides: tuple[int, ...], padding: Padding = "same"):
    """`convolution` by the operation of Keras."""
    if not isinstance(padding, str):
        x, padding = _padded(x, padding), "valid"
    outputs = ops.conv(x, kernel, strides=strides, padding=padding, data_format="channels_last")
    return outputs if bias is None else ops.add(outputs, bias)


def viewed_convolution(x, kernel, bias=None, *, strides: tuple[int, ...], padding: Padding = "same"):
    """A 2-D `convolution` by PyTorch, whose channels-last format a view of the map already is.

    Keras copies the map into the other format and back, which takes half of the time where there are few channels. The
    kernel is copied into that format as the transpose of a matrix, which PyTorch does block by block: 5 to 15 % of the
    forward and backward pass where there are hundreds of channels.
    """
    import torch

    pads = padding_of(padding, tuple(kernel.shape[:2]), strides, x.shape[1:3])
    if any(before != behind for before, behind in pads):
        x, pads = _padded(x, pads), ((0, 0), (0, 0))
    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    bias = None if bias is None else ops.convert_to_tensor(bias)
    view = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)  # (batch, channels, height, width)
    padded = [before for before, _ in pads]
    *size, channels, filters = kernel.shape
    kernel = kernel.reshape(-1, filters).t().contiguous().reshape(filters, *size, channels).permute(0, 3, 1, 2)
    outputs = torch.nn.functional.conv2d(view, kernel, bias, strides, padded)
    return outputs.permute(0, 2, 3, 1)  # (batch, height, width, filters)


def by_image(x, kernel, bias=None, *, strides: tuple[int, ...], padding: Padding = "same"):
    """`portable_convolution` on JAX whose gradient of the kernel is the sum of those of the single images.

    XLA's on CPU, with the images of a batch in the place of channels, grows faster than the batch and the map: forward
    and backward, by image, take 1 to 4 times less for 4 to 16 images of 32² to 128² pixels and 32 filters or more, and
    with fewer filters twice as long.
    """
    import jax

    form = partial(portable_convolution, strides=strides, padding=padding)

    def backward(given, gradient):
        x, kernel = given
        (of_x,) = jax.vjp(lambda x: form(x, kernel), x)[1](gradient)
        of_kernel = 0.0
        for i in range(x.shape[0]):
            one = x[i : i + 1]
            (found,) = jax.vjp(lambda kernel, one=one: form(one, kernel), kernel)[1](gradient[i : i + 1])
            of_kernel += found.astype("float32")  # 16 terms of half precision would lose a digit
        return of_x, of_kernel.astype(kernel.dtype)

    convolve = with_gradient(form, lambda x, kernel: (form(x, kernel), (x, kernel)), backward)
    outputs = convolve(*map(ops.convert_to_tensor, (x, kernel)))
    return outputs if bias is None else ops.add(outputs, bias)


def flat_convolution(x, kernel, bias=None, *, strides: tuple[int, ...], padding: Padding = "same"):
    """A 3-D `convolution` as one in 2-D of all slices, whose channels are those of the slices that a window meets."""
    depth, *size, channels, filters = kernel.shape
    pads = padding_of(padding, tuple(kernel.shape[:3]), strides, x.shape[1:4])
    x = _padded(x, pads)
    stride, slices = strides[0], (x.shape[1] - depth) // strides[0] + 1
    met = [x[:, z : z + (slices - 1) * stride + 1 : stride] for z in range(depth)]
    met = met[0] if depth == 1 else ops.concatenate(met, axis=-1)  # (batch, slices, height, width, depth · channels)
    met = ops.reshape(met, (-1, *met.shape[2:]))  # (batch · slices, height, width, depth · channels)
    kernel = ops.reshape(ops.transpose(kernel, (1, 2, 0, 3, 4)), (*size, depth * channels, filters))
    outputs = convolution(met, kernel, bias, strides=strides[1:], padding="valid")
    return ops.reshape(outputs, (-1, slices, *outputs.shape[1:]))  # (batch, slices, height, width, filters)


def transposed_convolution(x, kernel, bias=None, *, scale: tuple[int, ...]):
    """The transpose of a convolution with stride `scale`, cut to `scale` times the size of the map.

    Place o of the output is Σ_i x_i w_(o + p − s i) with stride s and p = ⌊(K − s + 1) / 2⌋ for a kernel of K places,
    so that (K − s) places of the whole are cut off, half of them in front. For K = s that is `pixel_shuffled` on every
    backend, 8–75 times faster than the plain form on JAX. Other kernels are so on JAX too, 3–20 times faster, and for
    volumes on TensorFlow, 8 times. PyTorch transposes a view of an image, twice as fast as Keras's copies.

    Args:
        x: `(batch, *space, channels)`.
        kernel: w, `(*kernel_size, channels, filters)`, no axis smaller than the stride.
        bias: b, `(filters,)`, or `None`.
        scale: s, along each axis.
    """
    backend = keras.backend.backend()
    if tuple(kernel.shape[:-2]) == scale or backend == "jax" or (backend == "tensorflow" and len(scale) == 3):
        return pixel_shuffled(x, kernel, bias, scale=scale)
    if backend == "torch" and len(scale) == 2 and min(scale) > 1:
        return viewed_transposed_convolution(x, kernel, bias, scale=scale)
    return portable_transposed_convolution(x, kernel, bias, scale=scale)


def portable_transposed_convolution(x, kernel, bias=None, *, scale: tuple[int, ...]):
    """`transposed_convolution` by the operation of Keras."""
    kernel = ops.swapaxes(kernel, -1, -2)
    whole = ops.conv_transpose(x, kernel, strides=scale, padding="valid", data_format="channels_last")
    cuts = [(k - s + 1) // 2 for k, s in zip(kernel.shape, scale, strict=False)]
    sizes = [n * s for n, s in zip(x.shape[1:-1], scale, strict=True)]
    outputs = whole[(slice(None), *(slice(cut, cut + size) for cut, size in zip(cuts, sizes, strict=True)))]
    return outputs if bias is None else ops.add(outputs, bias)


def viewed_transposed_convolution(x, kernel, bias=None, *, scale: tuple[int, ...]):
    """`transposed_convolution` of an image, no stride of which is 1, by PyTorch in its channels-last format."""
    import torch

    cuts = [(k - s + 1) // 2 for k, s in zip(kernel.shape, scale, strict=False)]
    missing = [s - k + 2 * cut for k, s, cut in zip(kernel.shape, scale, cuts, strict=False)]  # 0 or 1 behind
    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    bias = None if bias is None else ops.convert_to_tensor(bias)
    view, kernel = x.permute(0, 3, 1, 2), kernel.permute(2, 3, 0, 1)
    outputs = torch.nn.functional.conv_transpose2d(view, kernel, bias, scale, cuts, missing)
    return outputs.permute(0, 2, 3, 1)  # (batch, height, width, filters)


def pixel_shuffled(x, kernel, bias=None, *, scale: tuple[int, ...]):
    """`transposed_convolution` as one with stride 1 that computes the s places of the output beside each other.

    With o = s j + q, place q of block j is Σ_d x_(j+d) w_(q + p − s d).
    """
    *size, channels, filters = kernel.shape
    rank, blocks = len(scale), prod(scale)
    cuts = [(k - s + 1) // 2 for k, s in zip(size, scale, strict=True)]
    ahead = [-(-p // s) for p, s in zip(cuts, scale, strict=True)]  # the largest d
    before = [a * s - p for a, s, p in zip(ahead, scale, cuts, strict=True)]
    taps = [-(-(b + k) // s) for b, k, s in zip(before, size, scale, strict=True)]
    behind = [t * s - b - k for t, s, b, k in zip(taps, scale, before, size, strict=True)]
    if any(before) or any(behind):
        kernel = ops.pad(kernel, [*zip(before, behind, strict=True), (0, 0), (0, 0)])
    split = [n for pair in zip(taps, scale, strict=True) for n in pair]
    kernel = ops.reshape(kernel, (*split, channels, filters))  # (taps_1, s_1, taps_2, s_2, …, channels, filters)
    last = 2 * rank
    kernel = ops.transpose(kernel, (*range(0, last, 2), last, *range(1, last, 2), last + 1))
    kernel = ops.reshape(kernel, (*taps, channels, blocks * filters))
    if any(t > 1 for t in taps):
        kernel = ops.flip(kernel, axis=tuple(range(rank)))  # by ascending d
    pads = tuple((t - 1 - a, a) for t, a in zip(taps, ahead, strict=True))
    x = convolution(x, kernel, None if bias is None else ops.tile(bias, (blocks,)), strides=(1,) * rank, padding=pads)
    space = tuple(x.shape[1:-1])
    x = ops.reshape(x, (-1, *space, *scale, filters))  # (batch, n_1, n_2, …, s_1, s_2, …, filters)
    order = [axis for pair in zip(range(1, rank + 1), range(rank + 1, 2 * rank + 1), strict=True) for axis in pair]
    x = ops.transpose(x, (0, *order, 2 * rank + 1))
    return ops.reshape(x, (-1, *(n * s for n, s in zip(space, scale, strict=True)), filters))


def padding_of(padding: Padding, size, strides, space) -> tuple[tuple[int, int], ...]:
    """The zeros before and behind each axis of a map of `space` places."""
    if padding == "valid":
        return ((0, 0),) * len(size)
    if padding != "same":
        return padding
    pads = []
    for k, s, n in zip(size, strides, space, strict=True):
        missing = max((-(-n // s) - 1) * s + k - n, 0)
        pads.append((missing // 2, missing - missing // 2))
    return tuple(pads)


def _by_patches(x, kernel, bias):
    *size, channels, filters = kernel.shape
    rank = len(size)
    grid = [n // k for n, k in zip(x.shape[1:-1], size, strict=True)]
    if prod(size) > 1:
        split = [n for pair in zip(grid, size, strict=True) for n in pair]
        x = ops.reshape(x, (-1, *split, channels))  # (batch, n_1, k_1, n_2, k_2, …, channels)
        last = 2 * rank + 1
        x = ops.transpose(x, (0, *range(1, last, 2), *range(2, last, 2), last))
    rows = ops.reshape(x, (-1, prod(size) * channels))  # (batch · n_1 · n_2 …, k_1 · k_2 … · channels)
    outputs = affine(rows, ops.reshape(kernel, (-1, filters)), bias)
    return ops.reshape(outputs, (-1, *grid, filters))


def _flat_is_faster(x) -> bool:
    """On a GPU libraries have fast 3-D convolutions, which need not keep each slice three times."""
    if keras.backend.backend() == "torch":
        return not x.is_cuda
    return is_jax_on_cpu()


def _by_image_is_faster(x, kernel) -> bool:
    """For maps of many places; a graph that has a convolution for each of many images takes long to compile."""
    large = prod(x.shape[1:3]) >= 32**2 and kernel.shape[-1] >= 32 and prod(kernel.shape[:2]) > 1
    return large and 1 < x.shape[0] <= 16 and is_jax_on_cpu()


def is_jax_on_cpu() -> bool:
    """Whether JAX runs without an accelerator, where some of its convolutions are slow."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.default_backend() == "cpu"


def _fills(size, space) -> bool:
    return all(n % k == 0 for n, k in zip(space, size, strict=True))


def _pads_nothing(padding: Padding, size, space) -> bool:
    return not np.any(padding) if padding != "same" else None not in space and _fills(size, space)


def _padded(x, pads):
    return ops.pad(x, [(0, 0), *pads, (0, 0)]) if np.any(pads) else x
