"""http_request against a real server on loopback, well-behaved and not."""

import json
import threading
import time
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from queues.enqueue import enqueue
from queues.http_request import send
from queues.models import Task
from queues.retry import Fail, LostLease, Retry
from tests.conftest import eventually

SECRET = 'tOp/"sécret'.replace("é", "e") + "+1"


class Server(ThreadingHTTPServer):
    """What it was asked, how many bytes it poured out, and the word to stop pouring."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.seen: list[tuple[str, str, Message, bytes]] = []
        self.poured = 0
        self.ended = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def answer(self):
        length = int(self.headers.get("content-length", 0))
        self.server.seen.append((self.command, self.path, self.headers, self.rfile.read(length)))
        self.words = self.path.split("?")[0].split("/")[1:]
        getattr(self, f"on_{self.words[0]}")()

    do_GET = do_POST = do_PUT = do_HEAD = answer

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def on_ok(self):
        self.reply(200, b"fine \x00 \xff \xc3\xbc")

    def on_echo(self):
        self.reply(int(self.words[1]), repr(self.headers.items()).encode())

    def on_status(self):
        status, *after = self.words[1:]
        self.reply(int(status), b"x" * 1000, **({"Retry_After": after[0]} if after else {}))

    def on_redirect(self):
        self.reply(302, b"moved", Location="/ok")

    def on_drop(self):
        self.close_connection = True
        self.connection.shutdown(2)

    def on_half(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half")
        self.close_connection = True

    def on_endless(self):
        self.pour(b"z" * 8192, 0)

    def on_drip(self):
        self.pour(b"z", 0.05)

    def pour(self, piece, pause):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        try:
            while not self.server.ended.wait(pause):
                self.wfile.write(piece)
                self.server.poured += len(piece)
        except OSError:
            pass

    def on_slow(self):
        self.server.ended.wait(5)
        with suppress(OSError):  # Nobody may listen any more.
            self.reply(200)

    def on_zipped(self):
        self.reply(200, b"\x1f\x8b...", Content_Encoding="gzip")

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server
        server.ended.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("OPSCONSOLE_SECRET_SYNC_KEY", SECRET)


def context(check=lambda: None, **payload) -> Any:
    return SimpleNamespace(id=uuid4(), payload=payload, check=check)


def run(url, **more):
    return send(context(url=url, **more))


def test_json_is_posted_with_a_key_and_a_name(server):
    task = context(url=f"{server.url}/ok", json={"ü": 1})
    result = send(task)
    assert (result["status"], result["body"]) == (200, "fine \ufffd \ufffd ü")
    assert isinstance(result["ms"], int)
    [(method, _, headers, body)] = server.seen
    assert (method, json.loads(body), headers["content-type"]) == (
        "POST",
        {"ü": 1},
        "application/json",
    )
    assert (headers["idempotency-key"], headers["user-agent"]) == (str(task.id), "OpsConsole")
    assert "authorization" not in headers


def test_method_body_and_headers(server):
    run(
        f"{server.url}/ok", method="put", body="ü", headers={"X-One": "1", "Content-Type": "text/x"}
    )
    run(f"{server.url}/ok", method="GET")
    assert run(f"{server.url}/ok", method="HEAD")["body"] == ""
    (method, _, headers, body), get, _ = server.seen
    assert (method, headers["x-one"], headers["content-type"], body.decode()) == (
        "PUT",
        "1",
        "text/x",
        "ü",
    )
    assert (get[0], get[3]) == ("GET", b"")


def test_the_secret_is_sent_and_shown_nowhere(server, secret):
    result = run(f"{server.url}/echo/200", secret="sync_key")
    assert server.seen[0][2]["authorization"] == f"Bearer {SECRET}"
    assert "Bearer [secret]" in result["body"]
    with pytest.raises(Fail) as failure:
        run(f"{server.url}/echo/403?key={SECRET}", secret="SYNC_KEY")
    assert "[secret]" in str(failure.value)
    for text in (str(result), str(failure.value)):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("path", "after"),
    [
        ("status/408", None),
        ("status/425", None),
        ("status/500", None),
        ("status/503/120", 120),
        ("status/429/7", 7),
        ("status/429/86400", 3600),
        ("status/429/soon", None),
        ("status/429/-5", None),
    ],
)
def test_what_may_pass_is_retried(server, path, after):
    with pytest.raises(Retry) as retry:
        run(f"{server.url}/{path}")
    assert (retry.value.after and retry.value.after.total_seconds()) == after
    assert f"answered {path.split('/')[1]}: xxx" in str(retry.value)


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
def test_what_cannot_pass_fails_with_the_start_of_the_answer(server, status):
    with pytest.raises(Fail) as failure:
        run(f"{server.url}/status/{status}?token=abc")
    assert str(failure.value) == f"POST {server.url}/status/{status} answered {status}: {'x' * 300}"


def test_redirects_are_not_followed(server):
    with pytest.raises(Fail, match=r"answered 302: moved \(redirects are not followed\)"):
        run(f"{server.url}/redirect")
    assert len(server.seen) == 1


@pytest.mark.parametrize("path", ["drop", "half", "slow"])
def test_a_broken_connection_is_retried(server, secret, path):
    with pytest.raises(Retry) as retry:
        run(f"{server.url}/{path}?q={SECRET}", secret="SYNC_KEY", timeout=0.3)
    assert str(retry.value).startswith(f"POST {server.url}/{path}: ")
    assert retry.value.__suppress_context__
    assert SECRET not in str(retry.value)


def test_nobody_listens():
    with pytest.raises(Retry, match=r"POST http://127.0.0.1:1/x: ConnectError: "):
        run("http://127.0.0.1:1/x")


def test_an_endless_answer_is_cut(server):
    result = run(f"{server.url}/endless")
    assert result["body"] == "z" * 4096
    eventually(lambda: server.ended.is_set() or server.poured)
    assert server.poured < 20_000_000


def test_a_dripping_answer_ends_with_the_timeout(server):
    begin = time.monotonic()
    with pytest.raises(Retry, match=r"no whole answer within 0.4 seconds"):
        run(f"{server.url}/drip", timeout=0.4)
    assert time.monotonic() - begin < 5


def test_a_cancelled_task_stops_reading(server):
    def check():
        raise LostLease("gone")

    with pytest.raises(LostLease):
        run(f"{server.url}/drip", check=check)


def test_what_is_packed_stays_packed(server):
    assert run(f"{server.url}/zipped")["body"] == "[gzip: not unpacked]"
    assert server.seen[0][2]["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("allowed", "url", "legal"),
    [
        ([], "http://127.0.0.1:1/", False),
        (["127.0.0.1"], "http://127.0.0.1:1/", True),
        (["127.0.0.1:1"], "http://127.0.0.1:1/", True),
        (["127.0.0.1:2"], "http://127.0.0.1:1/", False),
        (["localhost"], "http://127.0.0.1:1/", False),
        (["localhost:1"], "http://LOCALHOST:1/", True),
        (["*"], "http://127.0.0.1:1/", True),
        (["[::1]:1"], "http://[::1]:1/", True),
        (["127.0.0.1"], "http://127.0.0.1.evil.example:1/", False),
        (["127.0.0.1"], "http://evil.example#@127.0.0.1:1/", False),
        (["127.0.0.1"], "http://evil.example\\@127.0.0.1:1/", False),
    ],
)
def test_only_allowed_hosts_are_reached(settings, allowed, url, legal):
    settings.HTTP_REQUEST_ALLOWED_HOSTS = allowed
    with pytest.raises(Retry if legal else Fail) as outcome:
        run(url)
    assert (
        legal
        or "HTTP_REQUEST_ALLOWED_HOSTS" in str(outcome.value)
        or "password" in str(outcome.value)
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"url": None}, "The url is not a URL."),
        ({"url": "http://127.0.0.1:x/"}, "The url is not a URL."),
        ({"url": "file:///etc/passwd"}, "must begin with http:// or https://"),
        ({"url": "/ok"}, "must begin with http:// or https://"),
        ({"url": "http://me:pw@127.0.0.1/"}, "must not hold a password"),
        ({"method": "TRACE"}, "The method must be one of GET, "),
        ({"method": 1}, "The method must be one of GET, "),
        ({"data": 1}, "Unknown key 'data'; an http_request has url, method, "),
        ({"json": 1, "body": "1"}, 'Give "json" or "body", not both.'),
        ({"body": {}}, "The body must be a text"),
        ({"headers": []}, None),
        ({"headers": [1]}, "The headers must be an object of texts."),
        ({"headers": {"Host": "x"}}, "The header 'Host' cannot be set."),
        ({"headers": {"a b": "x"}}, "The header 'a b' cannot be set."),
        ({"headers": {"A": "x\r\nB: y"}}, "The header 'A' must be a text of printable ASCII"),
        ({"headers": {"A": "ü"}}, "The header 'A' must be a text of printable ASCII"),
        ({"secret": "a-b"}, "The secret is given by its name"),
        (
            {"secret": "NONE"},
            "There is no secret 'NONE': set OPSCONSOLE_SECRET_NONE where the workers run.",
        ),
        ({"secret": "SYNC_KEY", "headers": {"authorization": "x"}}, "not both"),
        ({"timeout": 0}, "The timeout is a number of seconds up to 300."),
        ({"timeout": 301}, "The timeout is a number of seconds up to 300."),
        ({"timeout": True}, "The timeout is a number of seconds up to 300."),
    ],
)
def test_a_bad_payload_fails_with_what_to_mend(server, secret, change, sentence):
    payload = {"url": f"{server.url}/ok"} | change
    if sentence is None:
        assert run(**payload)["status"] == 200
        return
    with pytest.raises(Fail) as failure:
        run(**payload)
    assert sentence in str(failure.value)
    assert server.seen == []


def test_a_secret_that_no_header_can_carry_is_not_shown(server, monkeypatch):
    monkeypatch.setenv("OPSCONSOLE_SECRET_X", "line1\nline2")
    with pytest.raises(Fail, match="OPSCONSOLE_SECRET_X holds characters") as failure:
        run(f"{server.url}/ok", secret="x")
    assert "line" not in str(failure.value)


@pytest.mark.django_db(transaction=True)
def test_a_worker_sends_it_and_keeps_the_secret(run_worker, server, sql):
    good = enqueue("http_request", {"url": f"{server.url}/echo/200", "secret": "SYNC_KEY"})
    bad = enqueue(
        "http_request", {"url": f"{server.url}/echo/500", "secret": "SYNC_KEY"}, max_attempts=1
    )
    worker = run_worker(OPSCONSOLE_SECRET_SYNC_KEY=SECRET, NO_PROXY="*", LOG_LEVEL="DEBUG")
    eventually(lambda: not Task.objects.filter(status__in=Task.LIVE).exists())
    assert Task.objects.get(pk=good.id).status == "completed"
    assert Task.objects.get(pk=bad.id).status == "failed"
    assert len(server.seen) == 2
    assert worker.stop() == 0
    [[rows]] = sql("SELECT string_agg(t::text, '') FROM tasks t")
    assert "[secret]" in rows
    for form in (SECRET, json.dumps(SECRET)[1:-1]):
        assert form not in rows
        assert form not in worker.lines
