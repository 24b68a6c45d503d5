"""What decoding loops drive: a model one token at a time."""

import importlib
from typing import Any, Protocol

import keras
from keras import ops

from kseq.errors import InputError


class Decoder(Protocol):
    """A model read one token at a time.

    Attributes:
        model: the `keras.Model` whose variables it uses.
        vocabulary_size: the number of classes of its logits.

    Two more it may leave out. What they say is checked before anything is compiled:

        source_vocabulary_size: the number of source tokens that a translator knows; `None` where there is no source.
        context: the most tokens that can be fed; `None` for any number.
    """

    model: keras.Model
    vocabulary_size: int

    def begin(self, inputs, length: int) -> tuple[Any, Any]:
        """`(constants, state)`, nested tuples of tensors whose first axis is the batch.

        Constants stay as they are: an encoded source, its mask, projected keys. The state changes with every step.

        Args:
            inputs: int `(batch, source_time)`; for a language model any integers `(batch, …)`.
            length: the most tokens that will be fed.
        """
        ...

    def step(self, tokens, index, state, constants) -> tuple[Any, Any, Any]:
        """Feed `tokens` `(batch,)` at position `index`, an int32 scalar.

        Returns:
            Logits `(batch, vocabulary)` in float32, the new state, and the attention `(batch, source_time)` or `None`.
        """
        ...


# A model says what it is by the name of one of its layers; module and class, which load when used.
DECODERS = {
    "recurrent_0": ("recurrent_language_model", "RecurrentLanguageModelDecoder"),
    "block_0": ("transformer", "TransformerLanguageModelDecoder"),
    "attention_decoder": ("recurrent_translator", "RecurrentTranslatorDecoder"),
    "decoder_block_0": ("transformer", "TransformerTranslatorDecoder"),
}


def decoder(model: keras.Model) -> Decoder:
    """The decoder of a language model or translator of `kseq.models`, built or loaded.

    It is the same at every call for a model, so what was compiled for it is kept.

    Raises:
        InputError: if it is no such model.
    """
    kept = vars(model).get("_kseq_decoder")
    if kept is None:
        names = {layer.name for layer in model.layers}
        found = [place for name, place in DECODERS.items() if name in names]
        if len(found) != 1:
            raise InputError(
                f"model {model.name!r}: none of kseq.models that can be decoded; give a LanguageModel, "
                "RecurrentTranslator or TransformerTranslator, or wrap it in UncachedDecoder"
            )
        module, name = found[0]
        kept = getattr(importlib.import_module(f"kseq.inference.{module}"), name)(model)
        object.__setattr__(model, "_kseq_decoder", kept)  # past Keras, which would track it
    return kept


def source_table_size(model: keras.Model) -> int | None:
    """The number of source tokens that a translator has vectors of; `None` of other models, or if it is not plain."""
    if len(model.inputs) != 2:
        return None
    tables = {layer.name: layer.input_dim for layer in model.layers if hasattr(layer, "input_dim")}
    shared = next(iter(tables.values())) if len(tables) == 1 else None
    return tables.get("source_embedding", shared)


class UncachedDecoder:
    """Computes the whole sequence again for each token: what caches are tested and measured against.

    Any functional model can be decoded by it whose position t predicts token t + 1 and does not look ahead.

    Args:
        model: of tokens `(batch, time)`, or of `[source, target]`, to logits `(batch, time, vocabulary)`;
            of several outputs the first.

    Raises:
        InputError: if the model has other inputs or keeps a state between calls.
    """

    def __init__(self, model: keras.Model):
        if len(model.inputs) not in (1, 2) or len(model.outputs[0].shape) != 3:
            raise InputError(
                f"model {model.name!r}: {len(model.inputs)} inputs, output {model.outputs[0].shape}; give one of "
                "tokens or of [source, target] whose first output is (batch, time, vocabulary)"
            )
        if any(getattr(layer, "stateful", False) for layer in model.layers):
            raise InputError(f"model {model.name!r}: keeps a state between calls; build it without")
        self.model, self.vocabulary_size = model, model.outputs[0].shape[-1]
        self.source_vocabulary_size = source_table_size(model)
        positions = [layer.grid_shape for layer in model.layers if layer.name in ("positions", "target_positions")]
        self.context = positions[0][0] if positions and positions[0] else model.inputs[-1].shape[1]

    def begin(self, inputs, length):
        """The source, and no tokens yet: see `Decoder`."""
        inputs = ops.convert_to_tensor(inputs)
        tokens = ops.zeros((ops.shape(inputs)[0], length), "int32")
        return ((inputs,) if len(self.model.inputs) == 2 else ()), (tokens,)

    def step(self, tokens, index, state, constants):
        """The logits at `index` of all tokens so far: see `Decoder`."""
        fed = ops.slice_update(state[0], (0, index), tokens[:, None])
        logits = self.model([*constants, fed] if constants else fed, training=False)
        logits = logits[0] if len(self.model.outputs) > 1 else logits
        return ops.cast(ops.take(logits, index, axis=1), "float32"), (fed,), None
