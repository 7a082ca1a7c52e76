"""What to do about a server that refuses a connection or a command, and what cannot be right in the options.

The errors of redis-py and OpenSSL say what was found, often without the name of the option behind it.
No sentence here has a password.
"""

import os
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import redis
from redis.connection import SSLConnection, UnixDomainSocketConnection
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError

_NOT_YET_VALID, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64  # X509_V_ERR_…
_ENDED = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)
_NO_PASSWORD = ("HELLO must be called", "Authentication required", "NOAUTH")


def on_connection(exc: BaseException, pool: Any) -> str:
    """Return what to do about a failure to connect, after a semicolon; empty if it is not known."""
    if isinstance(exc, AuthenticationError):
        found = _on_authentication(str(exc))
    elif is_tls(pool):
        found = _on_tls(exc, pool.connection_kwargs)
    elif _was_ended(exc) and not issubclass(pool.connection_class, UnixDomainSocketConnection):
        found = "if the server expects TLS, LOCATION must begin with 'rediss://', or 'rediss+cluster://'"
    else:
        found = ""
    return found and f"; {found}"


def is_tls(pool: Any) -> bool:
    """Return True if the connections of a pool use TLS."""
    return issubclass(pool.connection_class, SSLConnection)


def on_refusal(text: str) -> str:
    """Return what to do about an error reply for missing rights, after a semicolon; else nothing."""
    if command := re.search(r"no permissions? to run the '([^']+)' command", text, re.IGNORECASE):
        return f"; give the user +{command[1]}, on every node of a cluster"
    if re.search(r"no permissions? to access .*\bkey", text, re.IGNORECASE):
        return "; give the user ~*, on every node of a cluster"
    if re.search(r"no permissions? to access .*\bchannel", text, re.IGNORECASE):
        return "; give the user &cacheapp:lease:*, on every node of a cluster"
    return ""


def _on_authentication(text: str) -> str:
    if text.startswith(_NO_PASSWORD):
        return (
            "give the password, and the user if there is one, in LOCATION or in OPTIONS['USERNAME'] and "
            "OPTIONS['PASSWORD']"
        )
    return (
        "check the user and the password, in LOCATION or in OPTIONS['USERNAME'] and OPTIONS['PASSWORD']; "
        "every node of a cluster has users of its own"
    )


def _on_tls(exc: BaseException, options: Mapping[str, Any]) -> str:
    cause = next((one for one in _chain(exc) if isinstance(one, OSError)), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _on_certificate(cause.verify_code, options)
    if wrong := tls_mistakes(options):
        return "; ".join(wrong)
    reason = getattr(cause, "reason", None) or ""
    if "_ALERT_" in reason or _was_ended(exc):
        if not options.get("ssl_certfile"):
            return (
                "a server that requires a certificate of the client does this: set ssl_certfile and "
                "ssl_keyfile in OPTIONS['CONNECTION_POOL_KWARGS']"
            )
        return f"the server may not accept the certificate in ssl_certfile, {options['ssl_certfile']!r}"
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
        return "nothing speaks TLS at this port: name the port for TLS, or use LOCATION without TLS"
    return ""


def _on_certificate(code: int, options: Mapping[str, Any]) -> str:
    if code in {_NOT_YET_VALID, _EXPIRED}:
        return "renew the certificate of the server, or correct the clock of this machine"
    if code in {_OTHER_NAME, _OTHER_ADDRESS}:
        return (
            "LOCATION must name the server as its certificate does, and so must the nodes of a cluster "
            "(cluster-announce-hostname, and cluster-preferred-endpoint-type hostname)"
        )
    known = options.get("ssl_ca_certs") or options.get("ssl_ca_path")
    return (
        "ssl_ca_certs in OPTIONS['CONNECTION_POOL_KWARGS'] must be a file with the authority that signed "
        f"the server's certificate; it is {known!r}"
    )


def _was_ended(exc: BaseException) -> bool:
    """Return True if the other side closed the connection."""
    chain = list(_chain(exc))
    if any(isinstance(one, redis.TimeoutError) for one in chain):
        return False
    closed = "Connection closed by server"
    return any(isinstance(one, _ENDED) or str(one).startswith(closed) for one in chain)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exception and those that it replaced, each once: a cause may have its effect as its context."""
    found: BaseException | None = exc
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def is_refusal(exc: BaseException) -> bool:
    """Return True if a server that is up refused the user or the connection, or TLS with it failed."""
    kinds = (AuthenticationError, AuthorizationError, NoPermissionError, ssl.SSLError)
    return _was_ended(exc) or any(isinstance(one, kinds) for one in _chain(exc))


def tls_mistakes(options: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each file of TLS that cannot be used by this process. Reads the files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certificate: Any = options.get("ssl_certfile")
    key = options.get("ssl_keyfile")
    found = []
    for name in ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"):
        if path := options.get(name):
            try:
                _require_readable(path)
                if name == "ssl_ca_certs":
                    context.load_verify_locations(cafile=path)
            except (OSError, TypeError, ValueError) as exc:
                found.append(f"{name} is {path!r}, which cannot be used: {_reason(exc)}")
    if not found and (certificate or key):
        try:
            # Of a key that is encrypted, OpenSSL would read the password from the terminal.
            password = options.get("ssl_password") or ""
            context.load_cert_chain(certificate, key, password)
        except (OSError, TypeError, ValueError) as exc:
            found.append(
                f"ssl_certfile {certificate!r} and ssl_keyfile {key!r} cannot be used: {_reason(exc)}"
            )
    return found


def _require_readable(path: Any) -> None:
    if os.path.isdir(path):  # noqa: PTH112 (not a path of ours)
        os.listdir(path)  # noqa: PTH208
    else:
        with open(path, "rb"):  # noqa: PTH123
            pass


def _reason(exc: Exception) -> str:
    return str(getattr(exc, "strerror", None) or exc)
