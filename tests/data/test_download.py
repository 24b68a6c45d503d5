import hashlib
import importlib
import json
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kseq import data
from kseq.errors import InputError, KseqError

download = importlib.import_module("kseq.data.download")  # the module; the package has the function under this name

FILE = bytes(range(256)) * 1_000 + b"the end"
OTHER = bytes(reversed(FILE))
PIECE = 12 * download.CHUNK  # bytes


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers each request by the next of `script` (the last one for all that follow), and notes what was asked.

    An answer is a dict: content, status, tag (ETag), stop (bytes after which it breaks off), stall (seconds it waits
    there), ranges (whether it knows Range), size (whether it tells the size), modified (Last-Modified).
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests = [{}], []
        self.url = f"http://127.0.0.1:{self.server_port}/files/a%20file.bin?version=1"

    def handle_error(self, request, client_address):
        pass  # clients that leave are what we test


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        answer = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        content, status, tag = answer.get("content", FILE), answer.get("status", 200), answer.get("tag", '"one"')
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin, wanted = 0, self.headers.get("Range")
        match = self.headers.get("If-Range") in (tag, answer.get("modified"))
        if wanted and answer.get("ranges", True) and (match or answer.get("careless")):
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if tag:
            self.send_header("ETag", tag)
        if "modified" in answer:
            self.send_header("Last-Modified", answer["modified"])
        if answer.get("size", True):
            self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        end = min(answer.get("stop", len(content)), len(content))
        self.wfile.write(content[begin:end])
        self.wfile.flush()
        time.sleep(answer.get("stall", 0))

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(download, "TIMEOUT", (2, 0.2))
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ranges(server) -> list[str | None]:
    return [request.get("Range") for request in server.requests]


def test_a_file_is_fetched_once(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KSEQ_HOME", str(tmp_path / "home"))
    path = data.download(server.url, sha256=sha256(FILE).upper())
    assert path == tmp_path / "home" / "a file.bin"
    assert path.read_bytes() == FILE
    assert data.download(server.url, sha256=sha256(FILE)) == path
    assert len(server.requests) == 1
    assert {file.name for file in path.parent.iterdir()} == {"a file.bin", "a file.bin.lock"}


def test_the_folder_in_the_home_of_the_user(server, tmp_path, monkeypatch):
    monkeypatch.delenv("KSEQ_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = data.download(server.url, sha256=sha256(FILE), name="mine")
    assert path == tmp_path / ".cache" / "kseq" / "mine"
    assert data.download(server.url, sha256=None, name="b", folder="~/there") == tmp_path / "there" / "b"


def test_a_server_that_breaks_off_is_asked_for_the_rest(server, tmp_path):
    server.script = [{"stop": PIECE}, {"stop": 2 * PIECE}, {}]
    path = data.download(server.url, sha256=sha256(FILE), folder=tmp_path)
    assert path.read_bytes() == FILE
    assert ranges(server) == [None, f"bytes={PIECE}-", f"bytes={2 * PIECE}-"]
    assert server.requests[1]["If-Range"] == '"one"'


def test_one_that_gives_little_at_a_time_gets_there(server, tmp_path):
    pieces = range(2 * download.CHUNK, len(FILE), 2 * download.CHUNK)
    server.script = [*({"stop": stop} for stop in pieces), {}]
    assert data.download(server.url, sha256=sha256(FILE), folder=tmp_path).read_bytes() == FILE
    assert len(server.requests) == len(pieces) + 1 > download.ATTEMPTS


def test_a_server_that_stalls_is_left(server, tmp_path):
    server.script = [{"stop": PIECE, "stall": 1.0}, {}]
    begin = time.monotonic()
    assert data.download(server.url, sha256=sha256(FILE), folder=tmp_path).read_bytes() == FILE
    assert time.monotonic() - begin < 0.9
    assert ranges(server) == [None, f"bytes={PIECE}-"]


def test_a_download_goes_on_in_the_next_call(server, tmp_path):
    server.script = [{"stop": PIECE}, {"status": 503}]
    with pytest.raises(KseqError, match=f"the server answers 503 .*{PIECE:,} bytes are kept: try again later"):
        data.download(server.url, sha256=sha256(FILE), folder=tmp_path)
    assert not (tmp_path / "a file.bin").exists()
    server.script, server.requests[:] = [{}], []
    assert data.download(server.url, sha256=sha256(FILE), folder=tmp_path).read_bytes() == FILE
    assert ranges(server) == [f"bytes={PIECE}-"]


def test_a_whole_file_that_lacks_only_its_name_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "a file.bin.part").write_bytes(FILE)
    note = {"url": server.url, "validator": '"one"', "size": len(FILE)}
    (tmp_path / "a file.bin.part.json").write_text(json.dumps(note))
    assert data.download(server.url, sha256=sha256(FILE), folder=tmp_path).read_bytes() == FILE
    assert server.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        {"ranges": False},
        {"tag": '"two"', "content": OTHER},
        {"tag": '"two"', "content": OTHER, "careless": True},  # ignores If-Range, but tells the new ETag
        {"content": FILE + b"more", "careless": True},  # the size alone has changed
        {"content": FILE[:50_000], "careless": True},  # nothing behind what we have: 416
        {"content": OTHER, "careless": True},  # no way to tell but by SHA-256
    ],
)
def test_a_file_that_cannot_go_on_starts_again(server, tmp_path, answer):
    server.script = [{"stop": PIECE}, answer]
    content = answer.get("content", FILE)
    path = data.download(server.url, sha256=sha256(content), folder=tmp_path)
    assert path.read_bytes() == content
    assert ranges(server)[0] is None
    assert ranges(server)[1] == f"bytes={PIECE}-"
    assert ranges(server)[2:] in ([], [None])


