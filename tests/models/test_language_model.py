import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.models import LanguageModel, TextClassifier, copy_encoder
from kseq.models.registry import variants
from kseq.training.truncated import CarryState, Windows
from tests import conformance
from tests.gradients import gradients
from tests.layers import attention_reference as reference

random = np.random.default_rng(5)
TOKENS = random.integers(1, 11, (6, 7)).astype("int32")
for row, length in enumerate((7, 5, 1, 7, 3, 0)):
    TOKENS[row, length:] = 0
SMALL = {"embed_dim": 6, "units": 4, "depth": 1, "num_heads": 2, "hidden_dim": 8}
TRANSFORMER = {"cell": "transformer", "attention_dropout": 0.1}
GPT2 = {"cell": "transformer", "positions": "learned", "max_length": 9, "activation": "gelu_tanh", "logits_bias": False}


def test_conformance(tmp_path):
    conformance.check_model(lambda: LanguageModel(11, **SMALL, embedding_dropout=0.1), TOKENS, tmp_path)


def test_a_transformer_learns():
    conformance.check_learning(LanguageModel(11, **SMALL | TRANSFORMER), TOKENS)


@pytest.mark.parametrize(
    "arguments", [{"cell": "gru", "tie_embeddings": False}, TRANSFORMER], ids=["gru", "transformer"]
)
def test_no_logits_depend_on_later_tokens_or_on_padding(arguments):
    model = LanguageModel(11, **SMALL | arguments)
    # Batches of one shape, for the rounding of a row may depend on where it stands.
    ends = (TOKENS[:1, 4:], 3, 0)
    logits, changed, padded = (model.predict(_ending(TOKENS[:1], end), verbose=0) for end in ends)
    np.testing.assert_array_equal(logits[:, :4], changed[:, :4])
    np.testing.assert_allclose(logits[:, :4], padded[:, :4], atol=1e-6)
    assert np.abs(logits[:, 4:] - changed[:, 4:]).max() > 1e-4


def _ending(tokens, end):
    tokens = tokens.copy()
    tokens[:, 4:] = end
    return tokens


def test_tied_logits_are_products_with_the_vectors_of_the_tokens():
    model = LanguageModel(11, **SMALL)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    table, bias = model.get_layer("embedding").get_weights()
    P, q = model.get_layer("projection").get_weights()
    h = keras.Model(model.inputs, model.get_layer("recurrent_0").output).predict(TOKENS, verbose=0)
    np.testing.assert_allclose(model.predict(TOKENS, verbose=0), (h @ P + q) @ table.T + bias, atol=1e-4)


def test_gpt2_is_its_equations():
    model = LanguageModel(11, **SMALL | GPT2 | {"depth": 2})
    model.set_weights([random.normal(size=w.shape) * 0.4 for w in model.get_weights()])

    def norm(layer, x):
        gamma, beta = layer.get_weights()
        x = x - x.mean(axis=-1, keepdims=True)
        return gamma * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) + beta

    tokens = TOKENS[[0, 3]]
    (table,), (positions,) = (model.get_layer(name).get_weights() for name in ("embedding", "positions"))
    x = table[tokens] + positions[:7]
    causal = np.broadcast_to(np.tri(7, dtype=bool), (2, 2, 7, 7))
    for name in ("block_0", "block_1"):
        block = model.get_layer(name)
        y = norm(block.norms["attention"], x)
        x = x + reference.multi_head(block.attention.get_weights(), 2, y, y, y, causal)[0]
        W1, b1, W2, b2 = block.feed_forward.get_weights()
        a = norm(block.norms["feed_forward"], x) @ W1 + b1
        x = x + 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))) @ W2 + b2
    logits = norm(model.get_layer("norm"), x) @ table.T
    np.testing.assert_allclose(model.predict(tokens, verbose=0), logits, atol=1e-4)


def test_a_transformer_starts_as_gpt2_does():
    model = LanguageModel(50, cell="transformer", embed_dim=64, depth=2, positions="learned", max_length=40)
    block = model.get_layer("block_1")
    for kernel, deviation in (
        (block.attention.query_projection.kernel, 0.02),
        (block.feed_forward.expand.kernel, 0.02),
        (block.attention.output_projection.kernel, 0.01),
        (block.feed_forward.contract.kernel, 0.01),
        (model.get_layer("embedding").embeddings, 0.02),
    ):
        assert np.std(keras.ops.convert_to_numpy(kernel)) == pytest.approx(deviation, rel=0.1)


