"""The transformer of 2017: an encoder reads a sentence, a decoder writes its translation.

    x_t = √d E_{x_t} + p_t                         vectors of the source tokens, with sinusoidal positions p
    memory = encoder blocks(x_1 … x_S)
    y_t = √d E'_{y_t} + p_t                        of the target tokens in front
    logits_t = E' decoder blocks(y_1 … y_t, memory)

Source: Vaswani et al., "Attention is all you need", NeurIPS 2017 (arXiv 1706.03762). Reference implementations:
tensor2tensor; harvardnlp/annotated-transformer (which is pre-norm, `norm_first=True` here); `torch.nn.Transformer`.

Deviations: dropout acts on the hidden layer of a feed-forward network too, as in tensor2tensor. One table for source,
target and logits (section 3.4) needs one vocabulary; with two, the table of the target gives the logits.
"""

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import (
    Dense,
    LayerNormalization,
    ReversibleEmbedding,
    SinusoidalPositionEncoding,
    TransformerDecoderBlock,
    TransformerEncoderBlock,
)
from kseq.models.registry import Variant
from kseq.models.token_encoder import check, token_table


def TransformerTranslator(
    source_vocabulary_size: int,
    target_vocabulary_size: int,
    *,
    embed_dim: int = 512,
    hidden_dim: int = 2048,
    num_heads: int = 8,
    depth: int = 6,
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    norm_first: bool = False,
    activation="relu",
    share_embeddings: bool = False,
    tie_embeddings: bool = True,
    logits_bias: bool = False,
    max_wavelength: float = 10_000.0,
    epsilon: float = 1e-6,
    return_attention: bool = False,
    name: str = "transformer_translator",
) -> keras.Model:
    """Build an encoder–decoder transformer.

    Args:
        source_vocabulary_size: number of token numbers of the source, the padding 0 included.
        target_vocabulary_size: number of token numbers of the target, the padding 0 included.
        embed_dim: d, the size of all states; even, and a multiple of `num_heads`.
        hidden_dim: size of the hidden layers.
        num_heads: heads of each attention.
        depth: blocks of the encoder, and of the decoder.
        dropout: share of the values set to zero while training, behind the positions and each branch.
        attention_dropout: share of the attention weights set to zero while training.
        norm_first: whether blocks normalise in front of a branch, with a normalisation at the end of the encoder and of
            the decoder (easier to train), or behind its residual, as in 2017.
        activation: of the hidden layers.
        share_embeddings: whether source and target have one table; needs one vocabulary.
        tie_embeddings: whether the logits are products with the vectors of the target tokens.
        logits_bias: whether the logits have a bias.
        max_wavelength: of the positions.
        epsilon: ε of the normalisations (1e-5 in `torch.nn`).
        return_attention: whether to return `[logits, weights]`, with the weights of the last block's attention to the
            source `(batch, num_heads, target_time, source_time)`. Layer names and weights are the same.
        name: name of the model.

    Returns:
        A model from `[source, target]`, integers `(batch, source_time)` and `(batch, target_time)` padded with 0 on the
        right, to logits `(batch, target_time, target_vocabulary_size)` of the target token behind each. Padding is
        masked, and no logits depend on later target tokens.

    Raises:
        InputError: for an argument out of range, or one table for two vocabularies.
    """
    sizes = {"source_vocabulary_size": source_vocabulary_size, "target_vocabulary_size": target_vocabulary_size}
    sizes |= {"embed_dim": embed_dim, "hidden_dim": hidden_dim, "num_heads": num_heads, "depth": depth}
    check(sizes, {"dropout": dropout, "attention_dropout": attention_dropout})
    if embed_dim % num_heads:
        raise InputError(f"num_heads {num_heads}: does not divide embed_dim {embed_dim}; give a divisor of it")
    if share_embeddings and source_vocabulary_size != target_vocabulary_size:
        raise InputError(
            f"share_embeddings True: vocabularies of {source_vocabulary_size} and {target_vocabulary_size} tokens are "
            "not one; train one tokenizer on both languages, or set share_embeddings=False"
        )

    of_target = {"use_bias": tie_embeddings and logits_bias}

    def embed(tokens, embedding: ReversibleEmbedding, side: str):
        x = embedding(tokens)
        x = SinusoidalPositionEncoding(max_wavelength=max_wavelength, name=f"{side}_positions")(x)
        return layers.Dropout(dropout, name=f"{side}_dropout")(x) if dropout else x

    blocks = {
        "num_heads": num_heads,
        "hidden_dim": hidden_dim,
        "norm_first": norm_first,
        "activation": activation,
        "dropout": dropout,
        "attention_dropout": attention_dropout,
        "epsilon": epsilon,
    }
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    if share_embeddings:
        source_table = target_table = token_table(target_vocabulary_size, embed_dim, **of_target)
    else:
        source_table = token_table(source_vocabulary_size, embed_dim, name="source_embedding")
        target_table = token_table(target_vocabulary_size, embed_dim, name="target_embedding", **of_target)

    x = embed(source, source_table, "source")
    for level in range(depth):
        x = TransformerEncoderBlock(**blocks, name=f"encoder_block_{level}")(x)
    memory = LayerNormalization(epsilon=epsilon, name="encoder_norm")(x) if norm_first else x

    x = embed(target, target_table, "target")
    weights = []
    for level in range(depth):
        block = TransformerDecoderBlock(**blocks, name=f"decoder_block_{level}")
        if return_attention and level == depth - 1:
            x, *weights = block(x, memory, return_attention_scores=True)
        else:
            x = block(x, memory)
    if norm_first:
        x = LayerNormalization(epsilon=epsilon, name="decoder_norm")(x)
    if tie_embeddings:
        logits = target_table(x, reverse=True)
    else:
        logits = Dense(target_vocabulary_size, use_bias=logits_bias, name="logits")(x)
    return keras.Model([source, target], [logits, *weights] if weights else logits, name=name)


VARIANTS = {
    "transformer_base": Variant(
        TransformerTranslator,
        {"source_vocabulary_size": 37_000, "target_vocabulary_size": 37_000, "share_embeddings": True},
        63_082_496,
        "Vaswani et al. 2017",
    ),
    "transformer_small": Variant(
        TransformerTranslator,
        {
            "source_vocabulary_size": 4_000,
            "target_vocabulary_size": 4_000,
            "embed_dim": 256,
            "hidden_dim": 1024,
            "num_heads": 4,
            "depth": 3,
            "norm_first": True,
        },
        7_578_624,
        "Vaswani et al. 2017, smaller",
    ),
}
