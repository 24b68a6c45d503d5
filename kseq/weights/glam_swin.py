"""The Swin backbones of GLAM, with global tokens."""

import re
from collections.abc import Collection

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import GlobalAttention, GlobalPositions, GlobalTokens
from kseq.weights import torch_layers
from kseq.weights.layer_rules import attention_rules
from kseq.weights.layout import Rule
from kseq.weights.swin import SwinMicrosoft


class GlamSwin(SwinMicrosoft):
    """`SwinTransformerGTV8` of themyrl/glam into `Swin(global_tokens=g, features=True)`.

    Its tables of positions have (45 g // 2^i)² rows in stage i; a shorter one of ours takes those in the middle, which
    are the ones in use. The attention of the global tokens in the last block of a stage has no effect and is left out.

    Source: themyrl/glam, mmseg/models/backbones/swin_transformer_gtv8.py.
    """

    name = "glam_swin"

    def recognises(self, names: set[str]) -> bool:
        prefix = self._prefix(names)
        return prefix is not None and f"{prefix}layers.0.global_token" in names

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        rules, prefix = super().rules(model, tensors), self._prefix(tensors) or ""
        for layer in model.layers:
            if (stage := re.match(r"stage_(\d+)_", layer.name)) is None:
                continue  # the tokens in the decoder of a SwinUnet keep their weights
            begin = f"{prefix}layers.{stage[1]}."
            if isinstance(layer, GlobalTokens):
                rules.append(Rule(layer.tokens, {f"{begin}global_token": tuple(layer.tokens.shape)}, np.asarray))
            elif isinstance(layer, GlobalPositions):
                rules.append(_positions_rule(layer, f"{begin}pe", tensors))
            elif isinstance(layer, GlobalAttention):
                block = re.search(r"block_(\d+)", layer.name)[1]
                name = f"{begin}blocks.{block}.gt_attn"
                names = {"packed_weight": f"{name}.qkv.weight", "packed_bias": f"{name}.qkv.bias"}
                sources = torch_layers.attention(names | {"output": f"{name}.proj"}, layer.attention.num_heads)
                rules += attention_rules(layer.attention, sources)
        return rules

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        return ".gt_attn." in name or super().ignores(name, skip)


def _positions_rule(layer: GlobalPositions, name: str, tensors: dict[str, np.ndarray]) -> Rule:
    rows, dim = layer.table.shape
    given = len(tensors[name]) if name in tensors and tensors[name].ndim == 2 else rows

    def middle(table: np.ndarray) -> np.ndarray:
        if given < rows:
            raise InputError(
                f"{name}: {given} positions, where the model has {rows} global tokens; give a smaller input_shape, or "
                "global_positions as in the checkpoint"
            )
        first = given // 2 - rows // 2
        return table[first : first + rows]

    return Rule(layer.table, {name: (given, dim)}, middle)
