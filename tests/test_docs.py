"""What the docs say is held true where a test can."""

import re
import subprocess
from pathlib import Path

import pytest
from django.conf import settings

from payments.models import Transaction
from queues import registry
from queues.models import Queue, Task

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_images_exist(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_compile(page):
    blocks = re.findall(r"^( *)```python\n(.*?)^ *```", page.read_text(), re.S | re.M)
    for indent, code in blocks:
        compile(re.sub(rf"^{indent}", "", code, flags=re.M), str(page), "exec")
    assert blocks or "```python" not in page.read_text()


def test_every_dependency_has_its_reason():
    declared = re.findall(r'^  "([a-z-]+)', (ROOT / "pyproject.toml").read_text(), re.M)
    text = (ROOT / "docs" / "dependencies.md").read_text()
    assert declared
    assert [name for name in declared if name not in text] == []


def test_every_status_is_explained():
    text = (ROOT / "docs" / "lifecycle.md").read_text()
    assert [status for status in Task.Status.values if f"| `{status}` |" not in text] == []


def test_the_readmes_handler_works(db, monkeypatch):
    monkeypatch.setattr(registry, "_handlers", dict(registry._handlers))
    code = re.search(
        r"```python\n( *from queues.registry.*?)```", (ROOT / "README.md").read_text(), re.S
    )[1]
    names = {}
    exec(re.sub(r"^   ", "", code, flags=re.M), names)
    handler = registry.find("generate_care_plan")

    class Context:
        payload = {"email": "a@b.c"}

        def progress(self, percent, note):
            assert percent == 50

    assert handler.function(Context()) == {"plan": "a@b.c"}
    assert (handler.max_attempts, handler.timeout.total_seconds()) == (5, 120)
    assert Queue.objects.filter(name=handler.queue).exists()


def test_the_readmes_sql_works(sql):
    [(made,)] = sql("SELECT * FROM create_task('generate_care_plan', '{\"email\": \"a@b.c\"}')")
    [(id, lease)] = sql("SELECT id, lease FROM claim_next_task()")
    assert id == made
    assert sql("SELECT complete_task(%s, %s, '{\"ok\": true}')", id, lease) == [("recorded",)]


def test_the_readmes_webhook_is_accepted(transactional_db, live_server, tmp_path):
    block = re.search(
        r"^ +BODY=.*?/webhooks/razorpay$", (ROOT / "README.md").read_text(), re.S | re.M
    )
    (tmp_path / "var").mkdir()
    (tmp_path / "var/razorpay_webhook_secret").write_text(settings.RAZORPAY_WEBHOOK_SECRETS[0])
    script = block[0].replace("http://127.0.0.1:8000", live_server.url)
    answers = [
        subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, timeout=30).stdout
        for _ in range(2)
    ]
    assert answers == [b'{"verdict": "accepted"}', b'{"verdict": "duplicate"}']
    assert Transaction.objects.get().order_id == "order_readme"
