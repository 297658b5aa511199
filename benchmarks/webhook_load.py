"""A process that posts webhooks: webhook_load.py PORT CONNECTIONS N; prints one line of JSON.

Each delivery is a payment of its own, signed. Every connection is kept alive and has one delivery on
its way at a time; a few are sent before the clock starts.
"""

import hashlib
import hmac
import json
import selectors
import socket
import statistics
import sys
import time

SECRET = b"only-for-benchmarks"
WARM_UP = 100


def request_of(n: int) -> bytes:
    payment = {
        "id": f"pay_{n:014}",
        "entity": "payment",
        "amount": 50_000 + n,
        "currency": "INR",
        "status": "captured",
        "order_id": f"order_{n:014}",
        "international": False,
        "method": "upi",
        "captured": True,
        "description": "Order of a shop",
        "vpa": "customer@bank",
        "email": f"customer{n}@example.com",
        "contact": "+919999999999",
        "notes": [],
        "fee": 1180,
        "tax": 180,
        "created_at": 1_700_000_000 + n,
    }
    event = {
        "entity": "event",
        "account_id": "acc_benchmark",
        "event": "payment.captured",
        "contains": ["payment"],
        "payload": {"payment": {"entity": payment}},
        "created_at": 1_700_000_000 + n,
    }
    body = json.dumps(event).encode()
    signature = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    return (
        b"POST /webhooks/razorpay HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        + f"X-Razorpay-Event-Id: event_{n}\r\nX-Razorpay-Signature: {signature}\r\n".encode()
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


class Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> None:
        self.answer = b""
        self.began = time.perf_counter()
        self.socket.sendall(request)

    def received(self) -> float | None:
        """The seconds that the delivery took, once its answer is complete."""
        chunk = self.socket.recv(65536)
        self.answer += chunk
        head, _, body = self.answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if body and len(body) >= int(length):
            if not head.startswith(b"HTTP/1.1 200 ") or b'"accepted"' not in body:
                raise SystemExit(f"not accepted: {self.answer!r}")
            return time.perf_counter() - self.began
        if not chunk:
            raise SystemExit(f"the connection was closed after {self.answer!r}")
        return None


def drive(port: int, connections: int, requests: list[bytes]) -> tuple[float, list[float]]:
    """Send all; the seconds from the first to the last answer, and those of each delivery."""
    waiting, took = iter(requests), []
    with selectors.DefaultSelector() as selector:
        began = time.perf_counter()
        for _ in range(connections):
            connection = Connection(port)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(next(waiting))
        while len(took) < len(requests):
            for key, _ in selector.select():
                seconds = key.data.received()
                if seconds is None:
                    continue
                took.append(seconds)
                if request := next(waiting, None):
                    key.data.send(request)
                else:
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
        return time.perf_counter() - began, took


def main() -> None:
    port, connections, n = map(int, sys.argv[1:])
    requests = [request_of(number) for number in range(WARM_UP + n)]
    drive(port, min(8, connections), requests[:WARM_UP])
    seconds, took = drive(port, connections, requests[WARM_UP:])
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    print(json.dumps({"rate": n / seconds, "p50": cuts[49] * 1000, "p99": cuts[98] * 1000}))


if __name__ == "__main__":
    main()
