import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kseq.data import END, PADDING, START, UNKNOWN, Tokenizer
from kseq.data.tokenizer import SPECIAL, normalize
from kseq.errors import InputError
from tests.conftest import tensorflow_only

UNITS = ("character", "word", "subword")
TRAINING = [
    "In the beginning, God created the heavens and the earth.",
    "Au commencement, Dieu créa les cieux et la terre; l'homme vint.",
    "The earth was formless and empty. Darkness was on the deep's surface # 12",
    "בראשית ברא אלהים",
]
KNOWN = "".join(sorted(set("".join(TRAINING))))
HOSTILE = [
    "",
    "   ",
    "日本語",
    "In the beginning, God created the heavens",
    "In the  beginning\t,\n\nGod ",
    "l'homme l’homme don't 'quoted'",
    "## # ##the the## #",
    "▁ ▁▁the▁ a▁b",
    "[UNK] [START] [END] � ",
    "earth אלהים בראשית earth \u200fאל\u200e",
    "nul\0nul \x07\x1b[0m\x7f\x85\u2028\u2029\ufeff\u00ad\u200d",
    "👩‍👩‍👧 earth👍🏽the",
    "e\u0301 \u0301\u0301 z\u0335alg\u0336o\u0337",
    "１２ ٣ 12 Ⅻ ½",
    "in" * 30,
    "IN THE BEGINNING İ ẞ ǅ",
    "\u0378\U0001fac8\U000e0001\U0010ffff",
]


@pytest.fixture(scope="module", params=UNITS)
def tokenizer(request):
    return Tokenizer.train(TRAINING, request.param, 150)


def spaced(text: str) -> str:
    """What a text of known characters reads as in subwords: its white space as one space, none at the ends."""
    return " ".join(text.split())


def test_texts_come_back():
    for unit, expected in (
        ("character", TRAINING),
        ("word", ["In the beginning , God created the heavens and the earth ."]),
        ("subword", TRAINING),
    ):
        tokenizer = Tokenizer.train(TRAINING, unit, 150)
        texts = TRAINING[: len(expected)]
        tokens = tokenizer(texts, start=True, end=True)
        assert tokens.dtype == "int32"
        assert (tokens != UNKNOWN).all()
        assert (tokens[:, 0] == START).all()
        assert ((tokens == END).sum(axis=1) == 1).all()
        assert tokenizer.detokenize(tokens) == expected


def test_the_pieces_are_the_longest_of_the_vocabulary():
    vocabulary = (*SPECIAL, "▁", "▁the", "▁th", "##e", "##re", "##r", "e", "'", "a", "#", "###")
    tokenizer = Tokenizer("subword", vocabulary)
    rows = [
        [vocabulary[number] for number in row if number] for row in tokenizer(["there the e' #  the#x", "th", "ax"])
    ]
    assert rows[0] == ["▁the", "##re", "▁the", "▁", "##e", "'", "▁", "###", "▁the", "#", "[UNK]"]
    assert rows[1] == ["▁th"]
    assert rows[2] == ["[UNK]"]
    assert tokenizer.detokenize(tokenizer(["there the e' #  the#"])) == ["there the e' # the#"]


def test_words_keep_their_apostrophes_and_marks_are_words():
    tokenizer = Tokenizer.train(["Don't go, l’homme! GO"], "word", 20, lowercase=True)
    assert set(tokenizer.vocabulary[4:]) == {"don't", "go", ",", "l’homme", "!"}
    assert tokenizer.vocabulary[4] == "go"  # the most frequent comes first
    assert tokenizer.detokenize(tokenizer(["DON'T, man"])) == ["don't , �"]


def test_rows_are_padded_and_cut(tokenizer):
    tokens = tokenizer(["God", "", "God and earth"])
    assert (tokens[1] == PADDING).all()
    assert tokens[2].all()
    longer = tokenizer(["God", "", "God and earth"], start=True, end=True)
    assert longer.shape == (3, tokens.shape[1] + 2)
    assert longer[1].tolist() == [START, END] + [PADDING] * tokens.shape[1]
    cut = tokenizer(["God and earth"], start=True, end=True, max_length=4)[0]
    assert cut.tolist() == [START, *tokens[2, :2], END]
    np.testing.assert_array_equal(tokenizer(["God and earth"], max_length=2)[0], tokens[2, :2])
    assert tokenizer([""]).tolist() == [[PADDING]]
    assert tokenizer([]).shape == (0, 1)


def test_hostile_texts_read_and_come_back_alike(tokenizer):
    tokens = tokenizer(HOSTILE)
    assert tokens.shape[0] == len(HOSTILE)
    assert not np.isin(tokens, [START, END]).any()
    assert (tokens[2][tokens[2] > 0] == UNKNOWN).all()
    assert tokens[2, 0] == UNKNOWN
    again = tokenizer(tokenizer.detokenize(tokens))
    np.testing.assert_array_equal(again, tokens)
    alone = [tokenizer([text])[0] for text in HOSTILE]
    for row, text in zip(tokens, alone, strict=True):  # a batch reads as its texts one by one
        np.testing.assert_array_equal(row[: len(text)], text)


