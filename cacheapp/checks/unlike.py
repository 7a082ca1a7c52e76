"""Checks of what another cache package has too, and what means something else here."""

from typing import Any

from django.conf import settings
from django.core import checks

from cacheapp import backends
from cacheapp.backends.core.alias import is_one_location
from cacheapp.checks.caches import Messages
from cacheapp.checks.entries import AliasConfig, alias_configs

_DJANGO_REDIS_SETTINGS = {
    "DJANGO_REDIS_IGNORE_EXCEPTIONS": "Set OPTIONS['on_error'], which decides by kind of operation.",
    "DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS": "Errors that OPTIONS['on_error'] hides are always logged.",
    "DJANGO_REDIS_LOGGER": "Configure the logger 'cacheapp' in LOGGING.",
    "DJANGO_REDIS_SCAN_ITERSIZE": "Pass itersize to iter_keys() and delete_pattern().",
    "DJANGO_REDIS_CLOSE_CONNECTION": "Connections are kept until the process ends.",
    "DJANGO_REDIS_CONNECTION_FACTORY": "Set OPTIONS['CONNECTION_FACTORY'].",
}


@checks.register(checks.Tags.caches)
def check_django_redis_settings(**_: Any) -> Messages:
    """W012: report settings of django-redis that a RedisCache does not read."""
    aliases = ", ".join(repr(config.alias) for config in alias_configs(backends.RedisCache))
    return [
        checks.Warning(
            f"{name} is set, but cacheapp's RedisCache ({aliases}) does not read it.",
            hint=f"{instead} Keep the setting only for aliases of django-redis itself.",
            id="cacheapp.W012",
        )
        for name, instead in _DJANGO_REDIS_SETTINGS.items()
        if aliases and getattr(settings, name, None)
    ]


_KEY_PARAMS = frozenset(["VERSION", "KEY_FUNCTION", "REVERSE_KEY_FUNCTION", "TIMEOUT"])


@checks.register(checks.Tags.caches)
def check_disk_aliases(**_: Any) -> Messages:
    """W013: report aliases that share entries on other backends, and none on DiskCache."""
    found = list(alias_configs(backends.DiskCache))
    return [
        checks.Warning(
            f"CACHES[{one.alias!r}] and CACHES[{other.alias!r}] are DiskCaches with one LOCATION and "
            f"KEY_PREFIX, and differ only in {' and '.join(sorted(differing))}: each has a directory "
            "of its own, so they do not share entries.",
            hint="Use one alias, and the arguments version= and timeout= of its methods; or give each "
            "its own LOCATION or KEY_PREFIX to make clear that they are two caches.",
            id="cacheapp.W013",
        )
        for index, one in enumerate(found)
        for other in found[index + 1 :]
        if (differing := _differing_params(one, other)) and differing <= _KEY_PARAMS
    ]


def _differing_params(one: AliasConfig, other: AliasConfig) -> frozenset[str]:
    """Return the arguments that differ; none for caches of two locations."""
    if not is_one_location(one.location, other.location) or one.prefix != other.prefix:
        return frozenset()
    missing = object()
    return frozenset(
        name
        for name in one.params.keys() | other.params.keys()
        if one.params.get(name, missing) != other.params.get(name, missing)
    )


@checks.register(checks.Tags.caches)
def check_max_entries(**_: Any) -> Messages:
    """W020: report a MAX_ENTRIES that counts the entries of other aliases too."""
    found = list(alias_configs(backends.LMDBCache))
    return [
        checks.Warning(
            f"CACHES[{config.alias!r}] limits MAX_ENTRIES of the whole directory, which other aliases "
            f"share ({', '.join(others)}). In Django's backends it is the limit of one alias.",
            hint="Give the alias a LOCATION of its own, or remove MAX_ENTRIES: size_limit is enough.",
            id="cacheapp.W020",
        )
        for config in found
        if _limits_entries(config)
        and (
            others := [
                repr(other.alias)
                for other in found
                if other is not config and is_one_location(other.location, config.location)
            ]
        )
    ]


def _limits_entries(config: AliasConfig) -> bool:
    options = config.params.get("OPTIONS", {})
    return isinstance(options, dict) and options.get("MAX_ENTRIES") is not None
