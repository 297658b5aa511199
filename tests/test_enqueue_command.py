"""manage.py enqueue: one task, many, or a file of them; a bad line refuses the whole file."""

import io
import json
import os
import subprocess
import sys
import time
import tracemalloc
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command

from queues.models import Queue, Task, TaskDependency
from tests.conftest import ROOT, database_url

pytestmark = pytest.mark.django_db


@pytest.fixture
def command(capsys):
    def run(*arguments):
        call_command("enqueue", *arguments)
        return capsys.readouterr().out.strip()

    return run


@pytest.fixture
def load(command, tmp_path):
    """Load these lines (texts, bytes or objects); the answer, or the lines of the refusal."""

    def run(*lines, foreign=False):
        raw = [line if isinstance(line, bytes) else _text(line).encode() for line in lines]
        file = tmp_path / "tasks.jsonl"
        file.write_bytes(b"\n".join(raw))
        return command("--from", str(file), *(["--foreign"] if foreign else []))

    return run


def _text(line):
    return line if isinstance(line, str) else json.dumps(line)


def refused(call, *arguments):
    with pytest.raises(CommandError) as refusal:
        call(*arguments)
    assert refusal.value.returncode == 1
    assert not Task.objects.exists()
    return str(refusal.value)


def test_one_task_prints_its_id(command):
    task = Task.objects.get(pk=command("echo", '{"a": "ü"}'))
    assert (task.type, task.payload, task.queue_id, task.status) == (
        "echo",
        {"a": "ü"},
        "default",
        "pending",
    )
    assert Task.objects.get(pk=command("echo")).payload == {}


def test_every_option_reaches_the_task(command, make_task):
    Queue.objects.create(name="bulk")
    first, second = make_task(), make_task()
    id = command(
        "echo", "[1]", "--queue", "bulk", "--priority", "-7", "--dedupe-key", "k",
        "--run-at", "2030-01-01T00:00:00Z", "--after", f"{first.id}, {second.id}",
    )  # fmt: skip
    task = Task.objects.get(pk=id)
    assert (task.queue_id, task.priority, task.dedupe_key, task.run_at.year) == (
        "bulk",
        -7,
        "k",
        2030,
    )
    assert set(TaskDependency.objects.values_list("predecessor_id", flat=True)) == {
        first.id,
        second.id,
    }


def test_many_at_once_print_a_count_and_two_ids(command):
    words = command("echo", "--count", "4500").replace(",", " ").split()
    assert words[:3] == ["4", "500", "enqueued"]
    ids = list(Task.objects.order_by("id").values_list("id", flat=True))
    assert len(ids) == 4500
    assert [UUID(words[4]), UUID(words[6])] == [ids[0], ids[-1]]


def test_a_live_dedupe_key_is_said(command):
    first = command("echo", "--dedupe-key", "k")
    assert command("echo", "--dedupe-key", "k") == first
    with pytest.raises(CommandError, match="makes one task"):
        command("echo", "--dedupe-key", "k2", "--count", "2")


def test_the_payload_may_be_a_file(command, tmp_path):
    (tmp_path / "p.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert Task.objects.get(pk=command("echo", f"@{tmp_path}/p.json")).payload == {"a": 1}


def test_a_type_of_another_project_is_enqueued_on_request(command):
    assert Task.objects.get(pk=command("render", "--foreign")).type == "render"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give a type, or --from FILE."),
        (["ecko"], "No handler here has the type 'ecko'. Did you mean echo? Known types: append, "),
        (["ecko"], "add --foreign."),
        (
            ["echo", "{a: 1}"],
            "the payload is not JSON: Expecting property name enclosed in double quotes: line 1",
        ),
        (["echo", "[" * 100_000], "the payload is nested too deeply."),
        (["echo", "9" * 5000], "the payload is not JSON: Exceeds the limit"),
        (["echo", "NaN"], "the payload cannot be written as JSON"),
        (["echo", '"a\\u0000b"'], "the payload holds a NUL character"),
        (["echo", '"\udcff"'], "half a surrogate pair"),
        (["echo", "@/nowhere/x.json"], "/nowhere/x.json: No such file or directory."),
        (
            ["echo", "--queue", "defualt"],
            "There is no queue 'defualt'. Did you mean default? Queues: default, ",
        ),
        (["echo", "--priority", "101"], "priority is a whole number from -100 to 100, not 101."),
        (["echo", "--run-at", "tomorrow"], "run_at is a moment such as"),
        (["echo", "--after", "x"], "after holds something that is no task id"),
        (["echo", "--after", str(UUID(int=7))], f"predecessor {UUID(int=7)} does not exist"),
        (["echo", "--count", "0"], "--count is a number from 1 to 1,000,000."),
        (["--from", "/nowhere/x"], "/nowhere/x: No such file or directory."),
        (["--from", "/"], "/: Is a directory."),
        (["echo", "--from", "x"], "--from takes no type"),
        (["--from", "x", "--priority", "0"], "--from takes no type"),
    ],
)
def test_what_is_wrong_is_one_sentence(command, arguments, sentence):
    assert sentence in refused(command, *arguments)


def test_a_file_of_tasks(load, make_task):
    before = make_task()
    answer = load(
        b"\xef\xbb\xbf" + b'{"type": "echo", "payload": {"n": 1}}\r',
        "",
        "  \t",
        {
            "type": "echo",
            "priority": 5,
            "after": [str(before.id)],
            "run_at": "2030-01-01T00:00:00Z",
        },
        {"type": "export", "payload": {"source": "tasks"}},
        "",
    )
    assert answer.startswith("3 enqueued, first ")
    made = Task.objects.exclude(pk=before.pk).order_by("id")
    assert sorted((t.type, t.queue_id, t.priority, t.status) for t in made) == [
        ("echo", "default", 0, "pending"),
        ("echo", "default", 5, "blocked"),
        ("export", "proof", 0, "pending"),
    ]


