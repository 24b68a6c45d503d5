"""Where a segmentation network looks: what its gated skips let through, and what a pixel pays attention to."""

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import keras
import numpy as np

from kseq.analysis.tiles import draw_over
from kseq.backend.compile import compiled
from kseq.errors import InputError, shorten
from kseq.layers import (
    AttentionGate,
    CrossAttentionGate,
    LinearResizing,
    MultiHeadAttention,
    NonLocalBlock,
    PatchEmbedding,
    TransformerEncoderBlock,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GATES = (AttentionGate, CrossAttentionGate)
ATTENTIONS = (CrossAttentionGate, MultiHeadAttention, NonLocalBlock, TransformerEncoderBlock)


def skip_gates(model: keras.Model, image, *, axis: "Axes | None" = None) -> dict[str, np.ndarray]:
    """What every gated skip of a U-Net lets through of one image: the mean over channels of Z in Z ⊙ skip.

    Drawn over the image, each from its own minimum to its maximum; of a volume the middle slice.

    Args:
        model: functional, with `kseq.layers.CrossAttentionGate` or `AttentionGate` among its layers, such as
            `kseq.models.UTransformer` or `UNet(attention_gates=True)`.
        image: `input_shape`, without the batch.
        axis: of matplotlib; `None` draws nothing.

    Returns:
        For the name of every gate, the deepest first, its numbers between 0 and 1 at the resolution of its skip,
        `(*space)`.

    Raises:
        InputError: if the model has no gate, or the image does not fit it.
    """
    gates = _layers(model, GATES, "AttentionGate or CrossAttentionGate", "kseq.models.UTransformer")
    image = _checked(model, image)
    maps = {name: gate.mean(axis=-1) for name, gate in _answers(model, gates, _gate, image).items()}
    if axis is not None:
        middle = image.shape[0] // 2
        drawn = np.stack([_slice(_enlarged(values, image.shape[:-1]), middle) for values in maps.values()])
        shown = _slice(image, middle, channels=True)
        draw_over(axis, np.stack([shown] * len(maps)), drawn, shown.shape[:2], labels=_labels(maps))
    return maps


def pixel_attention(
    model: keras.Model, image, pixel: tuple[int, ...], *, axis: "Axes | None" = None
) -> dict[str, np.ndarray]:
    """Where a pixel of one image looks, with every attention of the network that compares places of a map.

    The query is the place of the map in which the pixel lies. These are, where the network has them: the weights of the
    self-attention at the bottleneck of a U-Transformer and of the cross-attention in the gate of each skip; of a
    non-local block; of every encoder block of a ViT, SETR or TransUNet (without the class token). Windows that see a
    part of the map only, as those of Swin, are left out.

    Drawn as the paper of the U-Transformer does (Petit et al. 2021, arXiv 2103.06104): the image with a cross at the
    pixel, then the mean over the heads of every attention over it, each from its own minimum to its maximum. Of a
    volume the slice of the pixel.

    Args:
        model: functional, with one of these.
        image: `input_shape`, without the batch.
        pixel: where, an index for each axis of space.
        axis: of matplotlib; `None` draws nothing.

    Returns:
        For the name of every attention, in the order of the network, `(heads, *grid)`: the weight of each place.

    Raises:
        InputError: if the model has no such attention, the image does not fit it, or the pixel is not in the image.
    """
    attending = _layers(model, ATTENTIONS, "attention between places", "kseq.models.UTransformer")
    image = _checked(model, image)
    space = image.shape[:-1]
    if len(pixel) != len(space) or any(not 0 <= at < size for at, size in zip(pixel, space, strict=True)):
        raise InputError(f"pixel {shorten(pixel)}: not in the image; give an index for each axis of {space}")
    found = _answers(model, attending, _weights, image)
    maps = {}
    for layer in attending:
        (queries, keys), weights = _grids(model, layer), found[layer.name]
        weights = weights if weights.ndim == 3 else weights[None]  # (heads, queries, keys)
        prefix = weights.shape[1] - prod(queries)  # a class token
        place = tuple(at * n // size for at, n, size in zip(pixel, queries, space, strict=True))
        row = weights[:, prefix + np.ravel_multi_index(place, queries), prefix:]
        maps[layer.name] = row.reshape(-1, *keys)
    if axis is not None:
        _draw(axis, image, pixel, maps)
    return maps


def _draw(axis: "Axes", image: np.ndarray, pixel: tuple[int, ...], maps: dict[str, np.ndarray]) -> None:
    space = image.shape[:-1]
    means = [_slice(_enlarged(heads.mean(axis=0), space), pixel[0]) for heads in maps.values()]
    shown = _slice(image, pixel[0], channels=True)
    tiles = np.stack([np.zeros_like(means[0]), *means])
    draw_over(axis, np.stack([shown] * len(tiles)), tiles, shown.shape[:2], labels=["image", *_labels(maps)])
    for left, top in {(tile.get_extent()[0], tile.get_extent()[3]) for tile in axis.images}:
        row, column = pixel[-2:]
        axis.plot(left + column + 0.5, top + row + 0.5, "+", color="#56b4e9", markersize=9, markeredgewidth=2)


def _layers(model: keras.Model, kinds: tuple[type, ...], wanted: str, example: str) -> list[keras.layers.Layer]:
    found = [layer for layer in getattr(model, "layers", ()) if isinstance(layer, kinds)]
    if not found or not isinstance(model, keras.Function):
        raise InputError(
            f"model {getattr(model, 'name', None) or shorten(model)}: no {wanted} among its layers; give a functional "
            f"model that has it, such as {example}"
        )
    return found


def _checked(model: keras.Model, image) -> np.ndarray:
    image, wanted = np.asarray(image), tuple(model.inputs[0].shape[1:])
    if image.shape != wanted:
        raise InputError(f"image of shape {image.shape}: give one of shape {wanted}, without the batch")
    if len(wanted) not in (3, 4):
        raise InputError(f"model {model.name}: reads {wanted}; give a model of images or volumes")
    return image


def _answers(model: keras.Model, layers: list[keras.layers.Layer], call: Callable, image: np.ndarray) -> dict:
    """What `call(layer, inputs)` makes of the inputs that each layer has in the model for an image, by its name."""
    entries = keras.Model(model.inputs, {layer.name: layer.input for layer in layers})

    def answers(x):
        inputs = entries(x, training=False)
        return tuple(keras.ops.cast(call(layer, inputs[layer.name]), "float32") for layer in layers)

    found = compiled(answers, model.variables)(image[None].astype(model.inputs[0].dtype))
    names = [layer.name for layer in layers]
    return {name: keras.ops.convert_to_numpy(values)[0] for name, values in zip(names, found, strict=True)}


def _gate(layer: keras.layers.Layer, inputs):
    return layer(inputs, training=False)


def _weights(layer: keras.layers.Layer, inputs):
    return layer(inputs, return_attention_scores=True, training=False)[1]


def _grids(model: keras.Model, layer: keras.layers.Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The places of the queries and those of the keys of an attention of the model."""
    if isinstance(layer, CrossAttentionGate):
        grid = layer.attention_grid(*(x.shape for x in layer.input))
        return grid, grid
    if isinstance(layer, NonLocalBlock):
        shape = layer.input.shape
        keys = shape if layer.pooling is None else layer.pooling.compute_output_shape(shape)
        return tuple(shape[1:-1]), tuple(keys[1:-1])
    maps = [other.output.shape for other in model.layers if isinstance(other, PatchEmbedding)]
    if not maps:  # tokens are a map again behind the attention of a U-Transformer
        places = layer.output.shape[1]
        shapes = (other.output.shape for other in model.layers if other.name == f"{layer.name}_map")
        maps = [shape for shape in shapes if prod(shape[1:-1]) == places]
    if not maps:
        raise InputError(f"model {model.name}: {layer.name} compares tokens of no map; give a model of images")
    return (tuple(maps[0][1:-1]),) * 2


def _enlarged(values: np.ndarray, space: tuple[int, ...]) -> np.ndarray:
    """A map at the resolution of the image, by linear interpolation."""
    return keras.ops.convert_to_numpy(LinearResizing(space)(values[None, ..., None]))[0, ..., 0]


def _labels(maps: dict[str, np.ndarray]) -> list[str]:
    return [name.replace("_", " ") for name in maps]


def _slice(values: np.ndarray, at: int, *, channels: bool = False) -> np.ndarray:
    """Of a volume the slice at this depth."""
    return values[at] if values.ndim - channels == 3 else values
