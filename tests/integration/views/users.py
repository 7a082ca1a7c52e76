"""Users of the site, and their clients."""

from django.contrib.auth.models import Permission, User
from django.test import Client


def staff(name: str, *codenames: str) -> User:
    """Create a user who may enter the admin and has these permissions."""
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def session(user: User) -> Client:
    """Return a client that is signed in as the user."""
    client = Client(HTTP_HOST="localhost")
    client.force_login(user)
    return client
