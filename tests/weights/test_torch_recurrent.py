"""Outputs and final states of torch.nn, from its weights: the golden files, and modules of other sizes made here."""

import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from tests.weights.golden import FOLDER, close, read

GOLDEN = sorted(path.stem for path in FOLDER.glob("torch_[rlg]*.npz"))
OURS = {"RNN": kseq.layers.SimpleRNN, "LSTM": kseq.layers.LSTM, "GRU": kseq.layers.GRU}
KERAS = {"RNN": keras.layers.SimpleRNN, "LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU}


def network(kind, units, inputs, *, levels=1, bidirectional=False, bias=True, activation="tanh", library=OURS):
    """A model from (sequence, initial states) to (output, final states), states in the order level, direction, h, c."""
    sequence = keras.Input((None, inputs))
    states = [keras.Input((units,)) for _ in range(levels * (1 + bidirectional) * (1 + (kind == "LSTM")))]
    outputs, finals = sequence, []
    for level in range(levels):
        layer = library[kind](
            units, activation=activation, use_bias=bias, return_sequences=True, return_state=True, name=f"level_{level}"
        )
        layer = keras.layers.Bidirectional(layer, name=f"both_{level}") if bidirectional else layer
        share = len(states) // levels
        outputs, *final = layer(outputs, initial_state=states[level * share : (level + 1) * share])
        finals += final
    return keras.Model([sequence, *states], [outputs, *finals])


def run(model, sequence, h, c=None):
    """Output, h_n and c_n of `network`, from and in the order of PyTorch: (level·direction, batch, hidden)."""
    states = list(h) if c is None else [state for pair in zip(h, c, strict=True) for state in pair]
    output, *finals = (keras.ops.convert_to_numpy(result) for result in model([sequence, *states]))
    return (output, np.stack(finals)) if c is None else (output, np.stack(finals[::2]), np.stack(finals[1::2]))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    state, arrays, meta = read(name)
    config, kind = meta["config"], meta["cls"]
    model = network(
        kind,
        config["hidden_size"],
        config["input_size"],
        levels=config["num_layers"],
        bidirectional=config["bidirectional"],
        activation="relu" if "relu" in meta["model"] else "tanh",
    )
    kseq.weights.load(model, state)

    initial = [arrays["h_0"]] + ([arrays["c_0"]] if kind == "LSTM" else [])
    output, *finals = run(model, arrays["input"], *initial)
    close(output, arrays["output"])
    close(finals[0], arrays["h_n"])
    if kind == "LSTM":
        close(finals[1], arrays["c_n"])
    close(run(model, arrays["input"], *map(np.zeros_like, initial))[0], arrays["output_zero_state"])


def test_every_golden_file_is_there():
    assert len(GOLDEN) == 8


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    ("levels", "bidirectional", "bias", "library"),
    [(1, False, False, KERAS), (3, False, True, KERAS), (3, True, False, OURS)],
)
def test_modules_of_other_sizes(kind, levels, bidirectional, bias, library):
    torch = pytest.importorskip("torch")
    torch.manual_seed(levels)
    module = getattr(torch.nn, kind)(3, 4, levels, bias=bias, batch_first=True, bidirectional=bidirectional)
    model = network(kind, 4, 3, levels=levels, bidirectional=bidirectional, bias=bias, library=library)
    kseq.weights.load(model, {f"encoder.rnn.{name}": tensor for name, tensor in module.state_dict().items()})

    random = np.random.default_rng(0)
    sequence = random.normal(size=(2, 5, 3)).astype("float32")
    h = random.normal(size=(levels * (1 + bidirectional), 2, 4)).astype("float32")
    initial = [h, -h] if kind == "LSTM" else [h]
    with torch.no_grad():
        state = tuple(map(torch.from_numpy, initial))
        expected, final = module(torch.from_numpy(sequence), state if kind == "LSTM" else state[0])
    output, *finals = run(model, sequence, *initial)
    close(output, expected.numpy())
    for got, wanted in zip(finals, final if kind == "LSTM" else [final], strict=True):
        close(got, wanted.numpy())


