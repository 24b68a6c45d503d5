"""A word read character by character, classified: the many-to-one recurrent network.

h_t = f(U x_t + W h_{t-1} + b) over the characters x_1 … x_T, class scores V h_T + c (Elman, "Finding structure in
time", Cognitive Science 14, 1990). The long short-term memory is Hochreiter & Schmidhuber's (1997) with forget gates
(Gers 2000), the gated recurrent unit Cho's (2014) in the form of cuDNN, the bidirectional network Schuster & Paliwal's
(1997): both directions read the whole word and their last states are concatenated.
"""

from typing import Literal

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import OneHot
from kseq.layers.recurrent import CELLS
from kseq.models.registry import Variant


def CharTagger(
    vocabulary_size: int,
    num_classes: int,
    *,
    max_length: int | None = None,
    cell: Literal["lstm", "gru", "rnn"] = "lstm",
    units: int = 160,
    depth: int = 1,
    bidirectional: bool = True,
    embedding: int | Literal["one_hot"] = 32,
    per_step: bool = False,
    dropout: float = 0.5,
    character_dropout: float = 0.1,
    name: str = "char_tagger",
) -> keras.Model:
    """Build a character-level tagger.

    The lecture's model is `cell="rnn", bidirectional=False, embedding="one_hot", dropout=0, character_dropout=0`.

    Args:
        vocabulary_size: number of character numbers, the padding 0 included (27 for a–z).
        num_classes: number of classes.
        max_length: length of the input rows, or `None` for any length.
        cell: recurrent layer: vanilla "rnn" (tanh), "gru" or "lstm".
        units: size of a hidden state h_t, of each direction.
        depth: recurrent layers on top of each other.
        bidirectional: whether each layer also reads the word backwards.
        embedding: size of a learned character vector, or "one_hot" for unit vectors.
        per_step: whether to classify after every character (the class of every prefix) instead of after the last;
            needs `bidirectional=False`, since a backward direction knows the characters to come. Layer names and
            weights are the same, so weights trained one way can be used the other way.
        dropout: share of the hidden state set to zero after each recurrent layer while training.
        character_dropout: share of the characters hidden while training, their vectors zero: against learning words by
            heart.
        name: name of the model.

    Returns:
        A model from `(batch, max_length)` integers, padded with 0 on the right, to logits `(batch, num_classes)`,
        or `(batch, max_length, num_classes)` with `per_step`. Padding is masked: it cannot change an answer.

    Raises:
        InputError: for an argument out of range.
    """
    if cell not in CELLS:
        raise InputError(f"cell {cell!r}: choose one of {', '.join(CELLS)}")
    if not (embedding == "one_hot" or (isinstance(embedding, int) and embedding > 0)):
        raise InputError(f"embedding {embedding!r}: give 'one_hot' or the size of a character vector, 1 or more")
    for argument, value, least in (
        ("vocabulary_size", vocabulary_size, 2),
        ("num_classes", num_classes, 1),
        ("units", units, 1),
        ("depth", depth, 1),
    ):
        if value < least:
            raise InputError(f"{argument} {value!r}: give {least} or more")
    for argument, value in (("dropout", dropout), ("character_dropout", character_dropout)):
        if not 0 <= value < 1:
            raise InputError(f"{argument} {value!r}: give a share from 0 to below 1")
    if per_step and bidirectional:
        raise InputError(
            "per_step True with bidirectional True: a backward direction knows the rest of the word; "
            "set bidirectional=False, or feed the prefixes as words of their own"
        )

    tokens = keras.Input((max_length,), dtype="int32", name="characters")
    if embedding == "one_hot":
        x = OneHot(vocabulary_size, name="embedding")(tokens)
    else:
        unit_variance = keras.initializers.RandomNormal(stddev=1.0)  # Keras's ±0.05 learns slower and ends worse
        x = layers.Embedding(vocabulary_size, embedding, unit_variance, mask_zero=True, name="embedding")(tokens)
    if character_dropout:
        x = layers.Dropout(character_dropout, noise_shape=(None, None, 1), name="character_dropout")(x)
    for level in range(depth):
        is_last = level == depth - 1
        recurrent = CELLS[cell](units, return_sequences=per_step or not is_last, name=f"recurrent_{level}")
        if bidirectional:
            recurrent = layers.Bidirectional(recurrent, name=f"recurrent_{level}")
        x = recurrent(x)  # (batch, time, units), the last layer (batch, units); twice the units if bidirectional
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout_{level}")(x)
    logits = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(tokens, logits, name=name)


_WORDS = {"vocabulary_size": 27, "num_classes": 4}  # a–z and padding; noun, verb, adjective, adverb

VARIANTS = {
    "char_tagger": Variant(CharTagger, _WORDS, 249_188, "Hochreiter & Schmidhuber 1997; Schuster & Paliwal 1997"),
    "char_tagger_elman": Variant(
        CharTagger,
        _WORDS
        | {
            "cell": "rnn",
            "units": 128,
            "depth": 1,
            "bidirectional": False,
            "embedding": "one_hot",
            "dropout": 0.0,
            "character_dropout": 0.0,
        },
        20_356,
        "Elman 1990",
    ),
}
