"""Settings of the project, read from the environment (and an optional .env file).

Every variable is listed in .env.example with its meaning; a test holds the two together.
"""

from datetime import timedelta
from pathlib import Path

import django
import environ
from django.core.exceptions import ImproperlyConfigured

from opsconsole import embedded_postgres
from opsconsole.logs import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
environ.Env.read_env(BASE_DIR / ".env")

OPSCONSOLE_HOME = Path(env.str("OPSCONSOLE_HOME", default=str(BASE_DIR / "var"))).absolute()
DEBUG = env.bool("DEBUG", default=False)


def _secret_key() -> str:
    """The key from SECRET_KEY, else the one that the demo made in the data folder."""
    key: str = env.str("SECRET_KEY", default="")
    kept = OPSCONSOLE_HOME / "secret_key"
    if not key and kept.is_file():
        key = kept.read_text().strip()
    if not key:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set. Set it to a long random string, or run `make demo` once: "
            f"it makes one in {kept}. A demo started with OPSCONSOLE_HOME has it there: set that here, too."
        )
    return key


SECRET_KEY = _secret_key()
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# Without DATABASE_URL the embedded server of this data folder is used, where it runs. The URL
# that says nothing is refused by the first connection, with a sentence (opsconsole.doctor).
_embedded_url = embedded_postgres.running_url(OPSCONSOLE_HOME)
DATABASE_URL: str = env.str("DATABASE_URL", default="") or (
    _embedded_url or "postgresql://127.0.0.1:1/not-running"
)
# The embedded database is the demo's, so whoever connects to it knows the demo's task types.
DEMO = env.bool("OPSCONSOLE_DEMO", default=_embedded_url == DATABASE_URL)
try:
    _database = env.db_url_config(DATABASE_URL, engine="django.db.backends.postgresql")
except ValueError as error:
    raise ImproperlyConfigured(
        "DATABASE_URL names no PostgreSQL database: write it as "
        "postgresql://user:password@host:5432/name, or unset it."
    ) from error
DATABASES = {
    "default": {
        **_database,
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "DISABLE_SERVER_SIDE_CURSORS": True,
    }
}
DATABASES["default"].setdefault("OPTIONS", {}).setdefault("connect_timeout", 5)
DATABASES["default"]["OPTIONS"].setdefault("application_name", "opsconsole")
# The queue's verbs are prepared; Django's own queries never are. A pooler in transaction mode must
# know prepared statements (PgBouncer from 1.21 on) or have this turned off.
DATABASES["default"]["OPTIONS"].setdefault(
    "prepare_threshold", 5 if env.bool("DATABASE_PREPARED_STATEMENTS", default=True) else None
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "queues.apps.QueuesConfig",
    "payments.apps.PaymentsConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "opsconsole.apps.OpsConsoleConfig",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_htmx",
]
if django.VERSION < (6, 0):
    INSTALLED_APPS.append("django_tasks")
if DEMO:
    INSTALLED_APPS.append("opsconsole.demo.apps.DemoConfig")

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "opsconsole.middleware.DatabaseDownMiddleware",
]
ROOT_URLCONF = "opsconsole.urls"
WSGI_APPLICATION = "opsconsole.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "queues.console.context.console",
            ],
        },
    }
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "/"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = int(timedelta(hours=12).total_seconds())
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if env.bool("OPSCONSOLE_HTTPS", default=False):
    SECURE_SSL_REDIRECT = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^webhooks/"]
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = int(timedelta(days=365).total_seconds())
# Whether HSTS covers other names of the domain is for its owner to decide, not for one application.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

USE_TZ = True
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
USE_I18N = True
LANGUAGE_CODE = "en-us"

# A selection of tasks is a form with a field each.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5000

STATIC_URL = "static/"
STATIC_ROOT = OPSCONSOLE_HOME / "static"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
MEDIA_ROOT = OPSCONSOLE_HOME / "files"

_mail_backend = env.str("EMAIL_BACKEND", default="django.core.mail.backends.filebased.EmailBackend")
_mail_folder = OPSCONSOLE_HOME / "mail"
_smtp = {
    "host": env.str("EMAIL_HOST", default="localhost"),
    "port": env.int("EMAIL_PORT", default=25),
    "username": env.str("EMAIL_HOST_USER", default=""),
    "password": env.str("EMAIL_HOST_PASSWORD", default=""),
    "use_tls": env.bool("EMAIL_USE_TLS", default=False),
    "timeout": env.int("EMAIL_TIMEOUT", default=20),
}
if django.VERSION >= (6, 1):
    _mail_options = {
        "django.core.mail.backends.smtp.EmailBackend": _smtp,
        "django.core.mail.backends.filebased.EmailBackend": {"file_path": _mail_folder},
    }
    MAILERS = {
        "default": {"BACKEND": _mail_backend, "OPTIONS": _mail_options.get(_mail_backend, {})}
    }
else:
    EMAIL_BACKEND = _mail_backend
    EMAIL_FILE_PATH = _mail_folder
    EMAIL_HOST = _smtp["host"]
    EMAIL_PORT = _smtp["port"]
    EMAIL_HOST_USER = _smtp["username"]
    EMAIL_HOST_PASSWORD = _smtp["password"]
    EMAIL_USE_TLS = _smtp["use_tls"]
    EMAIL_TIMEOUT = _smtp["timeout"]
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="OpsConsole <ops@localhost>")

