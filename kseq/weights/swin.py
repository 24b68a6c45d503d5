"""Swin transformers of Microsoft, timm and Hugging Face into `kseq.models.Swin`."""

import re
from collections.abc import Collection
from math import prod

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import LearnedPositionEncoding, PatchEmbedding, PatchMerging, SwinBlock, WindowAttention
from kseq.weights import torch_layers
from kseq.weights.layer_rules import dense_rules, norm_rules
from kseq.weights.layout import Layout, Rule
from kseq.weights.positions import equal_sides, resample_positions

BLOCK = {  # Microsoft's names of the parts of a block, which timm has too
    "attention_norm": "norm1",
    "table": "attn.relative_position_bias_table",
    "packed": "attn.qkv",
    "output": "attn.proj",
    "feed_forward_norm": "norm2",
    "expand": "mlp.fc1",
    "contract": "mlp.fc2",
}


class SwinLayout(Layout):
    """Swin transformers of one library; a subclass says how they name its parts.

    The tensors may share a prefix. A table of relative positions of another window is resampled (bicubic, as for
    fine-tuning with another window), and so are absolute positions of another grid. Backbones for detection and
    segmentation have a normalisation behind each stage, classifiers only one behind the last: from these, a
    `Swin(features=True)` takes that, and its normalisations of the other stages stay as they are.

    A `kseq.models.SwinUnet` starts from such a checkpoint as its authors have it start: the blocks of the decoder get
    the weights of those of the encoder on the same grid (`load_from` of HuCaoFighting/Swin-Unet copies `layers.i` to
    `layers_up.(3 − i)`). Blocks that the encoder has no counterpart for, and all other layers of the decoder, keep
    their weights; the head is left out, and so are normalisations behind the other stages.

    Attributes:
        patches: its name of the layer `patch_embedding` of our model; so `patch_norm`, `norm` behind the last stage,
            `positions` and `logits`.
        stage_norm: of the normalisation behind stage {}.
        blocks: all forms that a block has had: its name, {stage} and {block} in it, and those of its parts behind it.
        merging: of the merging that belongs to stage {}.
        merging_begins: 0 if a merging belongs to the stage in front of it, 1 if to the one behind.
    """

    patches = ""
    patch_norm = ""
    positions = ""
    stage_norm = ""
    norm = ""
    logits = ""
    blocks: tuple[tuple[str, dict[str, str]], ...] = ()
    merging = ""
    merging_begins = 0

    def recognises(self, names: set[str]) -> bool:
        prefix = self._prefix(names)
        return prefix is not None and any(self._is_written(form, prefix, names) for form in self.blocks)

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        layers = {layer.name: layer for layer in getattr(model, "layers", [])}
        patches = layers.get("patch_embedding")
        if not isinstance(patches, PatchEmbedding) or not isinstance(layers.get("stage_0_block_0"), SwinBlock):
            raise InputError(f"{model.name}: no kseq.models.Swin, to which {self.name} checkpoints belong; build one")
        prefix = self._prefix(tensors) or ""
        rank = len(model.input_shape) - 2
        patch = (patches.patch_size,) * rank if isinstance(patches.patch_size, int) else patches.patch_size
        inputs, embed_dim = patches.projection.kernel.shape
        sources = torch_layers.patches(prefix + self.patches, patch, inputs // prod(patch), embed_dim)
        rules = dense_rules(patches.projection, sources)
        rules += norm_rules(layers["patch_norm"], torch_layers.norm(prefix + self.patch_norm, embed_dim))
        form = next((form for form in self.blocks if self._is_written(form, prefix, tensors)), self.blocks[0])
        stages = 1 + max(int(match[1]) for name in layers if (match := re.fullmatch(r"stage_(\d+)_block_0", name)))
        for name, layer in layers.items():
            if isinstance(layer, LearnedPositionEncoding):
                rules.append(self._positions_rule(layer, prefix, tensors))
            elif (match := re.fullmatch(r"(?:decoder_)?(stage_(\d+)_block_(\d+))", name)) and match[1] in layers:
                rules += block_rules(layer, prefix + form[0].format(match[2], match[3]), form[1], tensors)
            elif match := re.fullmatch(r"stage_(\d+)_merging", name):
                begin = prefix + self.merging.format(int(match[1]) + self.merging_begins)
                rules += merging_rules(layer, begin)
            elif match := re.fullmatch(r"stage_(\d+)_norm", name):
                rules += self._stage_norm_rules(layer, int(match[1]), stages, prefix, tensors)
            elif name == "logits" and not _segments(layers):
                rules += dense_rules(layer, torch_layers.dense(self._logits(prefix), *layer.kernel.shape))
        return rules

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        if name.endswith(("relative_position_index", "attn_mask")):
            return True
        return "logits" in skip and self.logits.split(".")[0] in name.split(".")

    def unused(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> set[str]:
        layers = {layer.name: layer for layer in getattr(model, "layers", [])}
        if not _segments(layers):
            return set()
        prefix, head = self._prefix(tensors) or "", self.logits.split(".")[0]
        norms = [prefix + self.stage_norm.format(stage) for stage in range(len(layers))]
        norms = [norm for stage, norm in enumerate(norms) if f"stage_{stage}_norm" not in layers]
        sources = [source.name for norm in norms for source in torch_layers.norm(norm, 0)]
        return {name for name in tensors if head in name.split(".")} | set(sources)

    def _prefix(self, names: Collection[str]) -> str | None:
        """What stands in front of all names, told by the patch embedding, if that is there."""
        kernel = f"{self.patches}.weight"
        found = [name.removesuffix(kernel) for name in names if re.fullmatch(rf"(.*\.)?{re.escape(kernel)}", name)]
        return min(found, key=len) if found else None

    def _is_written(self, form: tuple[str, dict[str, str]], prefix: str, names: Collection[str]) -> bool:
        return prefix + form[0].format(0, 0) + form[1]["table"] in names

    def _logits(self, prefix: str) -> str:
        return prefix + self.logits

    def _stage_norm_rules(self, layer, stage: int, stages: int, prefix: str, tensors) -> list[Rule]:
        name = prefix + self.stage_norm.format(stage)
        if f"{prefix}{self.stage_norm.format(stages - 1)}.weight" not in tensors:  # the checkpoint of a classifier
            if stage < stages - 1:
                return []
            name = prefix + self.norm
        return norm_rules(layer, torch_layers.norm(name, layer.gamma.shape[0]))

    def _positions_rule(self, layer: LearnedPositionEncoding, prefix: str, tensors: dict[str, np.ndarray]) -> Rule:
        name, grid = prefix + self.positions, layer.grid_shape
        positions, dim = layer.table.shape
        shape = (1, positions, dim)
        if name in tensors and tensors[name].ndim == len(grid) + 2:
            shape = (1, dim, *tensors[name].shape[2:])  # backbones for detection have a map, channels first
        elif name in tensors and tensors[name].ndim == 3:
            shape = (1, tensors[name].shape[1], dim)  # any number can be resampled

        def on_our_grid(table: np.ndarray) -> np.ndarray:
            if table.ndim > 3:
                from_grid, table = table.shape[2:], np.moveaxis(table[0], 0, -1).reshape(-1, dim)
            else:
                table = table[0]
                from_grid = grid if len(table) == prod(grid) else _sides(name, len(table), len(grid))
            return resample_positions(table, from_grid, grid)

        return Rule(layer.table, {name: shape}, on_our_grid)


class SwinMicrosoft(SwinLayout):
    """microsoft/Swin-Transformer, and its backbones for detection and segmentation.

    Source: microsoft/Swin-Transformer, models/swin_transformer.py; SwinTransformer/Swin-Transformer-Semantic-
    Segmentation, mmseg/models/backbones/swin_transformer.py.
    """

    name = "swin_microsoft"
    patches = "patch_embed.proj"
    patch_norm = "patch_embed.norm"
    positions = "absolute_pos_embed"
    stage_norm = "norm{}"
    norm = "norm"
    logits = "head"
    blocks = (("layers.{}.blocks.{}.", BLOCK),)
    merging = "layers.{}.downsample"

    def recognises(self, names: set[str]) -> bool:
        return super().recognises(names) and not SwinTimm().recognises(names)


class SwinTimm(SwinLayout):
    """timm from 0.9 on, whose stages begin with the merging; before, it had Microsoft's names.

    Source: timm 1.0, timm/models/swin_transformer.py.
    """

    name = "swin_timm"
    patches = "patch_embed.proj"
    patch_norm = "patch_embed.norm"
    positions = "absolute_pos_embed"
    stage_norm = "norm{}"
    norm = "norm"
    logits = "head.fc"
    blocks = (("layers.{}.blocks.{}.", BLOCK), ("layers_{}.blocks.{}.", BLOCK))  # the second with features_only
    merging = "layers.{}.downsample"
    merging_begins = 1

    def recognises(self, names: set[str]) -> bool:
        prefix = self._prefix(names)
        if not super().recognises(names):
            return False
        first, second = (prefix + self.merging.format(stage) + ".reduction.weight" for stage in (0, 1))
        return f"{prefix}head.fc.weight" in names or (first not in names and second in names)


def _segments(layers: Collection[str]) -> bool:
    """Whether these are the layers of a SwinUnet, whose logits are not those of a classifier."""
    return "final_expanding" in layers


def _transformers_block(attention: dict[str, str], expand: str, contract: str) -> dict[str, str]:
    parts = {"attention_norm": "layernorm_before", "feed_forward_norm": "layernorm_after"}
    return parts | attention | {"expand": expand, "contract": contract}


ON_DISK = _transformers_block(
    {
        "table": "attention.self.relative_position_bias_table",
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "output": "attention.output.dense",
    },
    "intermediate.dense",
    "output.dense",
)
IN_MEMORY = _transformers_block(
    {
        "table": "attention.relative_position_bias.relative_position_bias_table",
        **{part: f"attention.{part[0]}_proj" for part in ("query", "key", "value", "output")},
    },
    "mlp.fc1",
    "mlp.fc2",
)


class SwinTransformers(SwinLayout):
    """`SwinForImageClassification`, or a `SwinModel`, which has no `logits`: skip them.

    Files keep the names of transformers 4; the modules of transformers 5 have others.

    Source: transformers 5, transformers/models/swin/modeling_swin.py.
    """

    name = "swin_transformers"
    patches = "embeddings.patch_embeddings.projection"
    patch_norm = "embeddings.norm"
    positions = "embeddings.position_embeddings"
    stage_norm = "hidden_states_norms.stage{}"
    norm = "layernorm"
    logits = "classifier"
    blocks = (
        ("encoder.layers.{}.blocks.{}.", ON_DISK),
        ("encoder.layers.{}.blocks.{}.", IN_MEMORY),
    )
    merging = "encoder.layers.{}.downsample"

    def _logits(self, prefix: str) -> str:
        return prefix.removesuffix("swin.") + self.logits  # it stands beside the model, not in it


def block_rules(block: SwinBlock, prefix: str, names: dict[str, str], tensors: dict[str, np.ndarray]) -> list[Rule]:
    """Rules for a block whose parts stand behind `prefix` under the names that, like `BLOCK`, `names` gives them."""
    names = {part: prefix + name for part, name in names.items()}
    rules = []
    for branch, norm in block.norms.items():
        rules += norm_rules(norm, torch_layers.norm(names[f"{branch}_norm"], norm.gamma.shape[0]))
    rules += window_attention_rules(block.attention, names, tensors)
    for part in ("expand", "contract"):
        dense = getattr(block.feed_forward, part)
        rules += dense_rules(dense, torch_layers.dense(names[part], *dense.kernel.shape))
    return rules


def merging_rules(layer: PatchMerging, prefix: str) -> list[Rule]:
    """Rules for `norm` and `reduction` of the merging with this name."""
    rules = norm_rules(layer.norm, torch_layers.norm(f"{prefix}.norm", layer.norm.gamma.shape[0]))
    return rules + dense_rules(
        layer.reduction, torch_layers.dense(f"{prefix}.reduction", *layer.reduction.kernel.shape)
    )


def window_attention_rules(
    attention: WindowAttention, names: dict[str, str], tensors: dict[str, np.ndarray]
) -> list[Rule]:
    """Rules for the products and the table, which is resampled if it is one of another window.

    Args:
        attention: built.
        names: of "table", "output" and either "packed", the product of query, key and value one after the other, or
            "query", "key" and "value".
        tensors: of the checkpoint.
    """
    dim = attention.output_projection.units
    rules = dense_rules(attention.output_projection, torch_layers.dense(names["output"], dim, dim))
    if "packed" in names:
        rules += dense_rules(attention.qkv, torch_layers.dense(names["packed"], dim, 3 * dim))
    else:
        parts = [names[part] for part in ("query", "key", "value")]
        weights = {f"{part}.weight": (dim, dim) for part in parts}
        rules.append(Rule(attention.qkv.kernel, weights, lambda *parts: np.concatenate(parts).T))
        if attention.qkv.use_bias:
            biases = {f"{part}.bias": (dim,) for part in parts}
            rules.append(Rule(attention.qkv.bias, biases, lambda *parts: np.concatenate(parts)))
    if attention.relative_position_bias:
        rules.append(_table_rule(attention, names["table"], tensors))
    return rules


def _table_rule(attention: WindowAttention, name: str, tensors: dict[str, np.ndarray]) -> Rule:
    shape, offsets = tuple(attention.table.shape), tuple(2 * w - 1 for w in attention.window)
    if name in tensors and tensors[name].ndim == 2:
        shape = (len(tensors[name]), shape[1])  # any number can be resampled

    def for_our_window(table: np.ndarray) -> np.ndarray:
        from_offsets = offsets if len(table) == prod(offsets) else _sides(name, len(table), len(offsets))
        return resample_positions(table, from_offsets, offsets)

    return Rule(attention.table, {name: shape}, for_our_window)


def _sides(name: str, rows: int, axes: int) -> tuple[int, ...]:
    sides = equal_sides(rows, axes)
    if sides is None:
        raise InputError(
            f"{name}: {rows} rows are no table of equal sides, so it cannot be resampled; build the model with the "
            "window and input_shape of the checkpoint"
        )
    return sides
