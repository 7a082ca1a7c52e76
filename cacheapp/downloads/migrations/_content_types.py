"""Moves content types from one app label to another, with their permissions and who has them.

The real models are used, if they are installed: a project may have no users, and a dependency on the
migrations of `django.contrib.auth` would make it impossible to add them later.
"""

from typing import Any

from django.apps import apps
from django.db import connections, router, transaction

_AUTH, _CONTENT_TYPES = "django.contrib.auth", "django.contrib.contenttypes"
MODELS = ("auditentry", "downloadfile", "downloadjob", "downloadnotification", "jobcreator")


def move_content_types(alias: str, old: str, new: str) -> None:
    """Give the content types of downloads the label `new` in the database `alias`."""
    if not apps.is_installed(_CONTENT_TYPES):
        return
    from django.contrib.contenttypes.models import ContentType  # noqa: PLC0415 (may not be installed)

    if not _has_table(alias, ContentType):
        return
    types = ContentType.objects.using(alias)
    with transaction.atomic(using=alias):
        for moved in types.filter(app_label=old, model__in=MODELS):
            for other in types.filter(app_label=new, model=moved.model):
                _merge_permissions(alias, other, moved)
                other.delete()
            types.filter(pk=moved.pk).update(app_label=new)
    ContentType.objects.clear_cache()


def _has_table(alias: str, model: Any) -> bool:
    with connections[alias].cursor() as cursor:
        tables = connections[alias].introspection.table_names(cursor)
    return router.allow_migrate_model(alias, model) and model._meta.db_table in tables  # noqa: SLF001 (documented)


def _merge_permissions(alias: str, source: Any, target: Any) -> None:
    """Add the users and groups of a content type's permissions to the same ones of another."""
    if not apps.is_installed(_AUTH):
        return
    from django.contrib.auth.models import Permission  # noqa: PLC0415 (may not be installed)

    if not _has_table(alias, Permission):
        return
    permissions = Permission.objects.using(alias)
    for permission in permissions.filter(content_type=source):
        kept = permissions.filter(content_type=target, codename=permission.codename).first()
        if kept is None:
            permissions.filter(pk=permission.pk).update(content_type=target)
            continue
        for relation in Permission._meta.related_objects:  # noqa: SLF001 (documented)
            if relation.many_to_many:  # users and groups
                name = str(relation.get_accessor_name())
                getattr(kept, name).add(*getattr(permission, name).values_list("pk", flat=True))
