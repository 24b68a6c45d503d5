"""Language model: what comes next, at every position of a text.

    p(x_{t+1} | x_1 … x_t) = softmax(logits_t),   logits_t = E h_t + b

with the states h_1 … h_T of recurrent layers or of a causal transformer, and E the table of the tokens' own vectors
(Press & Wolf 2017, arXiv 1608.05859) or a matrix of its own.

Sources: recurrent, Mikolov et al. 2010, dropout of Zaremba et al. 2014 (arXiv 1409.2329), sizes of karpathy/char-rnn
(`train.lua`); transformer, Radford et al. 2019 ("Language models are unsupervised multitask learners", GPT-2) with the
initialisation of section 2.3; reference implementation karpathy/nanoGPT, `model.py`.

Deviations: with sinusoidal positions the vectors of tokens are scaled by √embed_dim, as in Vaswani et al. 2017. Where
`units` and `embed_dim` differ, tied logits are E (P h_t + q) + b. char-rnn reads unit vectors, ours learned ones.
"""

from typing import Literal

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import Dense
from kseq.models.registry import Variant
from kseq.models.token_encoder import CELLS, POSITIONS, check, embed, read_recurrent, read_transformer


def LanguageModel(
    vocabulary_size: int,
    *,
    cell: Literal["lstm", "gru", "rnn", "transformer"] = "lstm",
    embed_dim: int = 128,
    units: int = 256,
    depth: int = 2,
    num_heads: int = 4,
    hidden_dim: int | None = None,
    positions: Literal["sinusoidal", "learned"] = "sinusoidal",
    max_length: int | None = None,
    tie_embeddings: bool = True,
    logits_bias: bool = True,
    activation="gelu",
    dropout: float = 0.2,
    attention_dropout: float = 0.0,
    embedding_dropout: float = 0.0,
    epsilon: float = 1e-5,
    remat: bool = False,
    mask_zero: bool = True,
    stateful: bool = False,
    batch_size: int | None = None,
    name: str = "language_model",
) -> keras.Model:
    """Build a language model.

    Args:
        vocabulary_size: number of token numbers, the padding 0 included.
        cell: the recurrent layer, vanilla "rnn" (tanh), "gru" or "lstm"; or "transformer".
        embed_dim: size of the vector of a token, and of all states of a transformer.
        units: size of a hidden state of the recurrent layers.
        depth: recurrent layers on top of each other, or blocks of the transformer.
        num_heads: heads of each attention of the transformer.
        hidden_dim: size of its hidden layers; `None` is 4 · embed_dim.
        positions: encoding of its positions.
        max_length: the longest text that the transformer reads, its context; `None` for any, with sinusoidal positions.
        tie_embeddings: whether the logits are products with the vectors of the tokens.
        logits_bias: whether the logits have a bias.
        activation: of the hidden layers of the transformer.
        dropout: share of the values set to zero while training, behind each layer.
        attention_dropout: share of the attention weights of the transformer set to zero while training.
        embedding_dropout: share of the tokens hidden while training, their vectors zero.
        epsilon: ε of the transformer's normalisations.
        remat: whether blocks of the transformer are computed again in the backward pass; needs `dropout=0`.
        mask_zero: whether token 0 is padding, which recurrent states pass by and attention does not look at. Without
            padding, False is faster.
        stateful: whether recurrent layers go on from the states of the batch before, for truncated back-propagation
            with `kseq.training.truncated`. The weights fit a model that is not.
        batch_size: of a stateful model, rows in every batch.
        name: name of the model.

    Returns:
        A model from `tokens`, `(batch, time)` integers, to the logits of the token behind each,
        `(batch, time, vocabulary_size)`. No logits depend on later tokens.

    Raises:
        InputError: for an argument out of range.
    """
    _check(cell, positions, max_length, stateful, batch_size)
    sizes = {"vocabulary_size": vocabulary_size, "embed_dim": embed_dim, "units": units, "depth": depth}
    sizes |= {"num_heads": num_heads, "hidden_dim": hidden_dim, "max_length": max_length, "batch_size": batch_size}
    check(sizes, {"dropout": dropout, "embedding_dropout": embedding_dropout})
    is_transformer = cell == "transformer"

    tokens = keras.Input(batch_shape=(batch_size, None), dtype="int32", name="tokens")
    x, embedding = embed(
        tokens,
        vocabulary_size,
        embed_dim,
        scale=not (is_transformer and positions == "learned"),
        use_bias=tie_embeddings and logits_bias,
        mask_zero=mask_zero,
        dropout=embedding_dropout,
    )
    if is_transformer:
        x = read_transformer(
            x,
            depth,
            num_heads,
            hidden_dim or 4 * embed_dim,
            causal=True,
            positions=positions,
            max_length=max_length,
            activation=activation,
            dropout=dropout,
            attention_dropout=attention_dropout,
            epsilon=epsilon,
            remat=remat,
        )
    else:
        x = read_recurrent(x, cell, units, depth, stateful=stateful, dropout=dropout)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout_{depth - 1}")(x)
    if not tie_embeddings:
        logits = Dense(vocabulary_size, use_bias=logits_bias, name="logits")(x)
    else:
        if x.shape[-1] != embed_dim:
            x = Dense(embed_dim, name="projection")(x)
        logits = embedding(x, reverse=True)
    return keras.Model(tokens, logits, name=name)


def _check(cell, positions, max_length, stateful, batch_size):
    if cell not in (*CELLS, "transformer"):
        raise InputError(f"cell {cell!r}: choose one of {', '.join(CELLS)}, transformer")
    if positions not in POSITIONS:
        raise InputError(f"positions {positions!r}: choose one of {', '.join(POSITIONS)}")
    if positions == "learned" and cell == "transformer" and max_length is None:
        raise InputError("positions 'learned': the table has a fixed number of rows; give max_length")
    if stateful and cell == "transformer":
        raise InputError("stateful True: a transformer has no state; take a recurrent cell")
    if stateful != (batch_size is not None):
        raise InputError(
            f"stateful {stateful!r} with batch_size {batch_size!r}: states have a fixed number of rows; give both or "
            "neither"
        )


_CHARACTERS = {"vocabulary_size": 69, "embed_dim": 128, "depth": 2}  # the 65 of Shakespeare's plays and 4 of our own

VARIANTS = {
    "char_rnn": Variant(
        LanguageModel,
        _CHARACTERS | {"cell": "lstm", "units": 128, "tie_embeddings": False, "dropout": 0.0},
        280_901,
        "karpathy/char-rnn",
    ),
    "gpt2_small": Variant(
        LanguageModel,
        {
            "vocabulary_size": 50_257,
            "cell": "transformer",
            "embed_dim": 768,
            "depth": 12,
            "num_heads": 12,
            "positions": "learned",
            "max_length": 1024,
            "logits_bias": False,
            "activation": "gelu_tanh",
            "dropout": 0.1,
            "attention_dropout": 0.1,
        },
        124_439_808,
        "Radford et al. 2019",
    ),
}
