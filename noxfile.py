"""The tests on every Python and Django that is supported: `make matrix`, or `nox -s NAME`.

Interpreters are taken from PATH, pyenv, uv and the variable MATRIX_PYTHONS (directories, separated by
colons). The sessions of those that are missing are skipped, and named at the end.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
DJANGOS = ("5.2", "6.0", "6.1")
PAIRS = [
    (python, django)
    for python in PYTHONS
    for django in DJANGOS
    if django == "5.2" or python != "3.11"  # Django 6 requires Python 3.12
]
QUICK = (
    "tests/contract/test_one_process.py",
    "tests/unit/backends",
    "tests/unit/consistency",
    "tests/unit/test_checks.py",
    "tests/unit/test_conf.py",
)
TESTED = ("tests/contract", "tests/unit", "tests/integration")
# What checks the sources, and not the tests, runs once, by `make check`.
CHECKS = frozenset(
    ["codespell", "django-stubs", "import-linter", "mypy", "pip-audit", "ruff", "types-psutil"]
)
PINNED = re.compile(r"^([\w.-]+)(?:\[[^]]*\])?==([^ \\;]+) ?(;[^\\]*)?", re.MULTILINE)

nox.options.default_venv_backend = "uv|venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "wheel", "fork", "bare_posix", "servers", "tasks"]


def _directories() -> list[Path]:
    """Return where interpreters may be, except PATH."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python"))
    named = [Path(name) for name in os.environ.get("MATRIX_PYTHONS", "").split(":") if name]
    return [*named, *sorted(pyenv.glob("*/bin")), *sorted(uv.glob("cpython-*/bin"))]


# In front: the shims of pyenv are on PATH for versions that are not active, and fail.
os.environ["PATH"] = os.pathsep.join([*map(str, _directories()), os.environ["PATH"]])


def _direct(name: str) -> list[str]:
    """Return the lines of a requirements file that name packages of the tests."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [
        line
        for line in lines
        if line and not line.startswith(("-", "Django~=")) and line not in CHECKS
    ]


def _place(session: nox.Session) -> Path:
    """Return a directory of the session. `create_tmp` sets TMPDIR to it: too long for paths of sockets."""
    place = Path(session.virtualenv.location) / "made"
    place.mkdir(exist_ok=True)
    return place


def _install(session: nox.Session, django: str) -> None:
    """Install the tests' packages as pinned, with another Django."""
    pins = _place(session) / "constraints.txt"
    text = (ROOT / "requirements-dev.txt").read_text() + (
        ROOT / "requirements-redis.txt"
    ).read_text()
    pins.write_text(
        "".join(
            f"{name}=={version} {marker}\n"
            for name, version, marker in sorted(set(PINNED.findall(text)))
            if name.lower() not in {"django", *CHECKS}
        )
    )
    names = [
        *_direct("requirements.in"),
        *_direct("requirements-dev.in"),
        *_direct("requirements-redis.in"),
    ]
    session.install("--only-binary", ":all:", "-c", str(pins), f"Django~={django}.0", *names)


def _pytest(session: nox.Session, *arguments: str, **env: str) -> None:
    """Run pytest with the arguments after `--`; files and directories among them replace the session's.

    The checks of freed memory of `-X dev` would take 18 % of the time, as in `make test`.
    """
    if any((ROOT / each.partition("::")[0]).exists() for each in session.posargs):
        arguments = tuple(each for each in arguments if not each.startswith("tests/"))
    session.run(
        *("python", "-X", "dev", "-m", "pytest", "-q", "-n", os.environ.get("LANES", "2")),
        *("--dist", "loadfile", *arguments, *session.posargs),
        env={"PYTHONDEVMODE": "1", "PYTHONMALLOC": "pymalloc", **env},
    )


def _works(python: str) -> bool:
    """Return True if this interpreter starts."""
    try:
        subprocess.run([f"python{python}", "-c", ""], check=True, capture_output=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
OTHER = next(
    (each for each in ("3.13", "3.12", "3.14", "3.11") if each != OWN and _works(each)), None
)


@nox.session(python=OTHER or False)
def pair(session: nox.Session) -> None:
    """Run a part of the tests on one other Python with the newest Django: what `.ci/run` has time for."""
    if OTHER is None:
        session.skip(f"NO OTHER PYTHON IS HERE than {OWN}: looked for {', '.join(PYTHONS)}")
    django = DJANGOS[-1] if OTHER != "3.11" else DJANGOS[0]
    _install(session, django)
    session.run("python", "-c", "import sys, django; print(sys.version, django.__version__)")
    _pytest(session, *QUICK)


@nox.session
@nox.parametrize(("python", "django"), PAIRS)
def tests(session: nox.Session, django: str) -> None:
    """Run the contract, unit and integration tests."""
    _install(session, django)
    session.run("python", "-c", "import sys, django; print(sys.version, django.__version__)")
    _pytest(session, *TESTED)


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """Install the wheel in foreign projects: Django 5.2, and 6 where this Python allows it."""
    _install(session, "5.2")
    _pytest(session, "-m", "soak", "tests/package")


@nox.session(python=PYTHONS[1])
def tasks(session: nox.Session) -> None:
    """Run jobs in Django's Tasks framework, with a queue in the database."""
    _install(session, "6.0")
    session.install("django-tasks-db>=0.13")
    _pytest(session, "-m", "soak", "tests/tasks_queue")


@nox.session(python=PYTHONS[0])
def fork(session: nox.Session) -> None:
    """DiskCache on `diskcache-community`: its part of the contract."""
    _install(session, "5.2")
    session.install("diskcache-community>=5.8.1")
    place = _place(session) / "fork"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(
        "import sys, diskcache_community, diskcache_community.core as core\n"
        "sys.modules.update({'diskcache': diskcache_community, 'diskcache.core': core})\n"
    )
    _pytest(session, "tests/contract", "-k", "disk", PYTHONPATH=str(place))


@nox.session(python=PYTHONS[0])
def bare_posix(session: nox.Session) -> None:
    """Run the contract without calls that only Linux has. It is no test on macOS."""
    _install(session, "5.2")
    _pytest(
        session,
        "tests/contract",
        "-k",
        "lmdb or disk",
        PYTHONPATH=str(ROOT / "tests/package/bare_posix"),
    )


@nox.session(python=PYTHONS[0])
def servers(session: nox.Session) -> None:
    """Run downloads under every server: a worker is killed, another one adopts its job."""
    _install(session, "5.2")
    session.install("uvicorn", "granian", "hypercorn", "daphne", "pyuwsgi")
    _pytest(session, "-m", "soak", "tests/system/downloads/test_every_server.py")
