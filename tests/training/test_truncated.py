"""Truncated back-propagation, against NumPy, against one pass over the whole, and against its own mistakes."""

import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from kseq.training.truncated import CarryState, Windows

random = np.random.default_rng(0)
INPUTS = random.normal(size=(6, 7, 3)).astype("float32")
TARGETS = random.normal(size=(6, 7, 4)).astype("float32")
LAYERS = {"rnn": kseq.layers.SimpleRNN, "lstm": kseq.layers.LSTM, "gru": kseq.layers.GRU}


def network(layer="rnn", *, rate=0.5, stateful=True, batch_size=2):
    """One recurrent layer, its outputs compared with the targets."""
    keras.utils.set_random_seed(3)
    entry = keras.Input(batch_shape=(batch_size, None, 3)) if stateful else keras.Input((None, 3))
    model = keras.Model(entry, LAYERS[layer](4, return_sequences=True, stateful=stateful, name="recurrent")(entry))
    model.compile(keras.optimizers.SGD(rate), "mean_squared_error")
    return model


def fit(model, train, epochs=1, callbacks=(), validation=None, **options):
    history = model.fit(
        train,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[CarryState(train, validation), *callbacks],
        validation_data=validation,
        **options,
    )
    return history.history


class States(keras.callbacks.Callback):
    """The states of the layer before and after every batch."""

    def on_train_begin(self, logs=None):
        self.before, self.after = [], []

    def _states(self):
        getattr(self.model, "jax_state_sync", lambda: None)()
        return [keras.ops.convert_to_numpy(state).copy() for state in self.model.get_layer("recurrent").states]

    def on_train_batch_begin(self, batch, logs=None):
        self.before.append(self._states())

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(self._states())


def reference(weights, orders, spans, *, rate=0.5, batch_size=2, steps=None, carry=True, reset=True):
    """The same by hand: h_t = tanh(W x_t + U h_{t-1} + b), squared error, gradients inside a window, SGD."""
    W, U, b = (weight.astype("float64") for weight in weights)
    h = np.zeros((batch_size, 4))
    for order in orders:
        for rows in np.split(order, len(order) // batch_size):
            for number, (start, end) in enumerate(spans):
                if not carry or (reset and number == 0):
                    h = np.zeros((batch_size, 4))
                states = [h]
                for t in range(start, end):
                    states.append(np.tanh(INPUTS[rows, t] @ W + states[-1] @ U + b))
                dW, dU, db, dh = np.zeros_like(W), np.zeros_like(U), np.zeros_like(b), np.zeros_like(h)
                for t in reversed(range(start, end)):
                    h_t, h_before = states[t - start + 1], states[t - start]
                    dh = dh + 2 * (h_t - TARGETS[rows, t]) / (batch_size * (steps or end - start) * 4)
                    da = dh * (1 - h_t**2)
                    dW, dU, db, dh = dW + INPUTS[rows, t].T @ da, dU + h_before.T @ da, db + da.sum(0), da @ U.T
                W, U, b, h = W - rate * dW, U - rate * dU, b - rate * db, states[-1]
    return [W, U, b]


def distance(one, other):
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))


def orders(seed, epochs):
    return [np.random.default_rng((seed, epoch)).permutation(6) for epoch in range(epochs)]


def test_two_epochs_by_hand():
    model, train = network(), Windows(INPUTS, TARGETS, 2, 3, seed=5)
    start = model.get_weights()
    fit(model, train, epochs=2)
    spans = [(0, 1), (1, 4), (4, 7)]
    assert train.spans == spans
    assert distance(model.get_weights(), reference(start, orders(5, 2), spans)) < 2e-6
    for mistake in (
        reference(start, orders(5, 2), spans, carry=False),
        reference(start, orders(5, 2), spans, reset=False),
        reference(start, orders(6, 2), spans),
        reference(start, orders(5, 1) * 2, spans),
        reference(start, orders(5, 2), [(0, 7)]),
    ):
        assert distance(model.get_weights(), mistake) > 1e-4


def test_masked_steps_take_no_part():
    model, train = network(), Windows(INPUTS, TARGETS, 2, 3, remainder="mask")
    start = model.get_weights()
    fit(model, train)
    expected = reference(start, [np.arange(6)], [(0, 3), (3, 6), (6, 7)], steps=3)
    assert distance(model.get_weights(), expected) < 2e-6


