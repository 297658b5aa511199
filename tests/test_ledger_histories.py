"""Whatever is told of some orders and their payments, in any order, with a person deciding in between: what
the ledger says is of one piece after every step.

HISTORIES=2000 tries that many instead of the same few.
"""

import json
import os
import random

import pytest
from django.db import connection, transaction

pytestmark = pytest.mark.django_db
HISTORIES = int(os.environ.get("HISTORIES", "50"))
# What must never be found, each with what it means.
BROKEN = {
    "a fulfilment task of an order that is not there": """
        SELECT k.id FROM tasks k WHERE k.type = 'payments.fulfil'
           AND NOT EXISTS (SELECT FROM transactions t WHERE t.id::text = k.payload ->> 'transaction_id')""",
    "a delivery of an order that is not there": """
        SELECT d.id FROM webhook_deliveries d WHERE d.transaction_id IS NOT NULL
           AND NOT EXISTS (SELECT FROM transactions t WHERE t.id = d.transaction_id)""",
    "money of a payment whose order knows of none": """
        SELECT p.payment_id FROM order_payments p JOIN transactions t ON t.id = p.transaction_id
         WHERE money_has_come(p.status) AND NOT money_has_come(t.status)""",
    "an order that is otherwise than the payment that paid it": """
        SELECT t.order_id FROM transactions t
          LEFT JOIN order_payments p ON p.provider = t.provider AND p.payment_id = t.payment_id
         WHERE money_has_come(t.status)
           AND (p.status, p.refunded, p.transaction_id) IS DISTINCT FROM (t.status, t.refunded, t.id)""",
    "money that was accepted and is known nowhere": """
        SELECT d.payment_id FROM webhook_deliveries d
         WHERE d.claim ->> 'status' = 'paid' AND d.verdict IN ('accepted', 'stale')
           AND NOT EXISTS (SELECT FROM order_payments p WHERE p.payment_id = d.payment_id AND money_has_come(p.status))""",
    "two payments kept for one order": """
        SELECT t.order_id FROM transactions t JOIN order_payments p ON p.transaction_id = t.id
         WHERE p.status IN ('paid', 'partially_refunded') GROUP BY 1 HAVING count(*) > 1""",
    "an effect recorded under another name than its order's": """
        SELECT f.order_id FROM fulfilments f JOIN transactions t ON t.id = f.transaction_id
         WHERE f.order_id <> t.order_id""",
}
NEWS = ("authorized", "failed", "paid", "partially_refunded", "refunded")


def ask(statement, *values):
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


def history(pick):
    """Steps: an announcement, news of a payment, a person's decision, a fulfilment."""
    orders = ["order_1", "order_2"][: pick.choice([1, 1, 2])]
    steps = [("expect", name) for name in orders if pick.random() < 0.6]
    for payment in ["pi_0", "pi_1", "pi_2"][: pick.choice([1, 2, 2, 3])]:
        amount = 50000 if pick.random() < 0.8 else 40000
        order = orders[0] if pick.random() < 0.85 else pick.choice(orders)
        told = [status for status in NEWS for _ in range(2) if pick.random() < 0.4]
        told += ["refund_failed"] * (pick.random() < 0.15)
        for status in told:
            named = order if pick.random() < 0.6 else None
            refunded = {"partially_refunded": 2000, "refunded": amount}.get(status, 0)
            steps.append(("news", status, payment, named, amount, refunded))
    steps += [("decide", pick.random() < 0.7)] * pick.choice([0, 1, 2, 3])
    steps += [("fulfil",)] * pick.choice([0, 0, 1])
    pick.shuffle(steps)
    return steps


def tell(number, hold, status, payment, order, amount, refunded):
    claim = {
        "status": status,
        "order_id": order,
        "payment_id": payment,
        "amount": amount,
        "currency": "INR",
        "refunded": refunded,
        "order_follows": order is None,
    }
    body = json.dumps([number, claim]).encode()
    ask(
        "SELECT receive_delivery('stripe', 'webhook', %s, %s, %s::jsonb, %s, '{}', %s)",
        *(f"evt_{number}", status, json.dumps(claim), body, hold),
    )


def take(step, number, pick, hold):
    match step:
        case ("expect", order):
            ask("SELECT expect_order(%s, 50000, 'INR', NULL, 'stripe')", order)
        case ("news", *news):
            tell(number, hold, *news)
        case ("decide", accept):
            if rows := ask(
                "SELECT id FROM webhook_deliveries WHERE verdict = 'mismatch' AND handled_at IS NULL ORDER BY id"
            ):
                ask(
                    "SELECT handle_delivery(%s, %s, 'asha', 'looked')", pick.choice(rows)[0], accept
                )
        case ("fulfil",):
            ask(
                """WITH done AS (
                       UPDATE transactions SET fulfilled_at = now()
                        WHERE status = 'paid' AND fulfilled_at IS NULL AND held_at IS NULL RETURNING id, order_id)
                   INSERT INTO fulfilments (order_id, transaction_id) SELECT order_id, id FROM done RETURNING id"""
            )


def test_the_ledger_is_of_one_piece_after_every_step_of_any_history():
    seed = random.randrange(10**9) if "HISTORIES" in os.environ else 0
    for number in range(HISTORIES):
        pick = random.Random(f"{seed} {number}")
        hold = pick.random() < 0.25
        steps = history(pick)
        with transaction.atomic():
            for at, step in enumerate(steps):
                take(step, at, pick, hold)
                connection.check_constraints()
                for what, statement in BROKEN.items():
                    assert not ask(statement), (what, seed, number, steps[: at + 1])
            transaction.set_rollback(True)


def test_an_attempt_that_is_named_by_news_for_a_person_stays_known():
    told = {"payment": "pi_0", "amount": 50000}
    tell(1, False, "authorized", order=None, refunded=0, **told)
    tell(2, False, "refund_failed", order=None, refunded=0, **told)
    tell(3, False, "partially_refunded", order="order_1", refunded=2000, **told)
    verdicts = ask("SELECT verdict FROM webhook_deliveries ORDER BY id")
    assert [verdict for (verdict,) in verdicts] == ["accepted", "mismatch", "mismatch"]
    assert ask("SELECT order_id, status FROM transactions") == [("pi_0", "authorized")]
