"""One semantics: every option of the recurrent layers, on every backend, against a NumPy loop of the equations."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kseq.backend import recurrent as forms
from kseq.errors import InputError
from kseq.layers import GRU, LSTM, SimpleRNN
from tests import conformance
from tests.conftest import thinned
from tests.gradients import gradients
from tests.layers import recurrent_reference as reference

CELLS = {
    "rnn": (SimpleRNN, {}, reference.simple_rnn, "tanh"),
    "rnn relu": (SimpleRNN, {"activation": "relu"}, reference.simple_rnn, "relu"),
    "lstm": (LSTM, {}, reference.lstm, "tanh"),
    "gru": (GRU, {}, reference.gru, "tanh"),
    "gru reset before": (GRU, {"reset_after": False}, reference.gru, "tanh"),
}
BATCH, TIME, DIM, UNITS = 5, 4, 3, 2
RIGHT = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)
MIXED = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)
MASKS = {"no mask": None, "right": RIGHT, "right, left, holes, nothing valid": MIXED}
DROPOUT = {"no dropout": {}, "dropout": {"dropout": 0.4}, "recurrent": {"dropout": 0.4, "recurrent_dropout": 0.3}}

random = np.random.default_rng(0)
X = random.normal(size=(BATCH, TIME, DIM)).astype("float32")
STATES = [random.normal(size=(BATCH, UNITS)).astype("float32") for _ in range(2)]


@pytest.fixture(autouse=True)
def _forget_what_was_compiled():
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()  # thousands of eager calls, each compiled anew, exhaust the memory maps of a process


def randomized(layer: keras.layers.Layer, scale: float = 0.5) -> keras.layers.Layer:
    layer.build((BATCH, TIME, DIM))
    for weight in layer.trainable_weights:
        weight.assign(random.normal(size=weight.shape, scale=scale))
    return layer


def numpy(tensors) -> list[np.ndarray]:
    tensors = tensors if isinstance(tensors, (list, tuple)) else [tensors]
    return [ops.convert_to_numpy(ops.cast(tensor, "float32")) for tensor in tensors]


def drawn_masks(layer, before) -> tuple[list, list]:
    """The dropout masks that a call drew, from the state of the seed generator before it."""
    cell = layer.cell
    cell.seed_generator.state.assign(before)
    kinds = []
    for draw, like in ((cell.get_dropout_mask, X[:, 0]), (cell.get_recurrent_dropout_mask, STATES[0])):
        masks = draw(ops.convert_to_tensor(like, dtype=layer.compute_dtype))
        gates = layer.cell.kernel.shape[-1] // UNITS
        if masks is None:
            masks = np.ones((BATCH, like.shape[-1]))
        kinds.append(numpy(masks) if isinstance(masks, list) else numpy(masks) * gates)
    cell.reset_dropout_mask()
    cell.reset_recurrent_dropout_mask()
    return kinds[0], kinds[1]


GRID = [(mask, drop, "float32") for mask in MASKS for drop in DROPOUT]
GRID.append(([*MASKS][-1], "no dropout", "mixed_bfloat16"))  # precision has nothing to do with masks and dropout


@pytest.mark.parametrize(
    ("cell", "mask", "drop", "dtype"), thinned((cell, *options) for cell in CELLS for options in GRID)
)
def test_every_option_is_the_numpy_loop(cell, mask, drop, dtype):
    make, arguments, step, activation = CELLS[cell]
    mask, drop = MASKS[mask], DROPOUT[drop]
    tolerance = 1e-5 if dtype == "float32" else 8e-2
    for go_backwards, zero_output, stateful in itertools.product((False, True), repeat=3):
        options = {"go_backwards": go_backwards, "zero_output_for_mask": zero_output}
        layer = make(UNITS, **arguments, **options, **drop, stateful=stateful, seed=3, dtype=dtype)
        randomized(layer)
        weights = [w.astype("float64") for w in layer.get_weights()[:3]]
        count = 2 if make is LSTM else 1
        carried = [np.zeros((BATCH, UNITS))] * count  # what a stateful layer remembers
        for given, return_sequences in itertools.product((False, True), repeat=2):
            return_state = return_sequences != given  # each with and without
            layer.return_sequences, layer.return_state = return_sequences, return_state
            first = STATES[:count] if given else carried if stateful else [np.zeros((BATCH, UNITS))] * count
            before = ops.convert_to_numpy(layer.cell.seed_generator.state).copy()
            got = layer(X, mask=mask, initial_state=first if given else None, training=bool(drop))
            drops = drawn_masks(layer, before)
            last, outputs, states = reference.run(
                step, X, mask, first, weights, *drops, reference.FUNCTIONS[activation], **options
            )
            carried = states if stateful else carried
            expected = [outputs if return_sequences else last, *(states if return_state else [])]
            case = f"{options}, stateful {stateful}, initial state {given}, sequences {return_sequences}"
            assert len(numpy(got)) == len(expected), case
            for one, other in zip(numpy(got), expected, strict=True):
                np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance, err_msg=case)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("cell", CELLS)
def test_fit_carries_the_state_of_a_stateful_layer(cell, dtype):
    """Keras loses it on JAX, and under mixed precision on PyTorch (Keras 3.15)."""
    make, arguments, *_ = CELLS[cell]
    layer = make(UNITS, stateful=True, dtype=dtype, **arguments)
    model = keras.Sequential([keras.Input((TIME, DIM), batch_size=BATCH), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    sequence = np.concatenate([X, X[:, ::-1], X], axis=0)  # three windows of the same five rows
    model.fit(sequence, np.ones((3 * BATCH, UNITS)), batch_size=BATCH, shuffle=False, verbose=0)
    whole = randomized(make(UNITS, return_state=True, **arguments))
    whole.set_weights(layer.get_weights())
    states = numpy(whole(np.concatenate([X, X[:, ::-1], X], axis=1)))[1:]
    for one, other in zip(numpy(layer.states), states, strict=True):
        tolerance = 1e-5 if dtype == "float32" else 4e-2  # a ReLU's states grow, so of their size too
        np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("make", [SimpleRNN, GRU, LSTM])
def test_the_mask_that_is_passed_on_stands_where_the_outputs_do(make):
    """Of two layers that go backwards the second reads forwards again, and its masked steps are those of the first."""
    lengths, x = [TIME - 2, TIME, 1], np.random.default_rng(1).normal(size=(3, TIME, DIM)).astype("float32")
    entry = keras.Input((None, DIM))
    layers = [make(UNITS, return_sequences=True, go_backwards=True) for _ in range(2)]
    masked = keras.Model(entry, layers[1](layers[0](keras.layers.Masking(0.0)(entry))))
    plain = keras.Model(entry, layers[1](layers[0](entry)))
    padded = x * (np.arange(TIME) < np.array(lengths)[:, None])[..., None]
    found = numpy(masked(padded))[0]
    for row, length in enumerate(lengths):
        expected = numpy(plain(x[row : row + 1, :length]))[0][0]
        np.testing.assert_allclose(found[row, :length], expected, atol=1e-6)


def test_a_stateful_layer_starts_anew_after_reset():
    layer = randomized(LSTM(UNITS, stateful=True))
    once = numpy(layer(X))[0]
    again = numpy(layer(X))[0]
    layer.reset_state()
    assert not np.allclose(once, again)
    np.testing.assert_allclose(numpy(layer(X))[0], once, atol=1e-6)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_keras_weights_give_the_outputs_of_keras(cell, use_bias):
    make, arguments, *_ = CELLS[cell]
    arguments = {"units": UNITS, "return_sequences": True, "use_bias": use_bias, **arguments}
    ours, theirs = make(**arguments), getattr(keras.layers, make.__name__)(**arguments)
    theirs.build(X.shape)
    ours.build(X.shape)
    assert [(w.name, w.shape) for w in ours.weights] == [(w.name, w.shape) for w in theirs.weights]
    weights = [random.normal(size=weight.shape) for weight in theirs.get_weights()[: 2 + use_bias]]
    for layer in (ours, theirs):
        for variable, weight in zip(layer.trainable_weights, weights, strict=True):
            variable.assign(weight)
    np.testing.assert_allclose(numpy(ours(X))[0], numpy(theirs(X))[0], atol=1e-6)


@pytest.mark.parametrize(("cell", "mask"), itertools.product([*CELLS, "rnn sigmoid", "rnn linear", "lstm relu"], MASKS))
def test_every_form_has_the_outputs_and_gradients_of_the_plain_loop(cell, mask):
    """The form of this backend, the portable one, and Keras's cell differentiated by the backend."""
    mask = MASKS[mask]
    name, _, activation = cell.partition(" ")
    if cell in CELLS:
        make, arguments, *_ = CELLS[cell]
    else:
        make, arguments = {"rnn": SimpleRNN, "lstm": LSTM}[name], {"activation": activation}
    layer = randomized(make(UNITS, **arguments))
    count = 2 if make is LSTM else 1
    weights = [ops.convert_to_numpy(w) for w in layer.trainable_weights]
    shares = [random.normal(size=s).astype("float32") for s in ((*X.shape[:2], UNITS), *[(BATCH, UNITS)] * count)]
    shares = [ops.convert_to_tensor(share) for share in shares]
    mask = None if mask is None else ops.convert_to_tensor(mask)

    def with_form(run):
        def loss(x, U, W, b, *states):
            h, last = run(x, mask, list(states), U, W, b)
            return sum(ops.sum(tensor * share) for tensor, share in zip([h, *last], shares, strict=True))

        value = loss(*map(ops.convert_to_tensor, (X, *weights, *STATES[:count])))
        return ops.convert_to_numpy(value), gradients(loss, [X, *weights, *STATES[:count]])

    def plain(x, mask, states, *tensors):
        with keras.StatelessScope(list(zip(layer.trainable_weights, tensors, strict=True))):
            return forms.plain_recurrence(layer.cell, x, mask, states, False)

    def own(form):
        def run(x, mask, states, U, W, b):
            biases = [b[0], b[1]] if len(b.shape) == 2 else [b]
            return form(layer._equations(), x, mask, states, U, W, *biases)

        return run

    value, expected = with_form(plain)
    for form in (forms.recurrence, forms.portable_recurrence):
        other_value, other = with_form(own(form))
        np.testing.assert_allclose(other_value, value, atol=1e-5)
        for one, two in zip(other, expected, strict=True):
            np.testing.assert_allclose(one, two, atol=2e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_conformance(cell, tmp_path):
    make, arguments, *_ = CELLS[cell]
    for options in ({}, {"return_sequences": True, "go_backwards": True}):
        conformance.check_layer(lambda: make(UNITS, **arguments, **options), X, tmp_path)  # noqa: B023


@pytest.mark.parametrize("cell", CELLS)
def test_bidirectional_and_stacked(cell, tmp_path):
    """Two levels in both directions: the backward one reads the reversed sequence, padding stays out of it."""
    make, arguments, step, activation = CELLS[cell]
    entry = keras.Input((None, DIM))
    masked = keras.layers.Masking()(entry)
    x = keras.layers.Bidirectional(make(UNITS, return_sequences=True, **arguments))(masked)
    model = keras.Model(entry, keras.layers.Bidirectional(make(UNITS, **arguments))(x))
    for weight in model.trainable_weights:
        weight.assign(random.normal(size=weight.shape, scale=0.5))
    padded = X * RIGHT[..., None]
    mask, ones = RIGHT.copy(), [np.ones((BATCH, 99))]
    values, sequence = [w.astype("float64") for w in model.get_weights() if w.dtype == "float32"], padded
    for level in range(2):
        both = []
        for direction in range(2):
            weights = values[level * 6 + direction * 3 :][:3]
            gates = weights[0].shape[1] // UNITS
            drops = [ones[0][:, : sequence.shape[2]]] * gates, [ones[0][:, :UNITS]] * gates
            states = [np.zeros((BATCH, UNITS))] * (2 if make is LSTM else 1)
            options = {"go_backwards": direction == 1, "zero_output_for_mask": level == 0}
            last, outputs, _ = reference.run(
                step, sequence, mask, states, weights, *drops, reference.FUNCTIONS[activation], **options
            )
            both.append((outputs[:, ::-1] if direction else outputs) if level == 0 else last)
        sequence = np.concatenate(both, axis=-1)
    np.testing.assert_allclose(model.predict(padded, verbose=0), sequence, atol=1e-5)
    conformance.check_padding(model, np.pad(padded[:1], ((0, 0), (0, 3), (0, 0))), length=4)


@pytest.mark.parametrize("cell", CELLS)
def test_a_nan_stays_in_its_sequence_and_masked_ones_nowhere(cell):
    make, arguments, *_ = CELLS[cell]
    layer = randomized(make(UNITS, return_sequences=True, **arguments))
    spoilt = X.copy()
    spoilt[1, 2] = np.nan
    clean, got = numpy(layer(X))[0], numpy(layer(spoilt))[0]
    others = [0, 2, 3, 4]
    np.testing.assert_allclose(got[others], clean[others], atol=1e-6)
    np.testing.assert_allclose(got[1, :2], clean[1, :2], atol=1e-6)
    assert np.isnan(got[1, 2:]).all()

    mask = np.ones((BATCH, TIME), bool)
    mask[1, 2] = False
    hidden = ops.convert_to_tensor(mask)

    def loss(x, U):
        with keras.StatelessScope([(layer.cell.kernel, U)]):
            return ops.sum(layer(x, mask=hidden))

    kernel = ops.convert_to_numpy(layer.cell.kernel)
    assert all(np.isfinite(gradient).all() for gradient in gradients(loss, [spoilt, kernel]))


@pytest.mark.parametrize(
    ("cell", "padding", "stateful"), thinned(itertools.product(CELLS, [np.nan, np.inf, 1e8], [False, True]))
)
def test_padding_reaches_no_state_at_inference(cell, padding, stateful):
    make, arguments, *_ = CELLS[cell]
    entry = keras.Input(batch_shape=(BATCH, TIME, DIM)), keras.Input(batch_shape=(BATCH, TIME), dtype="bool")
    layer = randomized(make(UNITS, return_state=True, stateful=stateful, **arguments))
    model = keras.Model(entry, layer(entry[0], mask=entry[1]))
    for mask in (RIGHT, MIXED):
        results = []
        for value in (0, padding):
            layer.reset_state()
            padded = np.where(mask[..., None], X, value).astype("float32")
            results.append([model.predict([padded, mask], batch_size=BATCH, verbose=0) for _ in range(2)][-1])
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(other, one, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX differentiates our gradient too")
@pytest.mark.parametrize(
    ("make", "arguments"), [(SimpleRNN, {"activation": "sigmoid"}), (GRU, {"reset_after": False})], ids=["rnn", "gru"]
)
def test_a_second_derivative_is_refused_and_that_of_the_plain_loop_is_not(make, arguments):
    def penalty(layer, x):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(x)
                value = ops.sum(layer(x, training=True))
            return ops.sum(tape.gradient(value, x) ** 2)
        import torch

        (slope,) = torch.autograd.grad(ops.sum(layer(x)), x, create_graph=True)
        return ops.sum(slope**2)

    layer = randomized(make(UNITS, **arguments))
    with pytest.raises((NotImplementedError, RuntimeError), match="no second derivative|does not require grad"):
        gradients(lambda x: penalty(layer, x), [X])
    layer = randomized(make.from_config(make(UNITS, use_cudnn=False, **arguments).get_config()))
    (found,) = gradients(lambda x: penalty(layer, x), [X])
    assert np.abs(found).max() > 0


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_at_inference_is_that_of_training(cell):
    make, arguments, *_ = CELLS[cell]
    layer = randomized(make(UNITS, **arguments))
    mask = ops.convert_to_tensor(MIXED)
    both = [gradients(lambda x: ops.sum(layer(x, mask=mask, training=t) ** 2), [X])[0] for t in (True, False)]  # noqa: B023
    np.testing.assert_allclose(*both, atol=1e-6)
    assert np.abs(both[0]).max() > 0


def test_masks_in_other_forms():
    layer = randomized(LSTM(UNITS))
    expected = numpy(layer(X, mask=MIXED))[0]
    for mask in (
        MIXED.astype("int32"),
        MIXED.astype("float32"),
        [ops.convert_to_tensor(MIXED), None, None],
        MIXED.tolist(),
    ):
        np.testing.assert_allclose(numpy(layer(X, mask=mask))[0], expected, atol=1e-6)
    np.testing.assert_allclose(numpy(layer(X, mask=[None]))[0], numpy(layer(X))[0], atol=1e-6)
    assert GRU(np.int64(3)).units == 3


@pytest.mark.parametrize("cell", CELLS)
def test_any_batch_and_length(cell):
    make, arguments, *_ = CELLS[cell]
    entry = keras.Input((None, DIM))
    model = keras.Model(entry, make(UNITS, return_sequences=True, **arguments)(entry))
    for shape in ((1, 1, DIM), (7, 9, DIM), (2, 30, DIM)):
        assert model.predict(np.ones(shape, "float32"), verbose=0).shape == (*shape[:2], UNITS)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA is an option on TensorFlow alone")
@pytest.mark.parametrize("cell", CELLS)
def test_xla_computes_the_same(cell):
    make, arguments, *_ = CELLS[cell]
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((TIME, DIM)), make(UNITS, **arguments)])
        model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=jit_compile)
        model.fit(X, np.ones((BATCH, UNITS)), batch_size=BATCH, verbose=0)
        results.append(model.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LSTM(0), "units 0: give the size"),
        (lambda: GRU(-3), "units -3"),
        (lambda: SimpleRNN(2.5), "units 2.5"),
        (lambda: LSTM(2, activation="tanhh"), "activation 'tanhh': not known to Keras"),
        (lambda: GRU(2, recurrent_activation="s"), "recurrent_activation 's'"),
        (lambda: LSTM(2, "tanh", "s"), "recurrent_activation 's'"),
        (lambda: LSTM(2, use_cudnn="never"), "use_cudnn 'never'"),
        (lambda: LSTM(2)(X, mask=[RIGHT[:, :3]]), r"mask of shape \(5, 3\)"),
        (lambda: GRU(2)(X, initial_state=[None]), "initial_state of shape"),
        (lambda: LSTM(2)(X[:, :0]), r"sequences of shape \(5, 0, 3\): no time step"),
        (
            lambda: LSTM(2)(X, mask=np.ones((5, 3), bool)),
            r"mask of shape \(5, 3\): give \(batch, time\), here \(5, 4\)",
        ),
        (lambda: GRU(2)(X, mask=np.ones((5, 4, 1), bool)), r"mask of shape \(5, 4, 1\)"),
        (lambda: LSTM(2)(X, initial_state=STATES[:1]), "initial_state: 1 tensors; lstm.* has 2"),
        (lambda: GRU(3)(X, initial_state=STATES[:1]), r"initial_state of shape \(5, 2\): .* here \(5, 3\)"),
        (lambda: SimpleRNN(2)(X[:, 0]), "expected ndim=3, found ndim=2"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises((InputError, ValueError), match=message):
        make()
