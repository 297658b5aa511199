"""One payment, one delivery, one comparison: what their pages show, and what their buttons do."""

import pytest
from django.utils import timezone

from payments import ledger
from payments.models import (
    Fulfilment,
    Reconciliation,
    ReconciliationRow,
    Transaction,
    WebhookDelivery,
)
from queues import claims, registry
from queues.console.keyset import PAGE_SIZE
from queues.enqueue import enqueue
from queues.models import Operation, Task
from queues.worker.context import TaskContext
from tests.console import elements, html, link, message, words
from tests.payment_console import THEIRS, make_run
from tests.payment_events import deliver, verdict

pytestmark = pytest.mark.django_db


@pytest.fixture
def held(settings):
    settings.PAYMENTS_UNEXPECTED = "hold"
    assert verdict(deliver()) == "accepted"
    return Transaction.objects.get()


@pytest.fixture
def mismatch():
    ledger.expect_order("order_1", 49_900, email="buyer@example.com")
    assert verdict(deliver()) == "mismatch"
    return WebhookDelivery.objects.get()


def test_one_payment_tells_its_story(client_of, run_once):
    ledger.expect_order("order_1", 50_000, email="buyer@example.com")
    assert verdict(deliver("payment.authorized", "evt_0")) == "accepted"
    assert verdict(deliver()) == "accepted"
    assert verdict(deliver()) == "duplicate"
    run_once("payments.fulfil")
    assert verdict(deliver("refund.processed", "evt_2", refunded=10_000)) == "accepted"
    row = Transaction.objects.get()
    fulfil, receipt = Task.objects.order_by("id")
    client = client_of("payments")
    page = client.get(f"/payments/{row.pk}/")
    text = words(page)
    assert "order_1 partially refunded fulfilled" in text
    assert "INR 500.00 came, INR 100.00 of it went back. The order was fulfilled" in text
    told = text[text.index("Timeline") : text.index("Facts")]
    places = [
        told.index(what)
        for what in (
            "INR 100.00 went back",
            "payments.fulfil completed",
            "payment.captured: duplicate",
            "payments.fulfil enqueued",
            "payment.captured: accepted",
            "payment.authorized: accepted",
            "Announced",
        )
    ]
    assert places == sorted(places)
    assert "Fulfilled, effect recorded" in told
    hrefs = {a["href"] for a in elements(page, "a")}
    assert {f"/tasks/{fulfil.pk}/", f"/tasks/{receipt.pk}/"} <= hrefs
    assert {f"/payments/deliveries/{d.pk}/" for d in WebhookDelivery.objects.all()} <= hrefs
    for task in (fulfil, receipt):
        back = {a["href"] for a in elements(client.get(f"/tasks/{task.pk}/"), "a")}
        assert f"/payments/{row.pk}/" in back


@pytest.fixture
def run_once(make_worker):
    """Run the oldest task of a type that waits, as a worker would."""

    def run(type):
        make_worker("w-once")
        [claimed] = claims.claim_tasks("w-once", None, 1)
        assert claimed.type == type
        registry.find(type).function(TaskContext(claimed))

    return run