def test_an_empty_file_is_no_error(load):
    assert load("") == load(b"\xef\xbb\xbf\r\n \n") == "Nothing enqueued: there is no task in it."


def test_foreign_types_in_a_file(load):
    assert "1 enqueued" in load({"type": "render"}, foreign=True)


def test_every_bad_line_is_named(load):
    good = {"type": "echo"}
    lines = [
        good,
        "{",
        "",
        "[1]",
        {"typ": "echo"},
        {"payload": 1},
        {"type": "ecko"},
        {"type": "echo", "queue": "defualt"},
        {"type": "echo", "payload": "a\x00b"},
        {"type": "echo", "payload": "x" * 10_000_000},
        b'{"type": "\xff"}',
        {"type": "echo", "priority": "high"},
        {"type": "echo", "after": "x"},
        "[" * 100_000,
        {"type": "echo", "payload": {"x": "y" * 17_000_000}},
        '{"type": "echo", "payload": NaN}',
        {"type": 7},
        good,
    ]
    told = refused(load, *lines).splitlines()
    position = sum(len(_text(line)) + 1 for line in lines[:10]) + len('{"type": "') + 1
    expected = [
        "Nothing was enqueued: 15 bad lines.",
        "line 2: it is not JSON: Expecting property name enclosed in double quotes at column 2.",
        "line 4: it must be an object of JSON, not [1].",
        "line 5: unknown key 'typ'; a task has type, ",
        'line 6: the key "type" is missing.',
        "line 7: No handler here has the type 'ecko'. Did you mean echo?",
        "line 8: there is no queue 'defualt'. Did you mean default? Queues: default, ",
        "line 9: the payload holds a NUL character",
        "line 10: the payload is 10,000,002 bytes; the most is 1,048,576.",
        f"line 11: it is not UTF-8: byte 11 of the line, {position:,} of the file, is wrong.",
        "line 12: priority is a whole number",
        "line 13: after is a list of task ids",
        "line 14: it is nested too deeply.",
        "line 15: it is 17,000,038 bytes long; the most is 16,777,216.",
        "line 16: the payload cannot be written as JSON",
        "line 17: type must be a text",
        "Known types: append, ",
    ]
    assert len(told) == len(expected)
    assert [line[: len(start)] for line, start in zip(told, expected, strict=True)] == expected


def test_after_twenty_bad_lines_the_rest_is_counted(load):
    told = refused(load, *["{"] * 1025).splitlines()
    assert told[0] == "Nothing was enqueued: 1,025 bad lines."
    assert told[20].startswith("line 20: ")
    assert told[21:] == ["and 1,005 more"]


def test_a_file_of_another_encoding_is_recognised(load):
    assert "The file looks like UTF-16." in refused(load, '{"type": "echo"}'.encode("utf-16"))


def test_what_only_the_database_sees_is_named_by_line_too(load):
    missing = uuid4()
    lines = ["", *[{"type": "echo"}] * 2500, {"type": "echo", "after": [str(missing)]}]
    told = refused(load, *lines)
    assert told.startswith(
        f"Nothing was enqueued. line 2502: predecessor {missing} does not exist."
    )
    large = {"type": "echo", "payload": [1] * 500_000}
    assert refused(load, {"type": "echo"}, large).startswith("Nothing was enqueued. line 2: ")


def test_a_large_file_is_quick_and_bounded(command, tmp_path):
    file = tmp_path / "large.jsonl"
    with file.open("w") as out:
        for n in range(100_000):
            out.write(json.dumps({"type": "echo", "payload": {"n": n, "text": "x" * 50}}) + "\n")
    begin = time.process_time()
    assert command("--from", str(file)).startswith("100,000 enqueued, first ")
    # Of this process alone: a busy machine does not fail the test. On a quiet one it takes 5 s.
    seconds = time.process_time() - begin
    assert Task.objects.count() == 100_000
    assert seconds < 10


def test_memory_does_not_grow_with_the_file(command, tmp_path):
    file = tmp_path / "large.jsonl"
    file.write_text(json.dumps({"type": "echo", "payload": "x" * 2000}) + "\n")
    file.write_text(file.read_text() * 20_000)
    tracemalloc.start()
    try:
        command("--from", str(file))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30_000_000


def manage(*arguments, stdin=b""):
    return subprocess.run(
        [sys.executable, "manage.py", "enqueue", *arguments],
        cwd=ROOT,
        env=os.environ
        | {"DATABASE_URL": database_url(), "DJANGO_SETTINGS_MODULE": "tests.settings"},
        input=stdin,
        capture_output=True,
        timeout=60,
    )


@pytest.mark.django_db(transaction=True)
def test_standard_input_and_exit_codes():
    done = manage("--from", "-", stdin=b'{"type": "echo"}\n{"type": "echo"}')
    assert (done.returncode, done.stderr) == (0, b"")
    assert Task.objects.count() == 2
    done = manage("echo", b'"\xff"')
    assert (done.returncode, done.stdout) == (1, b"")
    done = manage("--from", "-", stdin=b'{"type": "echo"}\n{"type": "ech"}')
    assert (done.returncode, done.stdout) == (1, b"")
    assert (
        b"CommandError: Nothing was enqueued: 1 bad line.\nline 2: No handler here" in done.stderr
    )
    assert b"Traceback" not in done.stderr
    assert Task.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_standard_input_that_is_read_from_a_stream(monkeypatch, command):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"type": "echo"}\n')))
    assert command("--from", "-").startswith("1 enqueued")
