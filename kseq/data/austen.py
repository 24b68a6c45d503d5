"""Two novels of Jane Austen: the data of the language model."""

import lzma
from importlib import resources

from kseq.data.dataset import Entry
from kseq.data.text_files import Corpus

ENTRY = Entry(
    name="austen",
    task="text → next character or word",
    size="116 chapters, 1,563,488 characters",
    source="Jane Austen, 1813 and 1815, embedded",
    licence="public domain",
)


def austen() -> Corpus:
    """The chapters of "Pride and Prejudice" (61) and "Emma" (55, counted through its three volumes).

    Held out are whole chapters, spread over both novels: 6, 18, 30, 42 and 54 of each for validation; 12, 24, 36, 48
    and 60 for testing ("Emma" has no 60). 97/10/9 chapters, 1,291,419/157,947/114,122 characters.

    A paragraph is a line, with an empty line before the next; the lines of verse stay. Title pages and headings of
    chapters are left out. All characters are ASCII: straight quotation marks, "--" for a dash; italics are lost.

    Returns:
        A `Corpus` whose passages are the chapters, in the order of the novels.
    """
    compressed = resources.files("kseq.data").joinpath("files/austen.txt.xz").read_bytes()
    chapters = [part.split("\n", 1) for part in lzma.decompress(compressed).decode().split("\f")]
    splits = (tuple(text for heading, text in chapters if heading[0] == letter) for letter in "tve")
    return Corpus(*splits, f"{ENTRY.source}; licence: {ENTRY.licence}")
