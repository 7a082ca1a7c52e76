"""`/api/openapi.json`, and a page to browse it, which loads nothing from elsewhere."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from cacheapp.views.access import permission_required
from cacheapp.views.pages import page
from cacheapp.views.responses import allow_methods


@permission_required()
@allow_methods("GET")
def openapi(_request: HttpRequest) -> JsonResponse:
    """Return the description of the API, in OpenAPI 3.1."""
    from cacheapp.openapi.document import document  # noqa: PLC0415 (only for this request)

    return JsonResponse(document(), headers={"Cache-Control": "no-store"})


@page(None)
def browse(request: HttpRequest) -> HttpResponse:
    """Show the description with Swagger UI, which calls the API as the user who is signed in."""
    return render(request, "cacheapp/api.html")
