import keras
import numpy as np
import pytest
from keras import ops

from kseq.errors import InputError
from kseq.layers import AttentionDecoder, Maxout
from tests import conformance
from tests.gradients import gradients
from tests.layers import recurrent_reference as reference

random = np.random.default_rng(5)
X = random.normal(size=(3, 4, 5)).astype("float32")
MEMORY = random.normal(size=(3, 6, 7)).astype("float32")
MASK = np.array([[True] * 6, [True, True] + [False] * 4, [True, False, True, True, False, False]])
UNITS = 3
CELLS = {"rnn": reference.simple_rnn, "gru": reference.gru, "lstm": reference.lstm}
CONFIGURATIONS = {
    "bahdanau gru": {"attention_units": 4},
    "normed lstm, deep": {"cell": "lstm", "score": "normed", "deep_output": True},
    "bahdanau, reset before": {"reset_after": False, "use_score_bias": False},
    "luong gru": {"attention": "luong", "attention_units": 4},
    "luong scaled lstm, fed": {"attention": "luong", "cell": "lstm", "score": "scaled", "input_feeding": True},
    "luong dot rnn, fed": {"attention": "luong", "cell": "rnn", "score": "dot", "input_feeding": True, "units": 7},
    "luong reset before, fed": {"attention": "luong", "reset_after": False, "input_feeding": True},
}


@pytest.fixture(autouse=True)
def _clear_caches():
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()


def built(memory=MEMORY, **arguments):
    """A layer whose every weight is random, and random states to begin with."""
    layer = AttentionDecoder(**{"units": UNITS} | arguments)
    layer.build(X.shape, None if memory is None else memory.shape)
    layer.set_weights([0.7 * random.normal(size=weight.shape) for weight in layer.get_weights()])
    states = [random.normal(size=(3, layer.units)).astype("float32") for _ in range(1 + (layer.cell == "lstm"))]
    return layer, states


def array(variable):
    return np.asarray(ops.convert_to_numpy(variable), dtype="float64")


def equations(layer, states):
    """The output and the attention of each row and step, nothing vectorised."""
    cell = layer.recurrent.cell
    weights = [array(variable) for variable in (cell.kernel, cell.recurrent_kernel, cell.bias)]
    outputs, attention = [], np.zeros((*X.shape[:2], MEMORY.shape[1]))
    for row in range(len(X)):
        memory, valid = MEMORY[row].astype("float64"), np.flatnonzero(MASK[row])
        state, vector = [s[row].astype("float64") for s in states], np.zeros(layer.attention_units)
        outputs.append([])
        for t, x in enumerate(X[row].astype("float64")):

            def step(x, state=state):
                return CELLS[layer.cell](x, state, *weights, np.ones((4, 1)), np.ones((4, 1)), np.tanh)

            if layer.attention == "luong":
                state = step(np.concatenate([x, vector]) if layer.input_feeding else x)
            scores = np.array([score(layer, state[0], memory[j]) for j in valid])
            share = np.exp(scores) / np.exp(scores).sum()
            attention[row, t, valid] = share
            seen = share @ memory[valid]
            if layer.attention == "luong":
                vector = np.tanh(np.concatenate([seen, state[0]]) @ array(layer.vector.kernel))
                outputs[-1].append(vector)
            else:
                state = step(np.concatenate([x, seen]))
                outputs[-1].append(np.concatenate([state[0], seen, *([x] if layer.deep_output else [])]))
    return np.array(outputs), attention


def score(layer, s, m):
    if layer.score == "dot":
        return s @ m
    if layer.attention == "luong":
        return s @ (m @ array(layer.key_projection.kernel)) * (array(layer.g) if layer.score == "scaled" else 1)
    v = array(layer.v)[:, 0]
    if layer.score == "normed":
        v = array(layer.g) * v / np.sqrt((v**2).sum())
    hidden = s @ array(layer.query_projection.kernel) + m @ array(layer.key_projection.kernel)
    return v @ np.tanh(hidden + (array(layer.key_projection.bias) if layer.key_projection.use_bias else 0))


@pytest.mark.parametrize("arguments", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_it_is_the_equations_whole_and_step_by_step(arguments):
    layer, states = built(**arguments)
    expected, attention = equations(layer, states)
    unseen = np.where(MASK[..., None], MEMORY, np.nan)  # what stands at a masked position reaches nothing
    outputs, weights = layer(X, unseen, initial_state=states, memory_mask=MASK, return_attention_scores=True)
    assert tuple(outputs.shape) == layer.compute_output_shape(X.shape, MEMORY.shape)
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, atol=5e-6)
    weights = ops.convert_to_numpy(weights)
    np.testing.assert_allclose(weights, attention, atol=1e-6)
    assert (weights[np.broadcast_to(~MASK[:, None], weights.shape)] == 0).all()

    keys, memory = layer.project(ops.convert_to_tensor(unseen), ops.convert_to_tensor(MASK))
    carried = layer.first_states(states)
    for t in range(X.shape[1]):
        output, carried, w = layer.step(X[:, t], carried, memory, keys, ops.convert_to_tensor(MASK))
        np.testing.assert_allclose(ops.convert_to_numpy(output), ops.convert_to_numpy(outputs)[:, t], atol=1e-6)
        np.testing.assert_allclose(ops.convert_to_numpy(w), weights[:, t], atol=1e-6)


