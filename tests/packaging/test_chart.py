"""The Helm chart, rendered by Helm's own engine and held against the schemas of Kubernetes."""

import json
import re

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from conftest import CHART, SECRETS, check_config

# What every installation on Postgres has to say.
LEAST = {"database": {"existingSecret": "postgres"}, "masterKey": {"existingSecret": "master-key"}}
CONFIG = '[providers.local]\nbase_url = "http://models.internal:9000/v1"\n\n[aliases]\nfast = ["local/small"]\n'
EVERYTHING = {
    **LEAST,
    "image": {"digest": "sha256:" + "a" * 64, "pullSecrets": [{"name": "registry"}]},
    "config": CONFIG,
    "settings": {
        "server.max_connections": 20000,
        "journal.max_bytes": 6442450944,
        "webhooks.allow_http": True,
        "fetch.allowed_networks": "10.20.0.0/16",
        "overload.lag_ms": 0,
    },
    "redis": {"existingSecret": "redis"},
    "vault": {
        "address": "https://vault.internal:8200",
        "namespace": "ai",
        "authMount": "k8s",
        "kubernetesRole": "bonito",
        "mounts": "secret,legacy:1",
        "masterKeyPath": "bonito/master",
        "caConfigMap": "internal-ca",
    },
    "providers": {"existingSecret": "providers"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
    "extraVolumes": [{"name": "gcp", "secret": {"secretName": "gcp"}}],
    "extraVolumeMounts": [{"name": "gcp", "mountPath": "/etc/gcp", "readOnly": True}],
    "persistence": {"storageClass": "fast", "annotations": {"a": "b"}},
    "service": {"annotations": {"a": "b"}},
    "publicUrl": "https://llm.example.com",
    "trustedProxies": "10.0.0.0/8",
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "off"},
        "hosts": [{"host": "llm.example.com", "paths": [{"path": "/", "pathType": "Prefix"}]}],
        "tls": [{"secretName": "tls", "hosts": ["llm.example.com"]}],
    },
    "autoscaling": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "apiFrom": [{"namespaceSelector": {}}],
        "operationsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "grafanaDashboard": {"enabled": True, "annotations": {"grafana_folder": "Gateways"}},
    "workers": {"enabled": True, "replicaCount": 3, "size": "2Gi", "drainSeconds": 30},
    "serviceAccount": {"annotations": {"a": "b"}},
    "migrations": {"resources": {"requests": {"cpu": "100m"}}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    ],
    "priorityClassName": "high",
}
CASES = {
    "least": LEAST,
    "everything": EVERYTHING,
    "one replica on SQLite": {"replicaCount": 1, "database": {"embedded": True}},
    "Vault by AppRole": {
        **LEAST,
        "vault": {"address": "http://vault:8200", "auth": "approle", "roleId": "role", "existingSecret": "vault"},
    },
    "Vault by token, which has the master key": {
        "database": {"existingSecret": "postgres"},
        "vault": {"address": "http://vault:8200", "auth": "token", "existingSecret": "vault", "masterKeyPath": "master"},
    },
    "without what can be left out": {
        **LEAST,
        "podDisruptionBudget": {"enabled": False},
        "migrations": {"enabled": False},
        "serviceAccount": {"create": False},
    },
}
# What is in the Secrets that become variables as a whole.
FROM_SECRETS = {"providers": {"OPENAI_API_KEY": "sk-nobody"}, "vault": {"VAULT_TOKEN": "t", "VAULT_SECRET_ID": "s"}}


def render(values):
    with helm.Chart.load(CHART) as chart:
        rendered = chart.render(values, name="llm", namespace="ai")
    manifests = [text for name, text in rendered.items() if name.endswith(".yaml")]
    return [found for text in manifests for found in yaml.safe_load_all(text) if found]


