import keras
import numpy as np
import pytest
from keras import ops

from kseq.errors import InputError
from kseq.training import BitsPerToken, SequenceAccuracy, SequenceCrossentropy
from tests.gradients import gradients

VOCABULARY = 7
random = np.random.default_rng(0)
TARGETS = random.integers(1, VOCABULARY, (4, 5)).astype("int32")
TARGETS[np.arange(5) >= np.array([5, 3, 1, 0])[:, None]] = 0  # the last row is padding alone
LOGITS = (3 * random.normal(size=(4, 5, VOCABULARY))).astype("float32")
WEIGHTS = random.uniform(0.5, 2, (4, 5)).astype("float32")


def by_loop(targets, logits, smoothing=0.0, weights=None):
    """The definition: sum of w times the cross-entropy to the smoothed distribution, over the sum of w."""
    total = weight = 0.0
    for i, j in np.ndindex(targets.shape):
        if targets[i, j] == 0:
            continue
        z = logits[i, j].astype("float64")
        log_p = z - np.log(np.exp(z).sum())
        distribution = np.full(len(z), smoothing / len(z))
        distribution[targets[i, j]] += 1 - smoothing
        w = 1.0 if weights is None else np.broadcast_to(weights, targets.shape)[i, j]
        total, weight = total - w * (distribution * log_p).sum(), weight + w
    return total / weight


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_valid_tokens(smoothing):
    loss = SequenceCrossentropy(smoothing)
    assert float(loss(TARGETS, LOGITS)) == pytest.approx(by_loop(TARGETS, LOGITS, smoothing), rel=1e-5)
    for weights in (WEIGHTS, WEIGHTS[:, :1], WEIGHTS[:, 0]):
        expected = by_loop(TARGETS, LOGITS, smoothing, weights.reshape(4, -1))
        assert float(loss(TARGETS, LOGITS, weights)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_its_gradient_is_that_of_the_definition_and_zero_at_padding(smoothing):
    loss = SequenceCrossentropy(smoothing)
    (gradient,) = gradients(lambda logits: loss(ops.convert_to_tensor(TARGETS), logits), [LOGITS])
    assert (gradient[TARGETS == 0] == 0).all()
    softmax = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    distribution = (1 - smoothing) * np.eye(VOCABULARY)[TARGETS] + smoothing / VOCABULARY
    expected = (softmax - distribution) * (TARGETS > 0)[..., None] / (TARGETS > 0).sum()
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_a_batch_of_padding_counts_nothing():
    nothing = np.zeros_like(TARGETS)
    loss = SequenceCrossentropy(0.1)
    assert float(loss(nothing, LOGITS)) == 0
    (gradient,) = gradients(lambda logits: loss(ops.convert_to_tensor(nothing), logits), [LOGITS])
    assert (gradient == 0).all()
    for metric in (SequenceAccuracy(), BitsPerToken()):
        metric.update_state(nothing, LOGITS)
        assert float(metric.result()) == 0


def test_large_logits_and_half_precision():
    low = ops.cast(LOGITS * 40, "bfloat16")
    rounded = ops.convert_to_numpy(ops.cast(low, "float32"))
    loss = SequenceCrossentropy()(TARGETS, low)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(loss) == pytest.approx(by_loop(TARGETS, rounded), rel=1e-5)


def test_metrics_are_means_over_the_tokens_of_all_batches():
    accuracy, bits = SequenceAccuracy(), BitsPerToken()
    for rows in (slice(0, 1), slice(1, 4)):  # five tokens in the first batch, four in the second
        accuracy.update_state(TARGETS[rows], LOGITS[rows])
        bits.update_state(TARGETS[rows], LOGITS[rows])
    valid = TARGETS > 0
    assert float(accuracy.result()) == pytest.approx((LOGITS.argmax(-1) == TARGETS)[valid].mean())
    assert float(bits.result()) == pytest.approx(by_loop(TARGETS, LOGITS) / np.log(2), rel=1e-5)
    accuracy.reset_state()
    assert float(accuracy.result()) == 0


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_fit_shows_the_numbers_of_the_definition_whatever_mask_the_logits_carry(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    tokens = np.roll(TARGETS, 2, axis=1)  # its mask differs from that of the targets
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(VOCABULARY, 6, mask_zero=True),
            keras.layers.Dense(VOCABULARY),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.0),
        SequenceCrossentropy(0.1),
        metrics=[SequenceAccuracy()],
        weighted_metrics=[BitsPerToken()],
    )
    logits = ops.convert_to_numpy(ops.cast(model.predict_on_batch(tokens), "float32"))
    history = model.fit(tokens, TARGETS, sample_weight=WEIGHTS, batch_size=4, shuffle=False, verbose=0).history
    tolerance = 1e-5 if policy == "float32" else 1e-2
    assert history["loss"][0] == pytest.approx(by_loop(TARGETS, logits, 0.1, WEIGHTS), rel=tolerance)
    assert history["accuracy"][0] == pytest.approx((logits.argmax(-1) == TARGETS)[TARGETS > 0].mean(), abs=tolerance)
    expected = by_loop(TARGETS, logits, 0.0, WEIGHTS) / np.log(2)
    assert history["bits"][0] == pytest.approx(expected, rel=tolerance)
    if policy == "float32":
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.loss.label_smoothing == 0.1
        figures = loaded.evaluate(tokens, TARGETS, sample_weight=WEIGHTS, batch_size=4, verbose=0, return_dict=True)
        assert figures["loss"] == pytest.approx(history["loss"][0], rel=1e-5)
        assert figures["bits"] == pytest.approx(history["bits"][0], rel=1e-5)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_bad_smoothing(smoothing):
    with pytest.raises(InputError, match="label_smoothing"):
        SequenceCrossentropy(smoothing)
