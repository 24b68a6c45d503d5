"""The attention encoder-decoder of bentrevett's notebook: the golden file, and a model of other sizes made here."""

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.errors import InputError
from kseq.inference.recurrent_translator import RecurrentTranslatorDecoder
from kseq.models import RecurrentTranslator
from tests.weights.golden import close, read


def translator(config, **arguments):
    return RecurrentTranslator(
        config["input_dim"],
        config["output_dim"],
        **{
            "embed_dim": config["embedding_dim"],
            "encoder_units": config["encoder_hidden_dim"],
            "units": config["decoder_hidden_dim"],
        }
        | arguments,
    )


def test_golden():
    state, arrays, meta = read("bahdanau_seq2seq")
    model = translator(meta["config"], return_attention=True)
    kseq.weights.load(model, state)
    assert model.count_params() == meta["parameters"]
    source, target = arrays["input"].T, arrays["target"].T  # (batch, time)

    # Token t is predicted of the tokens before it; row 0 of the reference stays 0.
    logits, attention = model.predict([source, target[:, :-1]], verbose=0)
    close(logits, arrays["output_teacher_forced"][1:].swapaxes(0, 1))

    decoder = RecurrentTranslatorDecoder(model)
    constants, states = decoder.begin(source, 5)
    close(states[0][0], arrays["encoder_hidden"])
    close(constants[0][0], arrays["encoder_outputs"].swapaxes(0, 1))
    for t in range(2):
        step, states, weights = decoder.step(ops.convert_to_tensor(target[:, t]), t, states, constants)
        close(step, arrays[f"prediction_step_{t + 1}"])
        close(states[0][0], arrays[f"hidden_step_{t + 1}"])
        close(weights, arrays[f"attention_step_{t + 1}"])
        close(attention[:, t], arrays[f"attention_step_{t + 1}"])


def checkpoint(E=3, H=4, D=5, source=7, target=6, suffix="_fc"):
    """Random tensors under the names and in the shapes of the notebook."""
    random = np.random.default_rng(0)
    shapes = {"encoder.embedding.weight": (source, E), "decoder.embedding.weight": (target, E)}
    for name, inputs, units in (("encoder", E, H), ("decoder", E + 2 * H, D)):
        for direction in ["", "_reverse"] if name == "encoder" else [""]:
            shapes[f"{name}.rnn.weight_ih_l0{direction}"] = (3 * units, inputs)
            shapes[f"{name}.rnn.weight_hh_l0{direction}"] = (3 * units, units)
            shapes |= {f"{name}.rnn.bias_{part}_l0{direction}": (3 * units,) for part in ("ih", "hh")}
    for name, out, inputs in (
        ("encoder.fc", D, 2 * H),
        (f"decoder.attention.attn{suffix}", D, D + 2 * H),
        ("decoder.fc_out", target, D + 2 * H + E),
    ):
        shapes |= {f"{name}.weight": (out, inputs), f"{name}.bias": (out,)}
    shapes[f"decoder.attention.v{suffix}.weight"] = (1, D)
    return {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}


SIZES = {"input_dim": 7, "output_dim": 6, "embedding_dim": 3, "encoder_hidden_dim": 4, "decoder_hidden_dim": 5}


@pytest.mark.parametrize("suffix", ["_fc", ""])
def test_every_tensor_of_other_sizes_is_set(suffix):
    model = translator(SIZES)
    tensors = checkpoint(suffix=suffix)
    kseq.weights.load(model, tensors)
    assert model.count_params() == sum(tensor.size for tensor in tensors.values())
    decoder = model.get_layer("attention_decoder")
    alignment = tensors[f"decoder.attention.attn{suffix}.weight"]
    np.testing.assert_array_equal(ops.convert_to_numpy(decoder.query_projection.kernel), alignment[:, :5].T)
    np.testing.assert_array_equal(ops.convert_to_numpy(decoder.key_projection.kernel), alignment[:, 5:].T)
    before = sum(float(np.abs(tensor).sum()) for tensor in tensors.values())
    after = sum(float(np.abs(ops.convert_to_numpy(variable)).sum()) for variable in model.trainable_variables)
    np.testing.assert_allclose(after, before, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention": "luong"}, "attention 'luong' of its decoder; build it with 'bahdanau'"),
        ({"cell": "lstm"}, "cell 'lstm'"),
        ({"score": "normed"}, "score 'normed'"),
        ({"bidirectional": False}, "bidirectional=True"),
        ({"use_score_bias": False}, "use_score_bias=True"),
        ({"decoder_depth": 2}, "has decoder_1"),
        ({"tie_embeddings": True}, "lacks logits"),
        ({"reset_after": False}, "reset_after"),
        ({"units": 6}, r"wrong shape: .*where \(18, "),
    ],
)
def test_what_cannot_correspond(arguments, message):
    with pytest.raises(InputError, match=message):
        kseq.weights.load(translator(SIZES, **arguments), checkpoint())


def test_another_model():
    with pytest.raises(InputError, match="lacks source_embedding"):
        kseq.weights.load(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), checkpoint())