def test_a_task_that_only_its_trail_or_key_links_is_shown_both_ways(client_of, held):
    delivery = WebhookDelivery.objects.get()
    ledger.fulfil_again(held.pk, actor="asha", reason="known")
    held.refresh_from_db()
    child = enqueue("shop.ship", {}, correlation_id=str(held.pk))
    receipt = enqueue(
        "payments.send_receipt", {"transaction_id": str(held.pk)}, dedupe_key=str(held.pk)
    )
    stranger = enqueue("shop.ship", {}, correlation_id="else")
    client = client_of("payments")
    page = client.get(f"/payments/{held.pk}/")
    hrefs = {a["href"] for a in elements(page, "a")}
    assert {f"/tasks/{t}/" for t in (held.task_id, child.id, receipt.id)} <= hrefs
    assert f"/tasks/{stranger.id}/" not in hrefs
    assert "Fulfil order order_1 by asha" in words(page)
    for id, linked in (
        (held.task_id, True),
        (child.id, True),
        (receipt.id, True),
        (stranger.id, False),
    ):
        back = {a["href"] for a in elements(client.get(f"/tasks/{id}/"), "a")}
        assert (f"/payments/{held.pk}/" in back) == linked
    assert f"/payments/deliveries/{delivery.pk}/" in hrefs


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"status": "created"}, "INR 1.00 announced; no money has come so far."),
        ({"status": "authorized"}, "INR 1.00 authorized and not captured"),
        ({"status": "failed"}, "The payment failed. Another attempt"),
        (
            {"status": "refunded", "refunded": 100},
            "INR 1.00 came and all of it went back. Nothing was given for it.",
        ),
        ({"status": "paid"}, "INR 1.00 came. No task fulfils the order: fulfil it anew."),
        ({"status": "paid", "held_at": "now"}, "it is held until a person fulfils it."),
        ({"status": "paid", "fulfilled_at": "now"}, "INR 1.00 came. The order is fulfilled."),
    ],
)
def test_a_payments_state_is_told_in_one_sentence(client_of, fields, sentence):
    fields = {k: timezone.now() if v == "now" else v for k, v in fields.items()}
    row = Transaction.objects.create(order_id="o", amount=100, **fields)
    assert sentence in words(client_of("payments").get(f"/payments/{row.pk}/"))


@pytest.mark.parametrize("status", Task.Status.values)
def test_fulfil_is_offered_where_no_task_is_on_its_way(client_of, make_task, status):
    task = make_task(status, type="payments.fulfil")
    row = Transaction.objects.create(order_id="o", amount=1, status="paid", task_id=task.pk)
    page = client_of("payments").get(f"/payments/{row.pk}/")
    assert (
        f"The task that {'fulfils' if status in Task.LIVE else 'should fulfil'} the order is {status}"
        in words(page)
    )
    offered = [f for f in elements(page, "form") if (f.get("action") or "").endswith("/fulfil/")]
    assert len(offered) == (status not in Task.LIVE)


def test_a_held_order_is_fulfilled_with_a_reason(client_of, held):
    client = client_of("payments")
    page = client.get(f"/payments/{held.pk}/")
    [form] = [f for f in elements(page, "form") if (f.get("action") or "").endswith("/fulfil/")]
    asked = client.post(form["action"])
    assert "Fulfil order order_1?" in words(asked)
    assert "INR 500.00" in words(asked)
    assert not Task.objects.exists()
    assert "Nobody announced this order" in words(asked)
    assert client.get(form["action"])["Location"] == f"/payments/{held.pk}/"
    nothing = client.post(form["action"], {"confirmed": "1", "reason": "   "})
    assert "Fulfil order order_1? Nobody announced" in words(nothing)
    assert "a reason is needed" in words(nothing)
    [field] = elements(nothing, "textarea")
    assert field["aria-invalid"] == "true"
    assert ">   </textarea>" in html(nothing)
    assert not Task.objects.exists()
    done = client.post(form["action"], {"confirmed": "1", "reason": "known shop"}, follow=True)
    assert "fulfilment is enqueued" in message(done)
    assert done.redirect_chain[-1][0] == f"/payments/{held.pk}/"
    held.refresh_from_db()
    assert (held.held_at, held.task_id) == (None, Task.objects.get().pk)
    assert (Operation.objects.get().actor, Operation.objects.get().reason) == (
        "payments",
        "known shop",
    )
    again = client.post(form["action"], {"confirmed": "1", "reason": "again"}, follow=True)
    assert "its fulfilment is on its way" in message(again)
    assert Task.objects.count() == 1
    operation = client.get(f"/operations/{Operation.objects.get().pk}/")
    assert str(held.task_id) in html(operation)


def test_a_mismatch_shows_both_sides_and_no_secret(client_of, mismatch):
    WebhookDelivery.objects.update(body=b'{"card": "4242", "amount": 50000}', took=0.012)
    text = words(client_of("payments").get(f"/payments/deliveries/{mismatch.pk}/"))
    assert "Amount INR 499.00 INR 500.00 differs" in text
    assert "Currency INR INR E-mail buyer@example.com buyer@example.com Recorded is" in text
    assert "Status created paid" in text
    assert "Took 12 ms" in text
    assert "4242" not in text
    assert '"card": "[redacted]"' in text


