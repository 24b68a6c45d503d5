"""A text classified: many to one, with a deep bidirectional recurrent network or the encoder of a transformer.

    h_1 … h_T = encoder(E x_1 … E x_T)      recurrent layers or transformer blocks over T tokens
    v = pooling(h_1 … h_T),  logits = V v + c

Sources: bidirectional recurrent networks, Schuster & Paliwal 1997, and their sizes for IMDB from the Keras example
"Bidirectional LSTM on IMDB"; attention pooling, Yang et al. 2016 (NAACL); [h_T; max; mean] pooling and pre-training as
a language model, Howard & Ruder 2018 (ULMFiT, arXiv 1801.06146); transformer encoder, Vaswani et al. 2017
(arXiv 1706.03762), in its pre-norm form with the initialisation of GPT-2.

Deviations: texts are padded on the right and padding is masked, where the Keras example pads on the left and reads the
padding. ULMFiT's head has a hidden layer and batch normalisation, ours is one affine map.
"""

from typing import Literal

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import SequencePooling
from kseq.layers.sequence_pooling import MODES
from kseq.models.registry import Variant
from kseq.models.token_encoder import CELLS, POSITIONS, check, embed, read_recurrent, read_transformer


def TextClassifier(
    vocabulary_size: int,
    num_classes: int,
    *,
    encoder: Literal["lstm", "gru", "rnn", "transformer"] = "lstm",
    embed_dim: int = 128,
    units: int = 64,
    depth: int = 2,
    bidirectional: bool = True,
    num_heads: int = 4,
    hidden_dim: int | None = None,
    causal: bool = False,
    positions: Literal["sinusoidal", "learned"] = "sinusoidal",
    pooling: Literal["attention", "last", "mean", "max", "concat"] = "attention",
    attention_dim: int | None = None,
    activation="gelu",
    dropout: float = 0.3,
    attention_dropout: float = 0.0,
    embedding_dropout: float = 0.0,
    epsilon: float = 1e-5,
    max_length: int | None = None,
    return_attention: bool = False,
    name: str = "text_classifier",
) -> keras.Model:
    """Build a classifier of texts.

    Args:
        vocabulary_size: number of token numbers, the padding 0 included.
        num_classes: number of logits; 1 for a binary cross-entropy.
        encoder: the recurrent layer, vanilla "rnn" (tanh), "gru" or "lstm"; or "transformer".
        embed_dim: size of the vector of a token, and of all states of a transformer.
        units: size of a hidden state of the recurrent layers, of each direction.
        depth: recurrent layers on top of each other, or blocks of the transformer.
        bidirectional: whether each recurrent layer also reads the text backwards. Not for the transformer.
        num_heads: heads of each attention of the transformer.
        hidden_dim: size of its hidden layers; `None` is 4 · embed_dim.
        causal: whether a token of the transformer sees only those in front of it, as in a language model.
        positions: encoding of the positions of the transformer.
        pooling: how the states become one vector; see `kseq.layers.SequencePooling`. "last" is the last state of each
            direction.
        attention_dim: size of u_t in "attention" pooling; `None` is that of a state.
        activation: of the hidden layers of the transformer.
        dropout: share of the values set to zero while training, behind each layer and behind the pooling.
        attention_dropout: share of the attention weights of the transformer set to zero while training.
        embedding_dropout: share of the tokens hidden while training, their vectors zero.
        epsilon: ε of the transformer's normalisations.
        max_length: length of the input rows, or `None` for any length; needed by learned positions.
        return_attention: whether to return `[logits, weights]`, the weights `(batch, max_length)` of the attention
            pooling, 0 at padding. Layer names and weights are the same.
        name: name of the model.

    Returns:
        A model from `tokens`, `(batch, max_length)` integers padded with 0 on the right, to logits
        `(batch, num_classes)`. Padding is masked: it cannot change an answer.

    Raises:
        InputError: for an argument out of range.
    """
    _check(encoder, pooling, positions, max_length, return_attention)
    sizes = {"num_classes": num_classes, "embed_dim": embed_dim, "units": units, "depth": depth}
    sizes |= {"num_heads": num_heads, "hidden_dim": hidden_dim, "max_length": max_length}
    check({"vocabulary_size": vocabulary_size} | sizes, {"dropout": dropout, "embedding_dropout": embedding_dropout})
    is_transformer = encoder == "transformer"

    tokens = keras.Input((max_length,), dtype="int32", name="tokens")
    scale = not (is_transformer and positions == "learned")
    x, _ = embed(tokens, vocabulary_size, embed_dim, scale=scale, dropout=embedding_dropout)
    if is_transformer:
        x = read_transformer(
            x,
            depth,
            num_heads,
            hidden_dim or 4 * embed_dim,
            causal=causal,
            positions=positions,
            max_length=max_length,
            activation=activation,
            dropout=dropout,
            attention_dropout=attention_dropout,
            epsilon=epsilon,
        )
    else:
        x = read_recurrent(x, encoder, units, depth, bidirectional=bidirectional, dropout=dropout)
    pool = SequencePooling(
        pooling, attention_dim=attention_dim, bidirectional=bidirectional and not is_transformer, name="pooling"
    )
    x, *weights = pool(x, return_attention_scores=True) if return_attention else [pool(x)]
    if dropout:
        x = layers.Dropout(dropout, name="dropout_pooled")(x)
    logits = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(tokens, [logits, *weights] if return_attention else logits, name=name)


def _check(encoder, pooling, positions, max_length, return_attention):
    if encoder not in (*CELLS, "transformer"):
        raise InputError(f"encoder {encoder!r}: choose one of {', '.join(CELLS)}, transformer")
    if pooling not in MODES:
        raise InputError(f"pooling {pooling!r}: choose one of {', '.join(MODES)}")
    if positions not in POSITIONS:
        raise InputError(f"positions {positions!r}: choose one of {', '.join(POSITIONS)}")
    if positions == "learned" and encoder == "transformer" and max_length is None:
        raise InputError("positions 'learned': the table has a fixed number of rows; give max_length")
    if return_attention and pooling != "attention":
        raise InputError(f"return_attention True: pooling {pooling!r} has no weights; take pooling='attention'")


VARIANTS = {
    "imdb_bilstm": Variant(
        TextClassifier,
        {"vocabulary_size": 20_000, "num_classes": 1, "pooling": "last", "dropout": 0.0},
        2_757_761,
        "Keras example, Bidirectional LSTM on IMDB",
    ),
}
