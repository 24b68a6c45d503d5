import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.inference.transformer import TransformerLanguageModelDecoder, TransformerTranslatorDecoder
from kseq.models import LanguageModel, TextClassifier, TransformerTranslator, ViT
from tests.inference.stepping import check_steps, stepped

random = np.random.default_rng(9)
SOURCE = random.integers(1, 11, (4, 7)).astype("int32")
TARGET = random.integers(1, 13, (4, 6)).astype("int32")
SOURCE[1, 3:] = SOURCE[2, 1:] = SOURCE[3] = 0
TARGET[1, 4:] = TARGET[2, 1:] = 0
SMALL = {"embed_dim": 8, "num_heads": 2, "hidden_dim": 12, "depth": 2}
LEARNED = {"depth": 1, "positions": "learned", "max_length": 6, "tie_embeddings": False}


def randomized(model):
    model.set_weights([0.5 * random.normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("arguments", [{}, LEARNED], ids=["sinusoidal", "learned"])
def test_a_language_model_step_by_step_is_the_whole_text(arguments):
    model = randomized(LanguageModel(13, cell="transformer", **SMALL | arguments))
    decoder = TransformerLanguageModelDecoder(model)
    assert decoder.vocabulary_size == 13
    check_steps(decoder, model, TARGET, TARGET)


@pytest.mark.parametrize(
    "arguments",
    [{"tie_embeddings": False}, {"depth": 1, "norm_first": True, "return_attention": True, "share_embeddings": True}],
    ids=["2017", "pre-norm"],
)
def test_a_translator_step_by_step_is_the_whole_model(arguments):
    is_shared = "share_embeddings" in arguments
    model = randomized(TransformerTranslator(13 if is_shared else 11, 13, **SMALL | arguments))
    decoder = TransformerTranslatorDecoder(model)
    assert decoder.vocabulary_size == 13
    _, attention = check_steps(decoder, model, SOURCE, TARGET, attends=True, fewer=is_shared)
    assert (attention[np.broadcast_to((SOURCE == 0)[:, None], attention.shape)] == 0).all()
    np.testing.assert_allclose(attention.sum(axis=-1)[:3], 1, atol=1e-5)
    assert (attention[3] == 0).all()
    if "return_attention" in arguments:
        _, weights = model.predict([SOURCE, TARGET], verbose=0)
        valid = TARGET > 0
        np.testing.assert_allclose(attention[valid], weights.mean(axis=1)[valid], atol=1e-5)


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = TransformerTranslator(11, 13, **SMALL | {"depth": 1})
    logits, attention = stepped(TransformerTranslatorDecoder(model), SOURCE, TARGET, attends=True)
    assert attention.dtype == "float32"
    whole = np.asarray(model.predict([SOURCE, TARGET], verbose=0), "float32")
    np.testing.assert_allclose(logits[TARGET > 0], whole[TARGET > 0], atol=0.1)


def test_a_text_longer_than_the_context():
    model = LanguageModel(13, cell="transformer", **SMALL | LEARNED)
    with pytest.raises(InputError, match="length 7: the context of model 'language_model' is 6 tokens"):
        TransformerLanguageModelDecoder(model).begin(TARGET, 7)


def test_another_model():
    classifier = TextClassifier(11, 3, encoder="transformer", embed_dim=8, depth=1)
    with pytest.raises(InputError, match="no transformer of kseq.models.LanguageModel"):
        TransformerLanguageModelDecoder(classifier)
    with pytest.raises(InputError, match="no transformer of kseq.models.TransformerTranslator"):
        TransformerTranslatorDecoder(ViT((8, 8, 1), 3, patch_size=4, embed_dim=8, depth=1, num_heads=2))
