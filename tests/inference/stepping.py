"""A decoder stepped through given tokens, as a compiled decoding loop would."""

import keras
import numpy as np
from keras import ops

from kseq.backend.compile import compiled


def stepped(decoder, inputs: np.ndarray, tokens: np.ndarray, *, attends=False, fewer=False) -> list[np.ndarray]:
    """The logits at each position of `tokens` `(batch, time)`, and the attention if it `attends`, of a loop in a graph.

    With `fewer` the loop also runs for two rows, so that the graph has more than one batch size.
    """
    time = tokens.shape[1]
    sizes = [decoder.vocabulary_size, *([inputs.shape[1]] if attends else [])]

    def run(inputs, tokens):
        constants, state = decoder.begin(inputs, time)
        found = [ops.zeros((ops.shape(tokens)[0], time, size)) for size in sizes]

        def step(index, carried):
            state, found = carried
            logits, state, attention = decoder.step(tokens[:, index], index, state, constants)
            assert (attention is not None) == attends
            outputs = [logits, *([attention] if attends else [])]
            found = [
                ops.slice_update(old, (0, index, 0), new[:, None]) for old, new in zip(found, outputs, strict=True)
            ]
            return state, found

        return ops.fori_loop(0, time, step, (state, found))[1]

    function = compiled(run, decoder.model.variables)
    found = [ops.convert_to_numpy(values) for values in function(inputs, tokens)]
    assert found[0].dtype == "float32"
    if fewer:
        logits = ops.convert_to_numpy(function(inputs[:2], tokens[:2])[0])
        np.testing.assert_allclose(logits, found[0][:2], rtol=1e-5, atol=1e-5)
    return found


def check_steps(decoder, model: keras.Model, inputs: np.ndarray, tokens: np.ndarray, **options) -> list[np.ndarray]:
    """At valid tokens the logits of the steps are those of the whole `model`; returns what `stepped` does."""
    feed = [inputs, tokens] if len(model.inputs) == 2 else tokens
    whole = model.predict(feed, verbose=0)
    whole = whole[0] if isinstance(whole, list) else whole
    logits, *attention = stepped(decoder, inputs, tokens, **options)
    valid = tokens > 0
    np.testing.assert_allclose(logits[valid], whole[valid], rtol=1e-5, atol=1e-5)
    return [logits, *attention]
