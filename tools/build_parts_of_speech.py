"""Build `kseq/data/files/parts_of_speech.txt.xz` from the WordNet 3.0 index files.

Source: the Debian package `wordnet-base` 1:3.0-37 (WordNet 3.0, Princeton University; its licence is shipped
beside the data). Only the `index.*` files are read; `--root` is where the package was installed or unpacked:

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb root
    python tools/build_parts_of_speech.py --root root

Kept are the lemmas of 3-15 letters a-z that have exactly one part of speech. The file has a line a word, sorted,
`word class split`, with class n, v, a or r (WordNet's letters for noun, verb, adjective, adverb) and split t, v or
e (training, validation, evaluation): 80/10/10, stratified by class, drawn once here so that it never changes.

Behind them come, with split m (many), the lemmas that have several parts of speech of which one makes up at least two
thirds of the occurrences that WordNet counted in tagged text (`cntlist.rev`); that one is their class.
"""

import argparse
import lzma
import re
from collections import Counter, defaultdict
from pathlib import Path

from sklearn.model_selection import train_test_split

CLASSES = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
OUTPUT = Path(__file__).parents[1] / "kseq" / "data" / "files" / "parts_of_speech.txt.xz"


def read_classes(folder: Path) -> dict[str, set[str]]:
    """Every word with the letters of its parts of speech, in alphabetical order."""
    classes = defaultdict(set)
    for name, letter in CLASSES.items():
        for line in (folder / f"index.{name}").read_text().splitlines():
            lemma = line.split(" ", 1)[0]  # the licence lines at the top begin with a space
            if re.fullmatch("[a-z]{3,15}", lemma):
                classes[lemma].add(letter)
    return dict(sorted(classes.items()))


def read_counts(folder: Path) -> dict[str, Counter]:
    """How often each word was seen as each part of speech."""
    counts = defaultdict(Counter)
    for line in (folder / "cntlist.rev").read_text().splitlines():
        key, _, count = line.split()  # lemma%type:…, type 1 noun, 2 verb, 3 adjective, 4 adverb, 5 adjective satellite
        lemma, rest = key.split("%")
        counts[lemma]["nvara"[int(rest[0]) - 1]] += int(count)
    return counts


def mostly(counts: Counter) -> str:
    """The part of speech with at least two thirds of the occurrences; empty if there is none."""
    letter, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return letter if counts.total() and 3 * count >= 2 * counts.total() else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("/"), help="where wordnet-base was unpacked")
    folder = parser.parse_args().root / "usr/share/wordnet"
    classes, counts = read_classes(folder), read_counts(folder)
    words = {word: min(found) for word, found in classes.items() if len(found) == 1}
    many = {word: mostly(counts[word]) for word, found in classes.items() if len(found) > 1}

    train, rest = train_test_split(list(words), test_size=0.2, stratify=list(words.values()), random_state=0)
    validation, test = train_test_split(rest, test_size=0.5, stratify=[words[w] for w in rest], random_state=0)
    split = dict.fromkeys(train, "t") | dict.fromkeys(validation, "v") | dict.fromkeys(test, "e")

    text = "".join(f"{word} {letter} {split[word]}\n" for word, letter in words.items())
    text += "".join(f"{word} {letter} m\n" for word, letter in many.items() if letter)
    OUTPUT.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(words):,} words of one part of speech: {Counter(words.values())}")
    print(f"{sum(map(bool, many.values())):,} words of several: {Counter(filter(None, many.values()))}")
    print(f"{OUTPUT.stat().st_size:,} bytes in {OUTPUT}")


if __name__ == "__main__":
    main()
