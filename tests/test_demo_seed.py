"""What the demo shows first of payments."""

from collections import Counter

import pytest

from opsconsole.demo import seed, seed_payments
from payments.models import Transaction, WebhookDelivery
from queues.models import Task

pytestmark = pytest.mark.django_db


def test_the_demo_has_one_of_each_for_a_person_to_look_at(settings):
    settings.PAYMENTS_UNEXPECTED = "hold"
    seed.seed()
    orders = seed_payments.ORDERS
    assert Counter(Transaction.objects.values_list("status", flat=True)) == {
        "paid": orders + 4,
        "partially_refunded": 1,
        "created": 2,
    }
    assert Counter(WebhookDelivery.objects.values_list("verdict", flat=True)) == {
        "accepted": orders + 7,
        "duplicate": 1,
        "mismatch": 1,
    }
    held = Transaction.objects.get(held_at__isnull=False)
    assert (held.expected_at, held.task_id) == (None, None)
    fulfilments = Task.objects.filter(type="payments.fulfil").count()
    assert fulfilments == orders + 4
    assert set(Transaction.objects.values_list("currency", flat=True)) == {
        "INR",
        "USD",
        "JPY",
        "KWD",
    }
