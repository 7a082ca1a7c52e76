"""Django's cache API over a `Store`: what all shared backends have in common."""
