"""The `http_request` task: one HTTP request that is durable, retried and cannot leak its secret."""

from __future__ import annotations

import codecs
import json
import os
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import httpx
from django.conf import settings

from queues.clean import dumps, storable_text
from queues.retry import Fail, LostLease, Retry, TaskTimeout

if TYPE_CHECKING:
    from queues.worker.context import TaskContext

KEYS = ("url", "method", "json", "body", "headers", "secret", "timeout")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OUR_HEADERS = ("connection", "content-length", "host", "transfer-encoding")
RETRIED = (408, 425, 429)
DEFAULT_TIMEOUT_SECONDS = 30.0
LONGEST_TIMEOUT_SECONDS = 300.0
LONGEST_RETRY_AFTER = timedelta(hours=1)
MOST_READ_BYTES = 64 * 1024
MOST_KEPT_BYTES = 4 * 1024
MOST_TOLD_CHARACTERS = 300


@dataclass(frozen=True)
class Request:
    """A payload that was checked. `shown` is the URL without its query, which may hold a key."""

    method: str
    url: httpx.URL
    shown: str
    content: bytes | None
    headers: dict[str, str]
    secret: str | None
    timeout: float

    def clean(self, text: str) -> str:
        """The text without the secret, also as it looks inside a URL or JSON."""
        if self.secret:
            plain = self.secret
            forms = {plain, quote(plain), quote(plain, ""), quote_plus(plain), dumps(plain)[1:-1]}
            for form in sorted(forms, key=len, reverse=True):
                text = text.replace(form, "[secret]")
        return storable_text(text)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: httpx.Headers
    text: str


def send(ctx: TaskContext) -> dict[str, Any]:
    """Send the request that the payload describes and return {"status", "ms", "body"}.

    Each attempt carries the header Idempotency-Key with the task's id, so that the other side can
    tell a repetition. Redirects are not followed. Raises Retry when no whole answer came in time
    and for the statuses 408, 425, 429 and 5xx; Fail for any other status than 2xx and for a payload
    that asks for what is not allowed.
    """
    request = read_request(ctx.payload, str(ctx.id))
    begin = time.monotonic()
    try:
        answer = _exchange(request, ctx.check)
    except (LostLease, TaskTimeout):
        raise
    except Exception as error:
        # Without its cause: the chain of exceptions is kept with the task, and may show the secret.
        told = request.clean(f"{type(error).__name__}: {error}")
        raise Retry(f"{request.method} {request.shown}: {told}") from None
    if 200 <= answer.status < 300:
        milliseconds = round((time.monotonic() - begin) * 1000)
        return {"status": answer.status, "ms": milliseconds, "body": _first_bytes(answer.text)}
    told = f"{request.method} {request.shown} answered {answer.status}"
    if answer.text:
        told += f": {answer.text[:MOST_TOLD_CHARACTERS]}"
    if answer.status in RETRIED or answer.status >= 500:
        raise Retry(told, after=_retry_after(answer.headers))
    if 300 <= answer.status < 400:
        raise Fail(f"{told} (redirects are not followed)")
    raise Fail(told)


def _exchange(request: Request, check: Callable[[], None]) -> Answer:
    """Send it and read at most 64 KiB of the answer, within the request's timeout."""
    deadline = time.monotonic() + request.timeout
    with (
        httpx.Client(verify=_tls(), timeout=request.timeout, follow_redirects=False) as client,
        client.stream(
            request.method, request.url, content=request.content, headers=request.headers
        ) as response,
    ):
        body = bytearray()
        # Raw: a few compressed bytes could unpack to gigabytes.
        for piece in response.iter_raw():
            body += piece
            check()
            if len(body) >= MOST_READ_BYTES:
                break
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout(f"no whole answer within {request.timeout:g} seconds")
        return Answer(
            response.status_code, response.headers, request.clean(_decoded(bytes(body), response))
        )


def _decoded(body: bytes, response: httpx.Response) -> str:
    encoding = response.headers.get("content-encoding", "identity").lower()
    if body and encoding != "identity":
        return f"[{encoding}: not unpacked]"
    charset = response.charset_encoding or "utf-8"
    try:
        codecs.lookup(charset)
    except LookupError:
        # The request was answered: what its text is called must not make it run again.
        charset = "utf-8"
    return body[:MOST_READ_BYTES].decode(charset, "replace")


@cache
def _tls() -> ssl.SSLContext:
    """Made once: loading the certificates takes longer than most requests."""
    return httpx.create_ssl_context()


def _first_bytes(text: str) -> str:
    return text.encode()[:MOST_KEPT_BYTES].decode(errors="ignore")


