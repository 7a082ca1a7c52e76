import pytest

from cacheapp.conf import read
from cacheapp.downloads.http.url_policy import UrlPolicy, UrlRefused, parse_http_url

GUARD = UrlPolicy(frozenset(["https://files.example.com:443", "http://127.0.0.1:8000"]))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://files.example.com/a/b?c=d#e", "/a/b?c=d"),
        ("HTTPS://FILES.example.com:443", "/"),
        ("http://127.0.0.1:8000/%2e%2e/a", "/%2E%2E/a"),
    ],
)
def test_a_url_of_an_allowed_origin_is_admitted(url: str, target: str) -> None:
    parsed = GUARD.check_url(url)
    assert parsed.origin in (GUARD.origins or ())
    assert parsed.target == target


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://files.example.com:8443/", "origin https://files.example.com:8443 is not allowed"),
        ("http://files.example.com/", "origin http://files.example.com:80 is not allowed"),
        ("https://files.example.com.evil.net/", "is not allowed"),
        ("https://evil.net/files.example.com", "is not allowed"),
        ("https://evil.net#@files.example.com/", "is not allowed"),
        ("https://evil.net?@files.example.com/", "is not allowed"),
        ("https://files.example.com./", "is not allowed"),
        ("http://127.1:8000/", "is not allowed"),
        ("http://2130706433:8000/", "is not allowed"),
        ("http://0x7f.0.0.1:8000/", "is not allowed"),
        ("http://[::ffff:127.0.0.1]:8000/", "is not allowed"),
        ("https://files.example.com@evil.net/", "user name or password"),
        ("https://user:secret@files.example.com/", "user name or password"),
        ("https://evil.net\\@files.example.com/", r"'\\\\' at character 17"),
        ("https://files.example.com /", "' ' at character 26"),
        ("https://files.example.com/\n", r"'\\n' at character 27"),
        ("https://files.example.com/\tx", r"'\\t' at character 27"),
        ("https://f\u0131les.example.com/", "'\u0131' at character 10"),
        ("ftp://files.example.com/", "scheme is 'ftp'"),
        ("file:///etc/passwd", "scheme is 'file'"),
        ("//files.example.com/", "scheme is None"),
        ("files.example.com/", "scheme is None"),
        ("", "scheme is None"),
        ("https:///a", "the URL has no host"),
        ("https://", "the URL has no host"),
        ("https://files.example.com:0/", "port is 0"),
        ("https://files.example.com:99999/", "not a URL"),
        ("https://files.example.com:x/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://files.example.com/" + "a" * 5000, "5026 characters"),
    ],
)
def test_a_url_that_may_not_be_fetched_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(UrlRefused, match=reason):
        GUARD.check_url(url)


def test_the_message_names_what_is_allowed() -> None:
    with pytest.raises(UrlRefused, match=r"allowed: http://127.0.0.1:8000, https://files"):
        GUARD.check_url("http://evil.net/")
    with pytest.raises(UrlRefused, match="allowed: none"):
        UrlPolicy(frozenset()).check_url("http://127.0.0.1:8000/")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b", "https://files.example.com/b"),
        ("b?c", "https://files.example.com/dir/b?c"),
        ("//files.example.com/b", "https://files.example.com/b"),
        ("http://127.0.0.1:8000/b", "http://127.0.0.1:8000/b"),
        ("/m\xc3\xbc|x y?q=\xc3\xa9 |", "https://files.example.com/m%C3%BC%7Cx%20y?q=%C3%A9%20%7C"),
        ("b c", "https://files.example.com/dir/b%20c"),
        ("?a b", "https://files.example.com/dir/a?a%20b"),
        ("//files.example.com/%20 ", "https://files.example.com/%20%20"),
        ("https://files.example.com/\xe9#\xe9", "https://files.example.com/%E9#%E9"),
    ],
)
def test_a_redirect_to_an_allowed_origin_is_followed(location: str, url: str) -> None:
    assert (
        GUARD.check_redirect(parse_http_url("https://files.example.com/dir/a"), location).url == url
    )


@pytest.mark.parametrize(
    "location",
    [
        *("//evil.net/", "http://files.example.com/", "file:///etc/passwd", "https://u@x/", "//["),
        *("\\", "/a\\b", "/a<b", "//files.example.com /", "https://files.example.com|/"),
        *("//files.example.com\xe9/", "https://f\xc4\xb1les.example.com/", "//evil net/"),
        "https://files.example.com\\@evil.net/ ",
    ],
)
def test_a_redirect_elsewhere_is_refused(location: str) -> None:
    with pytest.raises(UrlRefused, match="redirected to"):
        GUARD.check_redirect(parse_http_url("https://files.example.com/dir/a"), location)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("//evil.net/a?X-Amz-Signature=secret", "redirected to '//evil.net/a?...': "),
        ("//evil.net/a#access_token=secret?x", "redirected to '//evil.net/a#...': "),
        ("//evil.net/a?\n&token=secret", "redirected to '//evil.net/a?...': "),
        ("https://user:secret@x/@b", "redirected to 'https://...@x/@b': "),
        ("//a:secret@[", "redirected to '//...@[', which is not a URL"),
        ("/" + "a" * 5000 + "?secret", f"redirected to '/{'a' * 199}': "),
    ],
)
def test_a_refused_redirect_shows_no_secrets(location: str, shown: str) -> None:
    with pytest.raises(UrlRefused) as caught:
        GUARD.check_redirect(parse_http_url("https://files.example.com/dir/a"), location)
    assert str(caught.value).startswith(shown)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "origin",
    ["http://Example.com", "https://example.com:443/", "http://127.0.0.1:81", "http://[::1]:9000"],
)
def test_the_setting_and_the_policy_write_an_origin_alike(origin: str) -> None:
    found, mistakes = read({"DOWNLOAD_ORIGINS": [origin]})
    assert mistakes == []
    UrlPolicy(frozenset(found.download_origins)).check_url(origin.rstrip("/") + "/file")
