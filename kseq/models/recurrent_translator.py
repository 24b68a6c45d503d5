"""A sentence translated by recurrent networks: an encoder, an attention, a decoder.

    m_1 … m_S = encoder(E x_1 … E x_S),  s_0 = tanh(W [→m_S; ←m_1] + b)
    s_t, c_t = decoder(E' y_{t-1}, s_{t-1}, m),  logits_t = V [s_t; c_t; E' y_{t-1}] + b'      Bahdanau
    h̃_t = decoder(E' y_{t-1}, s_{t-1}, m),       logits_t = V h̃_t + b'                         Luong

Sources: Bahdanau, Cho & Bengio 2015 (arXiv 1409.0473); Luong, Pham & Manning 2015 (arXiv 1508.04025); without attention
Sutskever, Vinyals & Le 2014 (arXiv 1409.3215) and, with `feed_context`, Cho et al. 2014 (arXiv 1406.1078). Reference
implementations: bentrevett/pytorch-seq2seq, notebook 3, whose weights `kseq.weights.load` reads, and tensorflow/nmt.

Deviations: the defaults are those of bentrevett's notebook, with an affine output and an initial state from both
directions; the paper's maxout and backward state are `output="maxout"` and `initial_state="backward"`, its biasless
alignment `use_score_bias=False`, its reset gate `reset_after=False`. The notebook's attention sees the padding of the
source, ours does not. Luong's input feeding enters the layer that has the attention, the last, and not the first one.
The words are predicted of s_t, as in section 3.1 of Bahdanau et al.; their appendix and GroundHog take s_{t-1}.
TensorFlow's attention vector has no tanh; ours has it, as in the paper. Sutskever's reversed source is for the data.
"""

from typing import Literal

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import AttentionDecoder, Dense, Maxout
from kseq.layers.recurrent import CELLS
from kseq.models.registry import Variant
from kseq.models.token_encoder import check, token_table