def test_a_failed_refund_is_told_as_money_that_did_not_go_back(client_of):
    assert verdict(deliver()) == "accepted"
    assert verdict(deliver("refund.processed", "evt_2", refunded=300)) == "accepted"
    assert verdict(deliver("refund.failed", "evt_3", refunded=300)) == "mismatch"
    delivery = WebhookDelivery.objects.get(verdict="mismatch")
    row = Transaction.objects.get()
    client, url = client_of("payments"), f"/payments/deliveries/{delivery.pk}/"
    sentence = "INR 3.00 given back did not go through; accepting takes it off."
    assert sentence in words(client.get(f"/payments/{row.pk}/"))
    text = words(client.get(url))
    assert sentence in text
    assert "Went back INR 3.00 INR 0.00 differs" in text
    assert "Amount INR 500.00 –" in text
    asked = words(client.post(f"{url}accept/"))
    assert "INR 3.00 is taken off what is recorded as given back" in asked
    assert "address replace" not in asked
    client.post(f"{url}accept/", {"confirmed": "1", "reason": "seen at the bank"})
    row.refresh_from_db()
    assert (row.refunded, row.amount, row.status) == (0, 50_000, "paid")


def test_paid_twice_says_what_to_do_and_offers_nothing_that_cannot_work(client_of):
    assert verdict(deliver()) == "accepted"
    assert verdict(deliver(event_id="evt_2", id="pay_2")) == "mismatch"
    delivery = WebhookDelivery.objects.get(verdict="mismatch")
    client, url = client_of("payments"), f"/payments/deliveries/{delivery.pk}/"

    def offered():
        actions = [f.get("action") or "" for f in elements(client.get(url), "form")]
        return [action.removeprefix(url) for action in actions if action.startswith(url)]

    todo = "Refund payment pay_2 at the provider, which closes this by itself, or set it aside."
    assert todo in words(client.get(url))
    assert todo in words(client.get(f"/payments/{delivery.transaction_id}/"))
    assert offered() == ["set-aside/"]
    refused = client.post(f"{url}accept/", {"confirmed": "1", "reason": "r"}, follow=True)
    assert "Nothing was done" in message(refused)
    assert verdict(deliver("refund.processed", "evt_3", refunded=50_000)) == "accepted"
    assert "Accept it to make pay_2 the payment that counts" in words(client.get(url))
    assert offered() == ["accept/", "set-aside/"]


def test_a_fulfilment_that_keeps_failing_is_not_called_on_its_way(client_of, make_task):
    task = make_task(
        "scheduled", type="payments.fulfil", attempts=2, error="ValueError: no such product " * 20
    )
    row = Transaction.objects.create(
        order_id="o", amount=100, status="paid", task_id=task.pk, paid_at=timezone.now()
    )
    text = words(client_of("payments").get(f"/payments/{row.pk}/"))
    assert "o paid not fulfilled" in text
    assert (
        "INR 1.00 came. The task that fulfils the order failed 2 times so far: ValueError: no such"
        in text
    )
    assert "on its way" not in text


def test_the_announced_amount_is_not_made_up_afterwards(client_of, mismatch):
    ledger.handle_delivery(mismatch.pk, accept=True, actor="asha", reason="price changed")
    text = words(client_of("payments").get(f"/payments/{Transaction.objects.get().pk}/"))
    told = text[text.index("Timeline") : text.index("Facts")]
    announced = told[told.index("Announced") :]
    assert "INR" not in announced


@pytest.mark.parametrize(
    ("finding", "fields", "primary"),
    [
        ("missing_here", {}, ["Record it…"]),
        ("different", {"ours": THEIRS | {"status": "created"}}, ["Record it…"]),
        ("different", {"ours": THEIRS | {"amount": 69_000}, "theirs": THEIRS}, []),
        ("missing_there", {"ours": THEIRS, "theirs": None}, []),
    ],
)
def test_the_first_button_of_a_difference_is_what_mends_it(client_of, finding, fields, primary):
    if primary and finding == "different":
        fields = fields | {"theirs": THEIRS}
    make_run(finding, **fields)
    page = client_of("payments").get("/payments/differences/")
    buttons = html(page).split('<button class="button primary">')[1:]
    assert [rest.partition("<")[0] for rest in buttons] == primary
    if finding == "missing_there":
        assert "look for it in the provider's own console" in words(page)


