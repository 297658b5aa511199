"""Many deliveries of many orders, sent by processes of their own to a real web server; and what
must be in the database afterwards, whatever was killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.conftest import ROOT, eventually
from tests.payment_events import body_of, charge, checkout, intent, stripe_body

Delivery = dict[str, str]
Answer = dict[str, Any]


class WebServer:
    """gunicorn, started as the demo starts it."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self.log, self.port = url, log, _free_port()
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "gunicorn", "opsconsole.wsgi", "--no-control-socket"]
        command += ["--bind", f"127.0.0.1:{self.port}", "--workers", "2", "--threads", "4"]
        environ = {"DATABASE_URL": self.url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        with self.log.open("a") as out:
            self.process = subprocess.Popen(
                [*command, "--worker-class", "gthread", "--log-level", "warning"],
                cwd=ROOT,
                env=os.environ | environ | {"LOG_LEVEL": "ERROR"},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        eventually(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            httpx.get(f"http://127.0.0.1:{self.port}/healthz", trust_env=False)
        except httpx.TransportError:
            return False
        return True

    def kill(self) -> None:
        """kill -9, all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Senders:
    """Processes that import nothing of ours and send deliveries between them."""

    def __init__(self, port: int, deliveries: list[Delivery], count: int, threads: int) -> None:
        self.processes = []
        for number in range(count):
            process = subprocess.Popen(
                # -I: neither the folder of this project nor PYTHONPATH is looked into.
                [
                    sys.executable,
                    "-I",
                    str(ROOT / "tests/webhook_sender.py"),
                    str(port),
                    str(threads),
                ],
                cwd="/",
                env={"PATH": os.environ["PATH"]},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.processes.append(process)
            assert process.stdin
            process.stdin.writelines(json.dumps(line) + "\n" for line in deliveries[number::count])
            process.stdin.close()
            process.stdin = None

    def answers(self) -> list[Answer]:
        """What each delivery was answered, when all were sent."""
        told = [process.communicate(timeout=90)[0] for process in self.processes]
        assert [process.returncode for process in self.processes] == [0] * len(self.processes)
        return [json.loads(line) for text in told for line in text.splitlines()]


@dataclass(frozen=True)
class Order:
    """An order of the storm. Even ones are Razorpay's, odd ones Stripe's."""

    number: int

    @property
    def name(self) -> str:
        return f"order_{self.number}"

    @property
    def refunds(self) -> tuple[int, ...]:
        """What was given back after each refund: nothing, or parts, or in the end all."""
        last = self.number // 2 % 10
        return (20000, 50000) if last >= 8 else (20000, 35000) if last >= 5 else ()

    @property
    def announced(self) -> bool:
        return self.number % 4 == 0

    @property
    def outcome(self) -> tuple[str, int]:
        refunded = self.refunds[-1] if self.refunds else 0
        return {0: "paid", 50000: "refunded"}.get(refunded, "partially_refunded"), refunded

    def events(self) -> list[Delivery]:
        return self._stripe() if self.number % 2 else self._razorpay()

    def _razorpay(self) -> list[Delivery]:
        payment = f"pay_{self.number}"
        bodies = [
            body_of("payment.failed", self.name, id=f"{payment}_first"),
            body_of("payment.authorized", self.name, id=payment),
            body_of("payment.captured", self.name, id=payment),
            body_of("order.paid", self.name, id=payment),
            *[body_of("refund.processed", self.name, n, id=payment) for n in self.refunds],
        ]
        return [
            {"provider": "razorpay", "event_id": f"{self.name}_{n}", "body": body.decode()}
            for n, body in enumerate(bodies)
        ]

    def _stripe(self) -> list[Delivery]:
        """Only the checkout names the order; all else names the payment."""
        paid: dict[str, Any] = {"id": f"pi_{self.number}", "metadata": {}}
        told = [
            ("payment_intent.payment_failed", intent(**paid)),
            ("payment_intent.amount_capturable_updated", intent(**paid)),
            ("payment_intent.succeeded", intent(**paid)),
            (
                "checkout.session.completed",
                checkout(payment_intent=paid["id"], client_reference_id=self.name),
            ),
            *[
                ("charge.refunded", charge(payment_intent=paid["id"], amount_refunded=n))
                for n in self.refunds
            ],
        ]
        return [
            {
                "provider": "stripe",
                "event_id": f"{self.name}_{n}",
                "body": stripe_body(kind, thing, f"{self.name}_{n}").decode(),
            }
            for n, (kind, thing) in enumerate(told)
        ]


def storm_of(orders: int, deliveries: int) -> list[Delivery]:
    """Every event of the orders and one that names none, many told again, in any order."""
    chance = random.Random(7)
    events = [event for number in range(orders) for event in Order(number).events()]
    nameless = '{"event": "settlement.processed", "payload": {}}'
    events += [{"provider": "razorpay", "event_id": "settlement", "body": nameless}] * 5
    events += chance.choices(events, k=deliveries - len(events))
    chance.shuffle(events)
    return events


def announce(port: int, orders: int) -> None:
    url = f"http://127.0.0.1:{port}/payments/orders"
    with httpx.Client(headers={"Authorization": "Bearer shop-token"}, trust_env=False) as shop:
        for order in filter(lambda order: order.announced, map(Order, range(orders))):
            answer = shop.post(url, json={"order_id": order.name, "amount": 50000})
            assert answer.status_code == 201, answer.text


def check_deliveries(connection: Any, answers: list[Answer]) -> None:
    """Each delivery that was answered 2xx has its row; one row an event is not a repeat."""
    taken, tried = Counter[str](), Counter[str]()
    for answer in answers:
        assert answer["statuses"][-1] == 200, answer
        assert set(answer["statuses"][:-1]) <= {0, 503}, answer
        taken[answer["event_id"]] += 1
        tried[answer["event_id"]] += len(answer["statuses"])
    found = "SELECT event_id, count(*), count(*) FILTER (WHERE verdict <> 'duplicate') FROM webhook_deliveries GROUP BY 1"
    rows = {name: (kept, first) for name, kept, first in connection.execute(found)}
    assert rows.keys() == taken.keys()
    for name, (kept, first) in rows.items():
        # An answer that never came may be to a delivery that was recorded.
        assert taken[name] <= kept <= tried[name], name
        assert first == 1, name
    verdicts = "SELECT DISTINCT verdict FROM webhook_deliveries"
    assert {row[0] for row in connection.execute(verdicts)} <= {"accepted", "stale", "duplicate"}


LEDGER = "SELECT order_id, status, refunded FROM transactions"
EFFECTS = """SELECT t.order_id, t.fulfilled_at IS NOT NULL,
    (SELECT count(*) FROM tasks k WHERE k.type = 'payments.fulfil' AND k.payload ->> 'transaction_id' = t.id::text),
    (SELECT count(*) FROM fulfilments f WHERE f.transaction_id = t.id),
    (SELECT count(*) FROM tasks k WHERE k.type = 'payments.send_receipt' AND k.payload ->> 'transaction_id' = t.id::text)
    FROM transactions t"""


def check_ledger(connection: Any, orders: int) -> None:
    """One transaction an order, in the state that its events amount to."""
    rows = sorted(connection.execute(LEDGER).fetchall())
    assert rows == sorted((Order(n).name, *Order(n).outcome) for n in range(orders))


def check_effects(connection: Any, orders: int) -> None:
    """When the workers are done: one effect and one receipt an order, save that one whose money
    all went back before it was fulfilled has none."""
    settled = {Order(n).name: Order(n).outcome[0] for n in range(orders)}
    rows = connection.execute(EFFECTS).fetchall()
    assert len(rows) == orders
    for name, fulfilled, tasks, effects, receipts in rows:
        if settled[name] != "refunded":
            assert (fulfilled, tasks, effects, receipts) == (True, 1, 1, 1), name
        else:
            assert tasks <= 1, name
            assert effects == receipts == fulfilled, name


def connect(url: str) -> Any:
    return psycopg.connect(url, autocommit=True)
