"""Where a transformer looks: the attention weights of its blocks, over the patches of an image or a volume.

A query is a token that looks, a key one that is looked at. In all weights queries stand before keys, and the weights of
a query sum to one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Literal

import keras
import numpy as np
from keras import ops

from kseq.analysis.tiles import draw_over, draw_scale, draw_tiles
from kseq.errors import InputError, shorten
from kseq.layers import PatchEmbedding, TransformerEncoderBlock

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PIECE = 16  # images that go through the model together: the weights of ViT-B/16 take 22 MB an image
_TINY = np.finfo("float32").tiny  # divides what would be 0 / 0
_FUSIONS = {"mean": np.mean, "max": np.max, "min": np.min}


def attention_maps(model: keras.Model, images) -> np.ndarray:
    """The attention weights softmax(Q Kᵀ / √d) of every encoder block, as at inference.

    They are float32, of a model in half precision too. Blocks have the masks, biases and causality that they have in
    the model.

    Args:
        model: functional, with `kseq.layers.TransformerEncoderBlock` among its layers, such as `kseq.models.ViT`.
        images: `(batch, *input_shape)`, or whatever the model reads.

    Returns:
        `(blocks, batch, heads, tokens, tokens)`: the weight of a key, the last axis, for a query, the one before.

    Raises:
        InputError: if the model is not functional, has no encoder block or blocks of different sizes, or the images do
            not fit it.
    """
    return np.concatenate(list(_pieces(model, images)), axis=1)


def attention_heads(
    model: keras.Model,
    image,
    block: int = -1,
    query: int | Sequence[int] | None = None,
    *,
    overlay: bool = False,
    axis: "Axes | None" = None,
) -> np.ndarray:
    """Where a token looks in one image, with each head of a block.

    Drawn as a map a head: with one scale of colours for all heads, or, over the image, each from its own minimum to its
    maximum. A query that is a patch is framed. Of a volume the slice of the query is drawn, the middle one without.

    Args:
        model: a vision transformer: of the `attention_maps` kind, with a `kseq.layers.PatchEmbedding`.
        image: `input_shape`, without the batch.
        block: its index, from the end if negative.
        query: index of a patch in row-major order, or its place in the grid; `None` is what is classified: the class
            token, or without one the mean of all patches.
        overlay: whether the maps are drawn over the image.
        axis: of matplotlib; `None` draws nothing.

    Returns:
        `(heads, *grid)`. The weights of patches sum to one less the weight of the class token.

    Raises:
        InputError: as `attention_maps` does, or if the block or the query is not there.
    """
    patches = _patches(model)
    image = _checked(model, np.asarray(image)[None])[0]
    place = _place(query, patches.grid)
    weights = _block(attention_maps(model, image[None])[:, 0], block)
    maps = patches.answers(weights, place)
    if axis is not None:
        labels = [f"head {head}" for head in range(len(maps))]
        picture = _Picture(patches, place)
        if overlay:
            images = np.stack([image] * len(maps))
            draw_over(axis, picture.images(images), picture.maps(maps), picture.covers, labels=labels)
        else:
            tiles = picture.maps(maps)
            style = {"cmap": "viridis", "vmin": 0, "vmax": tiles.max(), "interpolation": "nearest"}
            drawn = draw_tiles(axis, tiles, picture.covers, labels=labels, **style)
            draw_scale(axis, drawn[0], "attention weight")
        picture.frame_query(axis)
    return maps


def class_attention(model: keras.Model, image, block: int = -1, *, axis: "Axes | None" = None) -> np.ndarray:
    """Where the class token looks in one image, in the mean of the heads of a block; drawn over the image.

    Without a class token, the mean of what all patches look at. Arguments and errors as in `attention_heads`.

    Returns:
        `grid`.
    """
    weights = attention_heads(model, image, block).mean(axis=0)
    if axis is not None:
        picture = _Picture(_patches(model))
        draw_over(axis, picture.images([image]), picture.maps(weights[None]), picture.covers)
    return weights


def attention_rollout(
    model: keras.Model,
    images,
    *,
    residual: float = 0.5,
    head_fusion: Literal["mean", "max", "min"] = "mean",
    discard_ratio: float = 0.0,
    axis: "Axes | None" = None,
) -> np.ndarray:
    """How much of each patch arrives at the class token, through all blocks: the product of their attention weights,

        R = Ã_L … Ã_2 Ã_1,    Ã_l = row-normalised (1 − r) W_l + r I,

    with W_l the weights of block l, its heads fused, and I for the residual around the attention. It takes each token
    as a weighted mean of those before, and knows of no values, no projections and no MLP: it says where something could
    have come from, not what decided. Without a class token, the mean of the rows of all patches.

    Drawn over the images, each map from its own minimum to its maximum; of volumes the middle slice.

    Args:
        model: a vision transformer, as in `attention_heads`.
        images: `(batch, *input_shape)`.
        residual: r.
        head_fusion: W as the "mean", "max" or "min" of the heads.
        discard_ratio: share of the weights of each query, the lowest, that are set to 0 first.
        axis: of matplotlib; `None` draws nothing.

    Returns:
        `(batch, *grid)`. The shares of patches sum to one less that of the class token.

    Raises:
        InputError: as `attention_maps` does, or for an argument out of range.

    Source: Abnar & Zuidema, "Quantifying attention flow in transformers", ACL 2020 (arXiv 2005.00928), with r = ½ and
    the mean; `head_fusion` and `discard_ratio` as in J. Gildenblat's "Exploring explainability for vision transformers"
    (2020), but that he discards among the weights of all queries together.
    """
    for argument, share in (("residual", residual), ("discard_ratio", discard_ratio)):
        if not 0 <= share < 1:
            raise InputError(f"{argument} {share!r}: give a share from 0 to below 1")
    if head_fusion not in _FUSIONS:
        raise InputError(f"head_fusion {head_fusion!r}: choose 'mean', 'max' or 'min'")
    patches = _patches(model)
    pieces = _pieces(model, images)
    joint = np.concatenate([_rollout(piece, residual, _FUSIONS[head_fusion], discard_ratio) for piece in pieces])
    maps = patches.answers(joint)
    if axis is not None:
        picture = _Picture(patches)
        draw_over(axis, picture.images(images), picture.maps(maps), picture.covers)
    return maps


def attention_distance(model: keras.Model, images, *, axis: "Axes | None" = None) -> np.ndarray:
    """How far the heads look: Σ_j a_ij ‖x_i − x_j‖, the mean over queries i and images, in pixels or voxels.

    a_ij is the weight of patch j for patch i, and x the centre of a patch. The class token is neither query nor key:
    the weights of each query are normalised to sum to one over the patches.

    Drawn as a dot a head over the blocks, with a line for weights that are the same everywhere.

    Args:
        model: a vision transformer, as in `attention_heads`.
        images: `(batch, *input_shape)`.
        axis: of matplotlib; `None` draws nothing.

    Returns:
        `(blocks, heads)`.

    Raises:
        InputError: as `attention_maps` does.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), figure 7, right, and figure 11, which do not say what becomes of
    the class token.
    """
    patches = _patches(model)
    centres = np.stack(np.indices(patches.grid), axis=-1).reshape(-1, len(patches.grid)) * patches.size
    distances = np.linalg.norm(centres[:, None] - centres, axis=-1)  # (patches, patches)
    total = 0.0
    for weights in _pieces(model, images):
        weights = patches.among_patches(weights).astype("float64")
        weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), _TINY)
        total = total + np.einsum("lbhij,ij->lh", weights, distances) / len(centres)
    means = total / len(images)
    if axis is not None:
        axis.axhline(distances.mean(), color="0.5", linestyle="--", linewidth=1, label="the same weight everywhere")
        axis.plot(range(len(means)), means, "o", color="#0072B2", alpha=0.75)
        unit = "pixels" if len(patches.grid) == 2 else "voxels"
        axis.set(xlabel="block", ylabel=f"mean attention distance ({unit})", xticks=range(len(means)))
        axis.set_ylim(0, 1.12 * max(means.max(), distances.mean()))
        axis.legend(frameon=False)
    return means


def _rollout(weights: np.ndarray, residual: float, fuse: Callable, discard_ratio: float) -> np.ndarray:
    """R, of weights `(blocks, batch, heads, tokens, tokens)`: `(batch, tokens, tokens)`."""
    tokens = weights.shape[-1]
    joint = np.eye(tokens)
    for W in weights:
        W = fuse(W, axis=1).astype("float64")  # (batch, tokens, tokens)
        lowest = np.argsort(W, axis=-1)[..., : int(discard_ratio * tokens)]
        np.put_along_axis(W, lowest, 0, axis=-1)
        A = (1 - residual) * W + residual * np.eye(tokens)
        joint = A / np.maximum(A.sum(axis=-1, keepdims=True), _TINY) @ joint
    return joint


def _pieces(model: keras.Model, images) -> Iterator[np.ndarray]:
    """The weights of a few images at a time, `(blocks, piece, heads, tokens, tokens)`."""
    images = _checked(model, images)
    for start in range(0, len(images), _PIECE):
        found = []
        with _no_gradient():
            x = ops.convert_to_tensor(images[start : start + _PIECE], dtype=model.inputs[0].dtype)
            # The graph is walked as the model itself does it, so that a block has all its arguments.
            model._run_through_graph([x], operation_fn=partial(_leaving_weights, found))
        if len({weights.shape for weights in found}) > 1:
            shapes = ", ".join(str(weights.shape[1:]) for weights in found)
            raise InputError(f"model {model.name}: its blocks have weights of {shapes}; give one with equal blocks")
        yield np.stack(found)


def _leaving_weights(found: list[np.ndarray], operation: Callable) -> Callable:
    """The operation; an encoder block leaves its weights in `found`."""
    if not isinstance(operation, TransformerEncoderBlock):
        return operation

    def call(*arguments, **keywords):
        output, weights = operation(*arguments, **keywords | {"return_attention_scores": True})
        found.append(ops.convert_to_numpy(ops.cast(weights, "float32")))
        return (output, weights) if keywords.get("return_attention_scores") else output

    return call


def _no_gradient():
    if keras.backend.backend() != "torch":
        return nullcontext()
    import torch

    return torch.no_grad()


def _checked(model: keras.Model, images) -> np.ndarray:
    """The images as an array that the model can read."""
    if not isinstance(model, keras.Function):
        raise InputError(
            f"model {getattr(model, 'name', None) or shorten(model)}: a {type(model).__name__}; give a functional "
            "keras.Model, such as kseq.models.ViT"
        )
    if not any(isinstance(layer, TransformerEncoderBlock) for layer in model.layers):
        raise InputError(
            f"model {model.name}: no TransformerEncoderBlock among its layers; give a transformer such as "
            "kseq.models.ViT (of models one in the other, the inner)"
        )
    if len(model.inputs) != 1:
        raise InputError(f"model {model.name}: has {len(model.inputs)} inputs; give one with a single input")
    images, wanted = np.asarray(images), model.inputs[0].shape[1:]
    fits = images.ndim == len(wanted) + 1 and len(images)
    if not fits or any(size not in (None, got) for size, got in zip(wanted, images.shape[1:], strict=True)):
        raise InputError(
            f"images of shape {images.shape}: give {('batch', *wanted)}; a function of one image adds the batch itself"
        )
    return images


def _block(weights: np.ndarray, block: int) -> np.ndarray:
    if not -len(weights) <= block < len(weights):
        raise InputError(f"block {block}: the model has {len(weights)}; give {-len(weights)} to {len(weights) - 1}")
    return weights[block]


def _place(query: int | Sequence[int] | None, grid: tuple[int, ...]) -> tuple[int, ...] | None:
    """Where in the grid the query is."""
    if query is None:
        return None
    place = np.ravel(query)
    if np.ndim(query) == 0 and 0 <= query < prod(grid):
        place = np.unravel_index(query, grid)
    if len(place) != len(grid) or any(not 0 <= at < size for at, size in zip(place, grid, strict=True)):
        last = tuple(size - 1 for size in grid)
        raise InputError(
            f"query {query!r}: no patch of the grid {grid}; give an index from 0 to {prod(grid) - 1}, a place from "
            f"{(0,) * len(grid)} to {last}, or None for the class token"
        )
    return tuple(int(at) for at in place)


@dataclass(frozen=True)
class _Patches:
    """The patches of a vision transformer.

    Attributes:
        grid: how many there are along each axis.
        size: pixels or voxels of one along each axis.
    """

    grid: tuple[int, ...]
    size: tuple[int, ...]

    def answers(self, weights: np.ndarray, place: tuple[int, ...] | None = None) -> np.ndarray:
        """What the class token, the patch at a place, or without both all patches look at.

        `(…, tokens, tokens)` → `(…, *grid)`.
        """
        among = self.among_patches(weights)
        prefix = weights.shape[-1] - among.shape[-1]
        if place is not None:
            row = among[..., np.ravel_multi_index(place, self.grid), :]
        else:
            row = weights[..., 0, prefix:] if prefix else among.mean(axis=-2)
        return row.reshape(*row.shape[:-1], *self.grid)

    def among_patches(self, weights: np.ndarray) -> np.ndarray:
        """The weights of patches for patches, without the tokens in front of them, such as the class token."""
        prefix = weights.shape[-1] - prod(self.grid)
        if prefix < 0:
            raise InputError(
                f"model: its blocks read {weights.shape[-1]} tokens, fewer than the {prod(self.grid)} patches of its "
                "patch embedding; give a transformer of patches, such as kseq.models.ViT"
            )
        return weights[..., prefix:, prefix:]


def _patches(model: keras.Model) -> _Patches:
    for layer in getattr(model, "layers", ()):
        if isinstance(layer, PatchEmbedding):
            grid = layer.output.shape[1:-1]
            return _Patches(tuple(grid), tuple(int(size) for size in np.broadcast_to(layer.patch_size, len(grid))))
    raise InputError(
        f"model {getattr(model, 'name', None) or shorten(model)}: no PatchEmbedding among its layers; give a vision "
        "transformer such as kseq.models.ViT"
    )


class _Picture:
    """What can be drawn of images or volumes and of the maps over their patches: of a volume, one slice."""

    def __init__(self, patches: _Patches, place: tuple[int, ...] | None = None):
        axes = len(patches.grid)
        if axes not in (2, 3):
            raise InputError(f"axis: patches along {axes} axes are no picture; give images or volumes, or no axis")
        self.place = None if place is None else place[-2:]
        self.patch = patches.size[-2:]
        self.covers = tuple(n * size for n, size in zip(patches.grid[-2:], self.patch, strict=True))
        self.slice, self.thickness = None, patches.size[0]
        if axes == 3:
            self.slice = patches.grid[0] // 2 if place is None else place[0]

    def maps(self, maps: np.ndarray) -> np.ndarray:
        """`(n, *grid)` → `(n, rows, columns)`."""
        return maps if self.slice is None else maps[:, self.slice]

    def images(self, images) -> np.ndarray:
        """`(n, *space, channels)` → `(n, height, width, channels)`."""
        images = np.asarray(images)
        if self.slice is None:
            return images
        return images.take(self.slice * self.thickness + self.thickness // 2, axis=1, mode="clip")

    def frame_query(self, axis: "Axes") -> None:
        """Frame the query's patch in each tile on the axis."""
        from matplotlib.patches import Rectangle

        if self.place is None:
            return
        (row, column), (height, width) = self.place, self.patch
        for left, top in {(image.get_extent()[0], image.get_extent()[3]) for image in axis.images}:
            corner = (left + column * width, top + row * height)
            axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="red", linewidth=1.5))