@pytest.mark.parametrize("layer", LAYERS)
def test_the_state_after_some_windows_is_that_of_one_pass(layer):
    model, states = network(layer, rate=0.0), States()
    fit(model, Windows(INPUTS, TARGETS, 2, 3), callbacks=[states])
    whole = LAYERS[layer](4, return_state=True)
    whole.build((None, None, 3))
    whole.set_weights(model.get_weights())
    for batch, end in enumerate([1, 4, 7] * 3):
        rows = slice(2 * (batch // 3), 2 * (batch // 3) + 2)
        _, *expected = whole(INPUTS[rows, :end])
        for got, wanted in zip(states.after[batch], expected, strict=True):
            np.testing.assert_allclose(got, keras.ops.convert_to_numpy(wanted), atol=1e-6)


def test_states_are_cleared_at_the_first_window_of_sequences_and_of_epochs_only():
    model, states = network("lstm"), States()
    fit(model, Windows(INPUTS, TARGETS, 2, 3), 2, [states])
    cleared = [not np.any(before) for before in states.before]
    assert cleared == [True, False, False] * 3 * 2
    for before, after in zip(states.before[1:], states.after, strict=False):
        assert not np.any(before) or np.array_equal(before, after)


@pytest.mark.parametrize("layer", LAYERS)
def test_one_window_is_full_back_propagation(layer):
    model, whole = network(layer), network(layer, stateful=False)
    fit(model, Windows(INPUTS, TARGETS, 2, 7), epochs=2)
    whole.fit(INPUTS, TARGETS, batch_size=2, epochs=2, shuffle=False, verbose=0)
    assert distance(model.get_weights(), whole.get_weights()) < 1e-6
    cut = network(layer)
    fit(cut, Windows(INPUTS, TARGETS, 2, 4), epochs=2)
    assert distance(cut.get_weights(), whole.get_weights()) > 1e-4


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("length", [4, 8])
def test_no_gradient_crosses_the_edge(layer, length):
    """Tokens 0 to 3 stand in the first half, 4 to 7 in the second, which alone has a loss."""
    entry = keras.Input(batch_shape=(2, None), dtype="int32")
    embedding = keras.layers.Embedding(8, 3)
    outputs = LAYERS[layer](4, return_sequences=True, stateful=True)(embedding(entry))
    model = keras.Model(entry, outputs)
    model.compile(keras.optimizers.SGD(1.0), lambda targets, outputs: targets * outputs)
    before = embedding.get_weights()[0].copy()
    tokens = np.tile(np.arange(8, dtype="int32"), (2, 1))
    targets = np.repeat((tokens >= 4).astype("float32")[..., None], 4, axis=-1)
    fit(model, Windows(tokens, targets, 2, length))
    moved = (embedding.get_weights()[0] != before).any(axis=-1)
    assert moved[4:].all()
    assert moved[:4].any() == (length == 8)  # through the state, if there is no edge between


def test_validation_neither_sees_nor_disturbs_training():
    train = Windows(INPUTS, TARGETS, 2, 3, seed=1)
    other = Windows(INPUTS[:2] + 1, TARGETS[:2], 2, 4)
    alone, both, last_alone, last_both = network("gru"), network("gru"), States(), States()
    expected = fit(alone, train, 3, [last_alone])
    history = fit(both, train, 3, [last_both], validation=other)
    assert history["loss"] == expected["loss"]
    assert distance(alone.get_weights(), both.get_weights()) == 0
    np.testing.assert_array_equal(last_both._states(), last_alone._states())  # it got its own states back
    np.testing.assert_array_equal(last_both.after[-1], last_both._states())

    whole = network("gru", stateful=False)
    whole.set_weights(both.get_weights())
    outputs = whole.predict(other.inputs, verbose=0)
    means = [np.mean((outputs - TARGETS[:2])[:, start:end] ** 2) for start, end in other.spans]
    np.testing.assert_allclose(history["val_loss"][-1], np.mean(means), rtol=1e-5)
    loss = both.evaluate(other, callbacks=[CarryState(validation=other)], verbose=0)
    np.testing.assert_allclose(loss, np.mean(means), rtol=1e-5)


def test_other_validation_data_is_whole_sequences():
    model, whole = network("lstm", rate=0.0), network("lstm", rate=0.0, stateful=False)
    train = Windows(INPUTS, TARGETS, 2, 3)
    history = model.fit(
        train,
        shuffle=False,
        verbose=0,
        callbacks=[CarryState(train)],
        validation_data=(INPUTS, TARGETS),
        validation_batch_size=2,
    ).history
    expected = whole.evaluate(INPUTS, TARGETS, verbose=0)
    np.testing.assert_allclose(history["val_loss"][-1], expected, rtol=1e-5)


def test_going_on_after_an_epoch_is_the_same():
    whole, parts, train = network(), network(), Windows(INPUTS, TARGETS, 2, 3, seed=2)
    fit(whole, train, epochs=3)
    fit(parts, train, epochs=1)
    fit(parts, Windows(INPUTS, TARGETS, 2, 3, seed=2), epochs=3, initial_epoch=1)
    assert distance(whole.get_weights(), parts.get_weights()) == 0


def test_states_are_no_weights(tmp_path):
    model = network("lstm")
    fit(model, Windows(INPUTS, TARGETS, 2, 3))
    twin = network("lstm", stateful=False)
    twin.set_weights(model.get_weights())  # a model for sequences of any number, with the weights alone
    kseq.saving.save(model, tmp_path / "model.keras")
    again = kseq.saving.load(tmp_path / "model.keras")
    again.get_layer("recurrent").reset_state()
    np.testing.assert_allclose(
        again.predict(INPUTS[:2], verbose=0), twin.predict(INPUTS[:2], verbose=0), rtol=0, atol=1e-6
    )


def test_windows_follow_each_other():
    inputs = np.arange(4 * 10).reshape(4, 10)
    windows = Windows(inputs, -inputs, 2, 4, seed=3)
    assert len(windows) == 2 * 3
    windows.set_epoch(1)
    order = np.random.default_rng((3, 1)).permutation(4)
    for group in range(2):
        batches = [windows[3 * group + number] for number in range(3)]
        np.testing.assert_array_equal([batch[0].shape[1] for batch in batches], [2, 4, 4])
        joined = [np.concatenate(parts, axis=1) for parts in zip(*batches, strict=True)]
        np.testing.assert_array_equal(joined[0], inputs[order[2 * group : 2 * group + 2]])
        np.testing.assert_array_equal(joined[1], -joined[0])


def test_remainders():
    inputs = np.arange(10)[None]
    drop = Windows(inputs, inputs, 1, 4, remainder="drop")
    assert [drop[i][0].tolist() for i in range(len(drop))] == [[[0, 1, 2, 3]], [[4, 5, 6, 7]]]
    mask = Windows(inputs, inputs, 1, 4, remainder="mask")
    assert len(mask) == 3
    assert mask[0][2].tolist() == [[1, 1, 1, 1]]
    assert [array.tolist() for array in mask[2]] == [[[8, 9, 0, 0]], [[8, 9, 0, 0]], [[1, 1, 0, 0]]]
    for remainder in ("first", "mask", "drop"):  # nothing is left over
        even = Windows(inputs, inputs, 1, 5, remainder=remainder)
        assert [len(even[i]) for i in range(len(even))] == [2, 2]
    assert Windows(inputs, inputs, 1, 20)[0][0].shape == (1, 10)


def test_a_stream_in_parallel_tracks():
    stream = np.arange(11)
    windows = Windows.from_stream(stream, stream + 1, 2, 3)
    assert [windows[i][0].tolist() for i in range(len(windows))] == [[[0, 1], [5, 6]], [[2, 3, 4], [7, 8, 9]]]
    assert windows[1][1].tolist() == [[3, 4, 5], [8, 9, 10]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": TARGETS[:, :5]}, r"inputs \(6, 7, 3\), targets \(6, 5, 4\)"),
        ({"targets": TARGETS[:, 0, 0]}, "give \\(samples, time"),
        ({"inputs": INPUTS[:0], "targets": TARGETS[:0]}, "give \\(samples, time"),
        ({"batch_size": 4}, "batch_size 4: does not divide the 6 sequences"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"length": 0}, "length 0: give 1 or more"),
        ({"length": 8, "remainder": "drop"}, "length 8: no window fits in 7 steps"),
        ({"remainder": "pad"}, "remainder 'pad': give 'first', 'mask' or 'drop'"),
    ],
)
def test_bad_windows(change, message):
    arguments = {"inputs": INPUTS, "targets": TARGETS, "batch_size": 2, "length": 3}
    with pytest.raises(InputError, match=message):
        Windows(**arguments | change)


