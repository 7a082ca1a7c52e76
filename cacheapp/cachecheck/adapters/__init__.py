"""Adapters of other cache libraries to the methods of Django's cache API that the check calls.

An adapter imports nothing: it wraps an object that the user's own function has made. A method that the
library does not have is left out, and what needs it is NOT APPLICABLE.
"""
