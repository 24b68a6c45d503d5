import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kseq.analysis import (
    gradient_flow,
    plot_comparison,
    plot_decay,
    plot_heat_map,
    plot_loss_gradients,
    step_jacobians,
)
from kseq.errors import InputError
from kseq.layers import GRU, LSTM, SimpleRNN

ROOT = Path(__file__).parents[2]
BATCH, TIME, FEATURES, UNITS = 2, 6, 3, 4


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def inputs(random):
    return random.normal(size=(BATCH, TIME, FEATURES)).astype("float32")


def built(layer, random, scale=0.8, features=FEATURES):
    """The layer with random weights, its biases too."""
    layer.build((None, None, features))
    layer.set_weights([random.normal(scale=scale, size=w.shape) for w in layer.get_weights()])
    return layer


def vanilla(matrix, activation="tanh", **arguments):
    """h_t = f(x_t + W h_{t-1})."""
    units = len(matrix)
    layer = SimpleRNN(units, activation=activation, **arguments)
    layer.build((None, None, units))
    layer.set_weights([np.eye(units), np.transpose(matrix), np.zeros(units)])  # Keras multiplies from the right
    return layer


def spectral(matrix) -> float:
    return float(np.linalg.norm(matrix, ord=2))


def array(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


# One step of each network in float64, from its equations: x, s → s'


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def vanilla_step(weights, x, h):
    U, W, b = weights
    return np.tanh(x @ U + h @ W + b)


def lstm_step(weights, x, s):
    U, W, b = weights
    h, c = np.split(s, 2, axis=-1)
    i, f, g, o = np.split(x @ U + h @ W + b, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return np.concatenate([sigmoid(o) * np.tanh(c), c], axis=-1)


def gru_step(weights, x, h):
    """The reset before the matrix, as Cho et al. 2014, and z and 1 − z as they are in Keras."""
    U, W, b = weights
    (Uz, Ur, Uh), (Wz, Wr, Wh), (bz, br, bh) = (np.split(w, 3, axis=-1) for w in (U, W, b))
    z, r = sigmoid(x @ Uz + h @ Wz + bz), sigmoid(x @ Ur + h @ Wr + br)
    return z * h + (1 - z) * np.tanh(x @ Uh + (r * h) @ Wh + bh)


def gru_reset_after_step(weights, x, h):
    U, W, (b, d) = weights
    (Uz, Ur, Uh), (Wz, Wr, Wh), (bz, br, bh), (dz, dr, dh) = (np.split(w, 3, axis=-1) for w in (U, W, b, d))
    z, r = sigmoid(x @ Uz + bz + h @ Wz + dz), sigmoid(x @ Ur + br + h @ Wr + dr)
    return z * h + (1 - z) * np.tanh(x @ Uh + bh + r * (h @ Wh + dh))


NETWORKS = {
    "vanilla": (lambda **a: SimpleRNN(UNITS, **a), vanilla_step),
    "lstm": (lambda **a: LSTM(UNITS, **a), lstm_step),
    "gru": (lambda **a: GRU(UNITS, reset_after=False, **a), gru_step),
    "gru_reset_after": (lambda **a: GRU(UNITS, reset_after=True, **a), gru_reset_after_step),
}
networks = pytest.mark.parametrize(("layer", "step"), NETWORKS.values(), ids=NETWORKS)


def run_from(step, weights, inputs, state, k) -> np.ndarray:
    """s_k, s_{k+1}, …, s_{T−1} from s_k = `state`, for one sample: (time − k, state)."""
    states = [state]
    for x in inputs[k + 1 :]:
        states.append(step(weights, x, states[-1]))
    return np.stack(states)


def finite_differences(step, weights, inputs, states, k, epsilon=1e-6) -> np.ndarray:
    """∂s_t/∂s_k for t = k, …, by central differences of the whole network: (time − k, state, state)."""
    columns = [
        (run_from(step, weights, inputs, states[k] + e, k) - run_from(step, weights, inputs, states[k] - e, k))
        / (2 * epsilon)
        for e in epsilon * np.eye(states.shape[-1])
    ]
    return np.stack(columns, axis=-1)


@networks
def test_norms_and_loss_gradients_are_those_of_finite_differences(layer, step, inputs, random):
    layer = built(layer(), random)
    weights = [w.astype("float64") for w in layer.get_weights()]
    flow = gradient_flow(layer, inputs, loss=lambda h: keras.ops.sum(h**2) / 2)
    width = UNITS * (2 if isinstance(layer, LSTM) else 1)
    for sample in range(BATCH):
        x = inputs[sample].astype("float64")
        states = run_from(step, weights, np.concatenate([x[:1], x]), np.zeros(width), 0)[1:]
        np.testing.assert_allclose(states[-1, :UNITS], array(layer(inputs))[sample], atol=1e-6)
        for k in range(TIME):
            for t, jacobian in enumerate(finite_differences(step, weights, x, states, k), start=k):
                assert flow.norms[sample, t, k] == pytest.approx(spectral(jacobian), rel=2e-5, abs=1e-8)
                h = jacobian[:UNITS, :UNITS]
                assert flow.hidden_norms[sample, t, k] == pytest.approx(spectral(h), rel=2e-5, abs=1e-8)
            by_last = jacobian[:UNITS].T @ states[-1, :UNITS]  # of ½ ‖h_T‖²
            assert flow.loss_gradients[sample, k] == pytest.approx(np.linalg.norm(by_last), rel=2e-5, abs=1e-8)


@networks
def test_a_step_is_that_of_finite_differences(layer, step, inputs, random):
    layer = built(layer(), random)
    weights = [w.astype("float64") for w in layer.get_weights()]
    steps = step_jacobians(layer, inputs)
    for sample, t in np.ndindex(BATCH, TIME):
        before = steps.states[sample, t].astype("float64")
        expected = finite_differences(step, weights, inputs[sample, [0, t]], before[None], 0)[1]
        np.testing.assert_allclose(steps.jacobians[sample, t], expected, atol=2e-6)


def test_a_linear_network_has_the_powers_of_its_matrix(random, inputs):
    W = random.normal(size=(UNITS, UNITS))
    flow = gradient_flow(vanilla(W, "linear"), random.normal(size=(BATCH, TIME, UNITS)))
    for t in range(TIME):
        for k in range(t + 1):
            np.testing.assert_allclose(flow.norms[:, t, k], spectral(np.linalg.matrix_power(W, t - k)), rtol=1e-5)
        last = np.linalg.matrix_power(W, TIME - 1 - t).T @ np.ones(UNITS)  # of the sum of h_T
        np.testing.assert_allclose(flow.loss_gradients[:, t], np.linalg.norm(last), rtol=1e-5)


def test_the_jacobian_of_a_step_is_the_slopes_times_the_matrix(random):
    W, x = random.normal(size=(UNITS, UNITS)), random.normal(size=(1, TIME, UNITS))
    steps = step_jacobians(vanilla(W), x)
    h = steps.states[0, 1:].astype("float64")
    np.testing.assert_allclose(steps.jacobians[0], (1 - h**2)[..., None] * W, atol=1e-6)  # diag(f′(a_t)) W


@networks
def test_norms_are_those_of_the_composed_steps(layer, step, inputs, random):
    layer = built(layer(), random)
    flow, steps = gradient_flow(layer, inputs), step_jacobians(layer, inputs)
    products = np.eye(steps.jacobians.shape[-1])
    for t in reversed(range(1, TIME)):
        products = products @ steps.jacobians[:, t]
        np.testing.assert_allclose(flow.decay[:, TIME - t], [spectral(p) for p in products], rtol=1e-12)
    np.testing.assert_array_equal(flow.decay, flow.norms[:, -1, ::-1])
    for norms in (flow.norms, flow.hidden_norms):
        assert norms.shape == (BATCH, TIME, TIME)
        np.testing.assert_array_equal(np.isnan(norms), np.broadcast_to(~np.tri(TIME, dtype=bool), norms.shape))
        np.testing.assert_allclose(np.einsum("btt->bt", norms), 1)
    for t, j, k in np.ndindex(TIME, TIME, TIME):
        if k <= j <= t:  # ‖A B‖ ≤ ‖A‖ ‖B‖
            assert (flow.norms[:, t, k] <= flow.norms[:, t, j] * flow.norms[:, j, k] * (1 + 1e-9)).all()


def test_the_lstm_has_a_larger_joint_gradient_than_its_output_alone(inputs, random):
    flow = gradient_flow(built(LSTM(UNITS), random), inputs)
    below = np.tril_indices(TIME, -1)
    assert (flow.norms[:, *below] > flow.hidden_norms[:, *below]).all()
    for layer in (SimpleRNN(UNITS), GRU(UNITS)):
        flow = gradient_flow(built(layer, random), inputs)
        np.testing.assert_array_equal(flow.norms, flow.hidden_norms)


# The bound


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_holds_for_every_vanilla_network(seed):
    random = np.random.default_rng(seed)
    units, time, features = random.integers(1, 9, 3)
    activation, beta_h = [("tanh", 1), ("sigmoid", 1 / 4), ("relu", 1), ("hard_sigmoid", 1 / 6), ("softsign", 1)][
        seed % 5
    ]
    layer = built(SimpleRNN(int(units), activation=activation), random, 10 ** random.uniform(-1, 0.5), features)
    flow = gradient_flow(layer, 10 ** random.uniform(-1, 1) * random.normal(size=(3, time, features)))
    W = layer.get_weights()[1]
    assert flow.beta_w == pytest.approx(spectral(W), rel=1e-6)
    assert (flow.beta_h, flow.note) == (beta_h, "")
    t, k = np.tril_indices(time)
    np.testing.assert_allclose(flow.bound[0, t, k], (flow.beta_w * beta_h) ** (t - k), rtol=1e-12)
    assert (flow.norms[:, t, k] <= flow.bound[:, t, k] * (1 + 1e-5)).all()


def test_the_bound_is_of_the_singular_value_as_the_eigenvalue_bounds_nothing():
    flow = gradient_flow(vanilla([[0, 2], [0, 0]], "linear"), np.ones((1, 3, 2)))
    assert flow.beta_w == pytest.approx(2)  # its only eigenvalue is 0
    np.testing.assert_allclose(flow.decay, [[1, 2, 0]], atol=1e-12)


def test_a_large_matrix_is_necessary_to_explode_and_not_sufficient(random):
    W = np.linalg.qr(random.normal(size=(UNITS, UNITS)))[0]
    x = random.normal(size=(BATCH, 30, UNITS))
    weak, strong = (gradient_flow(vanilla(1.5 * W), scale * x) for scale in (1e-6, 10))
    assert weak.beta_w == strong.beta_w == pytest.approx(1.5)
    assert weak.decay[:, 10].min() > 20
    assert strong.decay[:, -1].max() < 1e-3
    assert gradient_flow(vanilla(0.9 * W), x).decay[:, -1].max() < 0.9**29


def test_the_identity_with_relu_keeps_the_gradient(random):
    flow = gradient_flow(vanilla(np.eye(UNITS), "relu"), random.uniform(0.1, 1, size=(BATCH, 50, UNITS)))
    np.testing.assert_allclose(flow.decay, 1)
    np.testing.assert_allclose(flow.loss_gradients, 2)  # ‖(1, 1, 1, 1)‖
    assert flow.steps_to_lose() is None


@pytest.mark.parametrize(
    ("layer", "note", "beta_w"),
    [
        (LSTM(2), "not of a LSTMCell", None),
        (GRU(2), "not of a GRUCell", None),
        (SimpleRNN(2, activation="gelu"), "no bound on the slope of the activation gelu is known", 1),
        (SimpleRNN(2, activation=keras.layers.LeakyReLU()), "no bound on the slope", 1),
    ],
)
def test_where_there_is_no_bound_the_note_says_why(layer, note, beta_w):
    layer.build((None, None, 2))
    flow = gradient_flow(layer, np.ones((1, 3, 2)))
    assert flow.bound is None
    assert flow.beta_h is None
    assert note in flow.note
    assert flow.beta_w == (beta_w and pytest.approx(beta_w))  # Keras starts from an orthogonal W


def test_overflow_is_infinite(random, recwarn):
    flow = gradient_flow(vanilla(1e12 * np.eye(2), "linear"), np.zeros((1, 40, 2)))
    assert flow.norms[0, 10, 0] == pytest.approx(1e120)
    assert flow.norms[0, -1, 0] == flow.bound[0, -1, 0] == flow.loss_gradients[0, 0] == np.inf
    assert not np.isnan(flow.loss_gradients).any()
    assert flow.steps_to_lose() is None
    assert [str(one.message) for one in recwarn if issubclass(one.category, (RuntimeWarning, UserWarning))] == []


def test_steps_to_lose():
    flow = gradient_flow(vanilla([[0.1]], "linear"), np.ones((1, 6, 1)))
    np.testing.assert_allclose(flow.decay[0], [1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5], rtol=1e-5)
    assert [flow.steps_to_lose(share) for share in (0.5, 0.95, 0.9995, 0.99995, 0.999999)] == [1, 2, 4, 5, None]


# Initial states, masks, direction, and other cells


@networks
def test_the_states_are_those_of_the_layer(layer, step, inputs, random):
    mask = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1]], dtype=bool)
    layer = built(layer(return_sequences=True, return_state=True), random)
    initial = [random.normal(size=(BATCH, UNITS)).astype("float32") for _ in layer.state_size]
    _, *last = layer(inputs, initial_state=initial, mask=mask)
    steps = step_jacobians(layer, inputs, initial, mask=mask)
    np.testing.assert_array_equal(steps.states[:, 0], np.concatenate(initial, axis=1))
    np.testing.assert_allclose(steps.states[:, -1], np.concatenate([array(s) for s in last], axis=1), atol=1e-5)
    outputs = array(layer(inputs, initial_state=initial)[0])
    np.testing.assert_allclose(step_jacobians(layer, inputs, initial).states[:, 1:, steps.hidden], outputs, atol=1e-5)


