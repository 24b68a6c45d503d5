import json
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kseq.data import PADDING, START, UNKNOWN, Tokenizer
from kseq.errors import InputError
from tests.conftest import tensorflow_only
from tests.data.test_tokenizer import HOSTILE, TRAINING, UNITS

pytestmark = tensorflow_only


@pytest.fixture(scope="module", params=UNITS)
def pair(request):
    from kseq.export.text_graph import TextGraph

    tokenizer = Tokenizer.train(TRAINING, request.param, 150, lowercase=request.param == "word")
    return tokenizer, TextGraph(tokenizer)


def agree(tokenizer, encode, decode, texts, **arguments):
    import tensorflow as tf

    expected = tokenizer(texts, **arguments)
    tokens = encode(tf.constant(texts, tf.string), **arguments).numpy()
    np.testing.assert_array_equal(tokens, expected)
    assert tokens.dtype == "int32"
    assert [text.decode() for text in decode(tokens).numpy()] == tokenizer.detokenize(expected)


@pytest.mark.parametrize("arguments", [{}, {"start": True, "end": True}, {"end": True, "max_length": 4}])
def test_the_graph_is_the_tokenizer(pair, arguments):
    tokenizer, graph = pair
    agree(tokenizer, graph.encode, graph.decode, HOSTILE, **arguments)
    for text in HOSTILE[:4]:  # alone: no other text to pad to
        agree(tokenizer, graph.encode, graph.decode, [text], **arguments)


def test_a_very_long_text(pair):
    tokenizer, graph = pair
    for text in ("beginning God " * 7200, "b" * 100_000, "日" * 100_000):
        agree(tokenizer, graph.encode, graph.decode, [text, "God"])


def test_no_text(pair):
    tokenizer, graph = pair
    agree(tokenizer, graph.encode, graph.decode, [])


def test_saved_and_loaded(pair, tmp_path):
    import tensorflow as tf

    tokenizer, graph = pair
    module = tf.Module()
    module.graph = graph
    signature = [tf.TensorSpec([None], tf.string)]
    module.encode = tf.function(lambda texts: graph.encode(texts, end=True, max_length=9), input_signature=signature)
    module.decode = tf.function(graph.decode, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    tokens = loaded.encode(tf.constant(HOSTILE)).numpy()
    np.testing.assert_array_equal(tokens, tokenizer(HOSTILE, end=True, max_length=9))
    assert [text.decode() for text in loaded.decode(tokens).numpy()] == tokenizer.detokenize(tokens)


def test_plain_tensorflow_runs_it(tmp_path):
    import tensorflow as tf

    from kseq.export.text_graph import TextGraph

    tokenizer = Tokenizer.train(TRAINING, "subword", 150)
    module = tf.Module()
    module.graph = TextGraph(tokenizer)
    module.encode = tf.function(module.graph.encode, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path))
    code = (
        "import sys, tensorflow as tf\n"
        f"tokens = tf.saved_model.load({str(tmp_path)!r}).encode({HOSTILE!r})\n"
        "assert 'keras_hub' not in sys.modules and 'tensorflow_text' not in sys.modules\n"
        "print(tokens.numpy().tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == tokenizer(HOSTILE).tolist()


def test_broken_utf8_is_unknown(pair):
    import tensorflow as tf

    _, graph = pair
    tokens = graph.encode(tf.constant([b"God \xff", b"\xe3\x81"])).numpy()
    assert (tokens[1][tokens[1] != PADDING] == UNKNOWN).all()
    assert tokens[1][0] == UNKNOWN
    assert tokens[0][-1] in (UNKNOWN, PADDING)
    assert graph.decode(tokens).numpy()[0].decode().lower() == "god �"


def test_no_room(pair):
    import tensorflow as tf

    _, graph = pair
    with pytest.raises(InputError, match="max_length 2"):
        graph.encode(tf.constant(["God"]), start=True, end=True, max_length=2)


def test_decode_stops_at_the_end_and_refuses_other_numbers(pair):
    import tensorflow as tf

    tokenizer, graph = pair
    rows = np.array([[START, 9, 0, 10, 3, 11], [3, 9, 9, 9, 9, 9]], dtype="int32")
    assert [text.decode() for text in graph.decode(rows).numpy()] == tokenizer.detokenize(rows)
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph.decode(np.array([[tokenizer.vocabulary_size]], dtype="int32"))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.text("God#▁ '’\n\u0301beginnש"), max_size=3))
def test_any_text_reads_alike(pair, texts):
    tokenizer, graph = pair
    agree(tokenizer, graph.encode, graph.decode, texts)


def test_the_hostile_texts_are_hostile():
    categories = {unicodedata.category(character) for text in HOSTILE for character in text}
    assert {"Cc", "Cf", "Mn", "Zs", "So", "Lo", "Nd"} <= categories
