import keras
import numpy as np
import pytest

from kseq import saving
from kseq.errors import InputError
from kseq.inference.recurrent_language_model import RecurrentLanguageModelDecoder
from kseq.models import CharTagger, LanguageModel, TextClassifier
from tests.inference.stepping import check_steps, stepped

random = np.random.default_rng(8)
TOKENS = random.integers(1, 11, (4, 6)).astype("int32")
TOKENS[1, 4:] = TOKENS[2, 1:] = 0
SMALL = {"embed_dim": 6, "units": 4, "depth": 2}

STATEFUL = {"cell": "rnn", "units": 6, "depth": 1}

CONFIGURATIONS = {
    "lstm": {},
    "gru untied": {"cell": "gru", "depth": 1, "tie_embeddings": False},
    "rnn stateful": STATEFUL | {"stateful": True, "batch_size": 4},
}


@pytest.mark.parametrize("arguments", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_step_by_step_is_the_whole_text(arguments):
    model = LanguageModel(11, **SMALL | arguments)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    states = [w.copy() for w in model.get_weights()]
    decoder = RecurrentLanguageModelDecoder(model)
    assert decoder.vocabulary_size == 11
    whole = model
    if "stateful" in arguments:
        whole = LanguageModel(11, **SMALL | STATEFUL)
        whole.set_weights(model.get_weights())
    check_steps(decoder, whole, TOKENS, TOKENS, fewer="cell" not in arguments)
    for before, after in zip(states, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_loaded_model_in_half_precision(tmp_path):
    """The states keep their type through the loop, or no backend would compile it."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = LanguageModel(11, **SMALL | {"depth": 1})
    saving.save(model, tmp_path / "model.keras")
    decoder = RecurrentLanguageModelDecoder(saving.load(tmp_path / "model.keras"))
    (logits,) = stepped(decoder, TOKENS, TOKENS)
    first = np.asarray(model.predict(TOKENS[:, :1], verbose=0), "float32")
    np.testing.assert_allclose(logits[:, :1], first, atol=0.05)


def test_another_model():
    for make in (CharTagger, TextClassifier):
        with pytest.raises(InputError, match="no recurrent language model"):
            RecurrentLanguageModelDecoder(make(11, 3, units=2, depth=1, bidirectional=False))
