"""Files from the internet: fetched once, resumed after a break, checked by SHA-256, kept in a folder."""

import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from kseq import atomic
from kseq.errors import InputError, KseqError

ATTEMPTS = 4  # without any progress, before we give up
PAUSE = 1.0  # seconds before the second attempt, twice as long before each later one
TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of the file
CHUNK = 1 << 13  # bytes; fewer than these are lost when a server breaks off
TEMPORARY = (408, 425, 429)  # answers that another try may change, beside those from 500 on
AGENT = "Mozilla/5.0 (compatible; kseq)"  # some sites refuse libraries that give their own name


class Version(NamedTuple):
    """What a server says of the file that it sends."""

    validator: str | None  # strong ETag, or Last-Modified
    size: int | None  # of the whole file, in bytes


def download(url: str, *, sha256: str | None, name: str | None = None, folder: str | Path | None = None) -> Path:
    """Fetch a file, or find it where it was kept.

    What arrives is written to `<name>.part`. After a break, in this call or the next, the file goes on where it
    stopped, if the server can do this and its file is still the same one (by ETag or Last-Modified, and size); else it
    starts again. A server that breaks off, stalls or fails is tried again, 4 times without progress. Only a complete
    file whose SHA-256 is right gets its name. A second process that wants the same file waits for the first.

    For files that their owner changes there is no SHA-256 to know. Then the one of the first download is written to
    `<name>.sha256` (as `sha256sum` does) and the kept file is held against it.

    Args:
        url: where the file is, http or https.
        sha256: 64 hexadecimal digits, or `None` if it is not known.
        name: what to call the file; the last part of the URL.
        folder: where to keep it; `$KSEQ_HOME`, else `~/.cache/kseq`.

    Returns:
        The path of the file.

    Raises:
        InputError: for a URL, SHA-256 or name that cannot be one.
        KseqError: if the server does not give the file, or another one; what was wrong is removed.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"url {url!r}: http:// and https:// are allowed")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise InputError(f"sha256 {sha256!r}: 64 hexadecimal digits, or None, are allowed")
    name = unquote(urlsplit(url).path.rpartition("/")[2]) if name is None else name
    if name in ("", "..") or name != Path(name).name:
        raise InputError(f"name {name!r}: not the name of a file; give one by name=")
    folder = Path(folder or os.environ.get("KSEQ_HOME") or Path.home() / ".cache" / "kseq").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f"{name}.lock"):
            return _find(folder / name, sha256) or _fetch(url, folder / name, sha256)
    except OSError as error:
        raise KseqError(f"{folder / name}: cannot be written ({error.strerror or error})") from error


def _find(path: Path, sha256: str | None) -> Path | None:
    """The kept file, if it is whole; a damaged one is removed."""
    if not path.is_file():
        return None
    record = path.with_name(f"{path.name}.sha256")
    if sha256 is None and not record.is_file():
        return path  # somebody put it there
    expected = sha256 or record.read_text(encoding="utf-8")[:64]
    found = _digest(path)
    if found == expected.lower():
        return path
    path.unlink()
    warnings.warn(f"{path}: removed, its SHA-256 is {found}, not {expected}; downloading it again", stacklevel=3)
    return None


def _fetch(url: str, path: Path, sha256: str | None) -> Path:
    part = path.with_name(f"{path.name}.part")
    resumed = _complete(url, part)
    found = _digest(part)
    if resumed and sha256 and found != sha256.lower():  # the beginning may be of another file: once more from scratch
        part.unlink()
        _complete(url, part)
        found = _digest(part)
    _note(part).unlink(missing_ok=True)
    if sha256 and found != sha256.lower():
        part.unlink()
        raise KseqError(f"{url}: the file is damaged or another one: its SHA-256 is {found}, not {sha256}; removed")
    if sha256 is None:
        atomic.write_text(path.with_name(f"{path.name}.sha256"), f"{found}  {path.name}\n")
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    return path


def _complete(url: str, part: Path) -> bool:
    """Download until `part` is whole; returns whether bytes of an earlier request are in it."""
    import requests

    failures = most = 0
    while True:
        try:
            return _request(url, part)
        except (requests.RequestException, _InterruptedError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        size = part.stat().st_size if part.exists() else 0
        failures = 0 if size > most else failures + 1  # a server that gives a piece at a time gets there
        most = max(most, size)
        if failures == ATTEMPTS:
            raise KseqError(f"{url}: cannot be downloaded ({reason}); {size:,} bytes are kept: try again later")
        time.sleep(PAUSE * 2 ** max(failures - 1, 0))


class _InterruptedError(Exception):
    """The file did not come, or not all of it; another attempt may help."""


def _request(url: str, part: Path) -> bool:
    """One request for the rest of the file; returns whether what was there already was used."""
    import requests

    version, size = _read_note(part, url), part.stat().st_size if part.exists() else 0
    if size and size == version.size:  # we were stopped between the last byte and the new name
        return True
    headers = {"Accept-Encoding": "identity", "User-Agent": AGENT}
    resume = bool(size and version.validator)
    if resume:
        headers |= {"Range": f"bytes={size}-", "If-Range": version.validator}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code >= 500 or answer.status_code in TEMPORARY:
            raise _InterruptedError(f"the server answers {answer.status_code} {answer.reason}")
        if answer.status_code == 416:  # there is no rest: the file has become shorter, or all of it is here
            part.unlink(missing_ok=True)
            raise _InterruptedError("the server's file has changed")
        if answer.status_code not in (200, 206):
            raise KseqError(f"{url}: the server answers {answer.status_code} {answer.reason}; check the address")
        sent = _version(answer.headers, answer.status_code)
        if answer.status_code == 206:
            begin = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            if not resume or begin is None or int(begin[1]) != size or sent != version:
                part.unlink(missing_ok=True)
                raise _InterruptedError("the server's file has changed")
        else:
            resume = False
            part.unlink(missing_ok=True)  # before the note: a piece must never be under the note of another version
            atomic.write_text(_note(part), json.dumps({"url": url, **sent._asdict()}))
        with open(part, "ab" if resume else "wb") as file:
            for piece in answer.iter_content(CHUNK):
                file.write(piece)
    got = part.stat().st_size
    if sent.size is not None and got != sent.size:
        if got > sent.size:
            part.unlink()
        raise _InterruptedError(f"{got:,} of {sent.size:,} bytes came")
    return resume


def _version(headers, status: int) -> Version:
    tag = headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
    if headers.get("Content-Encoding", "identity") != "identity":
        return Version(None, None)  # what arrives is unpacked on the way: neither its size nor its rest is known
    size = headers.get("Content-Range", "").rpartition("/")[2] if status == 206 else headers.get("Content-Length", "")
    return Version(validator, int(size) if size.isdecimal() else None)


def _note(part: Path) -> Path:
    """The file that remembers the version of which `part` is a piece."""
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path, url: str) -> Version:
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        return Version(note["validator"], note["size"]) if note["url"] == url else Version(None, None)
    except (OSError, ValueError, KeyError, TypeError):
        return Version(None, None)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process is in this block with the same `path`."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
