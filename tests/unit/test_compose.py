"""The servers of docker-compose.yml are where the runbooks and its own first lines say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(FILE)["services"]


def test_its_first_lines_name_the_ports_and_databases_that_it_opens() -> None:
    said = dict(re.findall(r"localhost:(\d+)(?:/(\w+))?", FILE))
    opened = {
        service["ports"][0].split(":")[1]: service.get("environment", {}).get("POSTGRES_DB", "")
        for service in SERVICES.values()
    }
    assert said == opened == {"6379": "", "5432": "intelliflow", "5433": "jobs"}


def test_nobody_but_this_machine_reaches_them_and_each_says_when_it_is_up() -> None:
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped", name


def test_redis_forgets_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_what_they_keep_outlives_them() -> None:
    kept = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert kept == set(yaml.safe_load(FILE)["volumes"])
