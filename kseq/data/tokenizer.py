"""Texts as rows of token numbers, and back: characters, words, or subwords (WordPiece) learnt from the training texts.

Characters and words are looked up by Keras's `TextVectorization`, subwords by keras-hub's `WordPieceTokenizer`. What is
cut where is decided by one function of TensorFlow operations, `split`, on every backend: a SavedModel runs the same one
(`kseq.export.text_graph`), and the Unicode tables of two libraries never meet (those of Python's `regex` and of
TensorFlow's RE2 differ in 22,614 code points). TensorFlow and keras-hub are imported on use.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kseq.errors import InputError, shorten

PADDING, UNKNOWN, START, END = 0, 1, 2, 3
SPECIAL = ("", "[UNK]", "[START]", "[END]")  # the vocabulary's first entries, by their numbers
UNITS = ("character", "word", "subword")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what an unknown token reads as; itself never known, nor is broken UTF-8

SPACE = r"[\s\p{Z}\p{Cc}]"
LETTER = r"[\p{L}\p{M}\p{N}]"
WORD = rf"{LETTER}+(?:['’]{LETTER}+)*|[^ ]"
PIECE = rf"▁?(?:{LETTER}+|[^▁])"
UNLEARNABLE = rf"▁?{REPLACEMENT}|\x00"  # TextVectorization takes NUL for the end of a string
LONGEST_PIECE = r"[^ ]{25}"  # 25 characters are at most 100 bytes; keras-hub takes a longer unit for unknown as a whole


@dataclass(frozen=True)
class Tokenizer:
    """Turn texts into rows of token numbers, 0 for padding on the right, and rows into texts.

    - `"character"`: a token is a Unicode code point, line breaks and spaces included. Exact for known characters.
    - `"word"`: a token is a run of letters, marks and digits, with the apostrophes inside it ("don't", "l'homme"), or
      one other visible character, so punctuation marks are words. `detokenize` puts one space between two words.
    - `"subword"`: WordPiece (Schuster and Nakajima 2012) over units that keep the spaces: white space and control
      characters of any number read as one space, those at the ends as none, and "▁" in front of a unit stands for it:
      `In the beginning, God` is `▁In`, `▁the`, `▁beginning`, `,`, `▁God`. A unit is a run of letters, marks and digits
      (cut behind 25 characters) or one other character. It is cut into the longest pieces of the vocabulary, from the
      left; pieces that go on within a unit begin with "##" there. `detokenize` joins them: exact for known characters
      up to white space. A "▁" in a text counts as white space. A unit with an unknown character is one unknown token.

    The numbers 0 to 3 are `PADDING`, `UNKNOWN`, `START`, `END`; no text reads as one of the others. What is not in the
    vocabulary is `UNKNOWN` and comes back as "�"; so are half surrogate pairs, and the character NUL where it is not
    white space (`TextVectorization` cannot hold it). Nothing is normalised: "é" of one code point and "é" of two are
    different characters, so texts should be in the form NFC, by `normalize`, where they are read.

    Attributes:
        unit: "character", "word" or "subword".
        vocabulary: the tokens by their numbers; the first four are "", "[UNK]", "[START]", "[END]".
        lowercase: whether capital letters read as small ones (Unicode's simple rules, without a language).

    Raises:
        InputError: for another unit, or a vocabulary without the four entries, with an entry twice, or with one that is
            not a text, is empty or has a NUL.
    """

    unit: str
    vocabulary: tuple[str, ...]
    lowercase: bool = False

    def __post_init__(self):
        _check_unit(self.unit)
        object.__setattr__(self, "vocabulary", tuple(self.vocabulary))  # JSON gives a list
        if self.vocabulary[:4] != SPECIAL:
            raise InputError(f"vocabulary {self.vocabulary[:4]!r}…: begin with {SPECIAL!r}")
        for entry in self.vocabulary[4:]:
            if not isinstance(entry, str) or not entry or "\0" in entry:
                raise InputError(f"vocabulary entry {shorten(entry)}: give non-empty texts without NUL")
        if len(set(self.vocabulary)) < len(self.vocabulary):
            entries, counts = np.unique(np.array(self.vocabulary, dtype=object), return_counts=True)
            raise InputError(f"vocabulary: {shorten(entries[counts > 1][0])} is there twice; give each entry once")

    @classmethod
    def train(cls, texts: Iterable[str], unit: str, vocabulary_size: int, *, lowercase: bool = False) -> "Tokenizer":
        """Learn the vocabulary from `texts`, which should be those of the training split alone.

        Characters and words are taken by their frequency. Subwords begin with every character of the texts in both
        forms, at the beginning of a unit and within one, so only characters that the texts lack can be unknown; then
        the most frequent pair of neighbours becomes one piece, again and again. The same texts always give the same
        vocabulary.

        Args:
            texts: the texts.
            unit: "character", "word" or "subword".
            vocabulary_size: the largest vocabulary, special entries included; smaller where the texts have no more.
            lowercase: whether capital letters read as small ones.

        Raises:
            InputError: for another unit, texts that are not texts or have no token, or a `vocabulary_size` without room
                for a token beside the special entries, or for the characters of subwords.
        """
        import tensorflow as tf

        _check_unit(unit)
        if vocabulary_size <= len(SPECIAL):
            raise InputError(f"vocabulary_size {vocabulary_size}: give more than the {len(SPECIAL)} special entries")
        texts = tf.constant(_encoded(texts), tf.string)
        units = split(texts, unit, lowercase).flat_values
        units = tf.boolean_mask(units, ~tf.strings.regex_full_match(units, UNLEARNABLE))
        if not len(units):
            raise InputError(f"texts: {len(texts):,} without a single {unit}; give texts to learn from")
        learn = _learn_pieces if unit == "subword" else _most_frequent
        return cls(unit, SPECIAL + tuple(learn(units, vocabulary_size - len(SPECIAL))), lowercase)

    @property
    def vocabulary_size(self) -> int:
        """How many token numbers there are."""
        return len(self.vocabulary)

    def get_config(self) -> dict:
        """The arguments that make this tokenizer again, ready for JSON."""
        return {"unit": self.unit, "vocabulary": list(self.vocabulary), "lowercase": self.lowercase}

    def __call__(
        self, texts: Iterable[str], *, start: bool = False, end: bool = False, max_length: int | None = None
    ) -> np.ndarray:
        """Tokenise `texts` as an `int32` array of shape `(texts, time)`; `time` is that of the longest, at least 1.

        An empty text (or one of white space, but for characters) is a row of zeros, with `start` and `end` their two
        numbers.

        Args:
            texts: a list of texts; invalid half surrogate pairs read as unknown.
            start: put `START` in front.
            end: put `END` behind, also where a text was cut.
            max_length: cut rows, their `START` and `END` counted, to this length.

        Raises:
            InputError: for a single text in place of a list, what is not a text, or `max_length` without room for a
                token.
        """
        room = room_for_tokens(start, end, max_length)
        rows = [
            np.concatenate(([START] * start, row[:room], [END] * end)).astype("int32")
            for row in self._rows(_encoded(texts))
        ]
        tokens = np.zeros((len(rows), max((len(row) for row in rows), default=0) or 1), dtype="int32")
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = row
        return tokens

    def detokenize(self, rows: Iterable[Sequence[int]]) -> list[str]:
        """The text of each row of token numbers, up to its first `END`, without `PADDING` and `START`.

        Args:
            rows: integers of shape `(texts, time)`, or a list of rows.

        Raises:
            InputError: for numbers outside of the vocabulary.
        """
        texts = []
        for row in rows:
            row = np.asarray(row, dtype="int64").reshape(-1)
            wrong = row[(row < 0) | (row >= self.vocabulary_size)]
            if wrong.size:
                raise InputError(
                    f"token {wrong[0]}: outside of 0 to {self.vocabulary_size - 1}; rows made with a vocabulary of "
                    "another model? Give those of the model that this tokenizer was saved with"
                )
            ends = np.flatnonzero(row == END)
            row = row[: ends[0]] if ends.size else row
            text = "".join(self.surfaces[number] for number in row)
            texts.append(text if self.unit == "character" else text.strip(" "))
        return texts

    @cached_property
    def surfaces(self) -> tuple[str, ...]:
        """What each token number adds to a text: the token itself, with a space in front where one belongs."""
        if self.unit == "character":
            return ("", REPLACEMENT, "", "", *self.vocabulary[4:])
        if self.unit == "word":
            known = (f" {word}" for word in self.vocabulary[4:])
        else:
            known = (piece.removeprefix("##").replace("▁", " ") for piece in self.vocabulary[4:])
        return ("", f" {REPLACEMENT}", "", "", *known)

    def _rows(self, texts: list[bytes]) -> list[np.ndarray]:
        """The token numbers of every text, without special ones; each distinct unit is looked up once."""
        import keras
        import tensorflow as tf

        units = split(tf.constant(texts, tf.string), self.unit, self.lowercase)
        distinct, where = (result.numpy() for result in tf.unique(units.flat_values))
        rows = np.split(where, units.row_splits.numpy()[1:-1]) if texts else []
        if self.unit == "subword":
            pieces = self._word_piece([[unit.decode()] for unit in distinct])
            return [np.array([number for unit in row for number in pieces[unit]], dtype="int32") for row in rows]
        numbers = keras.ops.convert_to_numpy(self._lookup(tf.constant(distinct, tf.string))).reshape(-1)
        return [numbers[row] for row in rows]

    @cached_property
    def _lookup(self):
        return _vectorization(vocabulary=list(self.vocabulary))

    @cached_property
    def _word_piece(self):
        from keras_hub.tokenizers import WordPieceTokenizer

        return WordPieceTokenizer(list(self.vocabulary), split=False, oov_token=SPECIAL[UNKNOWN])


def normalize(text: str) -> str:
    """`text` in Unicode's form NFC: a letter and its accents as one code point where there is one.

    Call it where raw texts are read, and on what a user types: the tokenizer does not.
    """
    import unicodedata

    return unicodedata.normalize("NFC", text)


def split(texts, unit: str, lowercase: bool):
    """Cut texts into the units that are looked up, by operations that every TensorFlow has.

    Args:
        texts: a `tf.Tensor` of strings `(batch,)`; bytes that are not UTF-8 read as "�".
        unit: "character", "word" or "subword" (whose units have yet to be cut into pieces).
        lowercase: whether to make capital letters small.

    Returns:
        A `tf.RaggedTensor` of strings `(batch, units)`.
    """
    import tensorflow as tf

    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    if lowercase:
        texts = tf.strings.lower(texts, encoding="utf-8")
    if unit == "character":
        return tf.strings.unicode_split(texts, "UTF-8")
    if unit == "word":
        texts = tf.strings.regex_replace(texts, SPACE, " ")
        return tf.strings.split(tf.strings.regex_replace(texts, WORD, r" \0 "))
    texts = tf.strings.regex_replace(tf.strings.join([" ", texts]), rf"(?:{SPACE}|▁)+", "▁")
    texts = tf.strings.regex_replace(texts, "▁$", "")
    texts = tf.strings.regex_replace(texts, PIECE, r"\0 ")
    return tf.strings.split(tf.strings.regex_replace(texts, LONGEST_PIECE, r"\0 "))


def room_for_tokens(start: bool, end: bool, max_length: int | None) -> int | None:
    """How many tokens a row of `max_length` takes beside `START` and `END`; `None` is no limit.

    Raises:
        InputError: if it takes none.
    """
    if max_length is None:
        return None
    if max_length <= start + end:
        raise InputError(f"max_length {max_length}: give at least {start + end + 1}, a token beside START and END")
    return max_length - start - end


def _check_unit(unit: str) -> None:
    if unit not in UNITS:
        raise InputError(f"unit {unit!r}: give {', '.join(map(repr, UNITS))}")


def _encoded(texts: Iterable[str]) -> list[bytes]:
    if isinstance(texts, str | bytes):
        raise InputError(f"texts {shorten(texts)}: a single one; give a list of texts")
    encoded = []
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"text {shorten(text)}: not a text but {type(text).__name__}; give texts")
        try:
            encoded.append(text.encode())
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and UTF-8 cannot
            encoded.append(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode())
    return encoded


def _vectorization(**arguments):
    import keras

    return keras.layers.TextVectorization(standardize=None, split=None, **arguments)


def _most_frequent(units, count: int) -> list[str]:
    layer = _vectorization(max_tokens=2 + count)  # 2: padding and unknown
    layer.adapt(units)
    return [str(token) for token in layer.get_vocabulary()[2:]]


def _learn_pieces(units, count: int) -> list[str]:
    """Pieces by merging the most frequent pair again and again, by the trainer of `tokenizers`.

    Not by `keras_hub.tokenizers.compute_word_piece_vocabulary`: that drops pieces seen fewer than ten times, so 1 MB of
    Austen gave 2,614 of the 8,192 entries asked for, in 11 seconds in place of one.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    units = [unit.decode() for unit in units.numpy()]
    characters = sorted(set("".join(set(units))) - {"▁"})
    known = ["▁", *characters, *(f"##{character}" for character in characters)]
    if len(known) > count:
        raise InputError(
            f"vocabulary_size {count + len(SPECIAL):,}: give at least {len(known) + len(SPECIAL):,}, for the "
            f"{len(characters):,} characters of the texts at the beginning of a unit and within one"
        )
    # Given as special tokens, the characters get their numbers in this order; else a hash table with a random seed
    # gives them, and of two pairs that are equally frequent the one with the smaller numbers is merged first.
    trainer = trainers.WordPieceTrainer(
        vocab_size=count, min_frequency=2, special_tokens=known, continuing_subword_prefix="##", show_progress=False
    )
    learner = Tokenizer(models.WordPiece())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(units, trainer)
    numbers = learner.get_vocab()
    return sorted(numbers, key=numbers.get)
