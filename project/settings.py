"""Settings of this deployment, read from typed environment variables only.

All mistakes in the environment are reported at once, by name, before Django starts.
docs/reference/settings.md lists the variables.
"""

from pathlib import Path
from typing import Any

import environs
from django.core.checks.security.base import (
    SECRET_KEY_INSECURE_PREFIX,
    SECRET_KEY_MIN_LENGTH,
    SECRET_KEY_MIN_UNIQUE_CHARACTERS,
)
from django.core.exceptions import ImproperlyConfigured
from marshmallow import validate

from cacheapp.directory_trust import create_private
from cacheapp.errors import StoreUnavailable
from project.data_directory import checkout_key, private_database

BASE_DIR = Path(__file__).resolve().parent.parent

env = environs.Env(eager=False)  # collects mistakes until seal()

DEBUG = env.bool("DEBUG", False)
_secret_key = env.str("SECRET_KEY", "")
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", [])
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", [])
DATA_DIR = env.path("DATA_DIR", BASE_DIR / "var")
_redis_url = env.str(
    "REDIS_URL",
    "redis://127.0.0.1:6379/0",
    validate=validate.Regexp(
        r"(rediss?(\+cluster)?|unix)://.+",
        error="Not a redis://, rediss:// or unix:// URL, or redis+cluster://host:port,host:port.",
    ),
)
_log_level = env.str(
    "LOG_LEVEL", "INFO", validate=validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR"])
)
_log_format = env.str("LOG_FORMAT", "line", validate=validate.OneOf(["line", "json"]))
_demo = env.bool("DEMO", False)
_workers = env.int("WEB_CONCURRENCY", 4, validate=validate.Range(min=1))  # as gunicorn.conf.py
_threads = env.int("WEB_THREADS", 8, validate=validate.Range(min=1))
_download_origins: list[str] = env.list("DOWNLOAD_ORIGINS", [])
_download_networks: list[str] = env.list("DOWNLOAD_NETWORKS", [])
_download_headers: Any = env.json("DOWNLOAD_HEADERS", {})
_download_webhooks: Any = env.json("DOWNLOAD_WEBHOOKS", {})
_download_proxy = env.bool("DOWNLOAD_PROXY", False)
_download_buckets: Any = env.json("DOWNLOAD_BUCKETS", {})
_download_runner = env.str(
    "DOWNLOAD_RUNNER", "worker", validate=validate.OneOf(["worker", "celery", "tasks"])
)
_celery_broker_url = env.str("CELERY_BROKER_URL", "")
_metrics = env.bool("METRICS", True)
_api_tokens: Any = env.json("API_TOKENS", {})
_download_tries = env.int("DOWNLOAD_TRIES", 5, validate=validate.Range(min=1))
_above_0 = validate.Range(min=0, min_inclusive=False)
_download_heartbeat_s = env.float("DOWNLOAD_HEARTBEAT_S", 5.0, validate=_above_0)
_download_webhook_s = env.float("DOWNLOAD_WEBHOOK_S", 10.0, validate=_above_0)
_download_user_jobs = env.int("DOWNLOAD_MAX_USER_JOBS", 1_000, validate=validate.Range(min=1))
_download_user_files = env.int("DOWNLOAD_MAX_USER_FILES", 1_000_000, validate=validate.Range(min=1))
_download_audit_retention_s = env.float(
    "DOWNLOAD_AUDIT_RETENTION_S", 365 * 86_400.0, validate=_above_0
)
_download_retention_s = env.float("DOWNLOAD_RETENTION_S", 30 * 86_400.0, validate=_above_0)
_download_machine_threads = env.int(
    "DOWNLOAD_MAX_MACHINE_THREADS", 400, validate=validate.Range(min=1)
)
_download_max_rate = env.str("DOWNLOAD_MAX_RATE", "") or None  # read by cacheapp.conf
_download_max_process_rate = env.str("DOWNLOAD_MAX_PROCESS_RATE", "") or None

# Secure unless DEBUG is set. HSTS is off by default, because browsers remember it for its whole
# duration, for every host of the domain.
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", not DEBUG)
SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$"]  # probes speak plain HTTP, and send no secrets
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", 0, validate=validate.Range(min=0))
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("SECURE_HSTS_INCLUDE_SUBDOMAINS", False)
SECURE_HSTS_PRELOAD = env.bool("SECURE_HSTS_PRELOAD", False)
BEHIND_TLS_PROXY = env.bool("BEHIND_TLS_PROXY", False)
BIND = env.str("BIND", "127.0.0.1:8000")  # as gunicorn.conf.py

try:
    env.seal()
except environs.EnvError as exc:
    raise ImproperlyConfigured(f"environment: {exc}") from None

try:
    create_private(DATA_DIR)
except (OSError, StoreUnavailable) as exc:
    raise ImproperlyConfigured(f"environment: DATA_DIR is {DATA_DIR}: {exc}") from None

if not _secret_key and not DEBUG:
    raise ImproperlyConfigured(
        "environment: SECRET_KEY is not set. Set it to a long random string, the same for all "
        "workers and machines; or set DEBUG=1 on your own machine, which creates one."
    )