@networks
def test_a_masked_step_keeps_the_gradient(layer, step, inputs, random):
    layer = built(layer(), random)
    mask = np.array([[1, 1, 0, 1, 0, 0], [0, 0, 1, 1, 1, 1]], dtype=bool)
    masked = gradient_flow(layer, inputs, mask=mask)
    for sample in range(BATCH):
        without = gradient_flow(layer, inputs[sample, mask[sample]][None])
        where = np.ix_(mask[sample], mask[sample])
        np.testing.assert_allclose(masked.norms[sample][where], without.norms[0], rtol=1e-5)
        np.testing.assert_allclose(masked.loss_gradients[sample, mask[sample]], without.loss_gradients[0], rtol=1e-5)
        if without.bound is not None:
            np.testing.assert_allclose(masked.bound[sample][where], without.bound[0], rtol=1e-12)
    steps = step_jacobians(layer, inputs, mask=mask)
    np.testing.assert_array_equal(steps.taken, mask)
    width = steps.states.shape[-1]
    np.testing.assert_array_equal(steps.jacobians[~mask], np.broadcast_to(np.eye(width), ((~mask).sum(), width, width)))
    assert masked.norms[0, 5, 3] == pytest.approx(1)
    inputs[~mask] = np.nan  # what padding holds must not matter
    np.testing.assert_array_equal(gradient_flow(layer, inputs, mask=mask).norms, masked.norms)


