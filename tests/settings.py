"""The project's settings over a PostgreSQL of the tests' own.

Importing it starts a throw-away embedded server, unless DATABASE_URL names one to use (its role
needs CREATEDB); the server ends with the process.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from opsconsole import embedded_postgres

if _given := os.environ.get("OPSCONSOLE_TESTS_HOME"):
    _home = Path(_given)  # A worker process that a test started.
else:
    _home = Path(tempfile.mkdtemp(prefix="opsconsole-tests-"))
    _home.chmod(0o755)
    os.environ["OPSCONSOLE_TESTS_HOME"] = str(_home)
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
EMBEDDED = not os.environ.get("DATABASE_URL")
if EMBEDDED:
    os.environ["DATABASE_URL"] = embedded_postgres.start(_home, throwaway=True).url
    atexit.register(embedded_postgres.stop, _home)
os.environ["OPSCONSOLE_HOME"] = str(_home)
(_home / "static").mkdir(exist_ok=True)
os.environ["SECRET_KEY"] = "only-for-tests"
os.environ["EMAIL_BACKEND"] = "django.core.mail.backends.locmem.EmailBackend"
os.environ["RAZORPAY_WEBHOOK_SECRETS"] = "current-secret,previous-secret"
os.environ["STRIPE_WEBHOOK_SECRETS"] = "whsec_current,whsec_previous"
# A test may give its processes others.
os.environ.setdefault("RAZORPAY_KEY_ID", "rzp_test_key")
os.environ.setdefault("RAZORPAY_KEY_SECRET", "key-secret")
os.environ.setdefault("STRIPE_API_KEY", "sk_test_key")
os.environ["PAYMENTS_API_TOKENS"] = "shop-token"
os.environ.setdefault("PAYMENTS_RECONCILE_HOURS", "0")
os.environ.setdefault("PAYMENTS_CALLBACK_STATUS", "paid")
os.environ["HTTP_REQUEST_ALLOWED_HOSTS"] = "127.0.0.1"

from opsconsole.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = [*INSTALLED_APPS, "tests"]  # noqa: F405
