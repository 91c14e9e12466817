"""The manifests as they are, and broken in the ways in which manifests break."""

import json
import re
import runpy
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from serving.client import RecommenderClient
from serving.process import ServerProcess

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "serving" / "k8s"
TOOL = runpy.run_path(str(ROOT / "tools" / "validate_manifests.py"))
check: Callable[[Path], list[str]] = TOOL["check"]


def test_the_manifests_have_no_problem():
    assert check(MANIFESTS) == []


DEPLOYMENT = "base/deployment.yaml"
PRODUCTION = "overlays/production/kustomization.yaml"
RULE = "monitoring/prometheus-rule.yaml"
BROKEN = [
    # What the schemas see.
    (DEPLOYMENT, "maxSurge: 1", "maxSurges: 1", "maxSurges"),
    (DEPLOYMENT, "containerPort: 8500", "containerPort: http", "'http' is not of type 'integer'"),
    (DEPLOYMENT, "kind: Deployment", "kind: Deploymnt", "has no apps/v1 Deploymnt"),
    (DEPLOYMENT, "apps/v1", "apps/v1beta2", "no apps/v1beta2 Deployment"),
    ("kserve/inference-service.yaml", "storageUri: gs:", "storageUri: bucket:", "storageUri"),
    ("kserve/inference-service.yaml", "minReplicas", "minReplica", "minReplica"),
    (
        "kserve/inference-service.yaml",
        "serving.kserve.io/v1beta1",
        "serving.kserve.io/v1",
        "v1beta1",
    ),
    (RULE, "for: 5m", "for: 5 minutes", "5 minutes"),
    (RULE, "kind: PrometheusRule", "kind: AlertingRule", "no schema for the kind AlertingRule"),
    # What YAML itself would not say.
    (
        DEPLOYMENT,
        "revisionHistoryLimit: 5",
        "revisionHistoryLimit: 5\n  revisionHistoryLimit: 6",
        "twice",
    ),
    (DEPLOYMENT, "  template:", " template:", "cannot be read"),
    # Names that nothing has.
    (
        DEPLOYMENT,
        "name: recommender-models",
        "name: recommender-model",
        "no ConfigMap recommender-model",
    ),
    (
        DEPLOYMENT,
        "serviceAccountName: recommender",
        "serviceAccountName: other",
        "no ServiceAccount other",
    ),
    (
        DEPLOYMENT,
        "/models/models.config",
        "/models/model.config",
        "no ConfigMap that is mounted has",
    ),
    (
        DEPLOYMENT,
        "- name: tmp\n              mountPath",
        "- name: temp\n              mountPath",
        "no volume temp",
    ),
    (
        DEPLOYMENT,
        "--file_system_poll_wait",
        "--filesystem_poll_wait",
        "no flag --filesystem_poll_wait_seconds",
    ),
    ("image/baked.Dockerfile", "--rest_api_port", "--rest_port", "no flag --rest_port"),
    ("base/service.yaml", "app: recommender", "app: recommend", "no pod has the labels"),
    ("base/service.yaml", "targetPort: grpc", "targetPort: rpc", "no container has a port 'rpc'"),
    ("base/pod-disruption-budget.yaml", "app: recommender", "app: other", "no pod has the labels"),
    ("base/network-policy.yaml", "port: http", "port: web", "no container has a port 'web'"),
    (
        "base/horizontal-pod-autoscaler.yaml",
        "Deployment\n    name: recommender",
        "Deployment\n    name: model",
        "no Deployment/model",
    ),
    (
        "monitoring/pod-monitor.yaml",
        "port: http",
        "port: metrics",
        "no container has a port 'metrics'",
    ),
    # What Kustomize would say.
    (
        "base/kustomization.yaml",
        "- service.yaml",
        "- services.yaml",
        "resource services.yaml does not exist",
    ),
    ("base/kustomization.yaml", "config/batching.config", "config/batch.config", "does not exist"),
    (
        PRODUCTION,
        "- name: recommender-serving",
        "- name: recommender",
        "no container has the image",
    ),
    (
        PRODUCTION,
        "kind: HorizontalPodAutoscaler",
        "kind: HorizontalPodScaler",
        "which does not exist",
    ),
    (PRODUCTION, "/spec/minReplicas", "/spec/minReplica", "/spec/minReplica does not exist"),
    (PRODUCTION, "value: 3", "value: three", "'three' is not of type 'integer'"),
    (
        "overlays/canary/kustomization.yaml",
        "behavior: replace",
        "behavior: create",
        "exists already",
    ),
    # What the server would say.
    ("base/config/models.config", "base_path:", "path:", "base/config/models.config"),
    ("base/config/batching.config", "{ value: 32 }", "32", "base/config/batching.config"),
    (
        "base/config/monitoring.config",
        "enable: true",
        "enable: yes",
        "base/config/monitoring.config",
    ),
    ("overlays/canary/config/models.config", "value: 2 }", "value: 3 }", "version 3 is not among"),
    # What would simply stay silent.
    (
        RULE,
        ":tensorflow:serving:request_count",
        ":tensorflow:serving:requests",
        "nobody exports :tensorflow:serving:requests",
    ),
    (RULE, "[5m]))\n              /", "[5m])\n              /", "( and ) do not match"),
    (
        "monitoring/grafana-dashboard.json",
        "request_latency_bucket",
        "latency_bucket",
        "nobody exports :tensorflow:serving:latency_bucket",
    ),
    ("monitoring/grafana-dashboard.json", '"uid"', "uid", "is no JSON"),
]