def test_the_bound_of_masked_steps_counts_the_others():
    mask = np.array([[1, 0, 0, 1, 0, 1]], dtype=bool)
    flow = gradient_flow(vanilla([[0.5]], "linear"), np.ones((1, 6, 1)), mask=mask)
    np.testing.assert_allclose(flow.bound[0, -1], [0.25, 0.25, 0.25, 0.5, 0.5, 1])
    np.testing.assert_allclose(flow.norms, flow.bound)


@networks
def test_backwards_is_the_reversed_sequence_forwards(layer, step, inputs, random):
    forwards = built(layer(return_sequences=True), random)
    backwards = layer(return_sequences=True, go_backwards=True)
    backwards.build(inputs.shape)
    backwards.set_weights(forwards.get_weights())
    mask = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1]], dtype=bool)
    one, other = (
        gradient_flow(backwards, inputs, mask=mask),
        gradient_flow(forwards, inputs[:, ::-1], mask=mask[:, ::-1]),
    )
    np.testing.assert_allclose(one.norms, other.norms, rtol=1e-6)
    states = step_jacobians(backwards, inputs).states[:, 1:, :UNITS]
    np.testing.assert_allclose(states, array(backwards(inputs)), atol=1e-5)  # index t is the layer's own


def test_a_stateful_layer_starts_from_its_state_and_keeps_it(inputs, random):
    layer = SimpleRNN(UNITS, stateful=True)
    layer.build(inputs.shape)
    array(layer(inputs))
    kept = array(layer.states[0])
    steps = step_jacobians(layer, inputs)
    np.testing.assert_array_equal(steps.states[:, 0], kept)
    np.testing.assert_array_equal(array(layer.states[0]), kept)


