"""The UPerNet of mmsegmentation on the Swin transformers of Microsoft and of GLAM."""

import re
from collections.abc import Collection

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import Convolution, Dense
from kseq.weights.glam_swin import GlamSwin
from kseq.weights.layout import Rule
from kseq.weights.swin import SwinMicrosoft
from kseq.weights.torch_convolutions import batch_norm_rules, convolution_rules, pointwise_rules

BRANCH = r"(pooled|lateral|fused|fusion|auxiliary)(?:_(\d+))?_(?:product|convolution|norm)"
MODULES = {  # its names of the others
    "lateral": "bottleneck",  # of the coarsest map
    "fused": "fpn_convs.{}",
    "fusion": "fpn_bottleneck",
    "auxiliary": "convs.0",
}


class UPerNetSwin(SwinMicrosoft):
    """`EncoderDecoder` of SwinTransformer/Swin-Transformer-Semantic-Segmentation into `UPerNet(Swin(features=True))`.

    Its encoder is read as the backbone alone is. The auxiliary head is left out where the model has none.

    Source: open-mmlab/mmsegmentation 0.11, mmseg/models/decode_heads/uper_head.py, fcn_head.py and psp_head.py.
    """

    name = "upernet_swin"

    def recognises(self, names: set[str]) -> bool:
        return super().recognises(names) and f"{self._head(names)}fpn_bottleneck.conv.weight" in names

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        layers = {layer.name: layer for layer in getattr(model, "layers", [])}
        norms = [layer for name, layer in layers.items() if re.fullmatch(r"stage_\d+_norm", name)]
        if "fusion_convolution" not in layers or not norms:
            raise InputError(
                f"{model.name}: no kseq.models.UPerNet on a kseq.models.Swin(…, features=True), to which {self.name} "
                "checkpoints belong; build one"
            )
        encoder = keras.Model(model.input, [norm.output for norm in norms], name=model.name)
        rules = super().rules(encoder, tensors)
        scales = [name for name in layers if re.fullmatch(r"pooled_\d+_product", name)]
        head = self._head(tensors)
        helper = head.removesuffix("decode_head.") + "auxiliary_head."
        for name, layer in layers.items():
            if name in ("logits", "auxiliary_0"):
                rules += pointwise_rules(layer, (head if name == "logits" else helper) + "conv_seg", 2)
            elif match := re.fullmatch(BRANCH, name):
                kind, number = match.groups()
                module = helper if kind == "auxiliary" else head
                if kind == "pooled":
                    module += f"psp_modules.{scales.index(f'pooled_{number}_product')}.1"
                elif kind == "lateral" and f"lateral_{number}_product" in layers:
                    module += f"lateral_convs.{number}"
                else:
                    module += MODULES[kind].format(number)
                if isinstance(layer, Dense):
                    rules += pointwise_rules(layer, f"{module}.conv", 2)
                elif isinstance(layer, Convolution):
                    rules += convolution_rules(layer, f"{module}.conv")
                else:
                    rules += batch_norm_rules(layer, f"{module}.bn")
        return rules

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        if "auxiliary_head." in name or name.endswith("num_batches_tracked"):
            return True
        if "decode_head." in name:
            return "logits" in skip and ".conv_seg." in name
        return super().ignores(name, skip)

    def _head(self, names: Collection[str]) -> str:
        """What stands in front of the tensors of the decoder."""
        return (self._prefix(names) or "backbone.").removesuffix("backbone.") + "decode_head."


class UPerNetGlamSwin(UPerNetSwin, GlamSwin):
    """`EncoderDecoder` of themyrl/glam into `UPerNet(Swin(global_tokens=g, features=True))`."""

    name = "upernet_glam_swin"
