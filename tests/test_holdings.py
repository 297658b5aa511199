"""The worker's book of what it holds, without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from queues.claims import ClaimedTask
from queues.worker.holdings import Holdings


def task(n, lease=1):
    return ClaimedTask(
        id=UUID(int=n),
        lease=lease,
        queue="default",
        type="t",
        payload_text="{}",
        attempts=1,
        max_attempts=5,
        lost=0,
        timeout=timedelta(minutes=1),
        tenant_id=None,
        correlation_id=None,
        created_at=datetime.now(UTC),
    )


def test_room_is_the_free_threads():
    book = Holdings(4)
    book.add([task(1), task(2)])
    assert book.room() == 2
    book.next()
    assert book.room() == 2


def test_quick_work_makes_room_for_more_and_giving_back_does_not():
    book = Holdings(1)
    book.add(task(n) for n in range(300))
    running = book.next()
    waiting = book.take_buffered()
    book.dropped(waiting)
    assert book.room() == 0
    book.settled([running])
    book.handler_returned(running)
    book.add(task(n) for n in range(300, 600))
    done = [book.next() for _ in range(300)]
    for holding in done:
        book.handler_returned(holding)
    book.settled(done)
    assert book.room() > 100


def test_a_task_that_came_back_is_another_holding():
    book = Holdings(2)
    book.add([task(1)])
    old = book.next()
    book.add([replace(task(1), lease=2)])
    book.settled([old])
    assert [holding.key for holding in book.all()] == [(UUID(int=1), 2)]
    assert not book.wait_empty(0)


def test_what_could_not_be_given_back_waits_as_before():
    book = Holdings(1)
    book.add([task(1), task(2)])
    taken = book.take_buffered()
    assert len(taken) == 2
    book.put_back(taken)
    assert book.next().task.id == UUID(int=1)