def checkpoint(kind="LSTM", inputs=3, units=4, *, levels=1, bidirectional=False, bias=True):
    """Random tensors under the names and in the shapes of torch.nn."""
    random, rows = np.random.default_rng(0), units * {"RNN": 1, "LSTM": 4, "GRU": 3}[kind]
    shapes = {}
    for level in range(levels):
        for direction in ["", "_reverse"][: 1 + bidirectional]:
            width = inputs if level == 0 else units * (1 + bidirectional)
            shapes[f"weight_ih_l{level}{direction}"] = (rows, width)
            shapes[f"weight_hh_l{level}{direction}"] = (rows, units)
            if bias:
                shapes |= {f"bias_{part}_l{level}{direction}": (rows,) for part in ("ih", "hh")}
    return {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def built(layer, inputs=3):
    layer.build((None, None, inputs))
    return layer


@pytest.mark.parametrize("wrap", [False, True])
def test_a_layer_that_is_not_built_is_built_for_the_input_of_the_checkpoint(wrap):
    layer = keras.layers.Bidirectional(kseq.layers.GRU(4)) if wrap else kseq.layers.GRU(4)
    tensors = checkpoint("GRU", inputs=5, bidirectional=wrap)
    kseq.weights.load(layer, tensors)
    forward = layer.forward_layer if wrap else layer
    kernel = keras.ops.convert_to_numpy(forward.cell.kernel)
    assert kernel.shape == (5, 12)
    np.testing.assert_array_equal(kernel[:, 8:], tensors["weight_ih_l0"][8:].T)  # the candidate stands last in both
    np.testing.assert_array_equal(kernel[:, :4], tensors["weight_ih_l0"][4:8].T)  # z


def test_a_sequential_model_that_is_not_built():
    model = keras.Sequential([kseq.layers.LSTM(4), keras.layers.Dense(2)])
    kseq.weights.load(model, checkpoint(inputs=6))
    assert model.predict(np.zeros((1, 2, 6), "float32"), verbose=0).shape == (1, 2)


def test_a_checkpoint_that_does_not_fit_leaves_an_unbuilt_layer_unbuilt():
    layer = kseq.layers.LSTM(5)
    with pytest.raises(InputError, match="wrong shape: weight_ih_l0"):
        kseq.weights.load(layer, checkpoint(inputs=7))
    assert not layer.built


def test_not_built_and_no_way_to_build():
    with pytest.raises(InputError, match="not built.*call it on data first"):
        kseq.weights.load(keras.Sequential([keras.layers.Dense(2), keras.layers.LSTM(4)]), checkpoint())
    with pytest.raises(InputError, match="not built"):
        kseq.weights.load(keras.layers.LSTM(4, stateful=True), checkpoint())  # its batch size is not in a checkpoint


def test_other_layers_of_a_model_keep_their_weights():
    inner = keras.Sequential([keras.Input((None, 3)), kseq.layers.LSTM(4, return_sequences=True)], name="inner")
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.Dense(3), inner, keras.layers.LSTM(4)])
    dense = [weight.copy() for weight in model.layers[0].get_weights()]
    tensors = checkpoint(levels=2)
    kseq.weights.load(model, tensors)
    for got, expected in zip(model.layers[0].get_weights(), dense, strict=True):
        np.testing.assert_array_equal(got, expected)
    for level, layer in enumerate((inner.layers[0], model.layers[-1])):
        np.testing.assert_array_equal(layer.get_weights()[1], tensors[f"weight_hh_l{level}"].T)
        np.testing.assert_allclose(
            layer.get_weights()[2], tensors[f"bias_ih_l{level}"] + tensors[f"bias_hh_l{level}"], rtol=1e-6
        )


def test_all_differences_are_named_at_once_and_nothing_is_assigned():
    layer = built(keras.layers.Bidirectional(kseq.layers.LSTM(4)))
    before = [weight.copy() for weight in layer.get_weights()]
    tensors = checkpoint(bidirectional=True)
    del tensors["bias_hh_l0"], tensors["weight_hh_l0_reverse"]
    tensors["weight_ih_l0_reverse"] = np.zeros((16, 9), "float32")
    tensors["bias_ih_l0_reverse"] = np.zeros(12, "float32")
    tensors["fc.weight"] = tensors["weight_ih_l1"] = np.zeros((1, 1), "float32")
    with pytest.raises(InputError) as error:
        kseq.weights.load(layer, tensors)
    message = str(error.value)
    assert "missing: bias_hh_l0, weight_hh_l0_reverse;" in message
    assert "extra: weight_ih_l1, fc.weight;" in message or "extra: fc.weight, weight_ih_l1;" in message
    assert "weight_ih_l0_reverse (16, 9) where (16, 3) is needed" in message
    assert "bias_ih_l0_reverse (12,) where (16,) is needed" in message
    assert "\n" not in message
    for got, expected in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("make", "tensors", "message"),
    [
        (lambda: keras.layers.GRU(4), checkpoint("LSTM"), r"weight_hh_l0 \(16, 4\) where \(12, 4\)"),
        (lambda: keras.layers.LSTM(4), checkpoint(bias=False), "missing: bias_ih_l0, bias_hh_l0"),
        (lambda: keras.layers.LSTM(4, use_bias=False), checkpoint(), "extra: bias_ih_l0, bias_hh_l0"),
        (lambda: keras.layers.LSTM(4), checkpoint(levels=2), "extra: weight_ih_l1, weight_hh_l1"),
        (lambda: keras.layers.GRU(4, reset_after=False), checkpoint("GRU"), "reset_after=False.*reset gate"),
        (lambda: keras.layers.GRU(4, reset_after=False, use_bias=False), checkpoint("GRU", bias=False), "reset_after"),
        (lambda: keras.layers.Dense(4), checkpoint(), "has no SimpleRNN, LSTM or GRU"),
        (lambda: keras.layers.LSTM(4), checkpoint() | {"weight_hr_l0": np.zeros((2, 4))}, "proj_size"),
        (
            lambda: keras.layers.LSTM(4),
            {f"{part}.{name}": array for part in ("encoder", "decoder") for name, array in checkpoint().items()},
            "2 recurrent modules.*'decoder.', 'encoder.'",
        ),
        (
            lambda: keras.layers.RNN(keras.layers.StackedRNNCells([keras.layers.LSTMCell(4)])),
            checkpoint(),
            "a StackedRNNCells has no counterpart",
        ),
    ],
)
def test_what_cannot_correspond(make, tensors, message):
    with pytest.raises(InputError, match=message):
        kseq.weights.load(built(make()), tensors)


def test_a_cell_with_weights_of_its_own():
    class Peephole(keras.layers.LSTMCell):
        def build(self, input_shape):
            super().build(input_shape)
            self.peephole = self.add_weight(shape=(self.units,), name="peephole")

    with pytest.raises(InputError, match="its weights peephole has no counterpart|peephole"):
        kseq.weights.load(built(keras.layers.RNN(Peephole(4))), checkpoint())