@pytest.mark.parametrize("layer", [SimpleRNN, GRU, LSTM])
def test_dropout_is_off_and_training_goes_on(layer, inputs, random):
    layer = built(layer(UNITS, dropout=0.5, recurrent_dropout=0.5), random)
    one, other = gradient_flow(layer, inputs), gradient_flow(layer, inputs)
    np.testing.assert_array_equal(one.norms, other.norms)
    assert layer(np.ones((5, 2, FEATURES), "float32"), training=True).shape == (5, UNITS)


def test_stacked_cells_have_one_joint_state(inputs, random):
    cells = [keras.layers.LSTMCell(3), keras.layers.GRUCell(5)]
    layer = keras.layers.RNN(cells, return_sequences=True)
    outputs = array(layer(inputs))
    steps = step_jacobians(layer, inputs)
    assert steps.jacobians.shape == (BATCH, TIME, 11, 11)
    assert steps.hidden == slice(6, 11)  # of the upper cell
    np.testing.assert_allclose(steps.states[:, 1:, steps.hidden], outputs, atol=1e-6)
    np.testing.assert_array_equal(steps.jacobians[:, :, :6, 6:], 0)  # the lower cell does not read the upper


class Scaled(keras.layers.Layer):
    """s' = s + x, answered as `answer` times s'."""

    def __init__(self, answer, **kwargs):
        super().__init__(**kwargs)
        self.state_size, self.answer = FEATURES, answer

    def call(self, x, states):
        state = states[0] + x
        return self.answer * state, [state]


