"""The manifests, as kubectl builds them, are what Kubernetes accepts and what heliosd expects."""

import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from heliosd.config_sources import load_settings
from tests.k8s import kubectl

ROOT = Path(__file__).parents[2] / "k8s-daemonset"
BUILDS = ["base", "overlays/gpu", "overlays/mig"]
KUBERNETES = "1.37"


@pytest.fixture(scope="session")
def built():
    program = kubectl.find()
    if program is None:
        pytest.fail("kubectl is not here: `python -m tests.k8s.kubectl` installs it into the virtual environment")
    texts = {}
    for build in BUILDS:
        done = subprocess.run([program, "kustomize", ROOT / build], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""  # deprecations
        texts[build] = list(yaml.safe_load_all(done.stdout))
    return texts


def one(documents, kind, name="helios"):
    (found,) = (
        doc
        for doc in documents
        if doc["kind"] == kind and re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", doc["metadata"]["name"])
    )
    return found


def pod(documents):
    return one(documents, "DaemonSet")["spec"]["template"]["spec"]


def heliosd(documents):
    (container,) = pod(documents)["containers"]
    return container


def in_pod(documents, folder):
    """The configuration file and the environment of heliosd in a pod on node n1."""
    file = folder / "helios.toml"
    file.write_text(one(documents, "ConfigMap", "helios-config")["data"]["helios.toml"])
    environment = {"HELIOS_CLUSTER__KEY": "stands for the mounted Secret"}
    fields = {"spec.nodeName": "n1", "status.podIP": "10.1.2.3"}
    known = {}
    for variable in heliosd(documents)["env"]:
        value = variable["value"] if "value" in variable else fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        known[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: known[match[1]], value)
    return file, known | environment


def settings(documents, folder):
    file, environment = in_pod(documents, folder)
    return load_settings({}, environment, config=file).settings


@pytest.mark.parametrize("build", BUILDS)
def test_kubernetes_accepts_every_document(built, build):
    for document in built[build]:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    kinds = [document["kind"] for document in built[build]]
    for kind in ("Namespace", "ServiceAccount", "ClusterRole", "ConfigMap", "DaemonSet", "NetworkPolicy"):
        assert kind in kinds


def test_the_validation_notices_a_field_that_kubernetes_does_not_know(built):
    document = one(built["base"], "DaemonSet") | {"spek": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("build", BUILDS)
def test_heliosd_accepts_its_configuration_with_the_pods_environment(built, build, tmp_path):
    read = settings(built[build], tmp_path)
    assert read.node.name == "n1"
    assert read.cluster.bind == "10.1.2.3:7946"
    assert read.cluster.advertise_url == "http://10.1.2.3:8484"
    assert read.cluster.enabled


@pytest.mark.slow
def test_heliosd_itself_says_so(built, tmp_path):
    file, environment = in_pod(built["base"], tmp_path)
    command = [sys.executable, "-m", "heliosd", "--check", "--config", file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ports_paths_and_times_agree_with_the_configuration(built, tmp_path):
    documents = built["base"]
    read, container = settings(documents, tmp_path), heliosd(documents)
    ports = {port["name"]: (port["containerPort"], port["protocol"]) for port in container["ports"]}
    gossip_port = int(read.cluster.bind.rpartition(":")[2])
    assert ports == {
        "api": (read.api.port, "TCP"),
        "gossip-udp": (gossip_port, "UDP"),
        "gossip-tcp": (gossip_port, "TCP"),
    }
    assert pod(documents)["terminationGracePeriodSeconds"] >= read.drain.deadline_s + 30
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for path in (read.node.state_dir, read.node.runtime_dir, read.cluster.key_file.parent):
        assert str(path) in mounts
    assert container["command"] == ["heliosd", "--config", "/etc/helios/helios.toml"]
    assert [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")] == [
        "/healthz",
        "/healthz",
        "/readyz",
    ]


def test_seeds_name_the_headless_service_which_lists_pods_that_are_not_ready(built, tmp_path):
    service = one(built["base"], "Service", "helios-gossip")
    read = settings(built["base"], tmp_path)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert read.cluster.seeds == (f"{service['metadata']['name']}:7946",)


@pytest.mark.parametrize("name", ["helios", "helios-gossip"])
def test_services_policy_and_daemonset_mean_the_same_pods(built, name):
    documents = built["base"]
    labels = one(documents, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    for selector in (
        one(documents, "Service", name)["spec"]["selector"],
        one(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        one(documents, "DaemonSet")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    named = {port["name"] for port in heliosd(documents)["ports"]}
    assert {port["targetPort"] for port in one(documents, "Service", name)["spec"]["ports"]} <= named


@pytest.mark.parametrize("build", BUILDS)
def test_the_daemon_runs_without_root_and_without_rights(built, build):
    spec, container = pod(built[build]), heliosd(built[build])
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert "hostNetwork" not in spec
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    (rule,) = one(built[build], "ClusterRole")["rules"]
    assert rule == {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}


def test_only_the_overlays_need_gpus(built):
    assert "runtimeClassName" not in pod(built["base"])
    assert "nvidia" not in str(heliosd(built["base"]))
    for build in ("overlays/gpu", "overlays/mig"):
        assert pod(built[build])["runtimeClassName"] == "nvidia"
    environment = {build: {var["name"] for var in heliosd(built[build])["env"]} for build in BUILDS}
    assert "NVIDIA_VISIBLE_DEVICES" in environment["overlays/gpu"]
    assert "NVIDIA_VISIBLE_DEVICES" not in environment["overlays/mig"]
    assert heliosd(built["overlays/mig"])["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "7"


def test_another_registry_is_one_line(built, tmp_path):
    """The image's name stands once, so that an operator's overlay replaces it everywhere."""
    overlay = tmp_path / "mine"
    overlay.mkdir()
    (tmp_path / "base").symlink_to(ROOT / "base")
    (overlay / "kustomization.yaml").write_text(
        f"resources: [{Path('../base')}]\nimages: [{{name: helios, newName: reg.example/helios, newTag: v9}}]\n"
    )
    done = subprocess.run([kubectl.find(), "kustomize", overlay], capture_output=True, text=True, check=True)
    images = re.findall(r"image: (\S+)", done.stdout)
    assert images == ["reg.example/helios:v9", "reg.example/helios:v9"]