if not DEBUG and (
    len(_secret_key) < SECRET_KEY_MIN_LENGTH
    or len(set(_secret_key)) < SECRET_KEY_MIN_UNIQUE_CHARACTERS
    or _secret_key.startswith(SECRET_KEY_INSECURE_PREFIX)
):
    raise ImproperlyConfigured(
        f"environment: SECRET_KEY has {len(_secret_key)} characters, {len(set(_secret_key))} different "
        f"ones; expected at least {SECRET_KEY_MIN_LENGTH}, and {SECRET_KEY_MIN_UNIQUE_CHARACTERS} "
        f"different ones, and not the prefix {SECRET_KEY_INSECURE_PREFIX!r}."
    )
SECRET_KEY = _secret_key or checkout_key(DATA_DIR / "secret_key")

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_TLS_PROXY else None
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
CSRF_FAILURE_VIEW = "cacheapp.views.error_pages.csrf_failure"
DEFAULT_EXCEPTION_REPORTER = "project.debug_pages.PasswordFreeReporter"
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "cacheapp",
    "cacheapp.downloads",
    "project",
]
MIDDLEWARE = [
    "project.middleware.refuse_foreign_hosts",
    *(["project.middleware.client_behind_proxy"] if BEHIND_TLS_PROXY else []),
    "project.middleware.content_security_policy",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
ASGI_APPLICATION = "project.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": private_database(DATA_DIR / "db.sqlite3"),
        "OPTIONS": {
            # WAL: readers do not wait for the writer. IMMEDIATE: a transaction acquires the write
            # lock when it begins, and can wait for it; a later upgrade cannot wait.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,  # seconds
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_lmdb = {
    "BACKEND": "cacheapp.backends.LMDBCache",
    "LOCATION": DATA_DIR / "cache",
    "KEY_PREFIX": "cacheapp",
    "OPTIONS": {"size_limit": 64 * 2**20},  # reserved on the disk at the first use
}
CACHES: dict[str, dict[str, Any]] = {
    "default": _lmdb,
    "lmdb": _lmdb,  # the same store, under the name that the demo shows
    "disk": {
        "BACKEND": "cacheapp.backends.DiskCache",
        "LOCATION": DATA_DIR / "cache",
        "KEY_PREFIX": "cacheapp",
    },
    "locmem": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": "locmem",
        "KEY_PREFIX": "cacheapp",
    },
    "redis": {
        "BACKEND": "cacheapp.backends.RedisCache",
        "LOCATION": _redis_url,
        "KEY_PREFIX": "cacheapp",
    },
}

CACHEAPP = {
    "DEMO": _demo,
    "METRICS": _metrics,
    "READY_ALIASES": ["default"],
    "API_TOKENS": _api_tokens,
    "WORKERS": _workers,
    "THREADS": _threads,
    "STATE_DIR": DATA_DIR / "state",
    "DOWNLOAD_ROOT": DATA_DIR / "downloads",
    "DOWNLOAD_ORIGINS": _download_origins,
    "DOWNLOAD_NETWORKS": _download_networks,
    "DOWNLOAD_BUCKETS": _download_buckets,
    "DOWNLOAD_HEADERS": _download_headers,
    "DOWNLOAD_WEBHOOKS": _download_webhooks,
    "DOWNLOAD_WEBHOOK_S": _download_webhook_s,
    "DOWNLOAD_PROXY": _download_proxy,
    "DOWNLOAD_RUNNER": _download_runner,
    "DOWNLOAD_TRIES": _download_tries,
    "DOWNLOAD_HEARTBEAT_S": _download_heartbeat_s,
    "DOWNLOAD_MAX_USER_JOBS": _download_user_jobs,
    "DOWNLOAD_MAX_USER_FILES": _download_user_files,
    "DOWNLOAD_AUDIT_RETENTION_S": _download_audit_retention_s,
    "DOWNLOAD_RETENTION_S": _download_retention_s,
    "DOWNLOAD_MAX_MACHINE_THREADS": _download_machine_threads,
    "DOWNLOAD_MAX_RATE": _download_max_rate,
    "DOWNLOAD_MAX_PROCESS_RATE": _download_max_process_rate,
}

# Redis, unless something else is named; Celery spells a socket's URL in its own way.
CELERY_BROKER_URL = _celery_broker_url or (
    "" if "+cluster://" in _redis_url else _redis_url.replace("unix://", "redis+socket://", 1)
)
CELERY_WORKER_PREFETCH_MULTIPLIER = 1  # jobs take long: a worker must not reserve the next one

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG  # with DEBUG, collectstatic is not required

LANGUAGE_CODE = "en"
USE_I18N = False
TIME_ZONE = "UTC"
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "format": "{asctime} [{process}] {levelname} {name}: {message}",
            "style": "{",
        },
        "json": {"()": "cacheapp.json_log.JsonFormatter"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": _log_format}},
    "root": {"handlers": ["stderr"], "level": _log_level},
    # With Django's own handlers, each line would be written twice.
    "loggers": {"django": {"handlers": [], "level": _log_level, "propagate": True}},
}
