"""Who may see the console's pages of payments, and who may decide about money."""

from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from payments.models import (
    Transaction,
    WebhookDelivery,
)
from queues.models import Operation
from tests.console import HTMX, elements, html
from tests.payment_console import make_run
from tests.payment_events import deliver, verdict
from tests.test_console import answer

pytestmark = pytest.mark.django_db

LISTS = ["list", "deliveries", "reconciliations", "differences"]
PAGES = [*LISTS, "transaction", "delivery", "reconciliation"]
ACTS = ["fulfil", "accept", "set_aside", "record", "set_row_aside"]


@pytest.fixture
def held(settings):
    settings.PAYMENTS_UNEXPECTED = "hold"
    assert verdict(deliver()) == "accepted"
    return Transaction.objects.get()


@pytest.fixture
def url_of(held):
    """The address of a page or an act by its name."""

    def find(name):
        if name in LISTS:
            return reverse(f"payments:{name}")
        row = make_run()
        about = {
            "transaction": held.pk,
            "fulfil": held.pk,
            "reconciliation": row.reconciliation_id,
            "record": row.pk,
            "set_row_aside": row.pk,
        }
        return reverse(
            f"payments:{name}", args=[about.get(name) or WebhookDelivery.objects.get().pk]
        )

    return find


@pytest.fixture
def reader(client_of):
    def make(role):
        if role in ("viewer", "operator", "payments", "admin"):
            return client_of(role)
        client = Client()
        if role != "anonymous":
            client.force_login(User.objects.create_user(role, is_staff=role == "staff in no group"))
        return client

    return make


ROLES = [
    ("anonymous", "login"),
    ("customer", 403),
    ("staff in no group", 403),
    ("viewer", 403),
    ("operator", 403),
    ("payments", 200),
    ("admin", 200),
]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("role", "expected"), ROLES)
def test_pages_are_for_those_who_may_see_payments(reader, url_of, name, role, expected):
    url, client = url_of(name), reader(role)
    assert answer(client.get(url)) == expected
    assert answer(client.get(url, **HTMX)) == (204 if role == "anonymous" else expected)
    assert client.post(url).status_code == 405


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize(("role", "expected"), ROLES)
def test_acts_are_for_those_who_hold_their_permission(reader, url_of, name, role, expected):
    url, client = url_of(name), reader(role)
    assert answer(client.get(url)) == (302 if expected == 200 else expected)
    assert client.put(url).status_code == 405
    assert answer(client.post(url)) == expected
    asked = {"confirmed": "1", "reason": "because"}
    assert answer(client.post(url, asked)) == (302 if expected == 200 else expected)
    may = expected == 200 and name not in ("accept", "set_aside")
    assert Operation.objects.count() == may


@pytest.mark.parametrize("name", ["fulfil", "set_aside", "set_row_aside"])
def test_who_may_only_look_at_payments_can_do_nothing(client_of, user_in, url_of, name):
    user = user_in("viewer")
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="payments", codename__startswith="view_")
    )
    client, url = client_of("viewer"), url_of(name)
    assert client.post(url, {"confirmed": "1", "reason": "r"}).status_code == 403
    for page in PAGES:
        buttons = [
            form for form in elements(client.get(url_of(page)), "form") if form.get("action")
        ]
        assert [
            form for form in buttons if "/payments/" in form["action"] and form["method"] == "post"
        ] == []


def test_the_roles_hold_what_their_name_says(user_in):
    money = {
        "payments.fulfil_transaction",
        "payments.override_settled",
        "payments.reconcile_transaction",
        "payments.handle_webhookdelivery",
    }
    holding = {
        name: user_in(name).get_all_permissions()
        for name in ("viewer", "operator", "payments", "admin")
    }
    assert {name: bool(money & perms) for name, perms in holding.items()} == {
        "viewer": False,
        "operator": False,
        "payments": True,
        "admin": True,
    }
    assert money <= holding["payments"]
    assert money <= holding["admin"]
    assert not [
        p
        for p in holding["payments"]
        if p.startswith("payments.") and "view_" not in p and p not in money
    ]


@pytest.mark.parametrize(("group", "seen"), [("payments", True), ("operator", False)])
def test_the_navigation_leads_to_payments(client_of, group, seen):
    links = {a["href"]: a for a in elements(client_of(group).get("/"), "a")}
    assert ("/payments/" in links) == seen
    if seen:
        page = client_of(group).get("/payments/deliveries/")
        current = [a["href"] for a in elements(page, "a") if a.get("aria-current") == "page"]
        assert current == ["/payments/"]


@pytest.mark.parametrize("name", PAGES)
def test_a_fragment_is_the_page_without_its_frame(client_of, url_of, name):
    url, client = url_of(name), client_of("payments")
    fragment, whole = html(client.get(url, **HTMX)), html(client.get(url))
    assert "<html" not in fragment
    assert "<h1" in fragment or name in LISTS
    assert "<html" in whole
    assert "style=" not in whole
    assert "onclick" not in whole


@pytest.mark.parametrize(
    "name",
    [
        "transaction",
        "delivery",
        "reconciliation",
        "fulfil",
        "accept",
        "set_aside",
        "record",
        "set_row_aside",
    ],
)
def test_what_does_not_exist_is_not_found(client_of, name):
    url = reverse(f"payments:{name}", args=[uuid4()])
    client = client_of("payments")
    answered = client.get(url) if name in PAGES else client.post(url)
    assert answered.status_code == 404
