"""Making what the console's pages of payments show, and reading it from them."""

from itertools import chain

from django.utils import timezone

from payments.models import Reconciliation, ReconciliationRow
from queues.console.keyset import PAGE_SIZE
from tests.console import elements, link

THEIRS = {
    "payment_id": "pay_9",
    "order_id": "order_9",
    "status": "paid",
    "amount": 70_000,
    "currency": "INR",
    "refunded": 0,
    "email": None,
    "created_at": None,
    "raw": {"id": "pay_9"},
}


def make_run(finding="missing_here", **fields):
    """A comparison with one row of a finding, of a payment of its own."""
    name = f"{9 + ReconciliationRow.objects.count()}"
    run = Reconciliation.objects.create(
        provider="razorpay",
        source="provider",
        agreed=12,
        finished_at=timezone.now(),
        **{finding: 1},
    )
    ids = {"order_id": f"order_{name}", "payment_id": f"pay_{name}"}
    implied = {"provider": "razorpay", "theirs": THEIRS | ids, **ids}
    return ReconciliationRow.objects.create(reconciliation=run, finding=finding, **implied | fields)


def fill(sql, count, first=1, **columns):
    """Paid and fulfilled payments with a delivery and an open difference each, and comparisons, in
    the order of `n`."""
    implied = {
        "order_id": "'o' || n",
        "payment_id": "'p' || n",
        "amount": "100",
        "status": "'paid'",
        "paid_at": "now()",
        "fulfilled_at": "now()",
    } | columns
    span = f"FROM generate_series({first}, {first + count - 1}) n"
    sql(
        f"INSERT INTO transactions ({', '.join(implied)}) SELECT {', '.join(implied.values())} {span}"
    )
    sql(
        "INSERT INTO webhook_deliveries (provider, event_id, order_id, verdict, body)"
        f" SELECT 'razorpay', 'e' || n, 'o' || n, 'accepted', '' {span}"
    )
    sql(
        "INSERT INTO reconciliations (provider, source, finished_at)"
        f" SELECT 'razorpay', 'provider', now() {span}"
    )
    sql(
        "INSERT INTO reconciliation_rows (reconciliation_id, provider, finding, order_id, found_at)"
        " SELECT (SELECT id FROM reconciliations LIMIT 1), 'razorpay', 'different', 'o' || n, now()"
        f" {span}"
    )


def listed(response, kind="payments"):
    """The ids of the rows, in the page's order."""
    prefix = {"payments": "/payments/", "deliveries": "/payments/deliveries/"}[kind]
    found = (
        a["href"].removeprefix(prefix).strip("/")
        for a in elements(response, "a")
        if a["href"].startswith(prefix)
    )
    return [id for id in found if len(id) == 36 and "/" not in id]


def assert_pages(client, url, kind, expected):
    page = client.get(url)
    assert link(page, "prev") is None
    forth = [listed(page, kind)]
    while following := link(page, "next"):
        page = client.get(url.partition("?")[0] + following)
        forth.append(listed(page, kind))
    assert list(chain.from_iterable(forth)) == expected
    assert len(forth[0]) == PAGE_SIZE
    back = [listed(page, kind)]
    while before := link(page, "prev"):
        page = client.get(url.partition("?")[0] + before)
        back.insert(0, listed(page, kind))
    assert back == forth