@pytest.mark.parametrize(("file", "right", "wrong", "text"), BROKEN)
def test_what_is_broken_is_found(tmp_path, file, right, wrong, text):
    copy = tmp_path / "k8s"
    shutil.copytree(MANIFESTS, copy)
    content = (copy / file).read_text()
    assert right in content
    (copy / file).write_text(content.replace(right, wrong, 1))
    problems = check(copy)
    assert any(text in problem for problem in problems), problems


def test_exit_codes(tmp_path, capsys):
    assert TOOL["main"]([str(MANIFESTS)]) == 0
    shutil.copytree(MANIFESTS, tmp_path / "k8s")
    (tmp_path / "k8s" / "base" / "service.yaml").unlink()
    assert TOOL["main"]([str(tmp_path / "k8s")]) == 1
    assert "service.yaml does not exist" in capsys.readouterr().err


def objects(overlay: str) -> dict[str, dict]:
    built = TOOL["build"](MANIFESTS / overlay)
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in built}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which has Kustomize")
@pytest.mark.parametrize(
    "overlay", ["base", "overlays/production", "overlays/bucket", "overlays/canary"]
)
def test_overlays_are_put_together_as_kustomize_does(overlay):
    process = subprocess.run(
        ["kubectl", "kustomize", str(MANIFESTS / overlay)], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    # The names of generated ConfigMaps end with a hash of ten letters.
    text = re.sub(r"(recommender-(?:server|dashboard))-[a-z0-9]{10}\b", r"\1", process.stdout)
    theirs = {
        f"{each['kind']}/{each['metadata']['name']}": each for each in yaml.safe_load_all(text)
    }
    ours = objects(overlay)
    assert ours.keys() == theirs.keys()
    for name, each in ours.items():
        for part in ("spec", "data"):
            assert each.get(part) == theirs[name].get(part), name


@pytest.mark.parametrize("overlay", ["base", "overlays/production", "overlays/bucket"])
def test_the_server_is_locked_in(overlay):
    pod = objects(overlay)["Deployment/recommender"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    # Who may call it, and whom it may call, is said.
    policy = objects(overlay)["NetworkPolicy/recommender"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule.get("from") for rule in policy["ingress"])


def test_overlays_change_what_they_are_for():
    production = objects("overlays/production")
    (container,) = production["Deployment/recommender"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/shop/recommender-serving:2"
    assert production["HorizontalPodAutoscaler/recommender"]["spec"]["minReplicas"] == 3
    assert objects("base")["NetworkPolicy/recommender"]["spec"]["egress"] == []
    models = objects("overlays/canary")["ConfigMap/recommender-models"]["data"]["models.config"]
    assert '"canary"' in models
    assert (
        '"canary"'
        not in objects("overlays/bucket")["ConfigMap/recommender-models"]["data"]["models.config"]
    )


def test_the_development_server_runs_with_the_files_of_the_canary(exports, tmp_path):
    """Both labels answer, and the metrics page has the names that alerts and dashboards ask for."""
    base = tmp_path / "models" / "recommender"
    for scale, version in ((1.0, "1"), (2.0, "2")):
        shutil.copytree(exports[scale], base / version)
    text = (MANIFESTS / "overlays" / "canary" / "config" / "models.config").read_text()
    models = tmp_path / "models.config"
    models.write_text(text.replace('"/models/recommender"', f'"{base}"'))
    monitoring = MANIFESTS / "base" / "config" / "monitoring.config"
    arguments = [
        *("--model_config_file", str(models)),
        *("--monitoring_config_file", str(monitoring)),
        "--allow_version_labels_for_unavailable_models",
    ]
    with ServerProcess(base, rest=True, arguments=arguments) as server:
        answers = {}
        for label in ("stable", "canary"):
            with RecommenderClient(server.target, timeout=60.0, version_label=label) as client:
                answers[label] = client.recommend(["item-1"]).model_version
        path = yaml.safe_load((MANIFESTS / "monitoring" / "pod-monitor.yaml").read_text())["spec"][
            "podMetricsEndpoints"
        ][0]["path"]
        url = f"http://{server.rest_target}{path}"
        with urllib.request.urlopen(url, timeout=60) as page:  # noqa: S310
            exported = set(re.findall(r"^([:a-z_]+)\{", page.read().decode(), re.MULTILINE))
    assert answers == {"stable": 1, "canary": 2}
    # The rest of them only TensorFlow Serving itself, or Kubernetes, exports.
    assert {name for name in TOOL["METRICS"] if ":request_" in name} <= exported


def test_every_alert_leads_to_words():
    """The runbook of each alert is a heading of the documentation that names the alert."""
    (rule,) = yaml.safe_load_all((MANIFESTS / RULE).read_text())
    alerts = [each for group in rule["spec"]["groups"] for each in group["rules"]]
    documentation = (ROOT / "docs" / "serving.md").read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in documentation.splitlines()
        if line.startswith("#")
    }
    for alert in alerts:
        file, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert file == "docs/serving.md"
        assert anchor in headings
        assert f"`{alert['alert']}`" in documentation


def test_the_dashboard_is_one_that_grafana_takes():
    dashboard = json.loads((MANIFESTS / "monitoring" / "grafana-dashboard.json").read_text())
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    variables = {f"${each['name']}" for each in dashboard["templating"]["list"]}
    assert {"$datasource", "$model"} == variables
