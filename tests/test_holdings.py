"""The worker's book of what it holds, without a database."""

from queues import registry
from queues.claims import ClaimedTask
from queues.worker import judge
from queues.worker.holdings import Holding, Holdings


def task(n, lease=1, type="t"):
    return ClaimedTask(
        key=f"00000000-0000-0000-0000-{n:012x}",
        lease=lease,
        queue="default",
        type=type,
        payload_text="{}",
        attempts=1,
        max_attempts=5,
        suspect=False,
        timeout_seconds=60.0,
        tenant_id=None,
        correlation_id=None,
    )


def tasks(first, last, **fields):
    return [task(n, **fields) for n in range(first, last)]


def test_room_is_the_free_threads():
    book = Holdings(4)
    book.add(tasks(1, 3))
    assert book.room() == 2
    book.next()
    assert book.room() == 2


def test_quick_work_makes_room_for_more_and_giving_back_does_not():
    book = Holdings(1)
    book.add(tasks(0, 300))
    running = book.next()
    assert book.room() <= 0
    book.settled(book.take_buffered())
    assert book.room() == 0
    book.handler_returned(running)
    book.settled([running])
    book.add(tasks(300, 600))
    done = [book.next() for _ in range(300)]
    for holding in done:
        book.handler_returned(holding)
    book.settled(done)
    assert book.room() > 100


def test_the_claimer_is_woken_when_the_buffer_runs_low():
    book = Holdings(1)
    book.add(tasks(0, 200))
    for _ in range(200):
        book.room()
        book.handler_returned(book.next())
    book.add(tasks(200, 600))
    book.room()
    book.low.clear()
    book.next()
    assert not book.low.is_set()
    for _ in range(250):
        book.next()
    assert book.low.is_set()


def test_a_batch_handler_is_given_what_comes_next_of_its_type():
    book = Holdings(1)
    book.add([*tasks(0, 5, type="a"), *tasks(5, 7, type="b"), *tasks(7, 9, type="a")])
    first = book.next()
    assert [holding.task.type for holding in book.more_of(first.task.type, 10)] == ["a"] * 4
    assert book.next().task.type == "b"
    assert book.more_of("b", 0) == []


def test_a_suspect_is_not_taken_into_a_batch():
    book = Holdings(1)
    book.add([task(1), task(2), task(3)._replace(suspect=True), task(4)])
    book.next()
    assert [holding.task.key for holding in book.more_of("t", 10)] == [task(2).key]
    assert book.next().task.suspect


def test_coroutines_without_a_place_wait_like_those_in_the_buffer():
    book = Holdings(2)
    book.add(tasks(1, 4))
    first, second = book.next(), book.next()
    book.park(first)
    book.park(second)
    assert book.unpark() is first
    taken = book.take_buffered()
    assert [holding.task.key for holding in taken] == [task(3).key, task(2).key]
    assert book.unpark() is None


def test_batch_handlers_make_room_for_whole_batches():
    registry.register(registry.Handler(type="in_batches", function=print, batch=50))
    book = Holdings(2)
    assert book.room() == 2
    book.add(tasks(0, 2, type="in_batches"))
    for holding in (book.next(), book.next()):
        book.handler_returned(holding)
        book.settled([holding])
    assert book.room() == 100


def test_a_task_that_came_back_is_another_holding():
    book = Holdings(2)
    book.add([task(1)])
    old = book.next()
    book.add([task(1, lease=2)])
    book.settled([old])
    assert [holding.key for holding in book.all()] == [(task(1).key, 2)]
    assert not book.wait_empty(0)


def test_what_could_not_be_given_back_waits_as_before():
    book = Holdings(1)
    book.add(tasks(1, 3))
    taken = book.take_buffered()
    assert len(taken) == 2
    book.put_back(taken)
    assert book.next().task.key == task(1).key


def test_a_lost_task_interrupts_its_batch_and_the_others_run_again():
    def handler(contexts):
        for context in contexts:
            context.check()

    holdings = [Holding(task(n), 0.0) for n in range(3)]
    holdings[1].lose()
    outcomes = judge.call_many(holdings, registry.Handler(type="t", function=handler, batch=3))
    assert [type(outcome).__name__ for outcome in outcomes] == ["Release", "Nothing", "Release"]