def one(objects, kind, name="llm-bonito-gateway"):
    (found,) = [thing for thing in objects if thing["kind"] == kind and thing["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_helm_finds_nothing_to_complain_of(values):
    report = helm.lint(CHART, values, strict=True, kube_version="v1.30.0")
    complaints = [message for message in report["messages"] if message["severity"] > 1]
    assert (complaints, report["errors"]) == ([], [])


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_every_object_is_one_that_kubernetes_knows(values, version):
    objects = render(values)
    assert objects
    for thing in objects:
        # The operator's own kinds are in no schema of Kubernetes.
        if thing["kind"] not in ("ServiceMonitor", "PrometheusRule"):
            kubernetes_validate.validate(thing, version, strict=True)


def test_that_check_finds_what_is_wrong():
    thing = one(render(LEAST), "StatefulSet")
    thing["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(thing, "1.30", strict=True)


def configuration(objects):
    """The ConfigMap with the configuration file, where there is one."""
    found = [thing for thing in objects if thing["kind"] == "ConfigMap" and "bonito.toml" in thing["data"]]
    return found[0] if found else None


def environment(container, config, directory):
    """The variables of a container, with secrets made up."""
    found = {}
    for source in container.get("envFrom", []):
        found.update(FROM_SECRETS.get(source.get("secretRef", {}).get("name"), {}))
    for variable in container["env"]:
        name = variable["name"]
        assert ("value" in variable) != ("valueFrom" in variable), name
        found[name] = variable["value"] if "value" in variable else SECRETS[name]
    if "BONITO_CONFIG" in found:
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        folder, _, name = found["BONITO_CONFIG"].rpartition("/")
        assert folder in mounted
        (directory / name).write_text(config["data"][name])
        found["BONITO_CONFIG"] = str(directory / name)
    return found


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_every_variable_is_a_setting_of_the_gateway(values, tmp_path, settings_are_good):
    objects = render(values)
    for thing in objects:
        if thing["kind"] in ("StatefulSet", "Job"):
            (container,) = thing["spec"]["template"]["spec"]["containers"]
            settings_are_good(environment(container, configuration(objects), tmp_path))


def test_a_setting_that_does_not_exist_would_be_found(tmp_path):
    objects = render({**LEAST, "settings": {"server.max_conections": 1}})
    (container,) = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    said = check_config(environment(container, None, tmp_path), tmp_path)
    assert (said.returncode, "BONITO_SERVER_MAX_CONECTIONS" in said.stderr) == (2, True)


def test_settings_arrive_as_they_were_written():
    (container,) = one(render(EVERYTHING), "StatefulSet")["spec"]["template"]["spec"]["containers"]
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert values["BONITO_JOURNAL_MAX_BYTES"] == "6442450944"
    assert values["BONITO_WEBHOOKS_ALLOW_HTTP"] == "true"
    assert values["BONITO_OVERLOAD_LAG_MS"] == "0"
    assert one(render(EVERYTHING), "ConfigMap")["data"]["bonito.toml"] == CONFIG


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_pods_are_nobody_and_write_to_their_volume_alone(values):
    for thing in render(values):
        if thing["kind"] not in ("StatefulSet", "Job"):
            continue
        pod = thing["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        token = thing["kind"] == "StatefulSet" and values.get("vault", {}).get("kubernetesRole") is not None
        assert pod["automountServiceAccountToken"] is token


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_each_replica_and_worker_has_a_volume_and_time_to_leave(values):
    for thing in render(values):
        if thing["kind"] != "StatefulSet":
            continue
        pod = thing["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        (claim,) = thing["spec"]["volumeClaimTemplates"]
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts[claim["metadata"]["name"]] == variables["BONITO_DATA_DIR"]
        assert thing["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenScaled": "Retain", "whenDeleted": "Retain"}
        assert {mount["name"] for mount in container["volumeMounts"]} <= {
            volume["name"] for volume in [*pod["volumes"], claim["metadata"]]
        }
        # As src/app/run.rs has it: last words, jobs and requests, the last records, and what is closed.
        if container["args"] == ["serve"]:
            needed = ["BONITO_SERVER_SHUTDOWN_NOTICE_MS", "BONITO_SERVER_SHUTDOWN_GRACE_MS"]
        else:
            needed = ["BONITO_JOBS_DRAIN_MS"]
        assert pod["terminationGracePeriodSeconds"] * 1000 >= sum(int(variables[name]) for name in needed) + 45_000


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_everything_finds_the_pods(values):
    objects = render(values)
    stateful = one(objects, "StatefulSet")["spec"]
    # Whom a selector finds, by its component: the replicas, the workers.
    pods = {
        thing["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: thing["spec"]
        for thing in objects
        if thing["kind"] == "StatefulSet"
    }
    assert set(pods) == ({"gateway", "worker"} if values.get("workers") else {"gateway"})

    def found(selector):
        of_component = pods[selector["app.kubernetes.io/component"]]
        assert selector.items() <= of_component["template"]["metadata"]["labels"].items()
        (container,) = of_component["template"]["spec"]["containers"]
        return {port["name"] for port in container["ports"]}

    headless = []
    for of_component in pods.values():
        found(of_component["selector"]["matchLabels"])
        service = one(objects, "Service", of_component["serviceName"])
        assert service["spec"]["clusterIP"] == "None"
        headless.append(service)
        (container,) = of_component["template"]["spec"]["containers"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] == "operations"
    for thing in objects:
        if thing["kind"] == "Service":
            assert {port["targetPort"] for port in thing["spec"]["ports"]} <= found(thing["spec"]["selector"])
        elif thing["kind"] == "NetworkPolicy":
            ports = found(thing["spec"]["podSelector"]["matchLabels"])
            assert {rule["ports"][0]["port"] for rule in thing["spec"]["ingress"]} == ports
        elif thing["kind"] == "PodDisruptionBudget":
            found(thing["spec"]["selector"]["matchLabels"])
        elif thing["kind"] == "ServiceMonitor":
            for service in headless:
                assert thing["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
                assert thing["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
        elif thing["kind"] == "HorizontalPodAutoscaler":
            assert thing["spec"]["scaleTargetRef"]["name"] == "llm-bonito-gateway"
            assert "replicas" not in stateful
        elif thing["kind"] == "Job":
            # Its pod gets no traffic and is not counted.
            for of_component in pods.values():
                selected = of_component["selector"]["matchLabels"].items()
                assert not selected <= thing["spec"]["template"]["metadata"]["labels"].items()
    # Operations have no authentication: only the services without an address of their own lead there.
    exposed = one(objects, "Service")["spec"]["ports"]
    assert [port["targetPort"] for port in exposed] == ["api"]


def test_jobs_are_run_by_workers_alone_where_there_are_some():
    def variables_of(objects, name="llm-bonito-gateway"):
        (container,) = one(objects, "StatefulSet", name)["spec"]["template"]["spec"]["containers"]
        return container["args"], {variable["name"]: variable for variable in container["env"]}

    serve, served_with = variables_of(render(EVERYTHING))
    work, worked_with = variables_of(render(EVERYTHING), "llm-bonito-gateway-workers")
    assert (serve, work) == (["serve"], ["work"])
    assert served_with["BONITO_JOBS_IN_SERVE"]["value"] == "false"
    # Workers need every credential and setting that replicas have: batches ask the same providers.
    assert worked_with == served_with
    workers = one(render(EVERYTHING), "StatefulSet", "llm-bonito-gateway-workers")["spec"]
    assert workers["replicas"] == 3
    assert workers["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "2Gi"
    _, alone = variables_of(render(LEAST))
    assert "BONITO_JOBS_IN_SERVE" not in alone


def test_alerts_and_dashboard_are_those_that_are_shipped():
    shipped = CHART.parents[1] / "deploy"
    alerts, dashboard = shipped / "prometheus" / "alerts.yml", shipped / "grafana" / "bonito-gateway.json"
    for source in (alerts, dashboard):
        copy = CHART / "files" / source.name
        assert copy.read_text() == source.read_text(), f"copy {source} to {copy}: Helm reads nothing outside of a chart"
    objects = render(EVERYTHING)
    rule = one(objects, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(alerts.read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    found = one(objects, "ConfigMap", "llm-bonito-gateway-dashboard")
    assert json.loads(found["data"]["bonito-gateway.json"]) == json.loads(dashboard.read_text())
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"grafana_folder": "Gateways"}
    # What alerts look for in the job's name is there whatever the release is called.
    (relabeling,) = one(objects, "ServiceMonitor")["spec"]["endpoints"][0]["relabelings"]
    assert relabeling == {"targetLabel": "job", "replacement": "bonito-gateway"}


def test_the_job_runs_before_anything_else_and_needs_nothing_of_the_chart():
    objects = render(EVERYTHING)
    job = one(objects, "Job", "llm-bonito-gateway-migrate")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    made = {thing["metadata"]["name"] for thing in objects if thing["kind"] in ("ConfigMap", "ServiceAccount")}
    (container,) = job["spec"]["template"]["spec"]["containers"]
    named = {variable["valueFrom"]["secretKeyRef"]["name"] for variable in container["env"] if "valueFrom" in variable}
    assert not named & made
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    "values, complaint",
    [
        ({}, "database.existingSecret is needed"),
        ({"database": {"existingSecret": "a"}}, "masterKey.existingSecret or vault.masterKeyPath is needed"),
        ({"database": {"embedded": True}}, "set replicaCount to 1"),
        ({"database": {"embedded": True, "existingSecret": "a"}, "replicaCount": 1}, "exclude each other"),
        (
            {"database": {"embedded": True}, "replicaCount": 1, "workers": {"enabled": True}},
            "workers.enabled needs Postgres",
        ),
        ({**LEAST, "vault": {"address": "http://vault"}}, "vault.kubernetesRole is needed"),
        ({**LEAST, "vault": {"address": "http://vault", "auth": "token"}}, "vault.existingSecret is needed"),
        ({**LEAST, "vault": {"masterKeyPath": "a"}}, "vault.masterKeyPath needs vault.address"),
        ({**LEAST, "replicas": 3}, "replicas"),
        ({**LEAST, "replicaCount": "three"}, "replicaCount"),
        ({**LEAST, "settings": {"providers.openai": "x"}}, "providers.openai"),
        ({**LEAST, "vault": {"auth": "magic"}}, "auth"),
        ({**LEAST, "autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}, "minReplicas"),
    ],
)
def test_what_cannot_be_installed_is_refused_with_a_reason(values, complaint):
    with pytest.raises(helm.HelmError, match=re.escape(complaint)):
        with helm.Chart.load(CHART) as chart:
            chart.validate_schema(values)
            chart.render(values, name="llm", namespace="ai")


def paths(tree, at=""):
    """Every dotted path of the values, down to what is a list, a text or an empty table."""
    for key, value in tree.items():
        path = f"{at}.{key}" if at else key
        if isinstance(value, dict) and value:
            yield from paths(value, path)
        else:
            yield path


# Tables that templates hand on as a whole.
AS_A_WHOLE = ("resources", "podSecurityContext", "securityContext", "workers.resources", "grafanaDashboard.labels")


def test_templates_use_every_value_and_no_other():
    text = "\n".join(path.read_text() for path in CHART.glob("templates/*"))
    used = set(re.findall(r"\.Values\.([A-Za-z.]+)", text))
    known = set(paths(yaml.safe_load((CHART / "values.yaml").read_text())))
    tables = {path[: at.start()] for path in known for at in re.finditer(r"\.", path)}
    assert used <= known | tables, used - known - tables
    covered = {path for path in known if path in used or path.startswith(tuple(f"{table}." for table in AS_A_WHOLE))}
    assert known == covered, known - covered


def test_the_schema_knows_every_value_and_the_page_explains_it():
    with helm.Chart.load(CHART) as chart:
        schema, values = chart.schema, chart.values

    def described(tree, at, path=""):
        for key, value in tree.items():
            assert key in at["properties"], f"{path}{key} is not in the schema"
            if isinstance(value, dict) and "properties" in at["properties"][key]:
                described(value, at["properties"][key], f"{path}{key}.")
        assert at["additionalProperties"] is False, path

    described(values, schema)
    # Values that stand together are explained together.
    for paragraph in (CHART / "values.yaml").read_text().split("\n\n"):
        evident = paragraph.startswith(("podAnnotations", "nodeSelector", "podDisruptionBudget"))
        assert evident or re.search(r"^ *# ", paragraph, re.M), paragraph


def test_the_notes_tell_how_to_go_on():
    with helm.Chart.load(CHART) as chart:
        notes = chart.render(EVERYTHING, name="llm", namespace="ai")["bonito-gateway/templates/NOTES.txt"]
        alone = chart.render(CASES["one replica on SQLite"], name="llm", namespace="ai")
    assert "https://llm.example.com/v1" in notes and "There is no Redis" not in notes
    assert "SQLite" in alone["bonito-gateway/templates/NOTES.txt"]


def test_values_in_the_documentation_can_be_installed(tmp_path):
    text = (CHART.parents[1] / "docs" / "kubernetes.md").read_text()
    blocks = re.findall(r"^```yaml values\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) > 2
    for block in blocks:
        objects = render(yaml.safe_load(block))
        (container,) = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
        found = environment(container, configuration(objects), tmp_path)
        said = check_config(found, tmp_path)
        assert said.returncode == 0, said.stderr


def test_chart_and_gateway_have_one_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    manifest = (CHART.parents[1] / "Cargo.toml").read_text()
    assert chart["appVersion"] == re.search(r'\[workspace.package\]\nversion = "(.+)"', manifest).group(1)
