"""Private servers, child processes, stopping and waiting."""
