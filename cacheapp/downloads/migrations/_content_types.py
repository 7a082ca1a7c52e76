"""Moves content types from one app label to another, with their permissions and who has them.

The real models are used, if they are installed: a project may have no users, and a dependency on the
migrations of `django.contrib.auth` would make it impossible to add them later.
"""

from typing import Any

from django.apps import apps
from django.db import DatabaseError, connections, router, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

_AUTH, _CONTENT_TYPES = "django.contrib.auth", "django.contrib.contenttypes"
MODELS = ("auditentry", "downloadfile", "downloadjob", "downloadnotification", "jobcreator")


class MoveContentTypes(Operation):
    """Adopts the content types of an earlier release in each database that has them.

    `RunPython` asks the routers where the tables of this app belong. The content types are elsewhere
    if a router gives the app a database of its own.
    """

    reduces_to_sql = False
    reversible = True

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Leave the state of the models as it is."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Give the content types the new label."""
        del app_label, from_state, to_state
        move_content_types(schema_editor.connection.alias, self.old, self.new)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Return them to the earlier release."""
        del app_label, from_state, to_state
        move_content_types(schema_editor.connection.alias, self.new, self.old)

    def describe(self) -> str:
        """Describe the operation."""
        return f"Move the content types of {self.old} to {self.new}"


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
            other = types.filter(app_label=new, model=moved.model).first()
            if other is None or _is_merged(alias, other, moved):
                types.filter(pk=moved.pk).update(app_label=new)
            else:
                _merge_permissions(alias, moved, other)
    ContentType.objects.clear_cache()


def _is_merged(alias: str, source: Any, target: Any) -> bool:
    """Move all rows that name a content type to another one and remove it, or change nothing.

    A constraint of another app can prevent that, and so can a column that its migrations add later.
    """
    try:
        with transaction.atomic(using=alias):
            _merge_permissions(alias, source, target)
            for field in _fields_of_others(alias, type(source)):
                rows = field.model._base_manager.using(alias)  # noqa: SLF001 (documented)
                rows.filter(**{field.name: source}).update(**{field.name: target})
            source.delete()
    except DatabaseError:
        return False
    return True


def _fields_of_others(alias: str, content_type: Any) -> list[Any]:
    """Return the foreign keys to content types, but for that of permissions, which are merged."""
    fields = content_type._meta.get_fields(include_hidden=True)  # noqa: SLF001 (documented)
    found = [it.field for it in fields if it.auto_created and not it.concrete]
    return [
        it
        for it in found
        if it.concrete
        and not it.many_to_many
        and it.model._meta.label != "auth.Permission"  # noqa: SLF001 (documented)
        and _has_table(alias, it.model)
    ]


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
