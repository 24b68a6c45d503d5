"""The GLAM-Swin-Unets of their authors, with patch expanding or with non-local upsampling."""

from collections.abc import Collection
from math import prod

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import GlobalAttention, GlobalPositions, GlobalTokens, NonLocalUpsampling
from kseq.weights import torch_layers
from kseq.weights.layer_rules import Source, attention_rules, dense_rules, norm_rules
from kseq.weights.layout import Rule
from kseq.weights.swin_unet import SwinUnetCao


class GlamSwinUnet(SwinUnetCao):
    """`SwinTransformerSys` of themyrl/glam, with tokens, and the one that upsamples by cross-attention.

    In the latter the decoder's stages count from 0, and what upsamples is apart from them. It reads its position bias
    at wrong places, as `SwinUnet(legacy=True)` does, whose table has the rows that are ever read. Its layers that no
    output needs (another shortcut, another patch expanding, the G-MSA behind the last block of
    a stage, the positions of a stage of one block) are passed by.

    Source: themyrl/glam, mmseg/models/utils/swin_unet_v2_utils_gtv8.py and
    swin_unet_v2_gtv8_cross_attention_utils.py.
    """

    name = "glam_swin_unet"

    def recognises(self, names: set[str]) -> bool:
        is_unet = any(name.endswith("norm_up.weight") for name in names)
        return is_unet and any(name.endswith("layers.0.global_token") for name in names)

    def check(self, layers: dict[str, keras.layers.Layer]) -> None:
        if "stage_0_tokens" not in layers:
            raise InputError(
                f"model: it has no global tokens, {self.name} checkpoints have; build it with global_tokens"
            )
        for layer in layers.values():
            if isinstance(layer, NonLocalUpsampling) and not layer.legacy:
                raise InputError(
                    f"model: its position bias is that of the true offsets, {self.name} checkpoints are trained with "
                    "another; build it with legacy=True"
                )

    def decoder_module(self, number: int, part: str) -> str:
        if part == "upsampling":
            return f"layers_cross_attention_up.{number}.blocks.0"
        return super().decoder_module(number, part)

    def part(self, name: str) -> str:
        names = {"tokens": "global_token", "positions": "pe"}
        return names.get(name) or super().part(name).replace("_global_attention", ".gt_attn")

    def layer_rules(self, layer: keras.layers.Layer, module: str, tensors: dict[str, np.ndarray]) -> list[Rule]:
        if isinstance(layer, (GlobalTokens, GlobalPositions)):
            (variable,) = layer.variables
            return [Source(module, tuple(variable.shape)).rule(variable)]
        if isinstance(layer, GlobalAttention):
            names = {
                "packed_weight": f"{module}.qkv.weight",
                "packed_bias": f"{module}.qkv.bias",
                "output": f"{module}.proj",
            }
            return attention_rules(layer.attention, torch_layers.attention(names, layer.attention.num_heads))
        if isinstance(layer, NonLocalUpsampling):
            return upsampling_rules(layer, module)
        return super().layer_rules(layer, module, tensors)

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        unused = (".gt_attn.", ".proj_shortcut.", "layers_patch_expand.")
        return super().ignores(name, skip) or name.endswith(".pe") or any(part in name for part in unused)


def upsampling_rules(layer: NonLocalUpsampling, module: str) -> list[Rule]:
    """The rules of non-local upsampling that a checkpoint of themyrl/glam calls `module`."""
    dense = {
        layer.expanding.expansion: "expand.expand",
        layer.query_projection: "attn.proj_q",
        layer.key_value_projection: "attn.proj_kv",
        layer.output_projection: "attn.proj",
        layer.feed_forward.expand: "mlp.fc1",
        layer.feed_forward.contract: "mlp.fc2",
    }
    norms = {layer.expanding.norm: "expand.norm", layer.key_value_norm: "norm1", layer.feed_forward_norm: "norm2"}
    rules = []
    for part, name in dense.items():
        rules += dense_rules(part, torch_layers.dense(f"{module}.{name}", *part.kernel.shape))
    for part, name in norms.items():
        rules += norm_rules(part, torch_layers.norm(f"{module}.{name}", part.gamma.shape[0]))
    rows, heads = layer.table.shape
    table = Source(
        f"{module}.attn.relative_position_bias_table",
        (prod(4 * size - 1 for size in layer.window), heads),
        lambda table: np.asarray(table)[:rows],
    )
    return [*rules, table.rule(layer.table)]