def RecurrentTranslator(
    source_vocabulary_size: int,
    target_vocabulary_size: int,
    *,
    cell: Literal["gru", "lstm", "rnn"] = "gru",
    attention: Literal["bahdanau", "luong"] | None = "bahdanau",
    score: str | None = None,
    embed_dim: int = 256,
    units: int = 256,
    encoder_units: int | None = None,
    encoder_depth: int = 1,
    bidirectional: bool = True,
    decoder_depth: int = 1,
    attention_units: int | None = None,
    use_score_bias: bool = True,
    input_feeding: bool = False,
    feed_context: bool = False,
    initial_state: Literal["dense", "backward", "copy"] = "dense",
    reset_after: bool = True,
    output: Literal["linear", "maxout"] = "linear",
    maxout_units: int | None = None,
    tie_embeddings: bool = False,
    dropout: float = 0.2,
    return_attention: bool = False,
    name: str = "recurrent_translator",
) -> keras.Model:
    """Build a recurrent encoder-decoder.

    A decoder of several layers has the attention in the first with "bahdanau", whose [s; c] the next layer reads (GNMT
    gives c to all of them), and the logits come of the last layer's states; with "luong" it is in the last layer.

    Args:
        source_vocabulary_size: number of source tokens, padding 0 included.
        target_vocabulary_size: number of target tokens, padding 0 included.
        cell: of encoder and decoder: "gru", "lstm" or vanilla "rnn".
        attention: "bahdanau", "luong", or `None` for the encoder's last state alone.
        score: "additive" or "normed" with "bahdanau"; "general", "dot" or "scaled" with "luong"; `None` is the first.
        embed_dim: size of a token's vector, of both languages.
        units: size of the decoder's state.
        encoder_units: size of the encoder's state, of each direction; `None` is `units`.
        encoder_depth: recurrent layers of the encoder on top of each other.
        bidirectional: whether each of them also reads the source backwards.
        decoder_depth: recurrent layers of the decoder on top of each other.
        attention_units: size of the hidden layer of the alignment, or of Luong's h̃; `None` is `units`.
        use_score_bias: whether the alignment of "additive" has a bias.
        input_feeding: whether Luong's h̃ is an input of the next step.
        feed_context: without attention, whether the encoder's last state enters every step (Cho), and not only s_0.
        initial_state: s_0 of each decoder layer: "dense" is tanh(W [→m_S; ←m_1] + b) of the last encoder layer (for an
            LSTM of h and of c), "backward" the same of the backward state alone, "copy" the states of the encoder's
            layers as they are, in the order forward, backward of each (Sutskever), as many as decoder layers.
        reset_after: of GRUs, see `kseq.layers.GRU`.
        output: "maxout" has a hidden layer of the largest of two affine maps in front of the logits (Bahdanau).
        maxout_units: its size; `None` is half the units.
        tie_embeddings: whether the logits are products with the target's vectors, after an affine map to their size.
        dropout: share of the values set to zero while training: of token vectors, between layers and of what the
            logits come of.
        return_attention: whether to return the attention too. Names and weights stay the same, so the weights of a
            trained model can be set in one that shows where it looks.
        name: name of the model.

    Returns:
        A model from `[source, target]`, integers `(batch, source_time)` and `(batch, target_time)`, padded with 0 on
        the right, to logits `(batch, target_time, target_vocabulary_size)`, of the token behind each; with
        `return_attention` `[logits, weights]`, weights `(batch, target_time, source_time)`. Padding is masked: it
        cannot change the logits of a token.

    Raises:
        InputError: for an argument out of range or that does not go with another.
    """
    _check(locals())
    encoder_units = encoder_units or units
    gru = {"reset_after": reset_after} if cell == "gru" else {}

    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    wide = keras.initializers.RandomNormal(stddev=1.0)  # Keras's ±0.05 learns slower
    x = layers.Embedding(source_vocabulary_size, embed_dim, wide, mask_zero=True, name="source_embedding")(source)
    x = _drop(x, dropout, "source_dropout")
    ends = []  # the last states of each encoder layer and direction, [h] or [h, c]
    for level in range(encoder_depth):
        recurrent = CELLS[cell](encoder_units, return_sequences=True, return_state=True, name=f"encoder_{level}", **gru)
        if bidirectional:
            recurrent = layers.Bidirectional(recurrent, name=f"encoder_{level}")
        x, *last = recurrent(x)  # (batch, source_time, units), twice the units if bidirectional
        half = len(last) // 2
        ends += [last[:half], last[half:]] if bidirectional else [last]
        x = _drop(x, dropout, f"encoder_dropout_{level}")
    memory = x
    top = {"dense": ends[-2:] if bidirectional else ends[-1:], "backward": ends[-1:], "copy": ends}[initial_state]

    if tie_embeddings:
        embedding = token_table(target_vocabulary_size, embed_dim, use_bias=True, name="target_embedding")
    else:
        embedding = layers.Embedding(target_vocabulary_size, embed_dim, wide, mask_zero=True, name="target_embedding")
    x = _drop(embedding(target), dropout, "target_dropout")
    weights = None
    for level in range(decoder_depth):
        if initial_state == "copy":
            states = top[level]
        else:
            states = [
                Dense(units, activation="tanh", name=f"initial_{kind}_{level}")(_join(parts, f"last_{kind}_{level}"))
                for kind, *parts in zip(("state", "cell"), *top, strict=False)
            ]
        if level == (0 if attention == "bahdanau" else decoder_depth - 1):
            decoder = AttentionDecoder(
                units,
                cell=cell,
                attention=attention,
                score=score,
                attention_units=attention_units,
                input_feeding=input_feeding,
                deep_output=decoder_depth == 1 and (attention == "bahdanau" or feed_context),
                use_score_bias=use_score_bias,
                reset_after=reset_after,
                name="attention_decoder",
            )
            looked_at = memory if attention else None
            if feed_context:
                looked_at = _join([states[0] for states in ends[-1 - bidirectional :]], "context")
            x = decoder(x, looked_at, initial_state=states, return_attention_scores=bool(return_attention))
            x, weights = x if return_attention else (x, None)
        else:
            x = CELLS[cell](units, return_sequences=True, name=f"decoder_{level}", **gru)(x, initial_state=states)
        x = _drop(x, dropout, f"decoder_dropout_{level}")  # (batch, target_time, size)
    if output == "maxout":
        x = Maxout(maxout_units or max(units // 2, 1), name="maxout")(x)
    if tie_embeddings:
        logits = embedding(Dense(embed_dim, name="output_projection")(x), reverse=True)
    else:
        logits = Dense(target_vocabulary_size, name="logits")(x)
    return keras.Model([source, target], [logits, weights] if return_attention else logits, name=name)


def _check(arguments: dict) -> None:
    sizes = ("source_vocabulary_size", "target_vocabulary_size", "embed_dim", "units", "encoder_units")
    sizes += ("encoder_depth", "decoder_depth", "maxout_units")
    check({name: arguments[name] for name in sizes}, {"dropout": arguments["dropout"]})
    for argument, known in (
        ("cell", (*CELLS,)),
        ("initial_state", ("dense", "backward", "copy")),
        ("output", ("linear", "maxout")),
    ):
        if (value := arguments[argument]) not in known:
            raise InputError(f"{argument} {value!r}: choose one of {', '.join(known)}")
    attention, first = arguments["attention"], arguments["initial_state"]
    if arguments["feed_context"] and attention:
        raise InputError(f"feed_context True with attention {attention!r}: the attention feeds a context; set False")
    if arguments["return_attention"] and not attention:
        raise InputError("return_attention True with attention None: there is none to return; set False")
    if first == "backward" and not arguments["bidirectional"]:
        raise InputError("initial_state 'backward' with bidirectional False: there is none; give 'dense' or 'copy'")
    if first == "copy":
        given = arguments["encoder_depth"] * (1 + arguments["bidirectional"])
        sizes = arguments["encoder_units"] or arguments["units"], arguments["units"]
        if given != arguments["decoder_depth"] or sizes[0] != sizes[1]:
            raise InputError(
                f"initial_state 'copy': {given} encoder states of size {sizes[0]} for {arguments['decoder_depth']} "
                f"decoder layers of {sizes[1]}; give equal numbers and sizes, or 'dense'"
            )


def _drop(x, share, name):
    return layers.Dropout(share, name=name)(x) if share else x


def _join(parts, name):
    return layers.Concatenate(name=name)(parts) if len(parts) > 1 else parts[0]


VARIANTS = {
    "recurrent_translator": Variant(
        RecurrentTranslator,
        {"source_vocabulary_size": 8000, "target_vocabulary_size": 8000},
        14_201_920,
        "Bahdanau et al. 2015",
    ),
    "rnnsearch": Variant(
        RecurrentTranslator,
        {
            "source_vocabulary_size": 30_000,
            "target_vocabulary_size": 30_000,
            "embed_dim": 620,
            "units": 1000,
            "use_score_bias": False,
            "initial_state": "backward",
            "reset_after": False,
            "output": "maxout",
            "maxout_units": 500,
            "dropout": 0.0,
        },
        80_442_000,
        "Bahdanau et al. 2015",
    ),
    "nmt_iwslt15": Variant(
        RecurrentTranslator,
        {
            "source_vocabulary_size": 17_191,
            "target_vocabulary_size": 7_709,
            "cell": "lstm",
            "attention": "luong",
            "score": "scaled",
            "embed_dim": 512,
            "units": 512,
            "decoder_depth": 2,
            "input_feeding": True,
            "initial_state": "copy",
        },
        27_459_614,
        "Luong et al. 2015; sizes of tensorflow/nmt",
    ),
}
