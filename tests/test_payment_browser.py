"""The pages of payments in a real browser: by keyboard, without scripts, on a phone, beside a worker."""

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from payments.models import Transaction, WebhookDelivery
from tests.browser import brightness, one_browser, tab_to, too_wide, windows  # noqa: F401
from tests.conftest import eventually
from tests.payment_console import THEIRS, make_run
from tests.payment_events import deliver, verdict

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]

LONG = "an_unbroken_name_" * 6


@pytest.fixture
def held(settings):
    settings.PAYMENTS_UNEXPECTED = "hold"
    assert verdict(deliver()) == "accepted"
    return Transaction.objects.get()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_held_order_is_fulfilled_by_hand_and_seen_to_be_fulfilled(
    open_browser, client_of, held, run_worker, scripts
):
    run_worker().started()
    page = open_browser(client_of("payments"), java_script_enabled=scripts)
    page.goto("/")
    expect(page.get_by_text("1 paid order held for a person")).to_be_visible()
    page.get_by_role("link", name="Fulfil or refund").click()
    page.get_by_role("link", name="order_1").click()
    page.get_by_role("button", name="Fulfil…").click()
    page.get_by_label("Reason").fill("the shop knows it")
    page.get_by_role("button", name="Fulfil", exact=True).click()
    expect(page.get_by_text("fulfilment is enqueued")).to_be_visible()
    if not scripts:
        eventually(lambda: Transaction.objects.get().fulfilled_at)
        page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text("fulfilled", timeout=20_000)
    expect(page.get_by_text("Fulfilled, effect recorded")).to_be_visible()


def test_a_mismatch_is_decided_by_keyboard_alone(open_browser, client_of, held):
    assert verdict(deliver(event_id="evt_2", amount=60_000)) == "mismatch"
    page = open_browser(client_of("payments"))
    page.goto("/payments/deliveries/?verdict=mismatch&open=1")
    tab_to(page, page.get_by_role("link", name="payment.captured"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("button", name="Set aside…"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("aside?")
    tab_to(page, page.get_by_label("Reason"))
    page.keyboard.type("a test")
    tab_to(page, page.get_by_role("button", name="Set aside"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("the ledger stays as it is")).to_be_visible()
    assert WebhookDelivery.objects.get(verdict="mismatch").handling == "set aside: a test"


def test_a_filter_is_followed_without_leaving_the_page(open_browser, client_of, held):
    Transaction.objects.create(order_id="order_2", amount=1)
    page = open_browser(client_of("payments"))
    page.goto("/payments/")
    page.evaluate("window.kept = true")
    page.get_by_label("Status").select_option("created")
    expect(page.get_by_role("link", name="order_1")).to_have_count(0)
    expect(page.get_by_role("link", name="order_2")).to_be_visible()
    assert "status=created" in page.url
    assert page.evaluate("window.kept"), "the page was reloaded"


@pytest.fixture
def urls(held):
    """Every page, with names as long as they come and each kind of row."""
    Transaction.objects.filter(pk=held.pk).update(email=f"{LONG}@example.com", payment_id=LONG)
    mismatch = WebhookDelivery.objects.create(
        provider="razorpay",
        verdict="mismatch",
        event_type=LONG,
        event_id=LONG,
        order_id=LONG,
        transaction_id=held.pk,
        claim={"status": "paid", "amount": 2**53, "currency": "INR", "email": LONG},
        body=b'{"' + LONG.encode() * 20 + b'": 1}',
        headers={LONG: LONG},
        reason=LONG * 2,
    )
    row = make_run("different", ours=THEIRS | {"status": "created", "email": LONG}, order_id=LONG)
    for n, status in enumerate(Transaction.Status.values):
        Transaction.objects.create(
            order_id=f"{LONG}{n}",
            amount=2**53,
            refunded=5,
            currency=["INR", "JPY", "KWD"][n % 3],
            status=status,
            paid_at=timezone.now(),
        )
    return [
        "/",
        "/payments/",
        "/payments/?attention=any",
        "/payments/?q=nobody&since=x",
        f"/payments/{held.pk}/",
        "/payments/deliveries/",
        f"/payments/deliveries/{mismatch.pk}/",
        "/payments/reconciliations/",
        f"/payments/reconciliations/{row.reconciliation_id}/",
    ]


def test_the_longest_order_and_sum_leave_the_list_its_columns(open_browser, client_of):
    for n, currency in enumerate(("INR", "JPY", "USD")):
        Transaction.objects.create(
            order_id=f"{n}" * 500,
            amount=2**62,
            currency=currency,
            email=f"{LONG}@example.com",
            status="paid",
            paid_at=timezone.now(),
        )
    page = open_browser(client_of("payments"), viewport={"width": 1280, "height": 844})
    page.goto("/payments/")
    table = page.get_by_role("region", name="Payments")
    assert table.evaluate("e => e.scrollWidth - e.clientWidth") == 0
    assert table.get_by_role("row").last.bounding_box()["height"] < 100
    for came in page.locator(".figures.money dd:not(.also)").all():
        assert came.bounding_box()["height"] < 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_has_an_error_or_scrolls_sideways(open_browser, client_of, urls, width, scheme):
    page = open_browser(
        client_of("admin"), viewport={"width": width, "height": 844}, color_scheme=scheme
    )
    for url in urls:
        page.goto(url)
        expect(page.get_by_role("heading", level=1).first).to_be_visible()
        assert too_wide(page) == [], url
        assert (brightness(page) > 128) == (scheme == "light")
    for url, button in ((urls[-1], "Record it…"), (urls[6], "Accept what it says…")):
        page.goto(url)
        page.get_by_role("button", name=button).first.click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("?")
        expect(page.get_by_label("Reason")).to_be_visible()
        assert too_wide(page) == [], button
