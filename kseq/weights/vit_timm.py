"""The vision transformers of timm, and the many that took its names (DeiT, DINO, MAE)."""

import keras
import numpy as np

from kseq.errors import InputError
from kseq.weights.layout import Rule
from kseq.weights.vit import VitLayout


class VitTimm(VitLayout):
    """`timm.models.vision_transformer.VisionTransformer`; query, key and value are one `qkv`.

    Source: timm 1.0, timm/models/vision_transformer.py. Models that it pools with `global_pool="avg"` normalise the
    mean, `fc_norm`, which is not the mean of the normalised that `ViT(pooling="mean")` classifies.
    """

    name = "vit_timm"
    patch_embedding = "patch_embed.proj"
    class_token = "cls_token"
    position_encoding = ("pos_embed",)
    encoder_norm = "norm"
    logits = "head"
    head = ("fc_norm", "head", "head_dist", "pre_logits")
    blocks = (
        (
            "blocks.{}.",
            {
                "attention_norm": "norm1",
                "attention": {
                    "packed_weight": "attn.qkv.weight",
                    "packed_bias": "attn.qkv.bias",
                    "output": "attn.proj",
                },
                "feed_forward_norm": "norm2",
                "expand": "mlp.fc1",
                "contract": "mlp.fc2",
            },
        ),
    )

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        if any(name.endswith("fc_norm.weight") for name in tensors.keys() - self.unused(model, tensors)):
            raise InputError(
                "checkpoint: its fc_norm normalises the mean of the patches, where ViT takes the mean of the "
                "normalised, so it cannot be loaded; to fine-tune, give a dict without fc_norm and skip 'encoder_norm' "
                "and 'logits'"
            )
        return super().rules(model, tensors)
