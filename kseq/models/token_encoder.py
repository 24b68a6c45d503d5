"""What the models of texts share: tables of tokens, and how recurrent layers or transformer blocks read them.

Text classifier and language model have these layers by the same names, "embedding", "recurrent_0" …, or "positions",
"block_0" …, "norm", so that `copy_encoder` can move what a language model has learned into a classifier: the
pre-training of ULMFiT (Howard & Ruder 2018, arXiv 1801.06146) and GPT (Radford et al. 2018).
"""

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import LayerNormalization, ReversibleEmbedding, TransformerDecoderBlock, TransformerEncoderBlock
from kseq.layers.position_encoding import POSITIONS
from kseq.layers.recurrent import CELLS

# Settings that change what the weights mean, and that their shapes do not show.
MEANING = ("scale", "num_heads", "norm_first", "activation", "max_wavelength", "layout", "go_backwards", "reset_after")


def check(sizes: dict, shares: dict) -> None:
    """Check that sizes are 1 or more and shares from 0 to below 1; `None` is allowed.

    Raises:
        InputError: naming the first argument that is not.
    """
    for argument, size in sizes.items():
        if size is not None and size < 1:
            raise InputError(f"{argument} {size!r}: give 1 or more")
    for argument, share in shares.items():
        if not 0 <= share < 1:
            raise InputError(f"{argument} {share!r}: give a share from 0 to below 1")


def token_table(
    vocabulary_size, embed_dim, *, scale=True, use_bias=False, mask_zero=True, name="embedding"
) -> ReversibleEmbedding:
    """The vectors of tokens, which can be read backwards for tied logits.

    The table is normal with 1/√embed_dim and the vectors are scaled up by √embed_dim, so that they have unit variance
    and the logits of the same table have that of a state; without `scale` it is normal with 0.02, as in GPT-2.
    """
    return ReversibleEmbedding(
        vocabulary_size,
        embed_dim,
        scale=scale,
        use_bias=use_bias,
        mask_zero=mask_zero,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=embed_dim**-0.5 if scale else 0.02),
        name=name,
    )


def embed(tokens, vocabulary_size, embed_dim, *, dropout=0.0, **arguments):
    """Vectors of tokens `(batch, time, embed_dim)`, and the `token_table` "embedding" that gives them.

    `dropout` is the share of the tokens hidden while training, their vectors zero.
    """
    embedding = token_table(vocabulary_size, embed_dim, **arguments)
    x = embedding(tokens)
    if dropout:
        x = layers.Dropout(dropout, noise_shape=(None, None, 1), name="embedding_dropout")(x)
    return x, embedding


def read_recurrent(x, cell, units, depth, *, bidirectional=False, stateful=False, dropout=0.0):
    """`depth` recurrent layers on top of each other, "recurrent_0" …, with dropout between them."""
    for level in range(depth):
        layer = CELLS[cell](units, return_sequences=True, stateful=stateful, name=f"recurrent_{level}")
        if bidirectional:
            layer = layers.Bidirectional(layer, name=f"recurrent_{level}")
        x = layer(x)  # (batch, time, units), twice the units if bidirectional
        if dropout and level < depth - 1:
            x = layers.Dropout(dropout, name=f"dropout_{level}")(x)
    return x


def read_transformer(x, depth, num_heads, hidden_dim, *, causal, positions, max_length, dropout, epsilon, **arguments):
    """Positions and `depth` pre-norm blocks, "block_0" …, and the normalisation "norm" that they need at the end.

    Initialised as GPT-2 is (Radford et al. 2019, section 2.3): products normal with 0.02, those in front of a residual
    with 0.02 / √(2 depth), so that the sum of the branches does not grow with the depth.
    """
    x = POSITIONS[positions](None if max_length is None else (max_length,), name="positions")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    for level in range(depth):
        block = (TransformerDecoderBlock if causal else TransformerEncoderBlock)(
            num_heads,
            hidden_dim,
            dropout=dropout,
            epsilon=epsilon,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            name=f"block_{level}",
            **arguments,
        )
        x = block(x)  # (batch, time, embed_dim)
        for product in (block.attention.output_projection, block.feed_forward.contract):
            product.kernel.assign(product.kernel * (2 * depth) ** -0.5)
    return LayerNormalization(epsilon=epsilon, name="norm")(x)


def copy_encoder(source: keras.Model, target: keras.Model, layers: list[str] | None = None) -> list[str]:
    """Copy the weights of layers that both models have, from a language model into a classifier for instance.

        copied = copy_encoder(language_model, classifier)

    The classifier must be built with the sizes of the language model: `bidirectional=False` and the same `embed_dim`,
    `units` and `depth`, or for a transformer `positions` and `max_length`. Its tokens see what those of the language
    model saw with `causal=True`; without, they look both ways from then on.

    Args:
        source: the trained model; it is not changed.
        target: the model whose weights are set.
        layers: names of the layers to copy; `None` takes all that have weights and are in both, but for "logits".

    Returns:
        The names of the layers copied, in the order of `target`.

    Raises:
        InputError: if there is nothing to copy, or a layer is missing or differs in its weights or settings; `target`
            is then as it was.
    """
    theirs = {layer.name: layer for layer in source.layers}
    ours = {layer.name: layer for layer in target.layers if layer.weights}
    names = [name for name in ours if name in theirs and name != "logits"] if layers is None else list(layers)
    if missing := [name for name in names if name not in ours or name not in theirs]:
        raise InputError(
            f"layers {missing}: not in both models; they share {[name for name in ours if name in theirs]}"
        )
    if not names:
        raise InputError(
            f"source {source.name}: shares no layer with {target.name}, which has {list(ours)}; build both alike"
        )
    pairs = [pair for name in names for pair in _pairs(theirs[name], ours[name])]
    for value, variable in pairs:
        variable.assign(keras.ops.convert_to_numpy(value).copy())  # JAX would share the array, and then delete it
    return names


def _pairs(source, target) -> list[tuple]:
    """The variables of `source` and of `target` that belong together."""
    found = {_path(variable, source): variable for variable in source.weights}
    pairs = []
    for variable in target.weights:
        path = _path(variable, target)
        if path not in found and path == "bias" and isinstance(target, ReversibleEmbedding):
            continue  # of the logits, which the encoder does not have
        value = found.get(path)
        if value is None or value.shape != variable.shape:
            has = "no such weight" if value is None else f"{tuple(value.shape)}"
            raise InputError(
                f"{target.name}: {path} is {tuple(variable.shape)}, in the source {has}; build both models with the "
                "same vocabulary and sizes, a classifier with bidirectional=False"
            )
        pairs.append((value, variable))
    theirs, ours = source.get_config(), target.get_config()
    for key in MEANING:
        if key in theirs and key in ours and theirs[key] != ours[key]:
            raise InputError(f"{target.name}: {key} is {ours[key]!r}, in the source {theirs[key]!r}; build both alike")
    return pairs


def _path(variable, layer) -> str:
    """Where a variable stands in its layer: "attention/query/kernel"."""
    return variable.path.split(f"{layer.name}/", 1)[-1]