def test_bad_streams():
    with pytest.raises(InputError, match="10 and 9 steps"):
        Windows.from_stream(np.arange(10), np.arange(9), 2, 3)
    with pytest.raises(InputError, match="at least one a track"):
        Windows.from_stream(np.arange(3), np.arange(3), 4, 3)


def test_shuffled_windows_are_noticed():
    model, train = network(), Windows(INPUTS, TARGETS, 2, 1)  # 21 batches
    with pytest.raises(InputError, match="call fit with shuffle=False"):
        model.fit(train, verbose=0, callbacks=[CarryState(train)])


def test_bad_fits():
    train = Windows(INPUTS, TARGETS, 2, 3)
    with pytest.raises(InputError, match="steps_per_epoch 2: the windows have 9 batches"):
        fit(network(), train, steps_per_epoch=2)
    if keras.backend.backend() != "torch":  # which has no such steps
        model = network()
        model.compile("sgd", "mse", steps_per_execution=2)
        with pytest.raises(InputError, match="steps_per_execution 2.*3 windows"):
            fit(model, train)
    with pytest.raises(InputError, match="no layer is stateful"):
        fit(network(stateful=False), train)
    with pytest.raises(InputError, match="give CarryState the Windows"):
        network().fit(train, shuffle=False, verbose=0, callbacks=[CarryState()])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (kseq.layers.GRU(4, return_sequences=True, stateful=True, go_backwards=True), "runs backwards"),
        (keras.layers.GRU(4, return_sequences=True, stateful=True), "Keras does not carry its states in fit"),
    ],
)
def test_layers_whose_states_cannot_be_carried_are_refused(layer, message):
    entry = keras.Input(batch_shape=(2, None, 3))
    model = keras.Model(entry, layer(entry))
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match=message):
        fit(model, Windows(INPUTS, TARGETS, 2, 3))


def test_a_single_track():
    entry = keras.Input(batch_shape=(1, None, 3))
    model = keras.Model(entry, kseq.layers.LSTM(4, return_sequences=True, stateful=True)(entry))
    model.compile("sgd", "mse")
    losses = fit(model, Windows(INPUTS[:1], TARGETS[:1], 1, 3))["loss"]
    assert np.isfinite(losses).all()