def test_a_comparison_that_failed_is_not_called_clean(client_of):
    run = Reconciliation.objects.create(
        provider="razorpay", source="provider", error="401", finished_at=timezone.now()
    )
    text = words(client_of("payments").get(f"/payments/reconciliations/{run.pk}/"))
    assert "Compared with its books; it failed." in text
    assert "Not compared" in text
    assert "0 agreed" not in text
    assert "None missing here" not in text


def test_a_large_body_is_shown_in_part(client_of):
    row = WebhookDelivery.objects.create(provider="x", verdict="rejected", body=b"a" * 150_000)
    page = client_of("payments").get(f"/payments/deliveries/{row.pk}/")
    assert "50,000 more characters are not shown" in words(page)
    assert "a" * 100_001 not in html(page)


@pytest.mark.parametrize("hostile", [b"", b"\xff\x00", b"[" * 5000, b"<script>alert(1)</script>"])
def test_any_body_and_claim_has_its_page(client_of, hostile):
    row = WebhookDelivery.objects.create(
        provider="<b>",
        verdict="rejected",
        body=hostile,
        claim={"amount": "x", "currency": 5},
        reason="<i>",
    )
    page = client_of("payments").get(f"/payments/deliveries/{row.pk}/")
    assert page.status_code == 200
    assert "<script>alert" not in html(page)
    assert "<b>" not in html(page)


def test_what_a_mismatch_says_is_accepted_with_a_reason(client_of, mismatch):
    client, url = client_of("payments"), f"/payments/deliveries/{mismatch.pk}/"
    actions = [
        f["action"]
        for f in elements(client.get(url), "form")
        if "deliveries" in (f.get("action") or "")
    ]
    assert actions == [f"{url}accept/", f"{url}set-aside/"]
    asked = words(client.post(f"{url}accept/"))
    assert "Accept the payment.captured delivery of order_1?" in asked
    assert "INR 499.00 INR 500.00 differs" in asked
    page = client.post(f"{url}accept/", {"confirmed": "1", "reason": "price changed"}, follow=True)
    assert "Accepted" in message(page)
    row = Transaction.objects.get()
    assert (row.status, row.amount) == ("paid", 50_000)
    assert "Accepted: price changed payments," in words(page)
    assert not [f for f in elements(page, "form") if "deliveries" in (f.get("action") or "")]


def test_a_mismatch_is_set_aside_once(client_of, mismatch):
    client, url = client_of("payments"), f"/payments/deliveries/{mismatch.pk}/set-aside/"
    asked = {"confirmed": "1", "reason": "fraud"}
    assert "Set aside" in message(client.post(url, asked, follow=True))
    assert "payments dealt with it already" in message(client.post(url, asked, follow=True))
    assert Transaction.objects.get().status == "created"
    assert "Nothing to decide" in words(client.get("/payments/deliveries/?verdict=mismatch&open=1"))


def test_a_comparison_shows_each_difference_with_its_action(client_of):
    row = make_run(
        "different",
        ours=THEIRS | {"provider": "razorpay", "status": "created", "amount": 69_000},
        difference="amount: ours 69000, theirs 70000",
    )
    client = client_of("payments")
    listing = words(client.get("/payments/reconciliations/"))
    assert "razorpay its books 12 0 1 0 0 schedule" in listing
    page = client.get(f"/payments/reconciliations/{row.reconciliation_id}/")
    text = words(page)
    assert "order_9 pay_9" in text
    assert "Status created paid differs Amount INR 690.00 INR 700.00 differs" in text
    assert "missing here (0) different (1) missing there (0)" in text
    assert "Record it…" in text
    other = client.get(f"/payments/reconciliations/{row.reconciliation_id}/?finding=missing_there")
    assert "None missing there" in words(other)
    assert (
        client.get(f"/payments/reconciliations/{row.reconciliation_id}/?finding=x").status_code
        == 200
    )


