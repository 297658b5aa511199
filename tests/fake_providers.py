"""The parts of Razorpay's and Stripe's REST APIs that reconciliation asks, served on this machine.

Their answers, errors, paging and authentication are those of the vendors' documentation; the vendors'
own clients are what talks to it.
"""

from __future__ import annotations

import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from django.utils import timezone

BASIC = "Basic " + b64encode(b"rzp_test_key:key-secret").decode()
BEARER = "Bearer sk_test_key"
MOST = 100
# What each of our words is over there.
# What a failing provider says of itself.
TROUBLE = "We are facing some trouble."
RAZORPAY_STATUS = {"paid": "captured", "partially_refunded": "captured"}
STRIPE_STATUS = {
    "created": "requires_payment_method",
    "authorized": "requires_capture",
    "failed": "canceled",
    "paid": "succeeded",
    "partially_refunded": "succeeded",
    "refunded": "succeeded",
}
PREFIX = {"razorpay": "pay_", "stripe": "pi_"}


class Books:
    """What both providers have in their books, and how they fail.

    asked: path and query of each request. failures: what the next requests meet, one each: a status,
    "close" (the connection is dropped) or "html". fails_from: the number of the first request from
    which on all meet a 500.
    """

    def __init__(self) -> None:
        self.url = ""
        self.payments: dict[str, list[dict[str, Any]]] = {"razorpay": [], "stripe": []}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.failures: list[int | str] = []
        self.fails_from: int | None = None
        self.may_search = True

    def add(
        self,
        provider: str,
        number: int | str,
        order: str | None,
        status: str = "paid",
        *,
        amount: int = 50000,
        refunded: int = 0,
        currency: str = "INR",
        email: str | None = "buyer@example.com",
        at: datetime | None = None,
        **fields: Any,
    ) -> str:
        """Book a payment, by default of two hours ago, in our words; its id."""
        id = f"{PREFIX[provider]}{number}"
        made = int((at or timezone.now() - timedelta(hours=2)).timestamp())
        if status == "refunded":
            refunded = amount
        make = _razorpay_payment if provider == "razorpay" else _stripe_intent
        made_here = make(id, order, status, amount, refunded, currency, email, made)
        self.payments[provider].append(made_here | fields)
        return id

    def newest(self, provider: str) -> list[dict[str, Any]]:
        moment = "created_at" if provider == "razorpay" else "created"
        return sorted(self.payments[provider], key=lambda one: one[moment], reverse=True)


def _razorpay_payment(id, order, status, amount, refunded, currency, email, made):
    return {
        "id": id,
        "entity": "payment",
        "amount": amount,
        "currency": currency,
        "status": RAZORPAY_STATUS.get(status, status),
        "order_id": order,
        "method": "upi",
        "amount_refunded": refunded,
        "refund_status": {0: None, amount: "full"}.get(refunded, "partial"),
        "captured": status in ("paid", "partially_refunded", "refunded"),
        "email": email or "void@razorpay.com",
        "contact": "+919999999999",
        "notes": [],
        "fee": 1000,
        "tax": 0,
        "created_at": made,
    }


def _stripe_intent(id, order, status, amount, refunded, currency, email, made):
    there = STRIPE_STATUS[status]
    charge = {
        "id": id.replace("pi_", "ch_"),
        "object": "charge",
        "amount": amount,
        "amount_refunded": refunded,
        "refunded": refunded == amount,
    }
    return {
        "id": id,
        "object": "payment_intent",
        "amount": amount,
        "amount_received": amount if there == "succeeded" else 0,
        "currency": currency.lower(),
        "status": there,
        "metadata": {"order_id": order} if order else {},
        "receipt_email": email,
        "created": made,
        "latest_charge": None if there == "requires_payment_method" else charge,
    }


@contextmanager
def serving(books: Books) -> Iterator[None]:
    """Serve these books at books.url."""

    class Handler(_Handler):
        pass

    Handler.books = books
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    books.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def books(settings: Any) -> Iterator[Books]:
    """Both providers' books, served where the settings say the providers are."""
    made = Books()
    with serving(made):
        settings.RAZORPAY_API_BASE = settings.STRIPE_API_BASE = made.url
        yield made


