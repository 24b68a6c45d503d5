import keras
import numpy as np
import pytest

from kseq.data import Tokenizer
from kseq.data.tokenizer import SPECIAL, START
from kseq.errors import InputError
from kseq.inference import (
    UncachedDecoder,
    beam_search,
    continue_text,
    decoder,
    greedy,
    sample,
    stream,
    stream_text,
    translate,
)
from kseq.models import LanguageModel, RecurrentTranslator, TextClassifier, TransformerTranslator
from tests.inference.test_search import _forget_compiled_functions  # noqa: F401
from tests.inference.toy_decoders import ScriptDecoder

LETTERS = Tokenizer("character", (*SPECIAL, *"abcdefgh é"))
WORDS = Tokenizer("word", (*SPECIAL, "the", "light", ",", "was", "good", "and"))
PIECES = Tokenizer("subword", (*SPECIAL, "▁", "##a", "▁In", "▁the", "▁be", "##gin", "##ning", ",", "▁God", "##."))


class Bytes:
    """A tokenizer of UTF-8 bytes, whose texts end where a character may not."""

    vocabulary_size = 4 + 256

    def __call__(self, texts):
        (text,) = texts
        return np.array([[4 + byte for byte in text.encode()]], "int32").reshape(1, -1)

    def detokenize(self, rows):
        return [bytes(token - 4 for token in row if token >= 4).decode(errors="replace") for row in rows]


def numbers(tokenizer, *tokens):
    return [tokenizer.vocabulary.index(token) for token in tokens]


@pytest.fixture(scope="module")
def writer():
    return LanguageModel(LETTERS.vocabulary_size, cell="gru", embed_dim=4, units=8, depth=1)


@pytest.mark.parametrize(
    ("tokenizer", "prompt", "tokens", "written", "pieces"),
    [
        (LETTERS, "ab", "c da", "c da", ["c", " ", "d", "a"]),
        (LETTERS, "", "ab ", "ab ", ["a", "b", " "]),
        (WORDS, "the light", ["was", ",", "good"], " was , good", [" was", " ,", " good"]),
        (WORDS, "", ["was", "good"], "was good", ["was", " good"]),
        (PIECES, "In the be", ["##gin", "##ning", ",", "▁God", "▁"], "ginning, God", ["gin", "ning", ",", " God"]),
        (PIECES, "", ["▁In", "▁the"], "In the", ["In", " the"]),
        (LETTERS, "ab", ["a", "[UNK]", "b"], "a�b", ["a", "�b"]),
        (LETTERS, "ab", ["a", "[UNK]"], "a�", ["a", "�"]),
    ],
)
def test_what_is_written_reads_on_from_the_prompt(tokenizer, prompt, tokens, written, pieces):
    count = (np.array(tokenizer([prompt])) != 0).sum()
    driven = ScriptDecoder(tokenizer.vocabulary_size, [1] * count + numbers(tokenizer, *tokens))
    assert continue_text(driven, prompt, tokenizer, max_length=20, seed=0) == written
    assert list(stream_text(driven, prompt, tokenizer, max_length=20, seed=0)) == pieces


def test_a_character_of_several_tokens_is_one_piece():
    script = [4 + byte for byte in "é😀x".encode()]
    for cut, pieces in ((0, ["é", "😀", "x"]), (3, ["é", "�"])):
        driven = ScriptDecoder(260, script[: len(script) - cut])
        assert list(stream_text(driven, "", Bytes(), max_length=20, seed=0)) == pieces
        assert continue_text(driven, "", Bytes(), max_length=20, seed=0) == "".join(pieces)


def test_a_stream_is_the_whole_text(writer):
    options = {"max_length": 30, "temperature": 1.5, "top_k": 9, "end": None}
    for seed in (1, 2):
        whole = continue_text(writer, "abba", LETTERS, seed=seed, **options)
        assert len(whole) == 30
        assert continue_text(writer, "abba", LETTERS, seed=seed, **options) == whole
        assert "".join(stream_text(writer, "abba", LETTERS, seed=seed, **options)) == whole
    assert continue_text(writer, "abba", LETTERS, seed=1, **options) != whole


def test_without_a_start_the_text_begins(writer):
    whole = continue_text(writer, "ab", LETTERS, start=None, end=None, max_length=5, seed=1)
    pieces = list(stream_text(writer, "ab", LETTERS, start=None, end=None, max_length=5, seed=1))
    assert len(whole) == len(pieces) == 5
    assert "".join(pieces) == whole
    for write in (continue_text, stream_text):
        with pytest.raises(InputError, match="nothing to begin with"):
            write(writer, "", LETTERS, start=None)


def test_translations_keep_the_order_of_the_texts_and_share_shapes():
    texts = ["abc", "", "a", "h g f e d c b a", "ee\N{COMBINING ACUTE ACCENT}", "bb", "xyz"]
    expected = ["abc", "", "a", "h g f e d c b a", "eé", "bb", "���"]
    driven = ScriptDecoder(LETTERS.vocabulary_size)
    for size in (2, 100):
        assert translate(driven, texts, LETTERS, LETTERS, max_length=20, beam_size=2, batch_size=size) == expected
    assert len(set(driven.shapes)) <= 6
    assert {time for _, time in driven.shapes} <= {8, 16, None}  # None where TensorFlow leaves it open
    assert translate(driven, [], LETTERS, LETTERS) == []


