"""Jobs in the database: models, ownership, pause and resume, termination, retention."""
