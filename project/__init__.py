"""The deployment: settings, URLs, and the program behind `make run`."""
