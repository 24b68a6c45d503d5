"""A recurrent translator one token at a time."""

import keras
from keras import ops

from kseq.errors import InputError
from kseq.inference.decoder import source_table_size
from kseq.layers import AttentionDecoder


class RecurrentTranslatorDecoder:
    """The decoder of a `kseq.models.RecurrentTranslator`, with the layers and weights of the model.

    It encodes the source and projects it to keys once, and each step computes what the model's loop does.

    Args:
        model: built or loaded, with or without `return_attention`.

    Attributes:
        model: the same.
        vocabulary_size: the number of its logits.
        source_vocabulary_size: the number of source tokens that it knows.

    Raises:
        InputError: if it is another model.
    """

    def __init__(self, model: keras.Model):
        layers = {layer.name: layer for layer in model.layers}
        if not isinstance(layers.get("attention_decoder"), AttentionDecoder) or "source" not in layers:
            raise InputError(f"model {model.name!r}: give a RecurrentTranslator")
        self.model = model
        self.vocabulary_size = model.outputs[0].shape[-1]
        self.source_vocabulary_size = source_table_size(model)
        self._embedding = layers["target_embedding"]
        self._levels = [layer for layer in model.layers if isinstance(layer, (AttentionDecoder, keras.layers.RNN))]
        self._levels = [layer for layer in self._levels if not layer.name.startswith("encoder_")]
        self._head = [layers[name] for name in ("maxout", "output_projection", "logits") if name in layers]
        # All that a decoder layer is called with beside the sequence: the memory and the states to begin with.
        needed = [tensor for layer in self._levels for tensor in layer.input[1:]]
        self._encoder = keras.Model(layers["source"].output, needed, name="encoder")

    def begin(self, inputs, length):
        """Encode the source.

        Args:
            inputs: source tokens `(batch, source_time)`, integers, padded with 0 on the right.
            length: of no use here; a state is as large after any number of steps.

        Returns:
            constants: for each decoder layer its memory, keys and mask, as far as it has them.
            state: for each decoder layer its states.
        """
        inputs = ops.cast(ops.convert_to_tensor(inputs), "int32")
        mask = ops.not_equal(inputs, 0)
        encoded = iter(keras.tree.flatten(self._encoder(inputs, training=False)))
        constants, state = [], []
        for layer in self._levels:
            given = [next(encoded) for _ in layer.input[1:]]
            looked_at = ()
            if isinstance(layer, AttentionDecoder):
                if layer.memory_dim:
                    memory, *given = given
                    keys, memory = layer.project(memory, mask)
                    looked_at = (memory, keys, mask) if layer.attention else (memory,)
                given = layer.first_states(given)
            constants.append(looked_at)
            state.append(tuple(given))
        return tuple(constants), tuple(state)

    def step(self, tokens, index, state, constants):
        """Feed one token of each row.

        Args:
            tokens: `(batch,)`, integers.
            index: of no use here.
            state: of the step before, or of `begin`.
            constants: of `begin`.

        Returns:
            The logits of the next token `(batch, vocabulary)` in float32, the state, and the attention
            `(batch, source_time)` in float32, `None` if the model has none.
        """
        x = self._embedding(ops.expand_dims(tokens, 1))[:, 0]  # (batch, embed_dim)
        after, weights = [], None
        for layer, states, looked_at in zip(self._levels, state, constants, strict=True):
            if isinstance(layer, AttentionDecoder):
                x, new, weights = layer.step(x, states, *looked_at)
            else:
                x, new = layer.cell(ops.cast(x, layer.compute_dtype), list(states), training=False)
            # A loop wants states of the type that they came with.
            after.append(tuple(ops.cast(now, old.dtype) for now, old in zip(new, states, strict=True)))
        for layer in self._head:
            x = layer(x)
        if not self._head or self._head[-1].name != "logits":
            x = self._embedding(x, reverse=True)
        return ops.cast(x, "float32"), tuple(after), None if weights is None else ops.cast(weights, "float32")
