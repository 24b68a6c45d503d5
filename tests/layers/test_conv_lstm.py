"""The convolutional LSTM against a NumPy loop of the equations, and against Keras's."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kseq.errors import InputError
from kseq.layers.autonomous_conv_lstm import AutonomousConvLSTM
from kseq.layers.conv_lstm import ConvLSTM
from kseq.training.truncated import CarryState, Windows
from tests import conformance
from tests.gradients import gradients

BATCH, TIME, CHANNELS, FILTERS = 4, 3, 2, 3
SPACES = {1: (4,), 2: (3, 4), 3: (2, 3, 2)}
RIGHT = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=bool)
HOLES = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 0]], dtype=bool)
MASKS = {"no mask": None, "right": RIGHT, "left, holes, nothing valid": HOLES}

VIDEOS = {
    rank: np.random.default_rng(rank).normal(size=(BATCH, TIME, *space, CHANNELS)).astype("float32")
    for rank, space in SPACES.items()
}


def states_of(rank):
    random = np.random.default_rng(4)
    return [random.normal(size=(BATCH, *SPACES[rank], FILTERS)).astype("float32") for _ in range(2)]


def randomized(layer, *shapes):
    random = np.random.default_rng(5)
    layer.build(*shapes)
    for weight in layer.trainable_weights:
        weight.assign(random.normal(size=weight.shape, scale=0.5))
    return layer


def numpy(tensors):
    tensors = tensors if isinstance(tensors, (list, tuple)) else [tensors]
    return [ops.convert_to_numpy(ops.cast(tensor, "float32")) for tensor in tensors]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def convolved(x, w):
    """`x * w` with zeros around the map, one more behind it if the kernel is even, at each place by itself."""
    *size, _, filters = w.shape
    pads = [((k - 1) // 2, k // 2) for k in size]
    padded = np.pad(x, [*pads, (0, 0)])
    outputs = np.zeros((*x.shape[:-1], filters))
    for place in np.ndindex(*x.shape[:-1]):
        window = padded[tuple(slice(p, p + k) for p, k in zip(place, size, strict=True))]
        outputs[place] = np.tensordot(window, w, window.ndim)
    return outputs


def loop(x, mask, states, weights, *, go_backwards=False, zero_output_for_mask=False, kept=1.0):
    """The last output, all outputs `(batch, time, …)`, the last states; in float64, nothing vectorised over rows."""
    w_x, w_h, b, *peepholes = (w.astype("float64") for w in weights)
    w_ci, w_cf, w_co = peepholes or [0.0] * 3
    last = [np.array(state, "float64") for state in states]
    kept = np.broadcast_to(kept, last[0].shape)
    outputs = np.zeros((*x.shape[:2], *last[0].shape[1:]))
    for row in range(len(x)):
        h, c = (state[row] for state in last)
        shown = np.zeros_like(h)
        for position, t in enumerate(reversed(range(x.shape[1])) if go_backwards else range(x.shape[1])):
            if mask is None or mask[row, t]:
                i, f, g, o = np.split(
                    convolved(x[row, t].astype("float64"), w_x) + convolved(h * kept[row], w_h) + b, 4, -1
                )
                i, f = sigmoid(i + w_ci * c), sigmoid(f + w_cf * c)
                c = f * c + i * np.tanh(g)
                h = sigmoid(o + w_co * c) * np.tanh(c)
                shown = h
            elif zero_output_for_mask:
                shown = np.zeros_like(h)
            outputs[row, position] = shown
        last[0][row], last[1][row] = h, c
    return outputs[:, -1], outputs, last


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(("rank", "peepholes"), [(1, True), (2, True), (2, "channel"), (3, True)])
def test_it_is_the_numpy_loop_in_every_rank(rank, mask, peepholes):
    x, states = VIDEOS[rank], states_of(rank)
    size = (3, 2, 2)[:rank]
    layer = ConvLSTM(FILTERS, size, peepholes=peepholes, return_sequences=True, return_state=True)
    randomized(layer, x.shape)
    _, outputs, last = loop(x, mask, states, layer.get_weights())
    for one, other in zip(numpy(layer(x, mask=mask, initial_state=states)), [outputs, *last], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("go_backwards", [False, True])
def test_every_option_is_the_numpy_loop(go_backwards, mask):
    x, states = VIDEOS[1], states_of(1)
    for zero_output, given in itertools.product((False, True), repeat=2):
        options = {"go_backwards": go_backwards, "zero_output_for_mask": zero_output}
        layer = randomized(ConvLSTM(FILTERS, 3, recurrent_kernel_size=2, **options), x.shape)
        first = states if given else [np.zeros_like(state) for state in states]
        output, outputs, last = loop(x, mask, first, layer.get_weights(), **options)
        for sequences, state in ((False, not given), (True, given)):
            layer.return_sequences, layer.return_state = sequences, state
            got = numpy(layer(x, mask=mask, initial_state=first if given else None))
            case = f"{options}, initial state {given}, sequences {sequences}, state {state}"
            expected = [outputs if sequences else output, *(last if state else [])]
            for one, other in zip(got, expected, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-5, err_msg=case)


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (1, {"padding": "same"}),
        (2, {"padding": "valid", "go_backwards": True}),
        (2, {"padding": "same", "strides": (2, 1), "use_bias": False}),
        (2, {"padding": "same", "recurrent_activation": "hard_sigmoid", "activation": "softsign"}),
        (3, {"padding": "same", "strides": 2}),
    ],
)
def test_without_peepholes_it_is_that_of_keras(rank, options):
    x = VIDEOS[rank]
    make = (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)[rank - 1]
    options |= {"return_sequences": True, "return_state": True}
    theirs = make(FILTERS, 2, data_format="channels_last", **options)
    ours = ConvLSTM(FILTERS, 2, peepholes=False, **options)
    expected = theirs(x)
    ours.build(x.shape)
    begin, random = [w.shape for w in theirs.get_weights()], np.random.default_rng(6)
    assert [w.shape for w in ours.get_weights()] == begin
    theirs.set_weights([random.normal(size=shape, scale=0.5) for shape in begin])
    ours.set_weights(theirs.get_weights())
    expected = numpy(theirs(x))
    for one, other in zip(numpy(ours(x)), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    again = ConvLSTM.from_config(ours.get_config() | {"peepholes": True})  # which begin with zeros
    again.build(x.shape)
    again.set_weights(ours.get_weights() + again.get_weights()[len(begin) :])
    np.testing.assert_allclose(numpy(again(x))[0], expected[0], atol=1e-6)


def test_the_forget_gate_begins_open():
    layer = ConvLSTM(FILTERS, 3)
    layer.build(VIDEOS[2].shape)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.bias), np.repeat([0, 1, 0, 0], FILTERS))
    layer = ConvLSTM(FILTERS, 3, unit_forget_bias=False, bias_initializer="ones")
    layer.build(VIDEOS[2].shape)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.bias), 1)


@pytest.mark.parametrize("go_backwards", [False, True])
def test_what_stands_in_a_masked_frame_reaches_nothing(go_backwards):
    x = VIDEOS[2]
    layer = randomized(ConvLSTM(FILTERS, 3, return_sequences=True, go_backwards=go_backwards), x.shape)
    spoilt = np.where(HOLES[..., None, None, None], x, np.nan).astype("float32")
    expected, got = (numpy(layer(video, mask=HOLES))[0] for video in (x, spoilt))
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got, expected)
    mask = ops.convert_to_tensor(HOLES)

    def loss(x, kernel):
        with keras.StatelessScope([(layer.kernel, kernel)]):
            return ops.sum(layer(x, mask=mask))

    found = gradients(loss, [spoilt, ops.convert_to_numpy(layer.kernel)])
    assert all(np.isfinite(gradient).all() for gradient in found)
    assert not found[0][~HOLES].any()


def test_a_sequence_in_two_pieces_is_the_whole():
    x = VIDEOS[2]
    layer = randomized(ConvLSTM(FILTERS, 3, return_sequences=True, return_state=True), x.shape)
    whole = numpy(layer(x))
    first, *states = layer(x[:, :1])
    second, *last = layer(x[:, 1:], initial_state=states)
    pieces = [np.concatenate([*numpy(first), *numpy(second)], axis=1), *numpy(last)]
    for one, other in zip(pieces, whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_masks_and_states_of_a_functional_model(tmp_path):
    """Masking above, a bidirectional layer below, states from one layer to the next, any batch and length."""
    entry = keras.Input((None, 4, CHANNELS), name="signals")
    masked = keras.layers.TimeDistributed(keras.layers.Flatten())(entry)
    masked = keras.layers.Masking(0.0)(masked)
    x = keras.layers.TimeDistributed(keras.layers.Reshape((4, CHANNELS)))(masked)
    _, *states = ConvLSTM(FILTERS, 3, return_state=True, name="encoder")(x)
    x = ConvLSTM(FILTERS, 3, return_sequences=True, name="decoder")(x, initial_state=states)
    x = keras.layers.Bidirectional(ConvLSTM(2, 3), name="both")(x)
    model = keras.Model(entry, x)
    assert model.output_shape == (None, 4, 4)
    padded = VIDEOS[1] * RIGHT[..., None, None]
    outputs = model.predict(padded, verbose=0)
    np.testing.assert_allclose(model.predict(padded[2:3, :1], verbose=0), outputs[2:3], atol=1e-6)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras").predict(padded, verbose=0), outputs)


def test_dropout_is_the_same_in_all_frames_and_at_all_steps():
    x, states = VIDEOS[1], states_of(1)
    options = {"return_sequences": True, "return_state": True, "seed": 1}
    shapes = {"dropout": (BATCH, 1, 4, CHANNELS), "recurrent_dropout": (BATCH, 4, FILTERS)}
    for argument, shape in shapes.items():
        layer = randomized(ConvLSTM(FILTERS, 3, **{argument: 0.5}, **options), x.shape)
        seen = keras.random.dropout(ops.ones(shape), 0.5, seed=keras.random.SeedGenerator(1))
        kept = numpy(seen)[0]
        assert np.unique(kept).tolist() == [0, 2]
        frames, states_kept = (x * kept, 1.0) if argument == "dropout" else (x, kept)
        _, outputs, last = loop(frames, None, states, layer.get_weights(), kept=states_kept)
        for one, other in zip(numpy(layer(x, initial_state=states, training=True)), [outputs, *last], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5, err_msg=argument)
        _, outputs, _ = loop(x, None, states, layer.get_weights())
        np.testing.assert_allclose(numpy(layer(x, initial_state=states))[0], outputs, atol=1e-5)
        if argument == "recurrent_dropout":
            alone = AutonomousConvLSTM(FILTERS, 3, steps=2, return_sequences=True, recurrent_dropout=0.5, seed=1)
            randomized(alone, [state.shape for state in states])
            nothing = np.zeros((3, 1, 4 * FILTERS))
            _, outputs, _ = loop(x[:, :2, ..., :1], None, states, [nothing, *alone.get_weights()], kept=kept)
            np.testing.assert_allclose(numpy(alone(states, training=True))[0], outputs, atol=1e-5)


def test_a_stateful_layer_goes_on_where_it_stopped_as_that_of_keras():
    x, states = VIDEOS[2], states_of(2)
    ours = randomized(ConvLSTM(FILTERS, 3, peepholes=False, stateful=True, return_sequences=True), x.shape)
    assert ConvLSTM.from_config(ours.get_config()).stateful
    assert len(ours.weights) == 3  # so that they fit a layer that is not stateful
    make = keras.layers.ConvLSTM2D
    theirs = make(
        FILTERS, 3, padding="same", stateful=True, return_sequences=True, data_format="channels_last", trainable=False
    )
    theirs.build(x.shape)
    theirs.set_weights(ours.get_weights())
    whole = ConvLSTM(FILTERS, 3, peepholes=False, return_sequences=True)
    whole.build(x.shape)
    whole.set_weights(ours.get_weights())
    expected = numpy(whole(np.concatenate([x, x], axis=1)))[0]
    for part in (expected[:, :TIME], expected[:, TIME:]):
        np.testing.assert_allclose(numpy(ours(x))[0], part, atol=1e-6)
        np.testing.assert_allclose(numpy(theirs(x))[0], part, atol=1e-6)
    ours.reset_state()
    np.testing.assert_allclose(numpy(ours(x))[0], expected[:, :TIME], atol=1e-6)
    # States that are given take the place of those that it has; at masked steps they stay.
    ours(x, initial_state=states, mask=HOLES)
    _, _, last = loop(x, HOLES, states, ours.get_weights())
    for one, other in zip(numpy(ours.states), last, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    with pytest.raises(InputError, match=r"sequences: 2 in a batch, but conv_lstm.* has states for 4"):
        ours(x[:2])
    with pytest.raises(InputError, match="unknown batch size: conv_lstm.* is stateful"):
        ConvLSTM(FILTERS, 3, stateful=True)(keras.Input(x.shape[1:]))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_fit_carries_the_states_of_a_stateful_layer(dtype):
    x = np.concatenate([VIDEOS[1], VIDEOS[1]], axis=1)
    frames = keras.Input(batch_shape=(BATCH, None, 4, CHANNELS))
    layer = ConvLSTM(FILTERS, 3, stateful=True, return_sequences=True, dtype=dtype)
    model = keras.Model(frames, layer(frames))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    windows = Windows(x, np.zeros((*x.shape[:-1], FILTERS), "float32"), BATCH, TIME)
    model.fit(windows, epochs=2, shuffle=False, callbacks=[CarryState(windows)], verbose=0)
    whole = ConvLSTM(FILTERS, 3, return_state=True)
    whole.build(x.shape)
    whole.set_weights(layer.get_weights())
    for one, other in zip(numpy(layer.states), numpy(whole(x))[1:], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 if dtype == "float32" else 3e-2)


def test_the_mask_that_is_passed_on_stands_where_the_outputs_do():
    """Of two layers that go backwards the second reads forwards again, and its masked steps are those of the first."""
    x = VIDEOS[1]
    layers = [ConvLSTM(FILTERS, 3, return_sequences=True, go_backwards=True) for _ in range(2)]
    for layer, channels in zip(layers, (CHANNELS, FILTERS), strict=True):
        randomized(layer, (*x.shape[:-1], channels))
    mask = ops.convert_to_tensor(RIGHT)
    first = layers[0](x, mask=mask)
    second = layers[1](first, mask=layers[0].compute_mask(x, mask))
    found = numpy(second)[0]
    for row, length in enumerate(RIGHT.sum(axis=1)):
        cut = numpy(layers[1](layers[0](x[row : row + 1, :length])))[0]
        np.testing.assert_allclose(found[row, :length], cut[0], atol=1e-6)


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (1, {"peepholes": "channel", "dropout": 0.2, "recurrent_dropout": 0.2}),
        (2, {"return_sequences": True, "strides": 2, "go_backwards": True}),
        (3, {"padding": "valid", "kernel_size": (1, 2, 2), "recurrent_kernel_size": 2}),
    ],
)
def test_conformance(rank, options, tmp_path):
    conformance.check_layer(
        lambda: ConvLSTM(**{"filters": FILTERS, "kernel_size": 3} | options), VIDEOS[rank], tmp_path
    )


@pytest.mark.parametrize("rank", SPACES)
def test_without_input_it_is_the_loop_of_zeros(rank):
    states = states_of(rank)
    shapes = [state.shape for state in states]
    layer = AutonomousConvLSTM(FILTERS, 3, steps=TIME, return_sequences=True, return_state=True)
    randomized(layer, shapes)
    weights = layer.get_weights()
    nothing = np.zeros((3,) * rank + (1, 4 * FILTERS))
    _, outputs, last = loop(VIDEOS[rank][..., :1], None, states, [nothing, *weights])
    for one, other in zip(numpy(layer(states)), [outputs, *last], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert layer.compute_output_shape(shapes) == tuple(tuple(one.shape) for one in layer(states))
    assert AutonomousConvLSTM.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvLSTM(0, 3), "filters 0: give the channels"),
        (lambda: ConvLSTM(2, 0), "kernel_size 0: give 1 or more"),
        (lambda: ConvLSTM(2, 3, recurrent_kernel_size=(3, 0)), r"recurrent_kernel_size \(3, 0\)"),
        (lambda: ConvLSTM(2, 3, strides=0), "strides 0"),
        (lambda: ConvLSTM(2, 3, peepholes="all"), "peepholes 'all': give True, False"),
        (lambda: ConvLSTM(2, 3, padding="causal"), "padding 'causal'"),
        (lambda: ConvLSTM(2, 3, dropout=1.0), "dropout 1.0"),
        (lambda: ConvLSTM(2, 3, recurrent_dropout=-0.1), r"recurrent_dropout -0\.1"),
        (lambda: ConvLSTM(2, 3, activation="tanhh"), "activation 'tanhh': not known"),
        (lambda: ConvLSTM(2, (3, 3))(VIDEOS[1]), r"kernel_size \(3, 3\): does not fit"),
        (lambda: ConvLSTM(2, 4, padding="valid")(VIDEOS[2]), r"kernel_size \(4, 4\): larger than frames of \(3, 4\)"),
        (lambda: ConvLSTM(2, 3)(VIDEOS[1][:, 0]), r"sequences of shape \(4, 4, 2\): give \(batch, time"),
        (lambda: ConvLSTM(2, 3)(VIDEOS[1][:, :0]), r"sequences of shape \(4, 0, 4, 2\)"),
        (lambda: ConvLSTM(2, 3)(keras.Input((3, None, 2))), r"sequences of shape \(None, 3, None, 2\): .* known size"),
        (lambda: ConvLSTM(2, 3)(VIDEOS[1], mask=RIGHT[:, :2]), r"mask of shape \(4, 2\): give \(batch, time\)"),
        (lambda: ConvLSTM(2, 3)(VIDEOS[1], initial_state=states_of(1)), r"initial_state of shape .* here \(4, 4, 2\)"),
        (lambda: ConvLSTM(3, 3)(VIDEOS[1], initial_state=states_of(1)[:1]), "initial_state: conv_lstm.* has two"),
        (lambda: AutonomousConvLSTM(2, 3, steps=0), "steps 0"),
        (lambda: AutonomousConvLSTM(2, 3, steps=2, strides=2), "strides: there is no input"),
        (lambda: AutonomousConvLSTM(2, 3, steps=2, stateful=True), "stateful: there is no input"),
        (lambda: AutonomousConvLSTM(2, 3, steps=2, kernel_initializer="zeros"), "kernel_initializer: there is no"),
        (lambda: AutonomousConvLSTM(2, 3, steps=2)(states_of(1)), "and 2 filters"),
        (lambda: AutonomousConvLSTM(3, 3, steps=2)(states_of(1)[:1]), "states: autonomous_conv_lstm.* has two"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_built_layer_refuses_what_it_has_no_weights_for():
    layer = ConvLSTM(FILTERS, 3)
    layer.build((None, None, 1, 4, CHANNELS))
    with pytest.raises(InputError, match=r"states of \(3, 4\) places: .* each of \(1, 4\); .* peepholes='channel'"):
        layer(VIDEOS[2])  # whose peepholes would be repeated along the axis of 1
    per_channel = ConvLSTM(FILTERS, 3, peepholes="channel")
    per_channel.build((None, None, 1, 4, CHANNELS))
    assert per_channel(VIDEOS[2]).shape == (BATCH, 3, 4, FILTERS)
    for sequences in (VIDEOS[1], VIDEOS[3], VIDEOS[2][..., :1]):
        with pytest.raises(InputError, match="was built for 2 axes of space and 2 channels"):
            per_channel(sequences)
    alone = AutonomousConvLSTM(FILTERS, 3, steps=2, peepholes="channel")
    alone.build([state.shape for state in states_of(2)])
    with pytest.raises(InputError, match=r"states of shape \(4, 4, 3\): .* was built for 2 axes"):
        alone(states_of(1))
