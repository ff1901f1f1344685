"""The manifests: strictly valid, referring only to what exists, confined, and giving commands that exist."""

import re
from typing import Any
from urllib.parse import urlsplit

import click
import jsonschema
import pytest
import yaml

from pipelines import config
from tests.cluster import commands
from tests.cluster.documents import (
    CLUSTER,
    KUBERNETES,
    REPOSITORY,
    SETS,
    Document,
    changed,
    containers,
    of_kind,
    rendered,
    single_run,
    templates,
    validate,
)

# What refers to each other is applied together: base's MLflow is that of `mlflow/`.
TOGETHER = {name: (name, "mlflow") if name == "kuberay/base" else (name,) for name in SETS if name != "mlflow"}
RAY_LABELS = {"ray.io/cluster": "gan"}  # given by the operator


def together(name: str) -> list[Document]:
    return [document for part in TOGETHER[name] for document in rendered(part)]


@pytest.mark.parametrize("name", SETS)
def test_every_document_is_valid_and_has_no_unknown_field(name):
    documents = [document for document in rendered(name) if document["kind"] != "RayCluster"]
    assert len(documents) > 5
    for document in documents:
        validate(document, KUBERNETES)


@pytest.mark.parametrize("name", TOGETHER)
def test_ray_cluster_has_no_unknown_field(name):
    """The RayCluster is valid against its schema, which allows no unknown field."""
    [cluster] = of_kind(rendered(name), "RayCluster")
    validate(cluster, KUBERNETES)


def test_the_single_run_and_the_night_are_valid():
    validate(single_run())
    validate(yaml.safe_load(commands.night("/opt/gan/configs/digits.yaml")))


HEAD = "spec/headGroupSpec/template/spec/containers/0"
WORKER = "spec/workerGroupSpecs/1/template/spec"
JOB = "spec/jobTemplate/spec"


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayCluster", f"{HEAD}/image>imge", None),
        ("RayCluster", f"{HEAD}/securityContext/readOnlyRootFilesystem>readOnlyRootFileSystem", None),
        ("RayCluster", f"{HEAD}/resources/requests/cpu", [2]),
        ("RayCluster", f"{WORKER}/tolerations/0/operator>operater", None),
        ("RayCluster", "spec/workerGroupSpecs/0/minReplicas>minReplica", None),
        ("RayCluster", "spec/workerGroupSpecs/0/maxReplicas", "4"),
        ("RayCluster", "spec/authOptions/mode", "tokens"),
        ("RayCluster", "spec/authOptions>auth", None),
        ("RayCluster", "spec/enableInTreeAutoscaling", "yes"),
        ("CronJob", "spec/schedule", 5),
        ("CronJob", f"{JOB}/concurrencyPolicy", "Forbid"),
        ("CronJob", f"{JOB}/podFailurePolicy/rules/0/onExitCodes/operator>operation", None),
        ("CronJob", f"{JOB}/template/spec/containers/0/command", "bash"),
        ("Deployment", "spec/template/spec/containers/0/image>imge", None),
        ("Deployment", "spec/strategy/type>kind", None),
        ("StatefulSet", "spec/volumeClaimTemplates/0/spec/accessMode", "ReadWriteOnce"),
        ("NetworkPolicy", "spec/podSelector/matchLabel", {}),
        ("Role", "rules/0/verbs", "get"),
        ("PodDisruptionBudget", "spec/maxUnavailable>maxUnavailible", None),
        ("PersistentVolumeClaim", "spec/resources/request", {}),
    ],
)
def test_a_wrong_field_is_refused(kind: str, path: str, value: Any):
    document = of_kind(rendered("kuberay/base") + rendered("mlflow"), kind)[0]
    with pytest.raises(jsonschema.ValidationError):
        validate(changed(document, path, value))


@pytest.mark.parametrize(
    ("path", "value"), [("spec/shutDownAfterJobFinishes", True), ("spec/concurrencyPolicy", "Forbid"), ("spec/entrypoint", ["gan"])]
)  # fmt: skip
def test_a_wrong_field_of_a_run_is_refused(path, value):
    with pytest.raises(jsonschema.ValidationError):
        validate(changed(single_run(), path, value))


@pytest.mark.parametrize("name", TOGETHER)
def test_every_container_is_confined_and_bounded(name):
    for document in together(name):
        for group, template in templates(document):
            where, person = f"{document['kind']} {group}", template["spec"]["securityContext"]
            assert person["runAsNonRoot"], where
            assert person["seccompProfile"] == {"type": "RuntimeDefault"}, where
            for container in containers(template):
                confined = container["securityContext"]
                assert confined["capabilities"] == {"drop": ["ALL"]}, where
                assert confined["readOnlyRootFilesystem"], where
                assert not confined["allowPrivilegeEscalation"], where
                for bound in ("requests", "limits"):
                    assert {"cpu", "memory"} <= container["resources"][bound].keys(), where
    [cluster] = of_kind(together(name), "RayCluster")
    assert cluster["spec"]["autoscalerOptions"]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", TOGETHER)
