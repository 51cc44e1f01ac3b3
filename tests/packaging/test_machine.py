"""What runs the gateway without a cluster: the image's recipe, the Compose file, nginx in front, the systemd unit."""

import re
import shutil
import subprocess
import tomllib

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from conftest import ROOT, SECRETS

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
# Seconds a stop needs besides notice and grace; see src/app/run.rs.
REST_OF_A_STOP = 45
# Variables of others that the gateway honours.
OF_OTHERS = {"OTEL_EXPORTER_OTLP_ENDPOINT"}


def interpolated():
    """The Compose file, with what `.env` would say."""
    env = {"BONITO_MASTER_KEY": SECRETS["BONITO_MASTER_KEY"], "POSTGRES_PASSWORD": "p", "VAULT_TOKEN": "t"}
    names = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE_TEXT))
    assert names == set(env), "the head of the file says how .env is made"
    assert all(f"{name}=" in COMPOSE_TEXT.split("\nname:")[0] for name in names)
    return yaml.safe_load(re.sub(r"\$\{([A-Z_]+)(:\?[^}]*)?\}", lambda found: env[found[1]], COMPOSE_TEXT))


def test_the_compose_file_is_one():
    jsonschema.validate(yaml.safe_load(COMPOSE_TEXT), get_builtin_schema("vendor.compose-spec"))


def seconds(text):
    return int(text.removesuffix("s"))


def test_two_gateways_share_everything_but_their_volume(settings_are_good):
    compose = interpolated()
    services = compose["services"]
    gateways = {name: service for name, service in services.items() if name.startswith("gateway")}
    assert len(gateways) == 2
    volumes = [volume.split(":")[0] for gateway in gateways.values() for volume in gateway["volumes"]]
    assert len(set(volumes)) == 2 and set(volumes) <= set(compose["volumes"])
    for gateway in gateways.values():
        assert gateway["read_only"] is True and gateway["cap_drop"] == ["ALL"]
        assert "ports" not in gateway, "nginx is the way in"
        env = {name: str(value) for name, value in gateway["environment"].items()}
        settings_are_good(env | image_environment())
        usual = {"DATABASE_URL", "REDIS_URL", "VAULT_ADDR", "VAULT_TOKEN"} | OF_OTHERS
        assert all(name.startswith("BONITO_") or name in usual for name in env)
        stop = int(env["BONITO_SERVER_SHUTDOWN_NOTICE_MS"]) + int(env["BONITO_SERVER_SHUTDOWN_GRACE_MS"])
        assert seconds(gateway["stop_grace_period"]) * 1000 >= stop + REST_OF_A_STOP * 1000
        # Addresses are names of services, and whoever is waited for says when it is there.
        hosts = re.findall(r"//(?:[^@/]*@)?([a-z]+)[:/]", " ".join(value for name, value in env.items() if "URL" in name or "ADDR" in name or "OTEL" in name))
        assert {"postgres", "redis", "vault", "traces"} <= set(hosts) and {host for host in hosts} <= set(services)
        for needed in gateway["depends_on"]:
            assert "healthcheck" in services[needed]
    # Nothing is reached from other machines.
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published and all(port.startswith("127.0.0.1:") for port in published)
    # No image is "whatever is newest".
    for name, service in services.items():
        assert name.startswith("gateway") or re.search(r":\d", service["image"]), service["image"]