def test_bad_arguments_are_refused():
    driven = ScriptDecoder(LETTERS.vocabulary_size)
    large = Tokenizer("character", (*LETTERS.vocabulary, "z"))
    for arguments, message in (
        (("abc", LETTERS, LETTERS), "a single text"),
        ((["abc"], LETTERS, large), "target_tokenizer: 15 tokens"),
    ):
        with pytest.raises(InputError, match=message):
            translate(driven, *arguments)
    with pytest.raises(InputError, match="batch_size 0"):
        translate(driven, ["abc"], LETTERS, LETTERS, batch_size=0)
    for write in (continue_text, stream_text):
        with pytest.raises(InputError, match="tokenizer: 15 tokens"):
            write(driven, "abc", large)
        with pytest.raises(InputError, match="max_length 0"):
            write(driven, "abc", LETTERS, max_length=0)


def test_lengths_are_rounded_up_so_that_prompts_share_what_is_compiled():
    driven = decoder(LanguageModel(LETTERS.vocabulary_size, cell="gru", embed_dim=4, units=8, depth=1))
    options = {"max_length": 9, "end": None, "seed": 3}
    for prompt in ("", "ab", "abcdefgh"):
        whole = continue_text(driven, prompt, LETTERS, **options)
        assert len(whole) == 9
        assert "".join(stream_text(driven, prompt, LETTERS, **options)) == whole
        exact = sample(driven, [[0]], len(prompt) + 9, prompt=LETTERS([prompt]), end=None, seed=3)
        assert LETTERS.detokenize(exact.tokens[:, 0, len(prompt) :]) == [whole]
    rounded = [key for key in driven._compiled if key[:2] == ("generate", 32)]
    assert len(rounded) == 1


@pytest.mark.parametrize("start", [START, None])
def test_a_context_is_written_full_and_no_further(start):
    model = LanguageModel(LETTERS.vocabulary_size, cell="transformer", num_heads=1, embed_dim=4, depth=1, max_length=8)
    most = 8 if start is not None else 9
    for driven in (model, UncachedDecoder(model)):
        options = {"start": start, "end": None, "seed": 1}
        assert len(continue_text(driven, "abc", LETTERS, max_length=most - 3, **options)) == most - 3
        with pytest.raises(ValueError, match="context|grid_shape"):
            continue_text(driven, "abc", LETTERS, max_length=most - 2, **options)


def test_tokens_of_another_vocabulary_are_refused(writer):
    large = Tokenizer("character", (*LETTERS.vocabulary, *"klmno"))
    size = LETTERS.vocabulary_size
    sizes = {"num_heads": 1, "hidden_dim": 4, "embed_dim": 4, "depth": 1}
    for model in (
        RecurrentTranslator(size, 30, units=4, embed_dim=4),
        TransformerTranslator(size, 30, **sizes),
        TransformerTranslator(size, size, share_embeddings=True, **sizes),
    ):
        for driven in (decoder(model), UncachedDecoder(model)):
            assert driven.source_vocabulary_size == size
            with pytest.raises(InputError, match="source_tokenizer: 19 tokens, the model knows 14"):
                translate(driven, ["abc"], large, LETTERS)
            for search in (greedy, beam_search):
                for token in (size, -1):
                    with pytest.raises(InputError, match=f"inputs: token {token}: .*0 to 13"):
                        search(driven, [[4, token]], 5)
    for driven in (decoder(writer), UncachedDecoder(writer)):
        assert driven.source_vocabulary_size is None
        for token in (size, -1, 2**40):
            with pytest.raises(InputError, match=f"prompt: token {token}: .*0 to 13"):
                sample(driven, [[99]], 5, prompt=[[4, token]])
        with pytest.raises(InputError, match="prompt: token 14"):
            stream(driven, [4, 14], 5)


def test_a_model_has_one_decoder_and_is_saved_as_before(writer, tmp_path):
    for model, name in (
        (writer, "RecurrentLanguageModelDecoder"),
        (LanguageModel(9, cell="transformer", num_heads=1, embed_dim=4, depth=1), "TransformerLanguageModelDecoder"),
        (RecurrentTranslator(9, 9, units=4, embed_dim=4), "RecurrentTranslatorDecoder"),
        (TransformerTranslator(9, 9, num_heads=1, hidden_dim=4, embed_dim=4, depth=1), "TransformerTranslatorDecoder"),
    ):
        assert type(decoder(model)).__name__ == name
        assert decoder(model) is decoder(model)
    writer.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert decoder(loaded) is not decoder(writer)
    for model in (TextClassifier(9, 2), keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])):
        with pytest.raises(InputError, match="model"):
            decoder(model)