def test_what_the_provider_says_is_recorded_and_the_row_says_so(client_of):
    row = make_run()
    client = client_of("payments")
    url = f"/payments/reconciliations/rows/{row.pk}/record/"
    assert "Record what the provider says of payment pay_9?" in words(client.post(url))
    page = client.post(url, {"confirmed": "1", "reason": "webhook lost"}, follow=True)
    assert "Recorded: accepted. The fulfilment of order order_9 is enqueued." in message(page)
    payment = Transaction.objects.get()
    assert (payment.status, payment.order_id, payment.amount) == ("paid", "order_9", 70_000)
    assert Task.objects.get().pk == payment.task_id
    delivery = WebhookDelivery.objects.get()
    assert f"/payments/deliveries/{delivery.pk}/" in {a["href"] for a in elements(page, "a")}
    assert "Recorded by payments" in words(page)
    assert "Record it" not in words(page)


def test_a_row_that_the_provider_does_not_show_can_only_be_set_aside(client_of):
    row = make_run(
        "missing_there", theirs=None, ours={"status": "paid", "amount": 100, "currency": "JPY"}
    )
    client = client_of("payments")
    text = words(client.get(f"/payments/reconciliations/{row.reconciliation_id}/"))
    assert "Amount JPY 100" in text
    assert "Record it" not in text
    url = f"/payments/reconciliations/rows/{row.pk}/set-aside/"
    page = client.post(url, {"confirmed": "1", "reason": "test mode"}, follow=True)
    assert "Set aside by payments" in words(page)
    assert not Transaction.objects.exists()


def test_many_rows_of_a_comparison_are_paged(client_of, sql):
    row = make_run("different")
    sql(
        "INSERT INTO reconciliation_rows (reconciliation_id, provider, finding, order_id)"
        " SELECT %s, 'razorpay', 'different', 'o' || n FROM generate_series(1, 60) n",
        row.reconciliation_id,
    )
    client, url = client_of("payments"), f"/payments/reconciliations/{row.reconciliation_id}/"
    page = client.get(url)
    assert html(page).count("<article") == PAGE_SIZE
    assert html(client.get(url + link(page, "next"))).count("<article") == 11


def test_a_comparison_whose_rows_a_later_one_took_over_says_so(client_of):
    row = make_run("different")
    first = row.reconciliation
    ReconciliationRow.objects.update(reconciliation=make_run().reconciliation)
    text = words(client_of("payments").get(f"/payments/reconciliations/{first.pk}/"))
    assert "1 of these is not listed here: a later comparison found it again" in text
    assert "See what is open now" in text
    assert "None different" not in text


def test_what_agrees_by_now_says_so_and_asks_for_nothing(client_of):
    row = make_run()
    ReconciliationRow.objects.update(handled_at=timezone.now())
    page = client_of("payments").get(f"/payments/reconciliations/{row.reconciliation_id}/")
    assert "The two sides agree since" in words(page)
    assert "Record it" not in words(page)


def test_a_comparison_that_left_something_out_is_not_called_clean(client_of):
    run = make_run().reconciliation
    Reconciliation.objects.update(missing_here=0, unread=3, not_asked=1)
    ReconciliationRow.objects.all().delete()
    client = client_of("payments")
    text = words(client.get(f"/payments/reconciliations/{run.pk}/"))
    assert "Razorpay in part" in text
    assert "3 payments of its books could not be read; the log names them." in text
    assert "1 order that its listing did not show was not asked for one by one." in text
    assert "completed" not in text
    assert "0 4 schedule in part" in words(client.get("/payments/reconciliations/"))


def test_from_the_open_differences_an_act_leads_back_to_them(client_of):
    first, second = make_run(), make_run("different")
    client, url = client_of("payments"), "/payments/differences/?provider=razorpay"
    page = client.get(url)
    text = words(page)
    assert "2 open differences, the oldest first" in text
    assert text.index("order_9") < text.index("order_10")
    fields = {f["name"]: f.get("value", "") for f in elements(page, "input") if f.get("name")}
    assert fields["back"] == url
    act = f"/payments/reconciliations/rows/{first.pk}/set-aside/"
    asked = client.post(act, {"back": url})
    fields = {f["name"]: f.get("value", "") for f in elements(asked, "input") if f.get("name")}
    assert fields["back"] == url
    page = client.post(act, fields | {"reason": "known"}, follow=True)
    assert page.redirect_chain[-1][0] == url
    assert "Set aside" in message(page)
    assert "1 open difference" in words(page)
    assert "razorpay (1)" in words(page)
    assert "order_9 " not in words(page)
    elsewhere = client.post(
        f"/payments/reconciliations/rows/{second.pk}/set-aside/",
        {"confirmed": "1", "reason": "known", "back": "//evil.example/payments/differences/"},
    )
    assert elsewhere["Location"].startswith(f"/payments/reconciliations/{second.reconciliation_id}")