def test_any_cell_that_returns_its_state(inputs):
    layer = keras.layers.RNN(Scaled(1))
    layer.build(inputs.shape)
    flow = gradient_flow(layer, inputs)
    np.testing.assert_allclose(flow.decay, 1)
    assert "not of a Scaled" in flow.note


def test_a_loss_of_one_value_a_sample(inputs, random):
    layer = built(GRU(UNITS), random)
    a_sample = gradient_flow(layer, inputs, loss=lambda h: keras.ops.mean(h**2, axis=-1))
    in_all = gradient_flow(layer, inputs, loss=lambda h: keras.ops.mean(h**2))
    np.testing.assert_allclose(a_sample.loss_gradients, BATCH * in_all.loss_gradients, rtol=1e-5)
    last = array(layer(inputs))
    np.testing.assert_allclose(a_sample.loss_gradients[:, -1], np.linalg.norm(2 * last / UNITS, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(gradient_flow(layer, inputs, loss=lambda h: 0 * h).loss_gradients, 0)


def test_half_precision(inputs, random):
    full, half = built(LSTM(UNITS), random), LSTM(UNITS, dtype="mixed_bfloat16")
    half.build(inputs.shape)
    half.set_weights(full.get_weights())
    np.testing.assert_allclose(gradient_flow(half, inputs).decay, gradient_flow(full, inputs).decay, rtol=0.2)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": keras.layers.Dense(2, name="dense")}, "layer dense: a Dense; give a keras.layers.RNN"),
        ({"layer": keras.layers.Bidirectional(LSTM(2))}, "one direction of a Bidirectional (forward_layer)"),
        ({"layer": None}, "layer None: a NoneType; give a keras.layers.RNN"),
        ({"layer": LSTM(2, name="new")}, "layer new: not built; call it on data first"),
        ({"inputs": np.ones((2, 6))}, "inputs of shape (2, 6): give (batch, time, 3)"),
        ({"inputs": np.ones((2, 6, 4))}, "inputs of shape (2, 6, 4): give (batch, time, 3)"),
        ({"inputs": np.ones((2, 0, 3))}, "inputs of shape (2, 0, 3): give (batch, time, 3), none of them 0"),
        ({"inputs": np.full((2, 6, 3), np.nan)}, "inputs: NaN or infinite at a step that is not masked"),
        ({"mask": np.ones((2, 5))}, "mask of shape (2, 5): give (batch, time), here (2, 6)"),
        ({"initial_state": np.ones((2, 3))}, "initial_state of shape (2, 3): give (2, 4), (batch, units)"),
        ({"initial_state": [np.ones((2, 4))] * 2}, "initial_state of shape (2, 4), (2, 4): give (2, 4)"),
    ],
)
def test_bad_arguments(arguments, message, inputs, random):
    good = {"layer": built(SimpleRNN(UNITS), random), "inputs": inputs}
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        gradient_flow(**good | arguments)
    assert "\n" not in str(caught.value)