def test_last_modified_will_do_and_weak_tags_will_not(server, tmp_path):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.script = [{"stop": PIECE, "tag": 'W/"one"', "modified": date}] * 2 + [{"tag": 'W/"one"', "modified": date}]
    assert data.download(server.url, sha256=sha256(FILE), folder=tmp_path).read_bytes() == FILE
    assert server.requests[1]["If-Range"] == date
    server.script, server.requests[:] = [{"stop": PIECE, "tag": 'W/"one"'}, {"tag": 'W/"one"'}], []
    assert data.download(server.url, sha256=sha256(FILE), folder=tmp_path, name="weak").read_bytes() == FILE
    assert ranges(server) == [None, None]


def test_a_piece_of_another_address_is_not_used(server, tmp_path):
    server.script = [{"stop": PIECE, "content": OTHER}, {"status": 404}]
    with pytest.raises(KseqError, match="404"):
        data.download(server.url, sha256=None, folder=tmp_path)
    server.script, server.requests[:] = [{}], []
    address = server.url.replace("version=1", "version=2")
    assert data.download(address, sha256=None, folder=tmp_path).read_bytes() == FILE
    assert ranges(server) == [None]


def test_errors_of_the_server_pass(server, tmp_path):
    server.script = [{"status": 500}, {"status": 503}, {"status": 429}, {}]
    assert data.download(server.url, sha256=sha256(FILE), folder=tmp_path).read_bytes() == FILE


def test_what_is_not_there_is_not_asked_for_again(server, tmp_path):
    server.script = [{"status": 404}]
    with pytest.raises(KseqError, match="the server answers 404 Not Found; check the address"):
        data.download(server.url, sha256=None, folder=tmp_path)
    assert len(server.requests) == 1


