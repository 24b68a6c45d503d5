"""Texts from files: any text for a language model, pairs of sentences for a translator, those of Tatoeba."""

import codecs
import hashlib
import re
import unicodedata
import warnings
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kseq.data.dataset import Arrays, Entry
from kseq.data.download import download
from kseq.errors import InputError

TATOEBA = Entry(
    name="tatoeba",
    task="English → French, …",
    size="changes; French has more than 100,000 pairs",
    source="Tatoeba, chosen by manythings.org, downloaded",
    licence="CC BY 2.0 FR",
)
SITE = "https://www.manythings.org/anki"
SHOWN = 5  # how many of the rejected lines a message names


@dataclass(frozen=True)
class Corpus:
    """Running text for a language model, split once and for all.

    Attributes:
        train: passages; each is continuous, one does not go on where the one before it ends.
        validation: the same, for choosing a model.
        test: the same, for the final figures.
        source: where the text comes from, and its licence.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class ParallelCorpus:
    """Sentences and their translations, split once and for all.

    Attributes:
        train: `(sources, targets)`, object arrays of strings of shape `(pairs,)`.
        validation: the same, for choosing a model.
        test: the same, for the final figures.
        languages: the names of the source and the target language.
        source: where the pairs come from, and their licence.
    """

    train: Arrays
    validation: Arrays
    test: Arrays
    languages: tuple[str, str]
    source: str


@dataclass(frozen=True)
class Pairs:
    """What `read_pairs` found.

    Attributes:
        sources: the sentences, `(pairs,)`.
        targets: their translations, `(pairs,)`.
        rejected: number (from 1) of each line that was left out, and why.
    """

    sources: np.ndarray
    targets: np.ndarray
    rejected: tuple[tuple[int, str], ...] = ()

    def split(self, languages: tuple[str, str] = ("source", "target"), source: str = "a file") -> ParallelCorpus:
        """Divide the pairs by their source sentences, 80/10/10, so that none is in two splits.

        Sentences that differ only in case, spaces and punctuation count as one ("Run." and "Run!"). Which split one is
        in depends on its SHA-256, not on the order of the file; in a file that grows nearly all stay where they were.
        The same translation can be in two splits. The pairs of each split keep their order.

        Args:
            languages: the names of the source and the target language.
            source: where the pairs come from, and their licence.

        Raises:
            InputError: if there are fewer than three different source sentences.
        """
        keys = np.array([hashlib.sha256(_bare(text).encode()).hexdigest() for text in self.sources])
        distinct = np.unique(keys)
        if len(distinct) < 3:
            raise InputError(f"pairs: {len(distinct)} different source sentences; three splits need at least 3")
        held_out = max(1, round(len(distinct) / 10))
        places = np.searchsorted(distinct, keys)
        parts = (places >= 2 * held_out, (places >= held_out) & (places < 2 * held_out), places < held_out)
        return ParallelCorpus(*((self.sources[part], self.targets[part]) for part in parts), languages, source)


def read_text(path: str | Path, *, errors: str = "strict") -> Corpus:
    """Read a text file in UTF-8 for a language model: its first 80 % to train, 10 % to validate, the last 10 % to test.

    The cuts move on to the next end of a line where there is one within a tenth of the part. Ends of lines become
    one line feed each, a byte order mark goes, and letters with accents are composed (Unicode's NFC).

    Args:
        path: the file.
        errors: "strict" refuses bytes that are no UTF-8; "replace" reads each as "�".

    Returns:
        A `Corpus` of one passage a split.

    Raises:
        InputError: if there is no such file, it is not UTF-8 (names the line) or has fewer than 10 characters.
    """
    if errors not in ("strict", "replace"):
        raise InputError(f'errors {errors!r}: "strict" and "replace" are allowed')
    path = Path(path)
    content = _read_bytes(path)
    try:
        text = content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        line = len((error.object[: error.start] + b".").splitlines())
        byte = f"0x{error.object[error.start]:02x}"
        raise InputError(
            f'{path}: line {line}: no UTF-8 (byte {byte}); save it as UTF-8, or give errors="replace"'
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path}: line {line}: a NUL, which no text has; save it as UTF-8")
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    if len(text) < 10:
        raise InputError(f"{path}: {len(text)} characters; three splits need at least 10")
    validation, test = (_cut(text, round(len(text) * share)) for share in (0.8, 0.9))
    return Corpus((text[:validation],), (text[validation:test],), (text[test:],), str(path))


def read_pairs(path: str | Path) -> Pairs:
    """Read a file of pairs: a sentence, a tab, its translation and, optionally, a tab and more, which is not read.

    The way of the files on https://www.manythings.org/anki. White space of any kind and number becomes one space,
    letters with accents are composed (Unicode's NFC). Lines that hold nothing are passed over; others that cannot be
    used (no tab, an empty side, broken UTF-8) are left out with a warning that names the first.

    Args:
        path: a `.tsv` or `.txt` file in UTF-8, or a `.zip` that holds one (names that begin with "_" do not count).

    Raises:
        InputError: if there is no such file, it is of another kind, its `.zip` is damaged or holds no or several such
            files, or not one line can be used.
    """
    path = Path(path)
    if path.suffix.lower() not in (".tsv", ".txt", ".zip"):
        raise InputError(f"{path}: a file of pairs is a .tsv, a .txt or a .zip that holds one")
    content = _read_member(path) if path.suffix.lower() == ".zip" else _read_bytes(path)
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    pairs, rejected = [], []
    for number, line in enumerate(lines, 1):
        try:
            columns = [" ".join(column.split()) for column in unicodedata.normalize("NFC", line.decode()).split("\t")]
        except UnicodeDecodeError:
            rejected.append((number, "broken UTF-8"))
            continue
        if not any(columns):
            continue
        if "\0" in "".join(columns):
            rejected.append((number, "a NUL, which no text has"))
            continue
        if len(columns) < 2:
            rejected.append((number, "no tab"))
        elif not (columns[0] and columns[1]):
            rejected.append((number, "an empty side"))
        else:
            pairs.append(columns[:2])
    if not pairs:
        reasons = f": {_name(rejected)}" if rejected else ""
        raise InputError(
            f"{path}: no pair in {len(lines):,} lines{reasons}; a line is a sentence, a tab, a translation"
        )
    if rejected:
        found = f"{len(rejected):,} of {len(lines):,} lines left out"
        warnings.warn(f"{path}: {found}: {_name(rejected)}", stacklevel=2)
    sources, targets = (np.array(column, dtype=object) for column in zip(*pairs, strict=True))
    return Pairs(sources, targets, tuple(rejected))


def tatoeba(name: str = "fra-eng", *, folder: str | Path | None = None) -> ParallelCorpus:
    """English sentences of Tatoeba and their translations, as chosen by https://www.manythings.org/anki.

    The file is downloaded when it is read for the first time. The site renews its files, so there is no known SHA-256
    to hold it against and figures on different copies differ; `source` tells the SHA-256 of the one that was read.
    The split is that of `Pairs.split`: no English sentence is in two.

    Args:
        name: the site's name of the file, "fra-eng" for French, "deu-eng" for German.
        folder: where to keep it; `$KSEQ_HOME`, else `~/.cache/kseq`.

    Raises:
        InputError: for a name that cannot be one of the site's.
        KseqError: if the download fails; a file from elsewhere is read with `read_pairs(path).split()`.
    """
    if not re.fullmatch(r"[a-z]{3}-eng", name):
        raise InputError(f'name {name!r}: three letters for the language, then "-eng", such as "fra-eng"')
    path = download(f"{SITE}/{name}.zip", sha256=None, folder=folder)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = f"{TATOEBA.source} ({name}.zip, SHA-256 {digest}); licence: {TATOEBA.licence}"
    return read_pairs(path).split(("eng", name[:3]), source)


def _read_bytes(path: Path) -> bytes:
    try:
        return _check_encoding(path, path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}; give a text file") from None


def _check_encoding(path: Path, content: bytes) -> bytes:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path}: UTF-16; save it as UTF-8")
    return content


def _read_member(path: Path) -> bytes:
    """The one text file in a `.zip`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if Path(name).suffix.lower() in (".tsv", ".txt")]
            names = [name for name in names if not Path(name).name.startswith(("_", "."))]
            if len(names) != 1:
                held = ", ".join(names[:SHOWN]) or "none"
                raise InputError(f"{path}: {len(names)} .tsv or .txt files in it ({held}); it must hold one: unpack it")
            return _check_encoding(path, archive.read(names[0]))
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}; give a .zip file") from None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); remove it and download it again") from None


def _cut(text: str, position: int) -> int:
    """Where the line that holds `position` ends, or `position` if that is too far away."""
    end = text.find("\n", position - 1, position + len(text) // 100)
    return position if end < 0 else end + 1


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def _name(rejected: Sequence[tuple[int, str]]) -> str:
    """The first of the rejected lines of each reason, in one line."""
    numbers = defaultdict(list)
    for number, reason in rejected:
        numbers[reason].append(number)
    return "; ".join(f"{reason} in line {_enumerate(lines)}" for reason, lines in numbers.items())


def _enumerate(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:SHOWN])) + (", …" if len(numbers) > SHOWN else "")
