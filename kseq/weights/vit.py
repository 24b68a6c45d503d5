"""What the layouts of a vision transformer share: the parts of `kseq.models.ViT`, and positions on another grid."""

import re
from collections.abc import Collection
from math import prod
from types import ModuleType

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import LearnedPositionEncoding, PatchEmbedding
from kseq.weights import torch_layers
from kseq.weights.layer_rules import block_rules, dense_rules, norm_rules
from kseq.weights.layout import Layout, Rule
from kseq.weights.positions import Interpolation, check_interpolation, equal_sides, resample_positions


class VitLayout(Layout):
    """Vision transformers of one library into `kseq.models.ViT`; a subclass says how they name its parts.

    The tensors may share a prefix. A checkpoint whose positions are of another number than the model's is taken for a
    square (of a volume, a cube) and resampled to the grid of the model, as timm does it or, with "bilinear", the JAX
    repositories; Hugging Face and torchvision interpolate a little differently at run time. If it has none for the
    class token, which is then added behind the positions, that of the model becomes 0.

    A `kseq.models.SETR` or `TransUNet(hybrid=False)` starts from such a checkpoint too: its encoder is loaded, the
    decoder keeps its weights. What it has no layer for is left out: the head, the last normalisation (of SETR), and
    the class token with its position (of TransUNet and of SETR with decoder "mla").

    Args:
        interpolation: of positions, "bicubic" or "bilinear", see `resample_positions`; `None` is bicubic, of JAX
            checkpoints bilinear.

    Attributes:
        library: how it keeps affine maps, normalisations and attentions.
        patch_embedding: its name of the layer of this name in our model; so `class_token`, `encoder_norm`, `logits`.
        position_encoding: all names that the table of positions has had.
        head: names of whatever stands behind `encoder_norm`, of use only to the layer `logits`.
        blocks: all forms that a block has had: the prefix of block {} and, behind it, the names of `block_rules`.
        interpolation: of positions.
    """

    library: ModuleType = torch_layers
    patch_embedding = ""
    class_token = ""
    position_encoding: tuple[str, ...] = ()
    encoder_norm = ""
    logits = ""
    head: tuple[str, ...] = ()
    blocks: tuple[tuple[str, dict], ...] = ()
    interpolation: Interpolation = "bicubic"

    def __init__(self, interpolation: Interpolation | None = None):
        if interpolation is not None:
            check_interpolation(interpolation)
            self.interpolation = interpolation

    def recognises(self, names: set[str]) -> bool:
        prefix = self._prefix(names)
        return prefix is not None and any(self._is_written(form, prefix, names) for form in self.blocks)

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        layers = _layers(model)
        patches = layers.get("patch_embedding")
        if not isinstance(patches, PatchEmbedding):
            raise InputError(f"{model.name}: no kseq.models.ViT, to which {self.name} checkpoints belong; build one")
        prefix = self._prefix(tensors) or ""
        rank = len(model.input_shape) - 2
        patch = (patches.patch_size,) * rank if isinstance(patches.patch_size, int) else patches.patch_size
        inputs, embed_dim = patches.projection.kernel.shape
        sources = self.library.patches(prefix + self.patch_embedding, patch, inputs // prod(patch), embed_dim)
        rules = dense_rules(patches.projection, sources)
        if "class_token" in layers:
            token = layers["class_token"].token
            rules.append(Rule(token, {prefix + self.class_token: tuple(token.shape)}, np.asarray))
        if isinstance(positions := layers.get("position_encoding"), LearnedPositionEncoding):
            rules.append(self._positions_rule(positions, prefix, tensors))
        form = next((form for form in self.blocks if self._is_written(form, prefix, tensors)), self.blocks[0])
        for name, layer in layers.items():
            if match := re.fullmatch(r"encoder_block_(\d+)", name):
                rules += block_rules(layer, self.library, _behind(prefix + form[0].format(match[1]), form[1]))
        if "encoder_norm" in layers:
            rules += norm_rules(layers["encoder_norm"], self.library.norm(prefix + self.encoder_norm, embed_dim))
        if isinstance(layers.get("logits"), keras.layers.Dense):  # a model for segmentation has a convolution
            dense = layers["logits"]
            rules += dense_rules(dense, self.library.dense(self._logits(prefix), *dense.kernel.shape))
        return rules

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        if "logits" in skip and set(re.split("[./]", name)) & set(self.head):
            return True
        return "position_encoding" in skip and name.endswith(self.position_encoding)  # a model of sines has no rule

    def unused(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> set[str]:
        layers = _layers(model)
        if "logits" not in layers or isinstance(layers["logits"], keras.layers.Dense):
            return set()
        prefix = self._prefix(tensors) or ""
        names = {name for name in tensors if set(re.split("[./]", name)) & set(self.head)}
        if "encoder_norm" not in layers:
            names |= {source.name for source in self.library.norm(prefix + self.encoder_norm, 0)}
        return names if "class_token" in layers else names | {prefix + self.class_token}

    def _prefix(self, names: Collection[str]) -> str | None:
        """What stands in front of all names, told by the patch embedding, if that is there."""
        kernel = self.library.dense(self.patch_embedding, 0, 0)[0].name
        found = [name.removesuffix(kernel) for name in names if re.fullmatch(rf"(.*[./])?{re.escape(kernel)}", name)]
        return min(found, key=len) if found else None

    def _is_written(self, form: tuple[str, dict], prefix: str, names: Collection[str]) -> bool:
        kernel, _ = self.library.dense(prefix + form[0].format(0) + form[1]["expand"], 0, 0)
        return kernel.name in names

    def _logits(self, prefix: str) -> str:
        return prefix + self.logits

    def _positions_rule(self, layer: LearnedPositionEncoding, prefix: str, tensors: dict[str, np.ndarray]) -> Rule:
        names = [prefix + name for name in self.position_encoding]
        name = next((name for name in names if name in tensors), names[0])
        rows, embed_dim = layer.table.shape
        if name in tensors and tensors[name].ndim == 3:
            rows = tensors[name].shape[1]  # any number can be resampled
        has_more = not layer.num_prefix_tokens and prefix + self.class_token in tensors

        def on_our_grid(table: np.ndarray) -> np.ndarray:
            table, tokens, grid = table[0], layer.num_prefix_tokens, layer.grid_shape
            if has_more and (len(table) == 1 + prod(grid) or equal_sides(len(table), len(grid)) is None):
                table = table[1:]  # that of the class token
            if len(table) != tokens + prod(grid) and (len(table) == prod(grid) or equal_sides(len(table), len(grid))):
                table = np.pad(table, [(tokens, 0), (0, 0)])
            positions = len(table) - tokens
            from_grid = grid if positions == prod(grid) else equal_sides(positions, len(grid))
            if from_grid is None:
                raise InputError(
                    f"{name}: {positions} positions are no grid of equal sides, so they cannot be resampled to {grid}; "
                    "give a dict with the result of kseq.weights.resample_positions, or skip 'position_encoding'"
                )
            return resample_positions(table, from_grid, grid, tokens, self.interpolation)

        return Rule(layer.table, {name: (1, rows, embed_dim)}, on_our_grid)


def _layers(model: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    return {layer.name: layer for layer in getattr(model, "layers", [])}


def _behind(prefix: str, names: dict) -> dict:
    return {key: _behind(prefix, name) if isinstance(name, dict) else prefix + name for key, name in names.items()}