def test_a_server_that_always_fails_is_given_up(server, tmp_path):
    server.script = [{"stop": 0}]
    with pytest.raises(KseqError, match="cannot be downloaded") as caught:
        data.download(server.url, sha256=sha256(FILE), folder=tmp_path)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == download.ATTEMPTS
    server.script, server.requests[:] = [{"stop": PIECE, "ranges": False}], []  # the same piece again and again
    with pytest.raises(KseqError, match=f"{PIECE:,} bytes are kept"):
        data.download(server.url, sha256=sha256(FILE), folder=tmp_path)
    assert len(server.requests) <= download.ATTEMPTS + 1


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    with pytest.raises(KseqError, match="cannot be downloaded .*0 bytes are kept"):
        data.download("http://127.0.0.1:1/file", sha256=None, folder=tmp_path)


def test_a_damaged_file_does_not_get_its_name(server, tmp_path):
    server.script = [{"content": FILE[:-1] + b"?"}]
    with pytest.raises(KseqError, match=f"its SHA-256 is [0-9a-f]{{64}}, not {sha256(FILE)}; removed"):
        data.download(server.url, sha256=sha256(FILE), folder=tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"a file.bin.lock"}


def test_a_truncated_file_of_unknown_size_is_found_by_its_sha256(server, tmp_path):
    server.script = [{"size": False, "stop": PIECE}]
    with pytest.raises(KseqError, match="removed"):
        data.download(server.url, sha256=sha256(FILE), folder=tmp_path)
    server.script = [{"size": False}]
    assert data.download(server.url, sha256=sha256(FILE), folder=tmp_path).read_bytes() == FILE


def test_a_kept_file_that_is_damaged_is_replaced(server, tmp_path):
    path = data.download(server.url, sha256=sha256(FILE), folder=tmp_path)
    path.write_bytes(FILE[:-10])
    with pytest.warns(UserWarning, match="removed, its SHA-256 is .* downloading it again") as caught:
        assert data.download(server.url, sha256=sha256(FILE), folder=tmp_path).read_bytes() == FILE
    assert caught[0].filename == __file__


def test_without_a_sha256_that_of_the_first_download_is_kept(server, tmp_path):
    path = data.download(server.url, sha256=None, folder=tmp_path)
    assert (tmp_path / "a file.bin.sha256").read_text() == f"{sha256(FILE)}  a file.bin\n"
    server.script = [{"content": OTHER, "tag": '"two"'}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.download(server.url, sha256=None, folder=tmp_path).read_bytes() == FILE  # the kept one
    path.write_bytes(FILE[:-10])
    with pytest.warns(UserWarning, match="removed"):
        assert data.download(server.url, sha256=None, folder=tmp_path).read_bytes() == OTHER
    assert (tmp_path / "a file.bin.sha256").read_text().startswith(sha256(OTHER))


def test_a_file_that_the_user_put_there_is_taken(server, tmp_path):
    (tmp_path / "a file.bin").write_bytes(OTHER)
    assert data.download(server.url, sha256=None, folder=tmp_path).read_bytes() == OTHER
    assert server.requests == []


def test_two_at_once_fetch_it_once(server, tmp_path):
    server.script = [{"stall": 0.1}]
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(data.download(server.url, sha256=sha256(FILE), folder=tmp_path)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == FILE for path in found] == [True] * 3
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "file:///etc/passwd"}, "http:// and https:// are allowed"),
        ({"url": "fra-eng.zip"}, "http:// and https:// are allowed"),
        ({"sha256": "abc"}, "64 hexadecimal digits, or None"),
        ({"url": "http://127.0.0.1/"}, "name '': not the name of a file"),
        ({"url": "http://127.0.0.1/a/%2e%2e"}, "not the name of a file"),
        ({"name": "../file"}, "not the name of a file"),
        ({"url": "http://127.0.0.1/..%2Fevil"}, "not the name of a file"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        data.download(**{"url": "http://127.0.0.1/file", "sha256": None, "folder": tmp_path} | arguments)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KseqError, match="cannot be written"):
        data.download(server.url, sha256=None, folder=tmp_path / "file")
