"""Creates the table of a model, or adopts the one of an earlier release."""

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import CreateModel
from django.db.migrations.state import ProjectState
from django.db.models import Model


class CreateOrAdoptModel(CreateModel):
    """Create a model; rename its table with its rows if a release before this app created it.

    Backwards, the table gets that name again, and nothing is removed: the earlier release finds its rows,
    and this one adopts them once more. `manage.py migrate cacheapp zero` removes it.
    """

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Rename an existing table, or create one."""
        model = to_state.apps.get_model(app_label, self.name)
        connection = schema_editor.connection
        with connection.cursor() as cursor:
            is_adopted = self._earlier_table in connection.introspection.table_names(cursor)
        if not is_adopted:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        elif self.allow_migrate_model(connection.alias, model):
            self._rename(schema_editor, model, is_adopted=True)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Rename the table back."""
        del to_state
        model = from_state.apps.get_model(app_label, self.name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            self._rename(schema_editor, model, is_adopted=False)

    @property
    def _earlier_table(self) -> str:
        return f"cacheapp_{self.name_lower}"

    def _rename(
        self, schema_editor: BaseDatabaseSchemaEditor, model: type[Model], *, is_adopted: bool
    ) -> None:
        earlier, now = self._earlier_table, model._meta.db_table  # noqa: SLF001 (documented)
        old, new = (earlier, now) if is_adopted else (now, earlier)
        schema_editor.alter_db_table(model, old, new)
