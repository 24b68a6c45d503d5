import keras
import numpy as np
import pytest

import kseq.weights
from kseq import saving
from kseq.errors import InputError
from kseq.models import TransformerTranslator
from kseq.models.registry import variants

random = np.random.default_rng(7)
SOURCE = random.integers(1, 11, (4, 5)).astype("int32")
TARGET = random.integers(1, 13, (4, 6)).astype("int32")
SOURCE[1, 3:] = SOURCE[2, 1:] = 0
TARGET[1, 4:] = TARGET[2, 1:] = 0
SMALL = {"embed_dim": 8, "num_heads": 2, "hidden_dim": 12, "depth": 1}
SHARED = {"norm_first": True, "share_embeddings": True, "logits_bias": True, "attention_dropout": 0.1}


def test_it_is_saved_learns_and_runs_in_half_precision(tmp_path):
    """The conformance of a model of one input, as far as the blocks have not passed it."""
    model = TransformerTranslator(13, 13, **SMALL | SHARED)
    saving.save(model, tmp_path / "model.keras")
    again = saving.load(tmp_path / "model.keras")
    assert again.to_json() == model.to_json()
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    again.compile(keras.optimizers.SGD(1.0), "mean_squared_error")
    again.fit([SOURCE, TARGET], random.normal(size=(4, 6, 13)), verbose=0)
    for variable, old, new in zip(again.weights, model.get_weights(), again.get_weights(), strict=True):
        assert np.isfinite(new).all(), variable.path
        assert np.abs(new - old).max() > 1e-7 or variable.path.endswith("key/bias"), variable.path

    keras.config.set_dtype_policy("mixed_float16")
    half = TransformerTranslator(13, 13, **SMALL | SHARED)
    half.set_weights(model.get_weights())
    logits = np.asarray(half.predict([SOURCE, TARGET], verbose=0), "float32")
    assert np.isfinite(logits).all()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm_first", [False, True], ids=["2017", "pre-norm"])
def test_it_is_the_transformer_of_torch(norm_first):
    import torch

    module = torch.nn.Transformer(8, 2, 2, 2, 12, dropout=0.0, batch_first=True, norm_first=norm_first)
    if not norm_first:
        module.encoder.norm = module.decoder.norm = None  # which neither the paper nor its authors' code has
    model = TransformerTranslator(
        11, 13, **SMALL | {"depth": 2}, norm_first=norm_first, epsilon=1e-5, return_attention=True
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(0.5 * random.normal(size=parameter.shape)))
    for side in ("encoder", "decoder"):
        stack = getattr(module, side)
        for level, layer in enumerate(stack.layers):
            kseq.weights.load(model.get_layer(f"{side}_block_{level}"), layer.state_dict())
        if norm_first:
            model.get_layer(f"{side}_norm").set_weights([w.detach().numpy() for w in stack.norm.parameters()])

    angles = np.arange(6)[:, None] / 10_000 ** (np.arange(0, 8, 2) / 8)
    positions = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(6, 8)
    tables = [model.get_layer(f"{side}_embedding").get_weights()[0] for side in ("source", "target")]
    x, y = (
        torch.tensor(8**0.5 * table[tokens] + positions[: tokens.shape[1]], dtype=torch.float32)
        for table, tokens in zip(tables, (SOURCE, TARGET), strict=True)
    )
    source_padding, target_padding = torch.from_numpy(SOURCE == 0), torch.from_numpy(TARGET == 0)
    with torch.no_grad():
        states = module(
            x,
            y,
            tgt_mask=torch.ones(6, 6, dtype=torch.bool).triu(1),
            src_key_padding_mask=source_padding,
            tgt_key_padding_mask=target_padding,
            memory_key_padding_mask=source_padding,
        ).numpy()
    logits, weights = model.predict([SOURCE, TARGET], verbose=0)
    valid = TARGET > 0
    np.testing.assert_allclose(logits[valid], (states @ tables[1].T)[valid], rtol=1e-4, atol=1e-4)

    assert weights.shape == (4, 2, 6, 5)
    assert (weights[np.broadcast_to((SOURCE == 0)[:, None, None], weights.shape)] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)


def test_neither_padding_nor_later_tokens_change_an_answer():
    model = TransformerTranslator(11, 13, **SMALL)
    # Batches of one shape, for the rounding of a row may depend on where it stands.
    source, target = SOURCE[1:3], TARGET[[0, 3]]
    changed, padded = target.copy(), target.copy()
    changed[:, 4:], padded[:, 4:] = 3, 0
    logits, changed, padded = (model.predict([source, tokens], verbose=0) for tokens in (target, changed, padded))
    np.testing.assert_array_equal(logits[:, :4], changed[:, :4])
    np.testing.assert_allclose(logits[:, :4], padded[:, :4], atol=1e-6)
    assert np.abs(logits[:, 4:] - changed[:, 4:]).max() > 1e-4
    cut = model.predict([source[:, :3], target[:, :4]], verbose=0)
    np.testing.assert_allclose(cut, logits[:, :4], atol=1e-6)


def parameters(source_vocabulary_size, target_vocabulary_size, **arguments):
    defaults = {"embed_dim": 512, "hidden_dim": 2048, "depth": 6, "norm_first": False, "share_embeddings": False}
    d, hidden, depth, norm_first, shared = ((defaults | arguments)[name] for name in defaults)
    attention, network, norm = 4 * (d * d + d), 2 * d * hidden + hidden + d, 2 * d
    blocks = depth * (attention + network + 2 * norm) + depth * (2 * attention + network + 3 * norm)
    tables = (target_vocabulary_size if shared else source_vocabulary_size + target_vocabulary_size) * d
    return tables + blocks + 2 * norm * norm_first


def test_parameter_counts_are_the_formula():
    for arguments in ({"norm_first": True}, {"depth": 2, "share_embeddings": True}):
        model = TransformerTranslator(13, 13, **SMALL | arguments)
        assert model.count_params() == parameters(13, 13, **SMALL | arguments)
    for name in ("transformer_base", "transformer_small"):
        assert variants()[name].parameters == parameters(**variants()[name].arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share_embeddings": True}, "share_embeddings True: vocabularies of 11 and 13 tokens are not one"),
        ({"num_heads": 3}, "num_heads 3: does not divide embed_dim 8"),
        ({"depth": 0}, "depth 0: give 1 or more"),
        ({"dropout": -1}, "dropout -1: give a share"),
        ({"embed_dim": 9, "num_heads": 3}, "embed_dim 9: no sine and cosine"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        TransformerTranslator(11, 13, **SMALL | arguments)
