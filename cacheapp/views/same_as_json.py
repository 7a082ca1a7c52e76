"""Where the data of a page is as JSON, and the `curl` command that reads it."""

import shlex
from typing import NamedTuple
from urllib.parse import urlencode

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.urls import reverse

from cacheapp.conf import conf
from cacheapp.views.local_access import is_local

_DATA = {
    "index": "overview",
    "machines_page": "machines_data",
    "lab_page": "lab_data",
    "lab_experiment": "lab_data",
    "check_page": "check_data",
    "check_start": "check_data",
    "lab_start": "lab_data",
    "downloads_page": "downloads",
    "downloads_action": "downloads",
    "download_page": "download",
    "stats_page": "stats",
}
"""For each page, the endpoint of the API with the same data and the same permission."""
_HEADER = '-H "Authorization: Bearer $TOKEN" '


class SameAsJson(NamedTuple):
    """The same data for programs."""

    url: str
    curl: str
    needs_token: bool


def same_as_json(request: HttpRequest) -> SameAsJson | None:
    """Return the JSON of a page; `None` where there is none, or if the host is not valid.

    A browser follows the link with its session. `curl` has none: it needs a token, unless the demo
    lets programs of this machine in.
    """
    match = request.resolver_match
    name = _DATA.get(match.url_name or "") if match and match.namespace == "cacheapp" else None
    if match is None or name is None:
        return None
    arguments = {"job_id": match.kwargs["job_id"]} if name == "download" else {}
    url = reverse(f"cacheapp:{name}", kwargs=arguments)
    if query := _query(request, match.kwargs):
        url = f"{url}?{urlencode(query)}"
    try:
        address = shlex.quote(request.build_absolute_uri(url))
    except DisallowedHost:
        return None
    needs_token = not (conf().demo and is_local(request))
    return SameAsJson(url, f"curl {_HEADER if needs_token else ''}{address}", needs_token)


def _query(request: HttpRequest, arguments: dict[str, str]) -> dict[str, str]:
    """Return what selects the same part: an experiment, or jobs of one state."""
    if "name" in arguments:
        return {"name": arguments["name"]}
    is_list = request.resolver_match is not None and (
        request.resolver_match.url_name == "downloads_page"
    )
    return {"state": request.GET["state"]} if is_list and request.GET.get("state") else {}
