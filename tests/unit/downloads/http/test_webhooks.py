import pytest

from cacheapp.access_settings import AllowedWebhook, read_webhooks
from cacheapp.downloads.http.url_policy import UrlRefused
from cacheapp.downloads.http.webhooks import find_webhook, signature

KEY = "k" * 32


def _allowed(*urls: str) -> tuple[AllowedWebhook, ...]:
    return read_webhooks(dict.fromkeys(urls, KEY))


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # The example of the specification's libraries.
    signed = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_key_that_is_not_base64_is_not_shown() -> None:
    with pytest.raises(ValueError, match=r"^the key is not base64 after whsec_$"):
        signature("whsec_?secret?", "1", 1, b"")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/jobs/",
        "https://hooks.example.com/jobs/a/b?token=1",
        "https://HOOKS.example.com:443/jobs/x",
        "https://one.example.com/exact",
        "https://any.example.com",
        "https://any.example.com/all/of/it",
    ],
)
def test_an_allowed_webhook_is_found(url: str) -> None:
    allowed = _allowed(
        "https://hooks.example.com/jobs/",
        "https://one.example.com/exact",
        "https://any.example.com",
    )
    assert find_webhook(url, allowed).key.read() == KEY


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/",
        "https://hooks.example.com/jobs",
        "https://hooks.example.com/jobs-too",
        "http://hooks.example.com/jobs/a",
        "https://hooks.example.com:8443/jobs/a",
        "https://hooks.example.com.evil.example/jobs/a",
        "https://hooks.example.com/jobs/../admin",
        "https://hooks.example.com/jobs/%2e%2e/admin",
        "https://hooks.example.com/jobs/..%2fadmin",
        "https://hooks.example.com/jobs/..%5cadmin",
        "https://user@hooks.example.com/jobs/a",
        "https://one.example.com/exact/below",
        "file:///etc/passwd",
        "",
    ],
)
def test_any_other_url_is_refused(url: str) -> None:
    allowed = _allowed("https://hooks.example.com/jobs/", "https://one.example.com/exact")
    with pytest.raises(UrlRefused):
        find_webhook(url, allowed)


def test_the_message_names_what_is_allowed_and_no_query() -> None:
    url = "https://x.example.com/a?token=secret"
    with pytest.raises(UrlRefused) as caught:
        find_webhook(url, _allowed("https://hooks.example.com/jobs/"))
    assert str(caught.value) == (
        "https://x.example.com:443/a is not an allowed webhook; "
        "allowed: https://hooks.example.com:443/jobs/"
    )
    with pytest.raises(UrlRefused, match=r"allowed: none \(CACHEAPP\['DOWNLOAD_WEBHOOKS'\]\)"):
        find_webhook(url, ())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["https://a.example"], "a dict"),
        ({"https://a.example": "short"}, "at least 16 characters"),
        ({"https://a.example": {"env": "A", "file": "b"}}, "at least 16 characters"),
        ({"https://a.example": {"env": ""}}, "at least 16 characters"),
        ({"https://a.example/../b": KEY}, "without dot segments"),
        ({"https://a.example/b?c": KEY}, "without dot segments"),
        ({"a.example": KEY}, "origins such as"),
        ({"https://a.example": KEY, "https://a.example:443/": KEY}, "each URL once"),
    ],
)
def test_a_wrong_setting_is_refused_without_its_key(value: object, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        read_webhooks(value)
    assert KEY not in str(caught.value)


def test_a_key_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "from-outside")
    (found,) = read_webhooks({"https://a.example": {"env": "HOOK"}})
    assert found.key.read() == "from-outside"
    assert "from-outside" not in repr(found)