def _retry_after(headers: httpx.Headers) -> timedelta | None:
    value = headers.get("retry-after", "").strip()
    if not re.fullmatch(r"[0-9]{1,9}", value):
        return None
    return min(timedelta(seconds=int(value)), LONGEST_RETRY_AFTER)


def read_request(payload: Any, key: str) -> Request:
    """Check the payload of an http_request. Raises Fail with a sentence that says what to mend."""
    if not isinstance(payload, dict) or "url" not in payload:
        raise Fail('The payload must be an object with the key "url".')
    if unknown := sorted(set(payload) - set(KEYS)):
        raise Fail(f"Unknown key {unknown[0]!r}; an http_request has {', '.join(KEYS)}.")
    url = _url(payload["url"])
    method = payload.get("method", "POST")
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise Fail(f"The method must be one of {', '.join(METHODS)}.")
    headers = _headers(payload.get("headers") or {})
    headers.setdefault("user-agent", "OpsConsole")
    headers.setdefault("idempotency-key", key)
    headers["accept-encoding"] = "identity"
    secret = None
    if payload.get("secret") is not None:
        secret = _secret(payload["secret"])
        if "authorization" in headers:
            raise Fail("Give a secret or the header Authorization, not both.")
        headers["authorization"] = f"Bearer {secret}"
    return Request(
        method=method.upper(),
        url=url,
        shown=f"{url.scheme}://{url.netloc.decode()}{url.path}",
        content=_content(payload, headers),
        headers=headers,
        secret=secret,
        timeout=_timeout(payload.get("timeout")),
    )


def _url(value: Any) -> httpx.URL:
    try:
        url = httpx.URL(value)
    except (httpx.InvalidURL, TypeError):
        raise Fail("The url is not a URL.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise Fail("The url must begin with http:// or https:// and name a host.")
    if url.userinfo:
        raise Fail('The url must not hold a password; name a "secret" instead.')
    allowed = {entry.strip().lower() for entry in settings.HTTP_REQUEST_ALLOWED_HOSTS}
    host = url.raw_host.decode().lower().rstrip(".")
    port = url.port or (443 if url.scheme == "https" else 80)
    names = {host, url.host.lower(), f"[{host}]"} if ":" in host else {host, url.host.lower()}
    if not allowed & ({"*"} | names | {f"{name}:{port}" for name in names}):
        now = ", ".join(sorted(allowed)) or "none"
        raise Fail(
            f"The host {host}:{port} is not allowed. Add it to HTTP_REQUEST_ALLOWED_HOSTS "
            f"(now: {now}) and start the workers again."
        )
    return url


def _headers(value: Any) -> dict[str, str]:
    """The caller's headers under lower-case names."""
    if not isinstance(value, dict):
        raise Fail("The headers must be an object of texts.")
    headers: dict[str, str] = {}
    for name, text in value.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or name.lower() in OUR_HEADERS:
            raise Fail(f"The header {name!r} cannot be set.")
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            raise Fail(f"The header {name!r} must be a text of printable ASCII characters.")
        headers[name.lower()] = text
    return headers


def _secret(name: Any) -> str:
    """The secret of that name. No message ever shows more of it than its name."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Z0-9_]+", name.upper()):
        raise Fail("The secret is given by its name: letters A to Z, digits and underscores.")
    variable = f"OPSCONSOLE_SECRET_{name.upper()}"
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise Fail(f"There is no secret {name!r}: set {variable} where the workers run.")
    if not secret.isascii() or not secret.isprintable():
        raise Fail(f"{variable} holds characters that a header cannot carry.")
    return secret


def _content(payload: dict[str, Any], headers: dict[str, str]) -> bytes | None:
    if "json" in payload and "body" in payload:
        raise Fail('Give "json" or "body", not both.')
    if "json" in payload:
        headers.setdefault("content-type", "application/json")
        return json.dumps(payload["json"], ensure_ascii=False, separators=(",", ":")).encode()
    body = payload.get("body")
    if body is None:
        return None
    if not isinstance(body, str):
        raise Fail('The body must be a text; use "json" for anything else.')
    headers.setdefault("content-type", "text/plain; charset=utf-8")
    return body.encode()


def _timeout(value: Any) -> float:
    if value is None:
        return DEFAULT_TIMEOUT_SECONDS
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not 0 < value <= LONGEST_TIMEOUT_SECONDS
    ):
        raise Fail(f"The timeout is a number of seconds up to {LONGEST_TIMEOUT_SECONDS:g}.")
    return float(value)
