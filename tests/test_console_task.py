"""One task's page: where it is, what happened to it, what belongs to it."""

from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.utils import timezone

from payments.models import Transaction, WebhookDelivery
from queues import operations
from queues.console import views
from queues.enqueue import enqueue
from queues.models import Queue, Task
from tests.console import elements, task_ids, words

pytestmark = pytest.mark.django_db
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def page_of(client_of):
    def get(task, group="viewer"):
        response = client_of(group).get(f"/tasks/{task.id}/")
        assert response.status_code == 200
        return response

    return get


@pytest.mark.parametrize(
    ("status", "fields", "sentence", "event"),
    [
        ("blocked", {"waits_on": 2}, "Waits for 2 tasks that must complete first.", "Enqueued"),
        ("scheduled", {}, "Due in 1 h 30 min.", "Due in "),
        (
            "scheduled",
            {"attempts": 2, "errors": [{"attempt": 2, "at": "2026-01-01T00:00:00Z"}]},
            "Attempt 2 of 5 failed; the next is due in 1 h 30 min.",
            "it runs when a worker is free",
        ),
        ("scheduled", {"error": "Snoozed: later."}, "Snoozed: later.", "Enqueued"),
        ("pending", {}, "No live worker serves queue default.", "Enqueued"),
        ("processing", {}, "Attempt 1 of 5, running for", "Attempt 1 started"),
        ("processing", {"timeout": timedelta(minutes=7)}, "of at most 7 min.", "by worker w1"),
        ("completed", {"attempts": 3}, "Completed in 0 s, at attempt 3.", "Completed"),
        ("failed", {}, "Failed for good after 1 attempt.", "Enqueued"),
        ("cancelled", {"error": "Cancelled: no need"}, "Cancelled: no need", "Cancelled"),
    ],
)
def test_each_status_has_its_sentence_and_its_events(
    page_of, make_task, status, fields, sentence, event
):
    if status == "completed":
        now = timezone.now()
        fields = fields | {"started_at": now, "completed_at": now}
    if status == "scheduled":
        fields = fields | {"run_at": timezone.now() + timedelta(minutes=90, seconds=30)}
    text = words(page_of(make_task(status, **fields)))
    assert sentence in text
    assert event in text[text.index(" Timeline ") : text.index(" Facts ")]
    assert f"test {status} " in text


@pytest.mark.parametrize(
    ("queue", "worker", "sentence"),
    [
        ({}, {}, "Next in line; a worker takes it as soon as one is free."),
        ({}, {"queues": ["other"]}, "No live worker serves queue q."),
        ({}, {"queues": ["other", "q"]}, "Next in line"),
        ({}, {"status": "draining"}, "No live worker serves queue q."),
        ({}, {"heartbeat_at": timedelta(hours=1)}, "No live worker serves queue q."),
        (
            {"paused": True, "paused_by": "asha", "paused_reason": "bank holiday"},
            {},
            "Queue q is paused by asha: bank holiday.",
        ),
        ({"paused": True, "paused_until": timedelta(hours=1)}, {}, "Next in line"),
        ({"max_concurrent": 1}, {}, "Queue q runs 1 of at most 1 tasks; this one waits its turn."),
    ],
)
def test_a_waiting_task_says_what_it_waits_for(
    page_of, make_task, make_worker, queue, worker, sentence
):
    """Spans of time are taken off now."""

    def before_now(fields):
        return {k: timezone.now() - v if isinstance(v, timedelta) else v for k, v in fields.items()}

    Queue.objects.create(name="q", **before_now(queue))
    make_worker("w2", **before_now(worker))
    if "max_concurrent" in queue:
        make_task("processing", queue_id="q", worker_id="w2")
    assert sentence in words(page_of(make_task(queue_id="q")))


def test_a_waiting_task_counts_those_ahead_of_it(page_of, make_task, make_worker):
    make_worker()
    make_task(priority=5)
    make_task()
    task = make_task()
    make_task(priority=-1)
    make_task()
    assert "Waits for a free worker; 2 tasks ahead of it." in words(page_of(task))


def test_attempts_are_shown_newest_first_with_their_tracebacks_as_text(page_of, make_task):
    records = [
        {
            "attempt": n,
            "at": f"2026-01-0{n}T10:00:05+00:00",
            "started_at": f"2026-01-0{n}T10:00:00+00:00",
            "worker": "w1",
            "class": "ValueError",
            "message": f"broken {n} {SCRIPT}",
            "traceback": f"File x, line {n}\n{SCRIPT}",
        }
        for n in (1, 2)
    ]
    page = page_of(make_task("failed", attempts=2, errors=records))
    text = words(page)
    assert text.index("Attempt 2 ValueError") < text.index("Attempt 1 ValueError")
    assert "File x, line 1" in text
    assert "Attempt 2 failed after 5 s" in text
    assert SCRIPT not in page.content.decode()
    assert "&lt;script&gt;" in page.content.decode()


def test_an_attempt_that_a_rescue_recorded_is_shown_without_a_traceback(page_of, make_task):
    task = make_task("processing", worker_id="w9")
    operations.requeue([task.id], actor="asha", reason="hung", force=True)
    text = words(page_of(task))
    assert "Requeued: an operator took it back by force" in text
    assert "Requeue by asha" in text
    assert "processing → pending: hung" in text


@pytest.mark.parametrize("column", ["payload", "result"])
def test_what_callers_gave_is_text_without_its_secrets(page_of, make_task, column):
    value = {
        "note": SCRIPT,
        "Api-Key": "k-123",
        "nested": [{"card": {"number": "4111"}}],
        "größe": "ü",
    }
    page = page_of(make_task("completed", **{column: value}))
    text = words(page)
    assert '"größe": "ü"' in text
    assert text.count("[redacted]") == 2
    for secret in ("k-123", "4111"):
        assert secret not in page.content.decode()
    assert SCRIPT not in page.content.decode()


