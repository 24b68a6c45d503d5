"""The vision transformers of Hugging Face's transformers."""

from collections.abc import Collection

from kseq.weights.vit import VitLayout


def _block(attention: dict[str, str], expand: str, contract: str) -> dict:
    return {
        "attention_norm": "layernorm_before",
        "attention": attention,
        "feed_forward_norm": "layernorm_after",
        "expand": expand,
        "contract": contract,
    }


ON_DISK = _block(
    {
        "query": "attention.attention.query",
        "key": "attention.attention.key",
        "value": "attention.attention.value",
        "output": "attention.output.dense",
    },
    "intermediate.dense",
    "output.dense",
)
IN_MEMORY = _block(
    {part: f"attention.{part[0]}_proj" for part in ("query", "key", "value", "output")}, "mlp.fc1", "mlp.fc2"
)


class VitTransformers(VitLayout):
    """`ViTForImageClassification`, or a `ViTModel`, which has no `logits`: skip them.

    Files keep the names of transformers 4; the modules of transformers 5 have others. ε of its normalisations is 1e-12:
    `ViT(epsilon=1e-12)`. The pooler, which no classifier uses, is left out.

    Source: transformers 5, transformers/models/vit/modeling_vit.py.
    """

    name = "vit_transformers"
    patch_embedding = "embeddings.patch_embeddings.projection"
    class_token = "embeddings.cls_token"
    position_encoding = ("embeddings.position_embeddings",)
    encoder_norm = "layernorm"
    logits = "classifier"
    head = ("classifier",)
    blocks = (("encoder.layer.{}.", ON_DISK), ("layers.{}.", IN_MEMORY))

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        return "pooler" in name.split(".") or super().ignores(name, skip)

    def _logits(self, prefix: str) -> str:
        return prefix.removesuffix("vit.") + self.logits  # it stands beside the model, not in it
