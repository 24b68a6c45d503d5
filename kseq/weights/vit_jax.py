"""The vision transformers of their authors: google-research/vision_transformer and big_vision."""

import re
from collections.abc import Collection

from kseq.weights import flax_layers
from kseq.weights.vit import VitLayout


def _block(attention: str, norm: str, mlp: str) -> dict:
    return {
        "attention_norm": "LayerNorm_0",
        "attention": {
            "query": f"{attention}/query",
            "key": f"{attention}/key",
            "value": f"{attention}/value",
            "output": f"{attention}/out",
        },
        "feed_forward_norm": norm,
        "expand": f"{mlp}/Dense_0",
        "contract": f"{mlp}/Dense_1",
    }


BLOCK = "Transformer/encoderblock_{}/"
PRE_LINEN = _block("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
LINEN = _block("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")


class VitJax(VitLayout):
    """The `.npz` files of both repositories, with a class token or, as `ViT(pooling="mean")`, without.

    The weights alone, or in a training state under `params/` or `opt/target/`, the rest of which is left out. Older
    files number the parts of a block as a whole, later ones each kind by itself, and the table of positions moved from
    the encoder to the model. A `pre_logits` layer (the files of ImageNet-21k) has no counterpart: skip "logits".

    Both apply GELU in its tanh form: build the model with `activation="gelu_tanh"` for their outputs.

    Source: vision_transformer, vit_jax/models_vit.py, checkpoint.py; big_vision, models/vit.py (`fix_old_checkpoints`,
    `resample_posemb`), utils.py (`load_params`).
    """

    name = "vit_jax"
    library = flax_layers
    patch_embedding = "embedding"
    class_token = "cls"
    position_encoding = ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding", "pos_embedding")
    encoder_norm = "Transformer/encoder_norm"
    logits = "head"
    head = ("head", "pre_logits")
    blocks = ((BLOCK, PRE_LINEN), (BLOCK, LINEN))
    interpolation = "bilinear"

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        return bool(re.match("chrono/|opt/(?!target/)", name)) or super().ignores(name, skip)