def test_states_that_overflow():
    with pytest.raises(InputError, match="its states leave float32 at step 3; give smaller inputs or weights"):
        gradient_flow(vanilla(1e12 * np.eye(2), "linear", name="big"), np.full((1, 9, 2), 1e6))


def test_a_cell_whose_output_is_no_state(inputs):
    layer = keras.layers.RNN(Scaled(2))
    layer.build(inputs.shape)
    with pytest.raises(InputError, match="the output of its Scaled is none of its states"):
        gradient_flow(layer, inputs)


@pytest.mark.parametrize("share", [0, 1, -1, 2])
def test_a_share_out_of_range(share):
    flow = gradient_flow(vanilla([[1]]), np.ones((1, 2, 1)))
    with pytest.raises(InputError, match=f"share {share}: give a number between 0 and 1"):
        flow.steps_to_lose(share)


@pytest.mark.parametrize("plot", [plot_comparison, plot_decay, plot_loss_gradients])
def test_no_network_to_plot(plot):
    with pytest.raises(InputError, match="flows {}: give one network or more"):
        plot({})


# Pictures


@pytest.fixture
def flows(random, inputs):
    x = random.normal(size=(3, 12, UNITS))
    networks = {"small": vanilla(0.1 * np.eye(UNITS)), "large": vanilla(2 * np.eye(UNITS), "linear")}
    return {name: gradient_flow(layer, x) for name, layer in networks.items()} | {
        "LSTM": gradient_flow(built(LSTM(UNITS), random, features=UNITS), x)
    }


def curves(axis) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_ydata() for line in axis.lines if not line.get_label().startswith("_")}


