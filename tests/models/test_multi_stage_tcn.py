import keras
import numpy as np
import pytest
from keras import ops

from kseq.errors import InputError
from kseq.models.multi_stage_tcn import VARIANTS, MultiStageTCN
from kseq.training import deep_supervision
from tests import conformance

FEATURES = np.random.default_rng(6).normal(size=(2, 13, 5)).astype("float32")
SMALL = {"stages": 2, "layers": 2, "filters": 4}


def randomized(**options):
    model, random = MultiStageTCN(5, 3, **SMALL | options), np.random.default_rng(7)
    model.set_weights([random.normal(size=w.shape, scale=0.6) for w in model.get_weights()])
    return model


def by_hand(model, x, causal):
    """The logits of every stage for one sequence `(time, input_dim)`."""
    weights = iter(w.astype("float64") for w in model.get_weights())
    answers = []
    for stage in range(SMALL["stages"]):
        if stage:
            e = np.exp(answers[-1])
            x = e / e.sum(axis=1, keepdims=True)
        h = x @ next(weights) + next(weights)
        for level in range(SMALL["layers"]):
            kernel, bias, pointwise, pointwise_bias = (next(weights) for _ in range(4))
            dilation, new = 2**level, []
            for t in range(len(h)):
                seen = [t + (k - (2 if causal else 1)) * dilation for k in range(3)]
                total = sum(h[at] @ kernel[k] for k, at in enumerate(seen) if 0 <= at < len(h)) + bias
                new.append(h[t] + np.maximum(total, 0) @ pointwise + pointwise_bias)
            h = np.stack(new)
        answers.append(h @ next(weights) + next(weights))
    return answers


@pytest.mark.parametrize("causal", [True, False])
def test_conformance(causal, tmp_path):
    conformance.check_model(lambda: MultiStageTCN(5, 3, **SMALL, causal=causal), FEATURES, tmp_path)


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_the_equations(causal):
    model = randomized(causal=causal, deep_supervision=True)
    outputs = model.predict(FEATURES, verbose=0)
    assert outputs.keys() == {"logits", "auxiliary_0"}
    for row, x in enumerate(FEATURES):
        first, last = by_hand(model, x, causal)
        np.testing.assert_allclose(outputs["auxiliary_0"][row], first, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(outputs["logits"][row], last, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_receptive_field(causal):
    """S (2^(L+1) − 2) + 1 frames are seen: all of them reach the last or the middle one, and no other does."""
    model, random = MultiStageTCN(5, 3, **SMALL, causal=causal), np.random.default_rng(5)
    # No ReLU is closed and no softmax full: the frame at the edge changes an answer by more than 1e-3.
    model.set_weights([random.uniform(0, 0.4, w.shape) for w in model.get_weights()])
    field = SMALL["stages"] * (2 ** (SMALL["layers"] + 1) - 2) + 1
    time, t = 2 * field, field + 2
    same = np.repeat(random.uniform(0, 1, (1, time, 5)).astype("float32"), time, axis=0)
    changed = same.copy()
    changed[np.arange(time), np.arange(time)] += 10  # row i: frame i is another
    change = np.abs(model.predict(changed, verbose=0) - model.predict(same, verbose=0))[:, t].max(axis=-1)
    before, after = (field - 1, 0) if causal else (field // 2, field // 2)
    seen = np.flatnonzero(change > 1e-4)
    assert (seen.min(), seen.max()) == (t - before, t + after)


def test_a_changed_frame_changes_no_answer_before_it():
    model = randomized(deep_supervision=True)
    changed = FEATURES.copy()
    changed[:, 7] = 50
    whole, other = model.predict(FEATURES, verbose=0), model.predict(changed, verbose=0)
    for name in whole:
        np.testing.assert_array_equal(whole[name][:, :7], other[name][:, :7])
        assert np.abs(whole[name][:, 7:] - other[name][:, 7:]).max() > 1e-3


@pytest.mark.parametrize("causal", [True, False])
def test_padding_cannot_change_an_answer(causal):
    """On either side, whatever stands there; the model of one input is told by a mask too."""
    mask = np.zeros((2, 13), bool)
    mask[0, :8] = mask[1, 5:] = True
    plain, model = randomized(causal=causal), MultiStageTCN(5, 3, **SMALL, causal=causal, masked=True)
    model.set_weights(plain.get_weights())
    cut = plain.predict(FEATURES[mask].reshape(2, 8, 5), verbose=0).reshape(-1, 3)
    for hostile in (0, 1e5, np.nan):
        x = np.where(mask[..., None], FEATURES, hostile).astype("float32")
        for logits in (model.predict([x, mask], verbose=0), plain(x, mask=ops.convert_to_tensor(mask))):
            np.testing.assert_allclose(ops.convert_to_numpy(logits)[mask], cut, rtol=1e-5, atol=1e-5)


def test_all_stages_are_trained_and_padding_has_no_weight():
    model = MultiStageTCN(5, 3, **SMALL, causal=False, dropout=0.0, masked=True, deep_supervision=True)
    start, found = randomized().get_weights(), []
    targets, mask = np.random.default_rng(9).integers(0, 3, (2, 13)), np.ones((2, 13), bool)
    mask[0, 6:] = False
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), **deep_supervision(loss, model, auxiliary_weight=1.0))
    names = tuple(model.output)
    for hostile in (0, np.nan):
        model.set_weights(start)
        x = np.where(mask[..., None], FEATURES, hostile).astype("float32")
        weights = dict.fromkeys(names, mask.astype("float32"))
        model.fit([x, mask], dict.fromkeys(names, targets), sample_weight=weights, verbose=0)
        found.append(model.get_weights())
    for before, after, other in zip(start, *found, strict=True):
        assert np.abs(after - before).max() > 1e-6
        np.testing.assert_allclose(after, other, atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters(name):
    variant = VARIANTS[name]
    assert variant.model(**variant.arguments).count_params() == variant.parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": 0}, "stages 0: give 1 or more"),
        ({"layers": 0}, "layers 0"),
        ({"filters": 0}, "filters 0"),
        ({"dropout": -0.5}, r"dropout -0\.5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        MultiStageTCN(5, 3, **arguments)
