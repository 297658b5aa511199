"""A payment provider: posts signed deliveries, each again and again until it is answered 2xx.

    webhook_sender.py PORT THREADS < deliveries > answers

One JSON object a line: {"provider", "event_id", "body"} in, {"event_id", "statuses", "verdict"} out;
0 among the statuses is an answer that never came. Knows nothing of what it posts to: Razorpay's
signature is made here, Stripe's by its SDK.
"""

import hashlib
import hmac
import http.client
import json
import sys
import threading
import time

SECONDS = 60
PAUSE_SECONDS = 0.1


def headers_of(delivery):
    body = delivery["body"]
    if delivery["provider"] == "stripe":
        from stripe import WebhookSignature

        signature = WebhookSignature.generate_signature_header(body, "whsec_current")
        return {"Content-Type": "application/json", "Stripe-Signature": signature}
    return {
        "Content-Type": "application/json",
        "X-Razorpay-Event-Id": delivery["event_id"],
        "X-Razorpay-Signature": hmac.new(
            b"current-secret", body.encode(), hashlib.sha256
        ).hexdigest(),
    }


def send(connection, delivery):
    """One attempt: the status and the body of the answer."""
    path = f"/webhooks/{delivery['provider']}"
    try:
        connection.request("POST", path, delivery["body"].encode(), headers_of(delivery))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0, b""


def work(port, deliveries, lock, deadline):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    while True:
        with lock:
            delivery = next(deliveries, None)
        if delivery is None:
            return
        statuses, status, answer = [], 0, b""
        while time.monotonic() < deadline:
            status, answer = send(connection, delivery)
            statuses.append(status)
            if 200 <= status < 300:
                break
            time.sleep(PAUSE_SECONDS)
        told = {"event_id": delivery["event_id"], "statuses": statuses}
        told["verdict"] = json.loads(answer)["verdict"] if status == 200 else None
        with lock:
            sys.stdout.write(json.dumps(told) + "\n")


def main():
    port, threads = int(sys.argv[1]), int(sys.argv[2])
    deliveries = iter([json.loads(line) for line in sys.stdin])
    lock, deadline = threading.Lock(), time.monotonic() + SECONDS
    running = [
        threading.Thread(target=work, args=[port, deliveries, lock, deadline])
        for _ in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


if __name__ == "__main__":
    main()