def test_scaled_vectors_have_unit_variance():
    embedding = LanguageModel(50, embed_dim=64, units=4, depth=1).get_layer("embedding")
    assert np.std(keras.ops.convert_to_numpy(embedding(np.arange(50)))) == pytest.approx(1, rel=0.1)


def test_published_parameter_count():
    def count(vocabulary_size, max_length, embed_dim, depth, hidden_dim=None, **arguments):
        d, hidden = embed_dim, hidden_dim or 4 * embed_dim
        block = 4 * (d * d + d) + 2 * d * hidden + hidden + d + 4 * d
        return (vocabulary_size + max_length) * d + depth * block + 2 * d

    small = SMALL | GPT2 | {"vocabulary_size": 11, "depth": 2}
    assert LanguageModel(**small).count_params() == count(**small)
    variant = variants()["gpt2_small"]
    assert count(**variant.arguments) == variant.parameters == 124_439_808


def test_windows_of_a_stateful_model_are_the_whole_text():
    arguments = SMALL | {"dropout": 0.0, "mask_zero": False}
    text = random.integers(0, 11, 2 * 6 + 1)
    whole, windows = LanguageModel(11, **arguments), LanguageModel(11, **arguments, stateful=True, batch_size=2)
    windows.set_weights(whole.get_weights())
    train = Windows.from_stream(text[:-1], text[1:], batch_size=2, length=3)
    for model in (whole, windows):  # steps of size 0 leave the weights alone
        model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = windows.fit(train, shuffle=False, verbose=0, callbacks=[CarryState(train)]).history
    loss = whole.evaluate(train.inputs, train.targets, verbose=0)
    assert history["loss"] == pytest.approx([loss], rel=1e-5)
    windows.get_layer("recurrent_0").reset_state()
    first = windows.evaluate(*train[1], verbose=0)  # not after the window in front of it
    assert abs(2 * loss - first - windows.evaluate(*train[0], verbose=0)) > 1e-5


@pytest.mark.parametrize(
    ("cell", "layers"), [("lstm", ["embedding", "recurrent_0"]), ("transformer", ["embedding", "block_0", "norm"])]
)
def test_a_language_model_becomes_a_classifier(cell, layers):
    model = LanguageModel(11, **SMALL, cell=cell)
    kind = {"encoder": cell, "bidirectional": False, "causal": True, "pooling": "last"}
    classifier = TextClassifier(11, 2, **SMALL | kind)
    assert copy_encoder(model, classifier) == layers
    for name in layers:
        theirs, ours = (m.get_layer(name).get_weights() for m in (model, classifier))
        for one, other in zip(theirs, ours, strict=False):  # the language model's table has a bias too
            np.testing.assert_array_equal(one, other)


def test_every_logit_teaches_the_table():
    """The tied table learns as vectors and as logits: it gets a gradient for tokens that are never read."""
    model = LanguageModel(11, **SMALL, dropout=0.0)
    table = model.get_layer("embedding").get_weights()[0]

    def loss(table):
        with keras.StatelessScope(state_mapping=[(model.get_layer("embedding")._embeddings, table)]):
            return keras.ops.sum(model(keras.ops.convert_to_tensor(TOKENS[:1] % 5)) ** 2)

    (gradient,) = gradients(loss, [table])
    assert (np.abs(gradient).max(axis=1) > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "conv"}, "cell 'conv': choose one of rnn, gru, lstm, transformer"),
        ({"positions": "none"}, "positions 'none'"),
        ({"cell": "transformer", "positions": "learned"}, "give max_length"),
        ({"cell": "transformer", "stateful": True, "batch_size": 2}, "stateful True: a transformer has no state"),
        ({"stateful": True}, "stateful True with batch_size None"),
        ({"batch_size": 2}, "stateful False with batch_size 2"),
        ({"depth": 0}, "depth 0: give 1 or more"),
        ({"dropout": 1.5}, "dropout 1.5: give a share"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        LanguageModel(11, **SMALL | arguments)


def test_a_text_longer_than_the_context():
    with pytest.raises(InputError, match="input of 10 tokens: longer than the table of 9"):
        LanguageModel(11, **SMALL | GPT2)(np.ones((1, 10), "int32"))
