"""What outlives a worker process: its board, and the orders by which it hears its parent's end."""

import os
import signal
import time
import warnings

from queues.worker.board import Board, died, exit_of
from queues.worker.supervisor import AT_ONCE, STOP, Orders

KEYS = [f"00000000-0000-0000-0000-{n:012x}" for n in range(3)]


def in_a_child(work):
    """Run work() in a forked process that kills itself afterwards; its status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # on forking beside threads
        pid = os.fork()
    if pid == 0:
        work()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_board_tells_what_ran_when_its_process_was_killed():
    board = Board(3)
    assert (board.worker, board.running()) == ("", [])

    def work():
        board.name_worker("host-ünique-1")
        board.begin(0, KEYS[0], 1)
        board.begin(2, KEYS[1], 7)
        board.begin(1, KEYS[2], 2**62)
        board.end(0)

    assert in_a_child(work) == -signal.SIGKILL
    assert board.worker == "host-ünique-1"
    assert board.running() == [(KEYS[2], 2**62), (KEYS[1], 7)]
    board.close()


def test_a_slot_and_a_name_are_written_over():
    board = Board(1)
    board.name_worker("a-long-name-of-a-worker")
    board.name_worker("short")
    board.begin(0, KEYS[0], 123456)
    board.end(0)
    board.begin(0, KEYS[1], 1)
    assert (board.worker, board.running()) == ("short", [(KEYS[1], 1)])
    board.close()


def test_how_a_process_died_is_told_to_people_and_groups_alike_deaths():
    killed, exited = died(KEYS[0], 3, exit_of(-9)), died(KEYS[1], 1, exit_of(7))
    assert killed.message == "the process that ran it was ended by SIGKILL"
    assert exited.message == "the process that ran it exited with code 7"
    assert (killed.fingerprint, killed.lost, killed.lease) == (
        "WorkerDied: ended by SIGKILL",
        True,
        3,
    )
    assert exited.fingerprint == "WorkerDied: exited with code 7"


def orders():
    read, write = os.pipe()
    return Orders(read), write


def test_orders_are_heard_once_given_and_stay():
    heard, pipe = orders()
    assert not heard.stop(0)
    os.write(pipe, STOP)
    assert heard.stop(5)
    assert heard.stop(0)
    assert not heard.at_once()
    os.write(pipe, AT_ONCE)
    assert heard.at_once()
    os.close(pipe)


def test_the_supervisors_end_is_an_order_to_stop_but_not_to_drop_what_runs():
    heard, pipe = orders()
    os.close(pipe)
    assert heard.stop(5)
    assert not heard.at_once()
    before = time.monotonic()
    assert heard.stop(0.05)
    assert time.monotonic() - before < 5