@pytest.mark.parametrize("name", ["bahdanau gru", "normed lstm, deep", "luong scaled lstm, fed"])
def test_gradients_are_those_of_the_steps(name):
    layer, states = built(**CONFIGURATIONS[name])
    size = layer.compute_output_shape(X.shape, MEMORY.shape)[-1]
    of_outputs, of_weights = random.normal(size=(4, 3, size)), random.normal(size=(4, 3, 6))
    of_outputs, of_weights = (ops.convert_to_tensor(x.astype("float32")) for x in (of_outputs, of_weights))
    variables = layer.trainable_variables
    arrays = [X, MEMORY, *states, *(ops.convert_to_numpy(variable) for variable in variables)]
    count = 2 + len(states)

    def value(whole):
        def function(x, memory, *rest):
            with keras.StatelessScope(state_mapping=zip(variables, rest[len(states) :], strict=True)):
                first, mask = rest[: len(states)], ops.convert_to_tensor(MASK)
                if whole:
                    outputs, weights = layer(
                        x, memory, list(first), memory_mask=mask, return_attention_scores=True, training=True
                    )
                    outputs, weights = (ops.transpose(y, (1, 0, 2)) for y in (outputs, weights))
                else:
                    keys, memory = layer.project(memory, mask)
                    carried, found = layer.first_states(first), []
                    for t in range(X.shape[1]):
                        output, carried, w = layer.step(x[:, t], carried, memory, keys, mask)
                        found.append((output, w))
                    outputs, weights = (ops.stack(column) for column in zip(*found, strict=True))
            return ops.sum(outputs * of_outputs) + ops.sum(weights * of_weights)

        return function

    got, expected = gradients(value(True), arrays), gradients(value(False), arrays)
    assert len(got) == count + len(variables)
    for i, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        assert np.abs(theirs).max() > 1e-4, i
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5, err_msg=str(i))


@pytest.mark.parametrize("name", ["bahdanau, reset before"])  # the other kinds as parts of models
def test_conformance(name, tmp_path):
    def make():
        both = keras.Input((10, 7))
        x = both[:, :4, :5]
        initial = [keras.layers.Dense(UNITS)(both[:, 0]) for _ in range(1 + ("lstm" in name))]
        layer = AttentionDecoder(**{"units": UNITS} | CONFIGURATIONS[name])
        return keras.Model(both, layer(x, both[:, 4:], initial_state=initial))

    inputs = np.concatenate([np.pad(X, ((0, 0), (0, 0), (0, 2))), MEMORY], axis=1)
    conformance.check_model(make, inputs, tmp_path)


def test_without_attention():
    layer, states = built(None, attention=None, cell="lstm")
    expected = layer.recurrent(X, initial_state=states)[0]
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (layer(X, initial_state=states), expected)), atol=1e-6)

    context = MEMORY[:, 0]
    layer, states = built(context, attention=None, deep_output=True)
    repeated = np.repeat(context[:, None], 4, axis=1)
    expected = layer.recurrent(np.concatenate([X, repeated], axis=-1), initial_state=states)[0]
    expected = np.concatenate([ops.convert_to_numpy(expected), repeated, X], axis=-1)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(X, context, initial_state=states)), expected, atol=1e-6)
    output, _, weights = layer.step(X[:, 0], layer.first_states(states), ops.convert_to_tensor(context))
    np.testing.assert_allclose(ops.convert_to_numpy(output), expected[:, 0], atol=1e-6)
    assert weights is None


def test_a_row_with_nothing_to_look_at_has_no_weights_and_is_finite():
    layer, _ = built()
    mask = np.array([[True] * 6, [False] * 6, [True] * 6])
    outputs, weights = layer(X, MEMORY, memory_mask=mask, return_attention_scores=True)
    assert np.isfinite(ops.convert_to_numpy(outputs)).all()
    assert (ops.convert_to_numpy(weights)[1] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "conv"}, "cell 'conv': choose one of rnn, gru, lstm"),
        ({"attention": "both"}, "attention 'both': give 'bahdanau', 'luong' or None"),
        ({"score": "dot"}, "score 'dot' with attention 'bahdanau': choose one of additive, normed"),
        ({"units": 0}, "units 0: give 1 or more"),
        ({"attention_units": 0}, "attention_units 0"),
        ({"attention_units": 3, "attention": None}, "None without attention"),
        ({"input_feeding": True}, "input_feeding True with attention 'bahdanau'"),
        ({"deep_output": True, "attention": "luong"}, "deep_output True"),
        ({"attention": "luong", "score": "dot"}, "units 3 and a memory of size 7"),
        ({"attention": None}, "without attention give one vector"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        built(**arguments)


def test_bad_calls():
    with pytest.raises(InputError, match=r"memory of shape None: give \(batch, source_time, memory_dim\)"):
        AttentionDecoder(3)(X)
    with pytest.raises(InputError, match="initial_state: .* has 1"):
        built()[0](X, MEMORY, initial_state=[X[:, 0, :3], X[:, 0, :3]])
    with pytest.raises(InputError, match="there are none with attention None"):
        built(None, attention=None)[0](X, return_attention_scores=True)
    with pytest.raises(InputError, match="was built without one"):
        built(None, attention=None)[0].call(ops.convert_to_tensor(X), ops.convert_to_tensor(MEMORY[:, 0]))


def test_maxout():
    layer = Maxout(3, pieces=2)
    outputs = layer(X)
    kernel, bias = (ops.convert_to_numpy(w) for w in (layer.dense.kernel, layer.dense.bias))
    expected = (X @ kernel + bias).reshape(3, 4, 3, 2).max(axis=-1)
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), expected, atol=1e-6)
    copy = Maxout.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    with pytest.raises(InputError, match="pieces 1: give 2 or more"):
        Maxout(3, 1)
