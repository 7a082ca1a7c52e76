"""Operations on the models that are now those of `cacheapp.downloads`.

Until migration 0009 these models had the label `cacheapp`. The operations on them still change the state
of the models, which 0009 needs. They change the database only where an earlier release created the tables:
a new database gets none for a cache, and `cacheapp.downloads` adopts existing ones.
"""

from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import CreateModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.operations.models import ModelOperation
from django.db.migrations.state import ProjectState


class Moved(Operation):
    """An operation on a moved model, which changes its table only if it exists."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Change the state as the operation does."""
        self.operation.state_forwards(app_label, state)

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Change an existing table; create none."""
        is_new = isinstance(self.operation, CreateModel)
        if not is_new and self._has_table(app_label, schema_editor):
            self.operation.database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Change an existing table back."""
        if self._has_table(app_label, schema_editor):
            self.operation.database_backwards(app_label, schema_editor, from_state, to_state)

    def describe(self) -> str:
        """Describe the operation."""
        return f"{self.operation.describe()}, if an earlier release created its table"

    def _has_table(self, app_label: str, schema_editor: BaseDatabaseSchemaEditor) -> bool:
        of: Any = self.operation
        model = of.name if isinstance(of, ModelOperation) else of.model_name
        connection = schema_editor.connection
        with connection.cursor() as cursor:
            tables = connection.introspection.table_names(cursor)
        return f"{app_label}_{model.lower()}" in tables
