"""The SETR of its authors, in the framework mmsegmentation."""

import re
from collections.abc import Collection

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import Convolution, LayerNormalization
from kseq.weights import torch_layers
from kseq.weights.layer_rules import norm_rules
from kseq.weights.layout import Rule
from kseq.weights.torch_convolutions import batch_norm_rules, convolution_rules
from kseq.weights.vit_timm import VitTimm


class Setr(VitTimm):
    """`EncoderDecoder` of fudan-zvg/SETR with the decoder naive, PUP or MLA, into `kseq.models.SETR`.

    The encoder has the names of timm. Of no use are `conv_seg` of every head, and what belongs to the class token of
    MLA, which drops it. Auxiliary heads that the model does not have are left out. Positions of another grid are
    resampled as those of a ViT, see `VitLayout`.

    Source: fudan-zvg/SETR, mmseg/models/backbones/vit.py, vit_mla.py, decode_heads/vit_up_head.py, vit_mla_head.py,
    vit_mla_auxi_head.py.
    """

    name = "setr"

    def recognises(self, names: set[str]) -> bool:
        return _prefix(names) is not None

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        layers = {layer.name: layer for layer in getattr(model, "layers", [])}
        is_mla = "level_0_norm" in layers
        if not isinstance(layers.get("logits"), Convolution) or not (is_mla or "decoder_norm" in layers):
            raise InputError(f"{model.name}: no kseq.models.SETR, to which {self.name} checkpoints belong; build one")
        if ("class_token" in layers) == is_mla:
            raise InputError(
                f"{model.name}: {self.name} checkpoints of decoder 'naive' and 'pup' have a class token, those of "
                "'mla' have none; build the model with class_token=None"
            )
        last = max((name for name in layers if name.startswith("encoder_block_")), key=lambda name: int(name[14:]))
        rules = super().rules(keras.Model(model.input, layers[last].output, name=model.name), tensors)
        prefix, steps = _prefix(tensors) or "", sum(name.startswith("decoder_convolution_") for name in layers)
        for name, layer in layers.items():
            module = prefix + _module(name, "cls" if is_mla else f"conv_{steps}", "aux" if is_mla else "conv_1")
            if isinstance(layer, Convolution):
                rules += convolution_rules(layer, module)
            elif isinstance(layer, keras.layers.BatchNormalization):
                biased = None if is_mla else module.replace("syncbn_fc_", "conv_")
                rules += batch_norm_rules(layer, module, biased)
            elif isinstance(layer, LayerNormalization):
                rules += norm_rules(layer, torch_layers.norm(module, layer.gamma.shape[0]))
        return rules

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        if "auxiliary_head." in name or name.endswith("num_batches_tracked") or re.search(r"(^|\.)conv_seg\.", name):
            return True
        return name.endswith("backbone.cls_token") or super().ignores(name, skip - {"logits"})


def _module(name: str, classifier: str, auxiliary_classifier: str) -> str:
    """What the checkpoint calls our layer of this name; layers without weights have no counterpart."""
    if name == "logits":
        return f"decode_head.{classifier}"
    if match := re.fullmatch(r"level_(\d)_norm", name):
        return f"backbone.norm_{match[1]}"
    if match := re.fullmatch(r"level_(\d)_(lateral_)?(convolution|batch_norm)", name):
        lateral, part = "_1x1" if match[2] else "", int(match[3] == "batch_norm")
        return f"backbone.mla.mla_p{int(match[1]) + 2}{lateral}.{part}"
    if match := re.fullmatch(r"level_(\d)_head_(convolution|batch_norm)_(\d)", name):
        part = 3 * int(match[3]) + (match[2] == "batch_norm")
        return f"decode_head.mlahead.head{int(match[1]) + 2}.{part}"
    if match := re.fullmatch(r"(decoder|auxiliary_(\d+))_(.+)", name):
        part = re.sub("^convolution_", "conv_", re.sub("^batch_norm_", "syncbn_fc_", match[3]))
        head = "decode_head" if match[2] is None else f"auxiliary_head.{match[2]}"
        return f"{head}.{auxiliary_classifier if part == 'logits' else part}"
    return name


def _prefix(names: Collection[str]) -> str | None:
    """What stands in front of all names, told by the decoder, if that is there."""
    found = [match[1] for name in names if (match := re.fullmatch(r"(.*\.|)decode_head\.(?:norm|cls)\.weight", name))]
    return min(found, key=len) if found else None