def test_no_secret_is_written_down(name):
    documents = together(name)
    assert not of_kind(documents, "Secret")
    for document in documents:
        for _, template in templates(document):
            for variable in (variable for one in containers(template) for variable in one.get("env", [])):
                secret = re.search(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY", variable["name"])
                assert not (secret and "value" in variable), variable["name"]
        for value in (document.get("data") or {}).values():
            assert not re.search(r"://[^/@\s]*:[^/@\s]*@", value)  # a password in a URI


@pytest.mark.parametrize("name", TOGETHER)
def test_nothing_is_open_but_what_a_policy_allows(name):
    documents = together(name)
    for namespace in ("gan", "mlflow"):
        policies = [one for one in of_kind(documents, "NetworkPolicy") if one["metadata"]["namespace"] == namespace]
        assert [one["spec"] for one in policies if one["metadata"]["name"] == "deny-all"] == [
            {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        ]
        for policy in policies:
            for rule in policy["spec"].get("ingress", []):
                assert rule["from"], policy["metadata"]["name"]
                assert "ipBlock" not in str(rule["from"])
    for service in of_kind(documents, "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"


@pytest.mark.parametrize("name", TOGETHER)
def test_workers_scale_from_zero_and_need_a_token(name):
    """Worker groups start at no replica, the autoscaler adds them, and the cluster asks for a token."""
    [cluster] = of_kind(together(name), "RayCluster")
    spec = cluster["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"]
    assert {group["minReplicas"] for group in spec["workerGroupSpecs"]} == {0}
    assert all(group["maxReplicas"] >= 1 for group in spec["workerGroupSpecs"])
    gpus = {group["groupName"]: group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for group in spec["workerGroupSpecs"]}  # fmt: skip
    assert gpus == ({"cpu": None} if name.endswith("local-kind") else {"cpu": None, "gpu": "1"})


# References


def secrets_of_readme() -> set[tuple[str, str, str]]:
    """(namespace, name, key) of the Secrets that the README's commands make."""
    made = set()
    for line in (CLUSTER / "README.md").read_text().splitlines():
        if found := re.match(r"kubectl -n (\S+) create secret generic (\S+) (.*)", line):
            made |= {(found[1], found[2], key) for key in re.findall(r"--from-literal=([^=]+)=", found[3])}
    return made


@pytest.mark.parametrize("name", TOGETHER)
def test_what_is_referred_to_exists(name):
    documents = together(name)
    known = {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in documents}
    keys = secrets_of_readme()
    for document in documents:
        space = document["metadata"].get("namespace")
        for _, template in templates(document):
            pod = template["spec"]
            if "serviceAccountName" in pod:
                assert ("ServiceAccount", space, pod["serviceAccountName"]) in known
            volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
            for claim in document["spec"].get("volumeClaimTemplates", []):
                volumes[claim["metadata"]["name"]] = claim
            for volume in volumes.values():
                if "persistentVolumeClaim" in volume:
                    assert ("PersistentVolumeClaim", space, volume["persistentVolumeClaim"]["claimName"]) in known
                if "configMap" in volume:
                    assert ("ConfigMap", space, volume["configMap"]["name"]) in known
            mounted = {mount["name"] for one in containers(template) for mount in one.get("volumeMounts", [])}
            assert mounted == volumes.keys()
            for container in containers(template):
                for source in container.get("envFrom", []):
                    if "configMapRef" in source:
                        assert ("ConfigMap", space, source["configMapRef"]["name"]) in known
                    else:
                        assert (space, source["secretRef"]["name"]) in {key[:2] for key in keys}
                for variable in container.get("env", []):
                    reference = variable.get("valueFrom", {}).get("secretKeyRef")
                    assert reference is None or (space, reference["name"], reference["key"]) in keys
    for binding in of_kind(documents, "RoleBinding"):
        space = binding["metadata"]["namespace"]
        assert ("Role", space, binding["roleRef"]["name"]) in known
        for subject in binding["subjects"]:
            assert ("ServiceAccount", subject["namespace"], subject["name"]) in known


@pytest.mark.parametrize("name", TOGETHER)
def test_selectors_select_pods_and_services_reach_their_ports(name):
    documents = together(name)
    pods: list[tuple[str, dict, list[str]]] = []
    for document in documents:
        for group, template in templates(document):
            labels = dict(template.get("metadata", {}).get("labels", {}))
            if document["kind"] == "RayCluster":
                labels |= {"ray.io/cluster": document["metadata"]["name"], "ray.io/node-type": "head" if group == "head" else "worker"}  # fmt: skip
            ports = [port["name"] for one in containers(template) for port in one.get("ports", [])]
            pods.append((document["metadata"]["namespace"], labels, ports))
    for service in of_kind(documents, "Service"):
        reached = [
            ports
            for space, labels, ports in pods
            if space == service["metadata"]["namespace"] and service["spec"]["selector"].items() <= labels.items()
        ]
        assert len(reached) == 1
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(reached[0])
    for document in of_kind(documents, "NetworkPolicy") + of_kind(documents, "PodDisruptionBudget"):
        selector = document["spec"].get("podSelector", document["spec"].get("selector"))
        wanted = dict(selector.get("matchLabels", {}))
        for one in selector.get("matchExpressions", []):
            wanted[one["key"]] = one["values"][0]
        assert any(
            space == document["metadata"]["namespace"] and wanted.items() <= labels.items() for space, labels, _ in pods
        ), document["metadata"]["name"]


@pytest.mark.parametrize("name", TOGETHER)
def test_service_addresses_and_allowed_hosts_agree(name):
    """Each address in the settings is that of a Service, and MLflow answers to the host name that is used."""
    documents = together(name)
    services = {
        (one["metadata"]["name"], one["metadata"]["namespace"], port["port"])
        for one in of_kind(documents, "Service")
        for port in one["spec"]["ports"]
    }
    settings = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["data"] for one in of_kind(documents, "ConfigMap")
    }
    tracking = urlsplit(settings["gan", "gan-environment"]["MLFLOW_TRACKING_URI"])
    service, namespace, _ = tracking.hostname.split(".")
    assert (service, namespace, tracking.port) in services
    server = settings["mlflow", "mlflow-environment"]
    assert tracking.netloc in server["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    database = urlsplit(server["MLFLOW_BACKEND_STORE_URI"])
    assert (database.hostname, "mlflow", database.port) in services
    accounts = settings["mlflow", "mlflow-accounts"]["basic_auth.ini"]
    assert f"database_uri = {server['MLFLOW_BACKEND_STORE_URI']}\n" in accounts


def test_runs_go_to_the_cluster_that_exists():
    [cluster] = of_kind(rendered("kuberay/base"), "RayCluster")
    for run in (single_run(), yaml.safe_load(commands.night("x"))):
        assert run["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert single_run()["metadata"]["namespace"] == cluster["metadata"]["namespace"]


# Commands


@pytest.mark.parametrize("name", [*TOGETHER, "README"])
def test_commands_are_commands_that_the_programs_have(name):
    lines = commands.in_readme() if name == "README" else commands.in_documents(together(name))
    assert len(lines) >= 5
    for line in lines:
        if name == "README" and " submit " in line:
            continue  # below
        commands.parse(line)


def test_the_readme_submits_with_options_that_gan_submit_has():
    lines = [line for line in commands.in_readme() if " submit " in line]
    assert lines
    for line in lines:
        commands.skip_if_not_yet(line)
        commands.parse(line)


@pytest.mark.parametrize(
    "line",
    [
        "gan run configs/digits.yaml --nmae nightly",
        "gan rnu configs/digits.yaml",
        "gan run",
        "mlflow server --artifact-destination /artifacts",
        "ray start --heads",
        "python -m mlflow.server.auth db upgrade",
    ],
)
def test_a_wrong_command_is_refused(line):
    with pytest.raises(click.UsageError):
        commands.parse(line)


@pytest.mark.parametrize("name", TOGETHER)
def test_configurations_of_runs_are_in_image_and_valid(name):
    """Each `gan run` in the manifests names a configuration that is in the image and loads with its overrides."""
    runs = [line for line in commands.in_documents(together(name)) if line.startswith("gan run ")]
    assert len(runs) == 2
    for line in runs:
        context = commands.parse(line)
        path = REPOSITORY / context.params["configuration"].removeprefix("/opt/gan/")
        assert path.parent.name == "configs"
        config.load(str(path), context.params["overrides"])


def test_settings_of_the_server_are_settings_that_mlflow_reads():
    import mlflow.environment_variables as known

    [settings] = [one["data"] for one in of_kind(rendered("mlflow"), "ConfigMap") if one["metadata"]["name"] == "mlflow-environment"]  # fmt: skip
    options = {option.envvar for option in commands.parse("mlflow server").command.params if option.envvar}
    for name in settings:
        assert name in options or hasattr(known, name), name
