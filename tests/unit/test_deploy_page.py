"""The files that docs/howto/deploy.md shows are well formed, and agree with each other."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "deploy.md").read_text()
HOME = "/var/lib/mysite"
USER = 10001
INSTRUCTIONS = {
    *("FROM", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "CMD"),
    *("ENV", "ARG", "ENTRYPOINT", "HEALTHCHECK", "LABEL", "STOPSIGNAL"),
}


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def _yaml(key: str) -> Any:
    (found,) = [each for each in map(yaml.safe_load, _blocks("yaml")) if key in each]
    return found


def test_the_image_runs_as_the_owner_of_its_volume() -> None:
    (image,) = _blocks("dockerfile")
    lines = [line.partition(" ") for line in image.splitlines()]
    assert {name for name, _, _ in lines} <= INSTRUCTIONS
    by_name = {name: rest for name, _, rest in lines}
    assert lines[0][0] == "FROM"
    assert by_name["VOLUME"] == HOME
    assert by_name["USER"] == str(USER)
    assert json.loads(by_name["CMD"])[0] == "gunicorn"
    (made,) = [rest for name, _, rest in lines if name == "RUN" and "useradd" in rest]
    assert f"--uid {USER}" in made
    assert made.endswith(f"install -d -m 700 -o mysite {HOME}")
    assert all(shlex.split(rest) for name, _, rest in lines if name == "RUN")


def test_the_services_of_the_compose_file_share_volume_and_processes() -> None:
    compose = _yaml("services")
    services = compose["services"]
    assert {volume for each in services.values() for volume in each["volumes"]} == {f"cache:{HOME}"}
    assert set(compose["volumes"]) == {"cache"}
    for name, service in services.items():
        assert name == "web" or service["pid"] == "service:web"
        assert set(service.get("depends_on", [])) <= set(services)


def test_the_manifest_selects_its_pods_and_mounts_its_volume() -> None:
    manifest = _yaml("kind")
    assert (manifest["apiVersion"], manifest["kind"]) == ("apps/v1", "Deployment")
    template = manifest["spec"]["template"]
    assert manifest["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    pod = template["spec"]
    assert pod["securityContext"]["runAsUser"] == USER
    (volume,) = pod["volumes"]
    ((made,),) = [each["volumeMounts"] for each in pod["initContainers"]]
    ((used,),) = [each["volumeMounts"] for each in pod["containers"]]
    assert made["name"] == used["name"] == volume["name"]
    assert used["mountPath"] == HOME
    assert pod["initContainers"][0]["command"][-1] == f"{made['mountPath']}/{used['subPath']}"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    (unit,) = _blocks("ini")
    names = re.findall(r"^(\w+)=", unit, re.MULTILINE)
    assert {"User", "ExecStart", "StateDirectory", "StateDirectoryMode"} <= set(names)
    if shutil.which("systemd-analyze") is None:
        pytest.skip(
            "SYSTEMD-ANALYZE IS NOT INSTALLED, so it did not read the unit. On Debian, run as root: "
            "apt install systemd"
        )
    path = tmp_path / "mysite.service"
    path.write_text(re.sub(r"^ExecStart=.*", "ExecStart=/bin/true", unit, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "mysite.service" not in done.stderr  # where it names keys that it does not know
