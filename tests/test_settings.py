"""The settings: each variable is documented, and a deployment by the book draws no warning."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError

BASE_DIR = Path(__file__).resolve().parent.parent
READ_BY_MAKE = {"PORT", "CONFIRM"}


def variables_in_settings() -> set[str]:
    text = (BASE_DIR / "opsconsole" / "settings.py").read_text()
    return set(re.findall(r'\b(?:env(?:\.\w+)?|_choice)\(\s*"([A-Z_]+)"', text))


def variables_in_example() -> list[str]:
    return re.findall(r"^#?([A-Z_]+)=", (BASE_DIR / ".env.example").read_text(), re.MULTILINE)


def test_the_example_names_every_variable_once_and_no_other():
    found = variables_in_settings()
    assert {"SECRET_KEY", "DATABASE_URL", "DEFAULT_FROM_EMAIL"} <= found
    assert sorted(variables_in_example()) == sorted(found | READ_BY_MAKE)


def test_every_variable_of_the_example_has_a_comment_above_it():
    lines = (BASE_DIR / ".env.example").read_text().splitlines()
    bare = [
        line
        for above, line in pairwise(lines)
        if re.match(r"#?[A-Z_]+=", line) and not re.match(r"# .+\.$|# .+: .+$", above)
    ]
    assert bare == []


def test_the_example_changes_nothing_until_it_is_edited():
    lines = (BASE_DIR / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


def test_a_deployment_over_https_draws_no_warning():
    environ = os.environ | {
        "SECRET_KEY": "kD3" + "".join(chr(33 + i) for i in range(60)),
        "OPSCONSOLE_HTTPS": "true",
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "DJANGO_SETTINGS_MODULE": "opsconsole.settings",
    }
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=BASE_DIR,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("shop.effects.ship", "cannot be imported: No module named 'shop'"),
        ("payments.handlers.ship", "cannot be imported: Module"),
        ("ship", "cannot be imported: ship doesn't look like a module path"),
        ("payments.handlers.SEND_RECEIPT", "which is no function"),
    ],
)
def test_an_effect_that_does_not_exist_is_found_by_check(path, says, settings):
    call_command("check")
    settings.PAYMENTS_EFFECT = path
    with pytest.raises(SystemCheckError, match=f"PAYMENTS_EFFECT is '{path}', which") as caught:
        call_command("check")
    assert says in str(caught.value)
