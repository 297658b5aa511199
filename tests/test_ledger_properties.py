"""Any order and repetition of an order's events ends as if they had come once and in order.

PROPERTY_EXAMPLES=2000 tries that many new histories instead of the same few.
"""

import itertools
import os

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payments import ledger
from payments.models import Transaction
from queues.models import Task
from tests.payment_events import body_of, post, verdict

pytestmark = pytest.mark.django_db
# In the order in which they happen. The first attempt fails, the second fails once and then pays.
HISTORY = {
    "announced": None,
    "first failed": body_of("payment.failed", id="pay_0"),
    "authorized": body_of("payment.authorized"),
    "failed": body_of("payment.failed"),
    "captured": body_of("payment.captured"),
    "order paid": body_of("order.paid"),
    "disputed": body_of("payment.dispute.created"),
    "refund of a part": body_of("refund.processed", refunded=20000),
    "refund of more": body_of("refund.processed", refunded=45000),
    "refund of all": body_of("refund.processed", refunded=50000),
}
MONEY = {"captured", "order paid", "refund of a part", "refund of more", "refund of all"}
PROFILE = settings(
    max_examples=int(os.environ.get("PROPERTY_EXAMPLES", "60")),
    derandomize="PROPERTY_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


# How far an order may come, for each as many histories: attempts alone, money, refunds.
ATTEMPTS = ["announced", "first failed", "authorized", "failed", "disputed"]
PAID = [*ATTEMPTS, "captured", "order paid"]


@st.composite
def histories(draw):
    """Some of an order's news, and the same in another order with some told again, some of these
    under a new event id."""
    possible = draw(st.sampled_from([ATTEMPTS, PAID, list(HISTORY)]))
    told = [name for name in HISTORY if name in possible and draw(st.integers(0, 3))]
    again = draw(st.lists(st.sampled_from(told), max_size=6)) if told else []
    shuffled = told + again
    draw(st.randoms(use_true_random=False)).shuffle(shuffled)
    return told, [(name, draw(st.sampled_from(["", "", "again"]))) for name in shuffled]


def outcome(news):
    """What an order has become by the news; the history is rolled back."""
    with transaction.atomic():
        for name, suffix in news:
            if name == "announced":
                ledger.expect_order("order_1", 50000)
            else:
                answer = verdict(post(HISTORY[name], f"evt {name}{suffix}"))
                assert answer in ("accepted", "duplicate", "stale"), name
        row = Transaction.objects.first()
        tasks = Task.objects.filter(type="payments.fulfil").count()
        transaction.set_rollback(True)
    if row is None:
        return None, tasks
    fields = ("order_id", "status", "refunded", "amount", "currency", "email")
    known = (row.paid_at is None, row.expected_at is None)
    payment = row.payment_id if row.status in Transaction.SETTLED else None
    return (*(getattr(row, name) for name in fields), *known, payment), tasks


@PROFILE
@given(histories())
def test_any_order_and_repetition_of_an_orders_events_ends_in_the_same_state(history):
    told, shuffled = history
    state, _ = outcome([(name, "") for name in told])
    again, tasks = outcome(shuffled)
    assert again == state
    money = next((name for name, _ in shuffled if name in MONEY), "refund of all")
    # When the first to come is that all went back, there is nothing to fulfil.
    assert tasks == (money != "refund of all")


def test_every_order_of_the_usual_four_ends_in_the_same_state():
    usual = ["authorized", "captured", "order paid", "refund of a part"]
    states = {outcome([(name, "") for name in order]) for order in itertools.permutations(usual)}
    assert len(states) == 1
    [(state, tasks)] = states
    assert state[1:3] == ("partially_refunded", 20000)
    assert tasks == 1
