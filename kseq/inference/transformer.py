"""Transformers one token at a time, with the keys and values of the tokens so far kept."""

import keras
from keras import ops

from kseq.errors import InputError
from kseq.inference.decoder import source_table_size
from kseq.layers import TransformerDecoderBlock, TransformerEncoderBlock


class TransformerLanguageModelDecoder:
    """Steps a `kseq.models.LanguageModel` of transformer blocks: its state is a cache for each of them.

    Args:
        model: the language model, built or loaded.

    Attributes:
        model: the same.
        vocabulary_size: the number of its logits.
        source_vocabulary_size: `None`, for it reads no source.
        context: the most tokens that it reads; `None` for any number.

    Raises:
        InputError: if it is another model; by `begin`, if `length` is more than its context.
    """

    source_vocabulary_size = None

    def __init__(self, model: keras.Model):
        layers = _layers(model, {"tokens", "embedding", "positions", "block_0", "norm"}, "LanguageModel")
        self.model, self.vocabulary_size = model, model.outputs[0].shape[-1]
        self.embedding, self.positions, self.norm = (layers[name] for name in ("embedding", "positions", "norm"))
        self.blocks = _of(model, TransformerDecoderBlock)
        self.logits = layers.get("logits")
        self.context = self.positions.grid_shape[0] if self.positions.grid_shape else None

    def begin(self, inputs, length):
        """No constants, and empty caches for `length` tokens: see `kseq.inference.Decoder`."""
        if self.context and length > self.context:
            raise InputError(f"length {length}: the context of model {self.model.name!r} is {self.context} tokens")
        batch = ops.shape(inputs)[0]
        return (), tuple(block.make_cache(batch, length) for block in self.blocks)

    def step(self, tokens, index, state, constants):
        """The logits behind `tokens` at `index`: see `kseq.inference.Decoder`."""
        x = self.positions(self.embedding(tokens[:, None]), start_index=index)  # (batch, 1, embed_dim)
        caches = []
        for block, cache in zip(self.blocks, state, strict=True):
            x, cache = block(x, cache=cache, cache_update_index=index)
            caches.append(cache)
        x = self.norm(x)[:, 0]
        logits = self.embedding(x, reverse=True) if self.logits is None else self.logits(x)
        return ops.cast(logits, "float32"), tuple(caches), None


class TransformerTranslatorDecoder:
    """Steps a `kseq.models.TransformerTranslator`: the source is encoded once, and projected once for each block.

    Constants are the mask of the source and, for each block, its keys and values; the state is a cache for each block.
    The attention is that of the last block to the source, the mean over its heads.

    Args:
        model: the translator, built or loaded, with or without `return_attention`.

    Attributes:
        model: the same.
        vocabulary_size: the number of its logits.
        source_vocabulary_size: the number of source tokens that it knows.

    Raises:
        InputError: if it is another model.
    """

    def __init__(self, model: keras.Model):
        names = {"source", "target", "source_positions", "target_positions", "encoder_block_0", "decoder_block_0"}
        layers = _layers(model, names, "TransformerTranslator")
        self.model, self.vocabulary_size = model, model.outputs[0].shape[-1]
        self.source_vocabulary_size = source_table_size(model)
        self.source_embedding, self.target_embedding = (
            layers.get(f"{side}_embedding", layers.get("embedding")) for side in ("source", "target")
        )
        self.source_positions, self.target_positions = layers["source_positions"], layers["target_positions"]
        self.encoder_blocks, self.decoder_blocks = (
            _of(model, TransformerEncoderBlock),
            _of(model, TransformerDecoderBlock),
        )
        self.encoder_norm, self.decoder_norm = layers.get("encoder_norm"), layers.get("decoder_norm")
        self.logits = layers.get("logits")

    def begin(self, inputs, length):
        """The source encoded and projected, and empty caches for `length` tokens: see `kseq.inference.Decoder`."""
        source = ops.convert_to_tensor(inputs)
        mask = ops.not_equal(source, 0)
        x = self.source_positions(self.source_embedding(source))
        for block in self.encoder_blocks:
            x = block(x, inputs_mask=mask)
        memory = x if self.encoder_norm is None else self.encoder_norm(x)
        caches = tuple(block.make_cache(ops.shape(source)[0], length) for block in self.decoder_blocks)
        return (mask, *(block.project(memory) for block in self.decoder_blocks)), caches

    def step(self, tokens, index, state, constants):
        """The logits behind `tokens` at `index`, and where the last block looked: see `kseq.inference.Decoder`."""
        mask, *memories = constants
        x = self.target_positions(self.target_embedding(tokens[:, None]), start_index=index)  # (batch, 1, embed_dim)
        caches = []
        for block, memory, cache in zip(self.decoder_blocks, memories, state, strict=True):
            x, *weights, cache = block(
                x,
                cache=cache,
                cache_update_index=index,
                memory_cache=memory,
                memory_mask=mask,
                return_attention_scores=block is self.decoder_blocks[-1],
            )
            caches.append(cache)
        x = (x if self.decoder_norm is None else self.decoder_norm(x))[:, 0]
        logits = self.target_embedding(x, reverse=True) if self.logits is None else self.logits(x)
        attention = ops.mean(ops.cast(weights[0], "float32"), axis=1)[:, 0]  # (batch, source_time)
        return ops.cast(logits, "float32"), tuple(caches), attention


def _layers(model, names: set[str], kind: str) -> dict:
    """The layers of a model by name."""
    layers = {layer.name: layer for layer in model.layers}
    if "pooling" in layers or not names <= set(layers):
        raise InputError(f"model {model.name!r}: no transformer of kseq.models.{kind}; give one")
    return layers


def _of(model, kind: type) -> list:
    """Its layers of a kind, from the first to the last."""
    blocks = [layer for layer in model.layers if isinstance(layer, kind)]
    return sorted(blocks, key=lambda block: int(block.name.rsplit("_", 1)[1]))