def test_nginx_takes_its_file(tmp_path):
    text = (ROOT / "deploy" / "compose" / "nginx.conf").read_text()
    servers = re.findall(r"server ([a-z0-9-]+):8001", text)
    assert set(servers) == {name for name in interpolated()["services"] if name.startswith("gateway")}
    port = re.search(r"listen (\d+);", text)[1]
    assert interpolated()["services"]["nginx"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    # Names of services are known inside of Compose alone, and where it writes is nobody else's here.
    there = re.sub(r"server gateway-\d:8001", "server 127.0.0.1:8001", text, count=1)
    there = re.sub(r"server gateway-\d:8001", "server 127.0.0.2:8001", there).replace("/tmp/", f"{tmp_path}/")
    (tmp_path / "nginx.conf").write_text(there)
    said = subprocess.run([nginx, "-t", "-q", "-c", tmp_path / "nginx.conf", "-p", tmp_path], capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")


def test_hadolint_finds_nothing_to_complain_of():
    said = subprocess.run(["hadolint", "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "")


def image_environment():
    """The variables that the image sets."""
    block = re.search(r"\nENV ((?:.*\\\n)*.*)", DOCKERFILE)[1]
    return dict(pair.split("=", 1) for pair in block.replace("\\\n", " ").split())


def test_the_image_runs_as_nobody_from_a_base_without_a_shell(settings_are_good):
    *_, last = re.split(r"\nFROM ", DOCKERFILE)
    assert last.startswith("gcr.io/distroless/cc-debian12:nonroot")
    user = re.search(r"\nUSER (\d+):(\d+)", last)
    assert int(user[1]) > 0 and f"--chown={user[1]}:{user[2]}" in last
    values = yaml.safe_load((ROOT / "helm/bonito-gateway/values.yaml").read_text())
    assert str(values["podSecurityContext"]["runAsUser"]) == user[1]
    assert 'CMD ["/usr/local/bin/bonito", "health"]' in last and "\nRUN " not in last
    env = image_environment()
    assert f"VOLUME {env['BONITO_DATA_DIR']}" in last
    settings_are_good(env)


def test_the_image_is_built_from_what_is_sent_to_the_builder():
    profiles = tomllib.loads((ROOT / "Cargo.toml").read_text())["profile"]
    assert re.search(r"--profile (\w+)", DOCKERFILE)[1] in profiles
    rust = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    assert f"FROM rust:{rust}-bookworm" in DOCKERFILE
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in kept:
        assert (ROOT / path).exists(), path
    needed = {"Cargo.toml", "Cargo.lock"} | set(tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]) - {"."}
    for folder in ("src", "entity/src", "migration/src"):
        for source in (ROOT / folder).rglob("*.rs"):
            needed.add(str(source.relative_to(ROOT)))
            text = source.read_text()
            for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', text):
                needed.add(str((source.parent / name).resolve().relative_to(ROOT)))
            for name in re.findall(r'#\[folder = "([^"]+)"\]', text):
                needed.add(name.removeprefix("$CARGO_MANIFEST_DIR").strip("/"))
    missing = [path for path in needed if not any(path == one or path.startswith(f"{one}/") for one in kept)]
    assert missing == []


def test_the_sbom_is_made_by_versions_that_are_written_down():
    assert re.search(r"cargo install --locked cargo-auditable --version \d+\.\d+\.\d+", DOCKERFILE)
    assert re.search(r"\ncargo_cyclonedx=\d+\.\d+\.\d+\n", (ROOT / "scripts/sbom").read_text())


def test_the_unit_is_shut_off_from_the_machine(tmp_path, settings_are_good):
    unit = (ROOT / "deploy/systemd/bonito.service").read_text()
    env = dict(line.removeprefix("Environment=").split("=", 1) for line in unit.splitlines() if line.startswith("Environment="))
    (tmp_path / "master-key").write_text(SECRETS["BONITO_MASTER_KEY"])
    env = {name: value.replace("%d", str(tmp_path)) for name, value in env.items()}
    (tmp_path / "bonito.toml").write_text('[providers.local]\nbase_url = "http://127.0.0.1:9000/v1"\n')
    env["BONITO_CONFIG"] = str(tmp_path / "bonito.toml")
    settings_are_good(env)
    defaults = tomllib.loads((ROOT / "config/default.toml").read_text())["server"]
    stop = defaults["shutdown_notice_ms"] + defaults["shutdown_grace_ms"]
    assert seconds(re.search(r"TimeoutStopSec=(\d+s)", unit)[1]) * 1000 >= stop + REST_OF_A_STOP * 1000
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    # It looks whether the programs are there.
    there = tmp_path / "bonito.service"
    there.write_text(unit.replace("/usr/local/bin/bonito", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", there], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    # 2.0 of 10; a unit that says nothing has 9.6.
    security = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", there]
    said = subprocess.run(security, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout
