import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.inference.recurrent_translator import RecurrentTranslatorDecoder
from kseq.models import CharTagger, RecurrentTranslator
from tests.inference.stepping import check_steps, stepped

random = np.random.default_rng(9)
SOURCE = random.integers(1, 11, (4, 7)).astype("int32")
TARGET = random.integers(1, 13, (4, 6)).astype("int32")
SOURCE[1, 3:] = SOURCE[2, 1:] = SOURCE[3] = 0
TARGET[1, 4:] = TARGET[2, 1:] = 0
CONFIGURATIONS = {
    "bahdanau": {"return_attention": True, "output": "maxout"},
    "bahdanau, deep": {"return_attention": True, "cell": "lstm", "decoder_depth": 2, "tie_embeddings": True},
    "luong, deep": {"attention": "luong", "return_attention": True, "decoder_depth": 2, "initial_state": "copy"},
    "luong, fed": {"attention": "luong", "return_attention": True, "input_feeding": True, "cell": "lstm"},
    "cho": {"attention": None, "feed_context": True, "bidirectional": False},
    "sutskever": {"attention": None, "cell": "lstm", "decoder_depth": 2, "initial_state": "copy"},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_step_by_step_it_is_the_whole_model(name):
    arguments = CONFIGURATIONS[name]
    model = RecurrentTranslator(11, 13, embed_dim=4, units=6, **arguments)
    model.set_weights([0.5 * random.normal(size=w.shape) for w in model.get_weights()])
    decoder = RecurrentTranslatorDecoder(model)
    assert decoder.vocabulary_size == 13
    attends = "return_attention" in arguments
    _, *attention = check_steps(decoder, model, SOURCE, TARGET, attends=attends, fewer=name == "bahdanau")
    if attends:
        expected = model.predict([SOURCE, TARGET], verbose=0)[1]
        np.testing.assert_allclose(attention[0][TARGET > 0], expected[TARGET > 0], rtol=1e-5, atol=1e-6)


def test_a_deep_decoder_in_half_precision():
    """The states keep their type through the loop, or no backend would compile it."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = RecurrentTranslator(11, 13, embed_dim=4, units=6, decoder_depth=2)
    (logits,) = stepped(RecurrentTranslatorDecoder(model), SOURCE, TARGET, attends=True)[:1]
    whole = np.asarray(model.predict([SOURCE, TARGET], verbose=0), "float32")
    np.testing.assert_allclose(logits[TARGET > 0], whole[TARGET > 0], atol=0.05)


def test_another_model():
    with pytest.raises(InputError, match="char_tagger.*give a RecurrentTranslator"):
        RecurrentTranslatorDecoder(CharTagger(11, 4, units=3))