class _Handler(BaseHTTPRequestHandler):
    books: Books

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        books = self.books
        books.asked.append((parts.path, query))
        failure = books.failures.pop(0) if books.failures else None
        if books.fails_from is not None and len(books.asked) >= books.fails_from:
            failure = 500
        if failure == "close":
            return None
        if failure == "html":
            return self._send(200, b"<html>Bad gateway</html>", "text/html")
        stripe = parts.path.startswith("/v1/payment_intents")
        if isinstance(failure, int):
            return self._error(failure, TROUBLE, stripe)
        if self.headers["Authorization"] != (BEARER if stripe else BASIC):
            return self._error(401, "Authentication failed", stripe)
        path = [unquote(part) for part in parts.path.split("/")[2:]]
        return self._stripe(path, query) if stripe else self._razorpay(path, query)

    def _razorpay(self, path: list[str], query: dict[str, str]) -> None:
        payments = self.books.newest("razorpay")
        match path:
            case ["payments"]:
                since, until = int(query["from"]), int(query["to"])
                count, skip = int(query.get("count", 10)), int(query.get("skip", 0))
                if count > MOST:
                    return self._error(400, "The count must be between 1 and 100.", False)
                payments = [one for one in payments if since <= one["created_at"] <= until]
                return self._collection(payments[skip : skip + count])
            case ["payments", id]:
                for payment in payments:
                    if payment["id"] == id:
                        return self._json(200, payment)
                return self._error(400, "The id provided does not exist", False)
            case ["orders", order, "payments"]:
                if not order.startswith("order_"):
                    return self._error(400, f"{order} is not a valid id", False)
                return self._collection([one for one in payments if one["order_id"] == order])
        return self._send(404, b'{"message":"no Route matched with those values"}')

    def _collection(self, items: list[dict[str, Any]]) -> None:
        self._json(200, {"entity": "collection", "count": len(items), "items": items})

    def _stripe(self, path: list[str], query: dict[str, str]) -> None:
        intents = self.books.newest("stripe")
        limit = int(query.get("limit", 10))
        match path:
            case ["payment_intents"]:
                since, until = int(query["created[gte]"]), int(query["created[lte]"])
                intents = [one for one in intents if since <= one["created"] <= until]
                if after := query.get("starting_after"):
                    intents = intents[[one["id"] for one in intents].index(after) + 1 :]
                return self._page("list", path, intents, limit, query)
            case ["payment_intents", "search"]:
                if not self.books.may_search:
                    return self._error(400, "This account cannot search.", True)
                found = re.fullmatch(r'metadata\["order_id"\]:"((?:[^"\\]|\\.)*)"', query["query"])
                assert found, query
                order = re.sub(r"\\(.)", r"\1", found[1])
                intents = [one for one in intents if one["metadata"].get("order_id") == order]
                return self._page("search_result", path, intents, limit, query)
            case ["payment_intents", id]:
                for intent in intents:
                    if intent["id"] == id:
                        return self._json(200, self._shown(intent, query, "latest_charge"))
        return self._error(404, "No such payment_intent", True, code="resource_missing")

    def _page(
        self, kind: str, path: list[str], intents: list[Any], limit: int, query: dict[str, str]
    ) -> None:
        assert limit <= MOST
        page = {
            "object": kind,
            "url": "/v1/" + "/".join(path),
            "has_more": len(intents) > limit,
            "data": [self._shown(one, query, "data.latest_charge") for one in intents[:limit]],
        }
        self._json(200, page | ({"next_page": None} if kind == "search_result" else {}))

    def _shown(self, intent: dict[str, Any], query: dict[str, str], expand: str) -> dict[str, Any]:
        """A charge is only its id, unless it is asked for."""
        charge = intent["latest_charge"]
        if charge is None or query.get("expand[0]") == expand:
            return intent
        return intent | {"latest_charge": charge["id"]}

    def _error(self, status: int, description: str, stripe: bool, code: str = "") -> None:
        if stripe:
            kind = "api_error" if status >= 500 else "invalid_request_error"
            error = {"type": kind, "message": description} | ({"code": code} if code else {})
        else:
            kind = "SERVER_ERROR" if status >= 500 else "BAD_REQUEST_ERROR"
            error = {"code": kind, "description": description}
        self._json(status, {"error": error})

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode())

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: pytest shows what failed."""