def test_what_a_person_has_not_seen_is_not_decided(client_of):
    """A later comparison found something else between the page and the button."""
    row = make_run("different", difference="refunded: ours 0, theirs 200")
    client, url = client_of("payments"), f"/payments/reconciliations/rows/{row.pk}/set-aside/"
    asked = client.post(url)
    fields = {f["name"]: f.get("value", "") for f in elements(asked, "input") if f.get("name")}
    ReconciliationRow.objects.update(difference="refunded: ours 0, theirs 500")
    page = client.post(url, fields | {"reason": "known"}, follow=True)
    assert "it says something else by now" in message(page)
    assert ReconciliationRow.objects.get().handled_at is None


@pytest.mark.parametrize(
    ("query", "found"), [("", 61), ("?provider=stripe", 1), ("?finding=different", 60)]
)
def test_open_differences_are_paged(client_of, sql, query, found):
    run = make_run("missing_here", provider="stripe").reconciliation
    sql(
        "INSERT INTO reconciliation_rows (reconciliation_id, provider, finding, order_id)"
        " SELECT %s, 'razorpay', 'different', 'o' || n FROM generate_series(1, 60) n",
        run.pk,
    )
    client, url = client_of("payments"), "/payments/differences/"
    page = client.get(url + query)
    assert f"{found} open difference" in words(page)
    assert html(page).count("<article") == min(found, PAGE_SIZE)
    if found > PAGE_SIZE:
        rest = html(client.get(url + link(page, "next")))
        assert rest.count("<article") == found - PAGE_SIZE


def test_no_open_difference_is_a_page_too(client_of):
    text = words(client_of("payments").get("/payments/differences/?provider=x"))
    assert "No open difference All that was compared agrees" in text
    assert "There is no provider 'x'; all are shown." in text
    make_run()
    text = words(client_of("payments").get("/payments/differences/?provider=stripe"))
    assert "No open difference matches Show all open differences" in text


def test_the_payments_that_were_tried_for_an_order_are_listed(client_of):
    row = Transaction.objects.create(
        order_id="o", payment_id="pay_2", amount=100, status="paid", paid_at=timezone.now()
    )
    client, url = client_of("payments"), f"/payments/{row.pk}/"
    for payment, fields in {
        "pay_1": {"status": "failed"},
        "pay_2": {"status": "paid"},
        "pay_3": {"status": "refunded", "refunded": 100},
    }.items():
        row.payments.create(provider=row.provider, payment_id=payment, **fields)
        if payment == "pay_1":
            assert "Payments tried" not in words(client.get(url))
    text = words(client.get(url))
    assert "failed pay_1 –" in text
    assert "paid pay_2 paid the order –" in text
    assert "refunded pay_3 INR 1.00" in text


def test_a_signed_delivery_that_could_not_be_read_says_what_to_do(client_of):
    fields = {"provider": "razorpay", "verdict": "rejected", "body": b"", "reason": "No amount."}
    row = WebhookDelivery.objects.create(**fields)
    client, url = client_of("payments"), f"/payments/deliveries/{row.pk}/"
    assert "it may be money: read the reason, reconcile with the provider" in words(client.get(url))
    page = client.post(f"{url}set-aside/", {"confirmed": "1", "reason": "a test"}, follow=True)
    assert "Set aside" in message(page)
    assert "it may be money" not in words(page)
    assert "Nothing to decide" in words(client.get("/payments/deliveries/?open=1"))


def test_an_effect_without_its_task_is_still_told(client_of):
    row = Transaction.objects.create(
        order_id="o", amount=1, status="paid", fulfilled_at=timezone.now(), paid_at=timezone.now()
    )
    Fulfilment.objects.create(
        order_id="o", transaction=row, detail={"receipt_task_id": 5, "a": "b"}
    )
    text = words(client_of("payments").get(f"/payments/{row.pk}/"))
    assert "Fulfilled, effect recorded" in text
    assert '"a": "b"' in text
