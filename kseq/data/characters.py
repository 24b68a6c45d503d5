"""Words as sequences of characters: the encoding that character models read."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kseq.errors import InputError, shorten


@dataclass(frozen=True)
class CharacterEncoder:
    """Turn words into rows of character numbers: 1, 2, … for `characters` in order, 0 for padding on the right.

    Capital letters A–Z read as small ones. `CharacterEncoder("abc", 5)(["cab", "B"])` is
    `[[3, 1, 2, 0, 0], [2, 0, 0, 0, 0]]`.

    Attributes:
        characters: the alphabet, each character once.
        max_length: the longest word, in characters, and the length of every row.
    """

    characters: str
    max_length: int

    @property
    def vocabulary_size(self) -> int:
        """How many numbers there are: one a character, and 0 for padding."""
        return len(self.characters) + 1

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of every character that is read, capitals included."""
        numbers = {character: number for number, character in enumerate(self.characters, start=1)}
        capitals = {c.upper(): n for c, n in numbers.items() if c.isascii()}
        return capitals | numbers

    def __call__(self, words: Iterable[str]) -> np.ndarray:
        """Encode `words` as an `int32` array of shape `(words, max_length)`.

        Raises:
            InputError: for an empty word, one longer than `max_length`, or one with a character outside the alphabet.
        """
        words = list(words)
        rows = np.zeros((len(words), self.max_length), dtype="int32")
        for row, word in zip(rows, words, strict=True):
            self._check(word)
            row[: len(word)] = [self.numbers[character] for character in word]
        return rows

    def _check(self, word: str) -> None:
        if not word:
            raise InputError(f"word '': empty; give 1 to {self.max_length} letters")
        if len(word) > self.max_length:
            raise InputError(
                f"word {shorten(word)}: {len(word):,} characters; the model reads 1 to {self.max_length}, shorten it"
            )
        for character in word:
            if character not in self.numbers:
                raise InputError(
                    f"word {shorten(word)}: has {character!r}; the model reads only {self.characters}, "
                    "give one word without digits, accents, spaces or signs"
                )

    def get_config(self) -> dict:
        """The arguments that make this encoder again."""
        return {"characters": self.characters, "max_length": self.max_length}