def drawn(figure) -> None:
    """Render it: constrained layout and logarithmic axes fail here if at all."""
    figure.canvas.draw()


def test_the_heat_map_is_the_logarithm_of_the_norms(flows):
    figure = plot_heat_map(flows["small"], "a title")
    axis, bar = figure.axes
    assert (axis.get_title(), axis.get_xlabel()[0], axis.get_ylabel()[0]) == ("a title", "k", "t")
    assert "log" in bar.get_ylabel()
    expected = np.log10(np.median(flows["small"].norms, axis=0))
    np.testing.assert_allclose(axis.images[0].get_array().filled(np.nan), expected)
    assert axis.images[0].get_clim() == (-6, 6)
    assert len(axis.collections) == 1  # the line of 99.9 %
    drawn(figure)


def test_the_decay_is_drawn_with_its_bound(flows):
    figure = plot_decay(flows)
    assert [axis.get_title() for axis in figure.axes] == list(flows)
    small, large, lstm = map(curves, figure.axes)
    assert [label for label in small if "bound" in label] == ["bound $(0.10)^n$"]
    np.testing.assert_allclose(small["bound $(0.10)^n$"], 0.1 ** np.arange(12), rtol=1e-5)
    np.testing.assert_allclose(large["bound $(2.00)^n$"], 2.0 ** np.arange(12), rtol=1e-5)
    np.testing.assert_allclose(next(iter(small.values())), np.median(flows["small"].decay, axis=0))
    assert len(lstm) == 2  # the joint state and the output alone, no bound
    np.testing.assert_allclose(list(lstm.values())[1], np.median(flows["LSTM"].hidden_norms[:, -1, ::-1], axis=0))
    for axis in figure.axes:
        assert axis.get_yscale() == "log"
        assert axis.get_xlabel() == "n: steps back from the last"
    drawn(figure)


def test_the_loss_gradients_are_a_line_a_network(flows):
    (axis,) = plot_loss_gradients(flows).axes
    for name, line in curves(axis).items():
        np.testing.assert_allclose(line, np.median(flows[name].loss_gradients, axis=0))
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(flows)
    drawn(axis.figure)


def test_the_comparison_has_the_curves_and_the_maps(flows):
    figure = plot_comparison(flows)
    axis, *maps, bar = figure.axes
    assert list(curves(axis)) == list(flows)
    for name, line in curves(axis).items():
        np.testing.assert_allclose(line, np.median(flows[name].decay, axis=0))
    assert [one.get_title() for one in maps] == list(flows)
    assert all(len(one.images) == 1 for one in maps)
    assert "99.9 %" in bar.get_xlabel()
    drawn(figure)


def test_a_single_step_nothing_left_and_infinity_can_be_drawn(recwarn):
    layers = {"one step": (vanilla([[1]]), 1), "zero": (vanilla([[0]]), 3), "∞": (vanilla([[1e12]], "linear"), 40)}
    flows = {name: gradient_flow(layer, np.zeros((1, time, 1))) for name, (layer, time) in layers.items()}
    for plot in (plot_comparison, plot_decay, plot_loss_gradients):
        drawn(plot(flows))
    for flow in flows.values():
        drawn(plot_heat_map(flow))
    assert [str(one.message) for one in recwarn if issubclass(one.category, (RuntimeWarning, UserWarning))] == []


def test_importing_it_loads_no_backend_and_no_matplotlib():
    code = "import sys, keras; before = set(sys.modules); import kseq.analysis; print(*(set(sys.modules) - before))"
    added = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "kseq.analysis.plots" in added
    assert not {name.split(".")[0] for name in added} & {"matplotlib", "tensorflow", "torch", "jax", "sklearn"}


# The page


def test_every_picture_of_the_page_is_there_and_small():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "docs" / "gradient_flow.md").read_text())
    assert len(pictures) == 4
    for picture in pictures:
        assert (ROOT / "docs" / picture).stat().st_size < 250_000
