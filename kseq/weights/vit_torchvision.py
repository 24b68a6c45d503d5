"""The vision transformers of torchvision."""

from kseq.weights.vit import VitLayout


def _block(expand: str, contract: str) -> dict:
    return {
        "attention_norm": "ln_1",
        "attention": {
            "packed_weight": "self_attention.in_proj_weight",
            "packed_bias": "self_attention.in_proj_bias",
            "output": "self_attention.out_proj",
        },
        "feed_forward_norm": "ln_2",
        "expand": expand,
        "contract": contract,
    }


BLOCK = "encoder.layers.encoder_layer_{}."


class VitTorchvision(VitLayout):
    """`torchvision.models.VisionTransformer`; the layers of its MLP were `linear_1` and `linear_2` before 0.14.

    Positions are resampled as timm does. torchvision's `interpolate_embeddings` aligns the corners of the grids; for
    that, apply it to the checkpoint first.

    Source: torchvision/models/vision_transformer.py.
    """

    name = "vit_torchvision"
    patch_embedding = "conv_proj"
    class_token = "class_token"
    position_encoding = ("encoder.pos_embedding",)
    encoder_norm = "encoder.ln"
    logits = "heads.head"
    head = ("heads",)
    blocks = ((BLOCK, _block("mlp.0", "mlp.3")), (BLOCK, _block("mlp.linear_1", "mlp.linear_2")))
