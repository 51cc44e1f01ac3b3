"""What the checks of the packaging share: where things are, and what the gateway says about settings."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "helm" / "bonito-gateway"

# What secrets hold in these checks, by the variable that they are handed over in. None of it is anybody's.
SECRETS = {
    "BONITO_MASTER_KEY": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "DATABASE_URL": "postgres://user:not-a-password@postgres/bonito",
    "REDIS_URL": "redis://redis:6379",
}


def check_config(environment, cwd):
    """What `bonito check-config` makes of these variables, and of nothing else."""
    binary = os.environ["BONITO_TEST_BINARY"]
    return subprocess.run([binary, "check-config"], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.fixture
def settings_are_good(tmp_path):
    """Refuses variables that the gateway would not start with, or that are none of its settings."""

    def look(environment):
        said = check_config(environment, tmp_path)
        assert said.returncode == 0, said.stderr
        assert "warning" not in said.stdout, said.stdout

    return look