def test_half_a_surrogate_pair_is_unknown(tokenizer):
    tokens = tokenizer(["\ud83d", "God \udc00"])
    assert tokens[0, 0] == UNKNOWN
    assert tokenizer.detokenize(tokens)[1] == "God �"


def test_a_hundred_thousand_characters(tokenizer):
    text = "the earth, " * 9_100
    assert spaced(tokenizer.detokenize(tokenizer([text, "God"]))[0].replace(" ,", ",")) == spaced(text)
    assert tokenizer(["the" * 33_400]).shape[0] == 1


def test_long_runs_of_letters_stay_known():
    tokenizer = Tokenizer.train(TRAINING, "subword", 150)
    text = "earth" * 50 + "בראשית" * 20
    assert tokenizer.detokenize(tokenizer([text])) == [text]


@tensorflow_only
def test_training_is_the_same_in_every_process():
    code = (  # the trainer's hash tables have another seed in every process
        "import json; from kseq.data import Tokenizer\n"
        f"print(json.dumps(Tokenizer.train({TRAINING!r}, 'subword', 150).get_config()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    config = json.loads(done.stdout.splitlines()[-1])
    assert Tokenizer(**config) == Tokenizer.train(TRAINING, "subword", 150)


def test_a_tokenizer_is_made_again_from_json(tokenizer):
    again = Tokenizer(**json.loads(json.dumps(tokenizer.get_config())))
    assert again == tokenizer
    np.testing.assert_array_equal(again(TRAINING), tokenizer(TRAINING))


@pytest.mark.parametrize("unit", UNITS)
def test_the_vocabulary_is_as_large_as_asked(unit):
    assert Tokenizer.train(TRAINING, unit, 10**6).vocabulary_size <= 300
    size = {"character": 20, "word": 20, "subword": 120}[unit]
    tokenizer = Tokenizer.train(TRAINING, unit, size)
    assert tokenizer.vocabulary_size == size
    assert tokenizer.vocabulary[:4] == SPECIAL


def test_every_character_of_the_training_texts_is_known():
    tokenizer = Tokenizer.train(TRAINING, "subword", 150)
    characters = [c for c in KNOWN if c != " "]
    assert (tokenizer([*characters, *(f"1{c}" for c in characters), *(f",{c}" for c in characters)]) != UNKNOWN).all()


def test_composed_and_decomposed_letters_differ_until_normalized():
    tokenizer = Tokenizer.train(["é"], "character", 10)
    assert tokenizer(["e\u0301"]).tolist() == [[UNKNOWN, UNKNOWN]]
    assert tokenizer([normalize("e\u0301")]).tolist() == [[4]]


def test_bad_vocabularies():
    with pytest.raises(InputError, match="unit 'byte'"):
        Tokenizer("byte", SPECIAL)
    with pytest.raises(InputError, match="begin with"):
        Tokenizer("word", ("a", "b"))
    with pytest.raises(InputError, match="'a' is there twice"):
        Tokenizer("word", (*SPECIAL, "b", "a", "a"))
    for entry in ("", "a\0", 3):
        with pytest.raises(InputError, match="vocabulary entry"):
            Tokenizer("word", (*SPECIAL, entry))


def test_bad_training():
    with pytest.raises(InputError, match="unit 'byte'"):
        Tokenizer.train(TRAINING, "byte", 100)
    with pytest.raises(InputError, match="vocabulary_size 4"):
        Tokenizer.train(TRAINING, "word", 4)
    with pytest.raises(InputError, match="vocabulary_size 30: give at least"):
        Tokenizer.train(TRAINING, "subword", 30)
    for texts in ([], [""], ["\0"], ["�"]):
        for unit in UNITS:
            with pytest.raises(InputError, match="texts: .* without a single"):
                Tokenizer.train(texts, unit, 100)
    with pytest.raises(InputError, match="a single one"):
        Tokenizer.train("God", "word", 100)


def test_bad_texts_and_numbers(tokenizer):
    with pytest.raises(InputError, match="a single one; give a list"):
        tokenizer("God")
    with pytest.raises(InputError, match="text None: not a text but NoneType"):
        tokenizer(["God", None])
    with pytest.raises(InputError, match="max_length 2: give at least 3"):
        tokenizer(["God"], start=True, end=True, max_length=2)
    for number in (-1, tokenizer.vocabulary_size):
        with pytest.raises(InputError, match=f"token {number}: .*another model"):
            tokenizer.detokenize([[5, number]])


@tensorflow_only
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.text(KNOWN))
def test_known_characters_come_back(text):
    for unit, expected in (("character", text), ("subword", spaced(text))):
        tokenizer = _trained(unit)
        tokens = tokenizer([text], end=True)
        assert (tokens != UNKNOWN).all()
        assert tokenizer.detokenize(tokens) == [expected]


@tensorflow_only
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.text() | st.text(KNOWN + "▁#�日"))
def test_what_comes_back_reads_the_same(text):
    for unit in UNITS:
        tokenizer = _trained(unit)
        tokens = tokenizer([text])
        np.testing.assert_array_equal(tokenizer(tokenizer.detokenize(tokens)), tokens)


def _trained(unit, made={}):  # noqa: B006 a memory between the examples
    if unit not in made:
        made[unit] = Tokenizer.train(TRAINING, unit, 150)
    return made[unit]
