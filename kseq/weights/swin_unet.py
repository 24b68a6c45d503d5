"""The Swin-Unet of its authors."""

import re
from collections.abc import Collection
from math import prod

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import PatchEmbedding, PatchExpanding, PatchMerging, SwinBlock
from kseq.weights import torch_layers
from kseq.weights.layer_rules import Source, dense_rules, norm_rules
from kseq.weights.layout import Layout, Rule
from kseq.weights.swin import BLOCK, block_rules, merging_rules


class SwinUnetCao(Layout):
    """`SwinTransformerSys` of HuCaoFighting/Swin-Unet into `kseq.models.SwinUnet`; the tensors may share a prefix.

    Its decoder counts from the coarsest resolution on. Patch expanding belongs to the end of the stage in front of it;
    the first one alone is stage 0. A table of relative positions of another window is resampled.

    Source: HuCaoFighting/Swin-Unet, networks/swin_transformer_unet_skip_expand_decoder_sys.py.
    """

    name = "swin_unet"

    def recognises(self, names: set[str]) -> bool:
        return _prefix(names) is not None and not any(name.endswith("global_token") for name in names)

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        layers = {layer.name: layer for layer in getattr(model, "layers", [])}
        if not isinstance(layers.get("final_expanding"), PatchExpanding):
            raise InputError(
                f"{model.name}: no kseq.models.SwinUnet, to which {self.name} checkpoints belong; build one"
            )
        self.check(layers)
        prefix = _prefix(tensors) or ""
        coarsest = max(int(match[1]) for name in layers if (match := re.fullmatch(r"stage_(\d+)_norm", name)))
        first = 1 - ("decoder_stage_0_upsampling" in layers)
        rules = []
        for name, layer in layers.items():
            if layer.variables:
                rules += self.layer_rules(layer, prefix + self.module(name, coarsest, first), tensors)
        return rules

    def check(self, layers: dict[str, keras.layers.Layer]) -> None:
        """Raise InputError if a model of these layers has more than such checkpoints."""
        if any(re.fullmatch(r"stage_0_tokens|decoder_stage_0_upsampling", name) for name in layers):
            raise InputError(
                f"model: it has global tokens or non-local upsampling, {self.name} checkpoints have not; build it with "
                "global_tokens=0 and upsampling='expand'"
            )

    def module(self, name: str, coarsest: int, first: int) -> str:
        """What the checkpoint calls the layer of this name.

        Args:
            name: of the layer.
            coarsest: our number of the coarsest stage.
            first: the checkpoint's number of the decoder's stage on the grid twice as fine as that.
        """
        whole = {
            "patch_embedding": "patch_embed.proj",
            "patch_norm": "patch_embed.norm",
            f"stage_{coarsest}_norm": "norm",
            "decoder_norm": "norm_up",
            "final_expanding": "up",
            "logits": "output",
        }
        if name in whole:
            return whole[name]
        decoder, stage, part = re.fullmatch(r"(decoder_)?stage_(\d+)_(.+)", name).groups()
        if not decoder:
            return f"layers.{stage}.{self.part(part)}"
        return self.decoder_module(coarsest - 1 - int(stage) + first, part)

    def decoder_module(self, number: int, part: str) -> str:
        """The same for a part of the decoder's stage of the checkpoint's number."""
        if part == "expanding":
            return "layers_up.0" if number == 1 else f"layers_up.{number - 1}.upsample"
        if part == "reduction":
            return f"concat_back_dim.{number}"
        return f"layers_up.{number}.{self.part(part)}"

    def part(self, name: str) -> str:
        """The same for a part of a stage."""
        return "downsample" if name == "merging" else re.sub(r"block_(\d+)", r"blocks.\1", name)

    def layer_rules(self, layer: keras.layers.Layer, module: str, tensors: dict[str, np.ndarray]) -> list[Rule]:
        """The rules of a layer that the checkpoint of these tensors calls `module`."""
        if isinstance(layer, SwinBlock):
            return block_rules(layer, f"{module}.", BLOCK, tensors)
        if isinstance(layer, PatchMerging):
            return merging_rules(layer, module)
        if isinstance(layer, PatchExpanding):
            return _dense(layer.expansion, f"{module}.expand") + _norm(layer.norm, f"{module}.norm")
        if isinstance(layer, PatchEmbedding):
            inputs, units = layer.projection.kernel.shape
            sources = torch_layers.patches(module, layer.patch_size, inputs // prod(layer.patch_size), units)
            return dense_rules(layer.projection, sources)
        if isinstance(layer, keras.layers.LayerNormalization):
            return _norm(layer, module)
        if layer.name == "logits":  # a convolution of kernel 1
            shape = (*layer.kernel.shape[::-1], *(1,) * (len(layer.input.shape) - 2))
            kernel = Source(f"{module}.weight", shape, lambda kernel: kernel.reshape(kernel.shape[:2]).T)
            return [kernel.rule(layer.kernel)]
        return _dense(layer, module)

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        return name.endswith(("relative_position_index", "attn_mask"))


def _prefix(names: Collection[str]) -> str | None:
    """What stands in front of all names, told by the normalisation behind the decoder, if that is there."""
    found = [name.removesuffix("norm_up.weight") for name in names if re.fullmatch(r"(.*\.)?norm_up\.weight", name)]
    return min(found, key=len) if found else None


def _dense(dense: keras.layers.Dense, module: str) -> list[Rule]:
    return dense_rules(dense, torch_layers.dense(module, *dense.kernel.shape))


def _norm(norm: keras.layers.LayerNormalization, module: str) -> list[Rule]:
    return norm_rules(norm, torch_layers.norm(module, norm.gamma.shape[0]))