# The queue. Seconds unless the name says otherwise.
QUEUE_NAMES = env.list("QUEUE_NAMES", default=[])
QUEUE_HEARTBEAT_SECONDS = env.float("QUEUE_HEARTBEAT_SECONDS", default=5.0)
QUEUE_LOST_AFTER_SECONDS = env.float("QUEUE_LOST_AFTER_SECONDS", default=30.0)
QUEUE_SILENCE = timedelta(seconds=QUEUE_LOST_AFTER_SECONDS)
QUEUE_POLL_SECONDS = env.float("QUEUE_POLL_SECONDS", default=1.0)
QUEUE_MAINTENANCE_SECONDS = env.float("QUEUE_MAINTENANCE_SECONDS", default=5.0)
QUEUE_REDACTED_KEYS = env.list(
    "QUEUE_REDACTED_KEYS",
    default=["password", "secret", "token", "authorization", "api_key", "card", "cvv"],
)
CONSOLE_STATEMENT_TIMEOUT_SECONDS = env.float("CONSOLE_STATEMENT_TIMEOUT_SECONDS", default=5.0)

# Django's Tasks API: `@task` functions run in the same queue (docs/handlers.md).
TASKS = {"default": {"BACKEND": "queues.backend.PostgresBackend"}}

# The http_request handler reaches only these hosts ("host" or "host:port"; "*" is every host).
HTTP_REQUEST_ALLOWED_HOSTS = env.list("HTTP_REQUEST_ALLOWED_HOSTS", default=[])

# The endpoint of invoke_bubble_sync_processor() and _retry(): its URL, and its secret by name.
BUBBLE_SYNC_URL = env.str("BUBBLE_SYNC_URL", default="")
BUBBLE_SYNC_SECRET = env.str("BUBBLE_SYNC_SECRET", default="")


def _choice(name: str, *known: str) -> str:
    """One of a few words; the first is the default."""
    value: str = env.str(name, default=known[0])
    if value not in known:
        raise ImproperlyConfigured(f"{name} is {' or '.join(known)}, not {value!r}.")
    return value


# Payments (docs/payments.md). Webhook secrets: the current one first, then the one being rotated out.
PAYMENT_PROVIDERS = {
    "razorpay": "payments.providers.razorpay.Razorpay",
    "stripe": "payments.providers.stripe.Stripe",
}
RAZORPAY_WEBHOOK_SECRETS = env.list("RAZORPAY_WEBHOOK_SECRETS", default=[])
STRIPE_WEBHOOK_SECRETS = env.list("STRIPE_WEBHOOK_SECRETS", default=[])
STRIPE_TOLERANCE_SECONDS = env.int("STRIPE_TOLERANCE_SECONDS", default=300)
# Keys to ask the providers with (reconciliation), and to check the browser's callback.
RAZORPAY_KEY_ID = env.str("RAZORPAY_KEY_ID", default="")
RAZORPAY_KEY_SECRET = env.str("RAZORPAY_KEY_SECRET", default="")
RAZORPAY_API_BASE = env.str("RAZORPAY_API_BASE", default="https://api.razorpay.com")
STRIPE_API_KEY = env.str("STRIPE_API_KEY", default="")
STRIPE_API_BASE = env.str("STRIPE_API_BASE", default="https://api.stripe.com")
# Bearer tokens of the shop's own servers, for POST /payments/orders.
PAYMENTS_API_TOKENS = env.list("PAYMENTS_API_TOKENS", default=[])
# An order that nobody announced: "fulfil" it when it is paid, or "hold" it for a person.
PAYMENTS_UNEXPECTED = _choice("PAYMENTS_UNEXPECTED", "fulfil", "hold")
# What a checkout's callback proves: "paid" where payments are captured at once, else "authorized".
PAYMENTS_CALLBACK_STATUS = _choice("PAYMENTS_CALLBACK_STATUS", "authorized", "paid")
# What fulfilling an order does: a function of the transaction's row and the task's context.
PAYMENTS_EFFECT = env.str("PAYMENTS_EFFECT", default="payments.handlers.enqueue_receipt")
# How often the providers are asked, and how far back; 0 hours: never of itself.
PAYMENTS_RECONCILE_HOURS = env.float("PAYMENTS_RECONCILE_HOURS", default=1.0)
PAYMENTS_RECONCILE_DAYS = env.int("PAYMENTS_RECONCILE_DAYS", default=3)
# Deliveries are deleted after so many days: rejected ones, repeats (duplicate, stale), all others.
PAYMENTS_KEEP_REJECTED_DAYS = env.int("PAYMENTS_KEEP_REJECTED_DAYS", default=7)
PAYMENTS_KEEP_REPEATS_DAYS = env.int("PAYMENTS_KEEP_REPEATS_DAYS", default=180)
PAYMENTS_KEEP_DAYS = env.int("PAYMENTS_KEEP_DAYS", default=2555)

LOGGING_CONFIG = None
logging_config(
    json_lines=env.bool("LOG_JSON", default=False), level=env.str("LOG_LEVEL", default="INFO")
)
