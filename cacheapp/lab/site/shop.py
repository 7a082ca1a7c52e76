"""Common uses of a cache in a Django project, with atomic operations and with get + set."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher, check_password, make_password
from django.core.cache import cache

ALLOWED_ATTEMPTS = 5
HOUR_S = 3600


class QuickHasher(PBKDF2PasswordHasher):
    """Django's, with fewer rounds: a password takes about 10 ms, not 300."""

    iterations = 20_000


_PASSWORD = "pbkdf2_sha256$20000$salt$not-the-right-one"  # noqa: S105 (of no user)


def log_in(user: str) -> bool:
    """Let a user try 5 passwords an hour; return whether this attempt was let through."""
    cache.add(f"attempts:{user}", 0, HOUR_S)
    if cache.incr(f"attempts:{user}") > ALLOWED_ATTEMPTS:
        return False
    check_password("guess", _PASSWORD)
    return True


def log_in_get_set(user: str) -> bool:
    """Do the same with get and set: count an attempt when it has failed."""
    attempts = cache.get(f"attempts:{user}", 0)
    if attempts >= ALLOWED_ATTEMPTS:
        return False
    if not check_password("guess", _PASSWORD):
        cache.set(f"attempts:{user}", attempts + 1, HOUR_S)
    return True


def reset_password(token: str) -> bool:
    """Set a new password with a one-time token; return whether it was accepted."""
    if not cache.add(f"spent:{token}", 1, HOUR_S):
        return False
    make_password("a new one")
    return True


def reset_password_get_set(token: str) -> bool:
    """Do the same with get and set: mark the token when it was used."""
    if cache.get(f"spent:{token}"):
        return False
    make_password("a new one")
    cache.set(f"spent:{token}", 1, HOUR_S)
    return True


def count_hit(page: str) -> None:
    """Count a visit."""
    cache.add(f"hits:{page}", 0, None)
    cache.incr(f"hits:{page}")


def count_hit_get_set(page: str) -> None:
    """Do the same with get and set."""
    cache.set(f"hits:{page}", cache.get(f"hits:{page}", 0) + 1, None)


def hits(page: str) -> int:
    """Return how many visits were counted."""
    return int(cache.get(f"hits:{page}", 0))


def build_report() -> int:
    """Compute for some hundredths of a second, as a large query would."""
    return sum(number * number % 7 for number in range(300_000))


def report(month: str) -> bool:
    """Show the report of a month; return whether it had to be computed for this request."""
    built = []

    def build() -> int:
        built.append(True)
        return build_report()

    cache.get_or_set(f"report:{month}", build, HOUR_S)
    return bool(built)


def report_get_set(month: str) -> bool:
    """Do the same with get and set."""
    if cache.get(f"report:{month}") is not None:
        return False
    cache.set(f"report:{month}", build_report(), HOUR_S)
    return True


def switch_off(feature: str) -> None:
    """Switch a feature off, for all visitors and for good."""
    cache.set(f"feature:{feature}", "off", None)


def is_on(feature: str) -> bool:
    """Return whether visitors get the feature."""
    return bool(cache.get(f"feature:{feature}", "on") == "on")


def write(key: str, value: str) -> None:
    """Store a value."""
    cache.set(key, value, None)


def read(key: str) -> str | None:
    """Return the value, or `None`."""
    found: str | None = cache.get(key)
    return found