@pytest.mark.parametrize("value", [[], {}, 0, "", "text", False, [1, [2]]])
def test_any_json_is_a_payload_that_can_be_shown(page_of, make_task, value):
    task = make_task()
    Task.objects.filter(pk=task.pk).update(payload=value)
    assert " Payload " in words(page_of(task))


def test_an_act_that_keeps_the_status_tells_what_it_changed(page_of, make_task):
    task = make_task()
    operations.set_priority([task.id], 9, actor="asha", reason="it is late")
    text = words(page_of(task))
    assert "Set priority by asha" in text
    assert "priority 0 → 9: it is late" in text


def test_a_chain_is_shown_from_both_sides(page_of, make_task):
    first = enqueue("first")
    second = enqueue("second", after=[first.id])
    third = enqueue("third", after=[second.id])
    page = page_of(second)
    assert {str(first.id), str(third.id)} <= set(task_ids(page))
    text = words(page)
    assert "runs after pending first cancel" in text
    assert "is followed by blocked third cancel" in text


def test_a_predecessor_that_is_no_longer_kept_is_named_without_a_link(page_of):
    first = enqueue("first")
    second = enqueue("second", after=[first.id])
    operations.cancel([second.id], actor="a")
    Task.objects.filter(pk=first.id).delete()
    page = page_of(second)
    assert f"runs after no longer kept {first.id}" in words(page)
    assert str(first.id) not in task_ids(page)


def test_a_trail_holds_all_that_share_its_correlation(page_of, make_task):
    root, other = make_task(type="root"), make_task(type="stranger", correlation_id="else")
    child = make_task(type="child", correlation_id=str(root.id))
    sibling = make_task(type="sibling", correlation_id=str(root.id))
    assert {str(child.id), str(sibling.id)} <= set(task_ids(page_of(root)))
    from_child = task_ids(page_of(child))
    assert str(sibling.id) in from_child
    assert str(other.id) not in from_child


def test_a_trail_leads_back_to_the_task_that_began_it(page_of, make_task):
    root = make_task(type="root")
    assert str(root.id) in task_ids(page_of(make_task(correlation_id=str(root.id))))


def test_a_payment_is_shown_to_those_who_may_see_payments(page_of, make_task):
    task = make_task("completed", type="payments.fulfil")
    Transaction.objects.create(order_id="order_77", amount=12_345, status="paid", task_id=task.id)
    WebhookDelivery.objects.create(
        provider="razorpay", order_id="order_77", verdict="duplicate", body=b"{}"
    )
    text = words(page_of(task, "payments"))
    assert "order_77" in text
    assert "123.45" in text
    assert "Deliveries duplicate" in text
    assert "order_77" not in words(page_of(task, "operator"))


@pytest.mark.parametrize("payload", [{"transaction_id": "no id"}, {"transaction_id": 5}, []])
def test_a_payment_task_with_an_odd_payload_has_a_page(page_of, make_task, payload):
    task = make_task(type="payments.fulfil")
    Task.objects.filter(pk=task.pk).update(payload=payload)
    assert "payments.fulfil" in words(page_of(task, "payments"))


@pytest.mark.parametrize("status", Task.Status.values)
def test_only_what_is_legal_is_offered(page_of, make_task, status):
    waiting = {"set_priority", "move", "cancel"}
    legal = {
        "blocked": waiting,
        "scheduled": waiting | {"requeue"},
        "pending": waiting,
        "processing": {"requeue", "release", "cancel"},
        "completed": {"run_again"},
        "failed": {"retry"},
        "cancelled": {"retry"},
    }
    buttons = elements(page_of(make_task(status), "operator"), "button")
    assert {b["value"] for b in buttons if b.get("name") == "verb"} == legal[status]


@pytest.fixture
def files(tmp_path, monkeypatch):
    storage = FileSystemStorage(tmp_path / "files")
    monkeypatch.setattr(views, "default_storage", storage)
    return storage


def test_the_file_that_a_task_made_is_downloaded(client_of, page_of, make_task, files):
    name = files.save("exports/ledger ü.csv", ContentFile("a,ü\n".encode()))
    task = make_task("completed", output_location=name)
    assert f"/tasks/{task.id}/output/" in [a["href"] for a in elements(page_of(task), "a")]
    response = client_of("viewer").get(f"/tasks/{task.id}/output/")
    assert b"".join(response.streaming_content) == "a,ü\n".encode()
    assert response["Content-Disposition"].startswith("attachment; ")
    response.close()


@pytest.mark.parametrize(
    ("location", "status"),
    [
        (None, 404),
        ("", 404),
        ("exports/gone.csv", 404),
        ("https://elsewhere.example/a.csv", 404),
        ("../../../etc/passwd", 400),
        ("/etc/passwd", 400),
    ],
)
def test_no_other_file_is_given_out(client_of, make_task, files, location, status):
    task = make_task("completed", output_location=location)
    assert client_of("viewer").get(f"/tasks/{task.id}/output/").status_code == status


@pytest.mark.parametrize("url", ["/tasks/?status=scheduled", "/tasks/{}/"])
def test_a_task_that_is_due_in_the_last_year_can_be_looked_at(
    client_of, make_task, sql, settings, url
):
    settings.TIME_ZONE = "Pacific/Kiritimati"
    task = make_task("scheduled")
    sql("UPDATE tasks SET run_at = '9998-12-31 23:59:59+00' WHERE id = %s", task.id)
    assert "scheduled" in words(client_of("viewer").get(url.format(task.id)))
