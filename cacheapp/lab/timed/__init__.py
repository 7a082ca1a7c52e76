"""The code that is timed, as it is shown; where it can, only the standard library, for any Python."""
