import keras
import numpy as np
import pytest
from keras import ops

from kseq.backend.compile import compiled
from kseq.inference import beam_search, greedy, sample, stream
from tests.inference.toy_decoders import TableDecoder

SOURCES = np.array([[3, 1, 2], [1, 7, 0]])


def test_variables_are_read_at_each_call_and_new_values_compile_nothing():
    layer, calls = keras.layers.Dense(2), []
    layer.build((None, 3))

    def function(x, more):
        calls.append(1)
        return layer(x), {"sum": ops.sum(x) + more[0]}

    run = compiled(function, layer.variables)
    x = np.arange(6, dtype="float32").reshape(2, 3)
    first = ops.convert_to_numpy(run(x, (np.float32(1),))[0])
    np.testing.assert_allclose(first, x @ ops.convert_to_numpy(layer.kernel), rtol=1e-5)
    traced = len(calls)
    layer.kernel.assign(2 * layer.kernel)
    outputs, more = run(x, (np.float32(5),))
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), 2 * first, rtol=1e-5)
    assert float(more["sum"]) == 20
    if keras.backend.backend() != "torch":
        assert len(calls) == traced


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch compiles nothing, but keeps gradients")
def test_no_gradient_is_kept():
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    assert not compiled(lambda x: layer(x), layer.variables)(np.ones((1, 3), "float32")).requires_grad


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch compiles nothing")
def test_the_second_decoding_compiles_nothing():
    class Counting(TableDecoder):
        steps = 0

        def step(self, *arguments):
            self.steps += 1
            return super().step(*arguments)

    decoder = Counting()
    for search in (
        lambda i: greedy(decoder, SOURCES + i, 4),
        lambda i: beam_search(decoder, SOURCES + i, 4, length_penalty=0.1 * i),
        lambda i: sample(decoder, SOURCES + i, 4, temperature=1.0 + i, top_p=1 - 0.1 * i, seed=i),
        lambda i: list(stream(decoder, [4], 4, inputs=SOURCES[:1], temperature=1.0 + i, seed=i)),
    ):
        search(0)
        traced = decoder.steps
        assert traced
        for i in range(1, 4):
            search(i)
        assert decoder.steps == traced
