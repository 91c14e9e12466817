"""Checks everything under serving/k8s without a cluster and without a network.

    python tools/validate_manifests.py [FOLDER]

Each overlay is put together as Kustomize does it, and every object of it is compared with the
schemas of Kubernetes that `kubernetes-validate` brings, or with those in `serving/k8s/schemas` for
kinds that are not Kubernetes' own. A kind without a schema is a problem, not a warning. So are a
name that nothing has, a file that is missing, a flag that the server does not know, a text proto
that cannot be parsed, and an expression over a metric that nobody exports.

Exit codes: 0 if there is no problem; 1 otherwise, with one line for each.
"""

import copy
import functools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES_VERSIONS = ("1.30", "1.37")
"""The oldest that the manifests need (a pod's `sleep` before it ends), and the newest known."""

TEXT_PROTOS = {
    "models.config": "ModelServerConfig",
    "batching.config": "BatchingParameters",
    "monitoring.config": "MonitoringConfig",
}
SERVER_FLAGS = {
    *("port", "rest_api_port", "model_name", "model_base_path", "model_config_file"),
    *("model_config_file_poll_wait_seconds", "file_system_poll_wait_seconds"),
    *("allow_version_labels_for_unavailable_models", "enable_batching", "batching_parameters_file"),
    *("monitoring_config_file", "ssl_config_file", "enable_grpc_healthcheck_service"),
    *("grpc_channel_arguments", "grpc_max_threads", "rest_api_timeout_in_ms"),
    *("enable_model_warmup", "num_load_threads", "num_unload_threads", "max_num_load_retries"),
    *("tensorflow_session_parallelism", "tensorflow_intra_op_parallelism"),
    *("tensorflow_inter_op_parallelism", "flush_filesystem_caches"),
}
"""Of `tensorflow_model_server`, which ends at once when it does not know one."""
METRICS = {
    *(":tensorflow:serving:request_count", ":tensorflow:cc:saved_model:load_attempt_count"),
    *(f":tensorflow:serving:request_latency_{part}" for part in ("bucket", "sum", "count")),
    *(f":tensorflow:serving:runtime_latency_{part}" for part in ("bucket", "sum", "count")),
    *("kube_deployment_status_replicas_available", "kube_deployment_spec_replicas"),
    "container_memory_working_set_bytes",
}
_METRIC = re.compile(r"(:[a-z_]+(?::[a-z_]+)+|\b(?:kube|container)_[a-z_]+)")

Object = dict[str, Any]


class Problem(Exception):
    """Something that would fail in a cluster; the text says where."""


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def check(root: Path) -> list[str]:
    """Returns every problem of the folder of manifests, one text each."""
    problems: list[str] = []
    used: set[Path] = set()
    for path in sorted(root.rglob("kustomization.yaml")):
        try:
            objects = build(path.parent, used)
        except Problem as problem:
            problems.append(str(problem))
            continue
        where = str(path.parent.relative_to(root))
        for each in objects:
            problems += _schema_problems(each, root, f"{where}: {_name(each)}")
        if any(each["kind"] == "Deployment" for each in objects):
            problems += [f"{where}: {text}" for text in _reference_problems(objects)]
    for path in sorted(root.rglob("*.yaml")):
        if path.name == "kustomization.yaml" or path in used:
            continue
        try:
            for each in read(path):
                problems += _schema_problems(each, root, str(path.relative_to(root)))
        except Problem as problem:
            problems.append(str(problem))
    for path in sorted(root.rglob("*.config")):
        problems += _text_proto_problems(path, root)
    for path in sorted(root.rglob("*.Dockerfile")):
        flags = re.findall(r'"--([a-z_]+)=', path.read_text())
        problems += [f"{path.name}: {text}" for text in _flag_problems(flags)]
    problems += _expression_problems(root)
    return list(dict.fromkeys(problems))


def read(path: Path) -> list[Object]:
    """Reads the objects of a YAML file.

    Raises:
        Problem: If it cannot be read, or holds what is no object.
    """
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), _UniqueKeys))
    except (OSError, yaml.YAMLError) as error:
        raise Problem(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    for document in documents:
        if not isinstance(document, dict) or not {"apiVersion", "kind"} <= document.keys():
            raise Problem(f"{path}: holds what has no apiVersion and kind")
    return documents


def build(folder: Path, used: set[Path] | None = None) -> list[Object]:
    """Puts an overlay together: resources, generated ConfigMaps, images, patches.

    Args:
        folder: That of `kustomization.yaml`.
        used: Every file that was read is added to it.

    Raises:
        Problem: If a file is missing, or an image, patch or replaced ConfigMap has no target.
    """
    path = folder / "kustomization.yaml"
    (kustomization,) = read(path)
    schema = json.loads((_root(folder) / "schemas" / "kustomization.json").read_text())
    for error in jsonschema.Draft202012Validator(schema).iter_errors(kustomization):
        raise Problem(f"{path}: {error.json_path}: {error.message}")
    objects: list[Object] = []
    for resource in kustomization["resources"]:
        target = (folder / resource).resolve()
        if not target.exists():
            raise Problem(f"{path}: resource {resource} does not exist")
        if used is not None:
            used.add(target)
        objects += build(target, used) if target.is_dir() else read(target)
    for generator in kustomization.get("configMapGenerator", []):
        _add_config_map(objects, generator, folder, path)
    for image in kustomization.get("images", []):
        users = [c for c in _containers(objects) if c["image"].partition(":")[0] == image["name"]]
        if not users:
            raise Problem(f"{path}: no container has the image {image['name']}")
        for container in users:
            name, tag = image.get("newName", image["name"]), image.get("newTag", "latest")
            container["image"] = f"{name}:{tag}"
    for patch in kustomization.get("patches", []):
        wanted = (patch["target"]["kind"], patch["target"]["name"])
        found = [each for each in objects if (each["kind"], each["metadata"]["name"]) == wanted]
        if not found:
            raise Problem(f"{path}: a patch is for {'/'.join(wanted)}, which does not exist")
        for each in found:
            for operation in yaml.load(patch["patch"], _UniqueKeys):
                _apply(each, operation, f"{path}: patch of {'/'.join(wanted)}")
    names = [_name(each) for each in objects]
    for name in names:
        if names.count(name) > 1:
            raise Problem(f"{path}: {name} exists twice")
    return copy.deepcopy(objects)


def _add_config_map(objects: list[Object], generator: Object, folder: Path, path: Path) -> None:
    data = {}
    for file in generator["files"]:
        if not (folder / file).is_file():
            raise Problem(f"{path}: {file} of the ConfigMap {generator['name']} does not exist")
        data[Path(file).name] = (folder / file).read_text(encoding="utf-8")
    same = [each for each in objects if _name(each) == f"ConfigMap/{generator['name']}"]
    if (generator.get("behavior", "create") == "create") == bool(same):
        raise Problem(
            f"{path}: the ConfigMap {generator['name']} {'exists already' if same else 'is to be '}"
            f"{'' if same else 'replaced and does not exist'}"
        )
    for each in same:
        objects.remove(each)
    metadata = {"name": generator["name"]}
    objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _apply(document: Object, operation: Object, where: str) -> None:
    """Applies one operation of a JSON patch."""
    *parents, last = operation["path"].strip("/").replace("~1", "/").split("/")
    node: Any = document
    try:
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node[key]
        if isinstance(node, list):
            if operation["op"] == "add":
                node.insert(len(node) if last == "-" else int(last), operation["value"])
            elif operation["op"] == "replace":
                node[int(last)] = operation["value"]
            else:
                del node[int(last)]
            return
        if operation["op"] in ("replace", "remove"):
            del node[last]
        if operation["op"] in ("add", "replace"):
            node[last] = operation["value"]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise Problem(f"{where}: {operation['path']} does not exist") from error


def _schema_problems(document: Object, root: Path, where: str) -> Iterator[str]:
    """Yields what is wrong with an object by itself."""
    group = document["apiVersion"].partition("/")[0]
    own = {
        json.loads(path.read_text())["properties"]["kind"]["const"]: path
        for path in (root / "schemas").glob("*.json")
    }
    if "." in group and not group.endswith(".k8s.io"):
        if document["kind"] not in own:
            yield f"{where}: there is no schema for the kind {document['kind']}"
            return
        schema = json.loads(own[document["kind"]].read_text())
        for error in jsonschema.Draft202012Validator(schema).iter_errors(document):
            yield f"{where}: {error.json_path}: {error.message}"
        return
    for version in KUBERNETES_VERSIONS:
        problem = _kubernetes_problem(json.dumps(document), version)
        if problem is not None:
            yield f"{where}: Kubernetes {version}: {problem}"


@functools.cache
def _kubernetes_problem(document: str, version: str) -> str | None:
    """Returns what Kubernetes would not accept. Kept: overlays share most of their objects."""
    read = json.loads(document)
    try:
        kubernetes_validate.validate(read, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return f"has no {read['apiVersion']} {read['kind']}"
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(str(key) for key in error.path) or 'the object'}: {error.message}"
    return None


def _reference_problems(objects: list[Object]) -> Iterator[str]:
    """Yields every name in the objects of an overlay that nothing has."""
    names = {_name(each) for each in objects}
    for workload in (each for each in objects if each["kind"] == "Deployment"):
        pod = workload["spec"]["template"]["spec"]
        if f"ServiceAccount/{pod.get('serviceAccountName')}" not in names:
            yield f"{_name(workload)}: there is no ServiceAccount {pod.get('serviceAccountName')}"
        yield from _pod_problems(workload, objects)
    pods = [each["spec"]["template"] for each in objects if each["kind"] == "Deployment"]
    for each in objects:
        spec = each.get("spec", {})
        if each["kind"] == "HorizontalPodAutoscaler":
            target = f"{spec['scaleTargetRef']['kind']}/{spec['scaleTargetRef']['name']}"
            if target not in names:
                yield f"{_name(each)}: there is no {target}"
        selector = spec.get("podSelector", spec.get("selector"))
        if each["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
            labels = selector.get("matchLabels", selector)
            chosen = [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()]
            if not chosen:
                yield f"{_name(each)}: no pod has the labels {labels}"
            ports = {
                p["name"] for pod in chosen for c in pod["spec"]["containers"] for p in c["ports"]
            }
            for port in _named_ports(spec):
                if port not in ports:
                    yield f"{_name(each)}: no container has a port {port!r}"


def _pod_problems(workload: Object, objects: list[Object]) -> Iterator[str]:
    pod = workload["spec"]["template"]["spec"]
    maps = {
        each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"
    }
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    for name, volume in volumes.items():
        if "configMap" in volume and volume["configMap"]["name"] not in maps:
            yield f"{_name(workload)}: volume {name}: no ConfigMap {volume['configMap']['name']}"
    for container in pod["containers"]:
        mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
        for name in mounts.values():
            if name not in volumes:
                yield f"{_name(workload)}: there is no volume {name}"
        arguments = [argument.partition("=") for argument in container.get("args", [])]
        for text in _flag_problems([name.removeprefix("--") for name, _, _ in arguments]):
            yield f"{_name(workload)}: {text}"
        for flag, _, value in arguments:
            if not flag.endswith("_file"):
                continue
            folder, _, file = value.rpartition("/")
            source = volumes.get(mounts.get(folder, ""), {}).get("configMap", {}).get("name")
            if file not in maps.get(source, {}):
                yield f"{_name(workload)}: {flag}: no ConfigMap that is mounted has {value}"


def _flag_problems(flags: list[str]) -> Iterator[str]:
    for flag in flags:
        if flag not in SERVER_FLAGS:
            yield f"tensorflow_model_server has no flag --{flag}"


def _text_proto_problems(path: Path, root: Path) -> Iterator[str]:
    # Only here: reading text protos takes the messages of the development server.
    from bivrec_contract.errors import ConfigError
    from serving.development_server.model_config import read_message

    where = str(path.relative_to(root))
    if path.name not in TEXT_PROTOS:
        yield f"{where}: it is not known what message this is"
        return
    try:
        message = read_message(path, TEXT_PROTOS[path.name], where)
    except ConfigError as error:
        yield " ".join(str(error).split())
        return
    for model in getattr(getattr(message, "model_config_list", None), "config", []):
        loaded = set(model.model_version_policy.specific.versions)
        for label, version in model.version_labels.items():
            if version not in loaded:
                yield f"{where}: label {label!r}: version {version} is not among those to be loaded"


def _expression_problems(root: Path) -> Iterator[str]:
    """Yields the metrics in alerts and dashboards that nobody exports."""
    expressions: list[tuple[str, str]] = []
    for path in root.glob("monitoring/*.json"):
        try:
            dashboard = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            yield f"{path.name}: is no JSON: {error}"
            continue
        expressions += [
            (f"{path.name}: {panel['title']}", target["expr"])
            for panel in dashboard["panels"]
            for target in panel["targets"]
        ]
    for path in root.glob("monitoring/*rule.yaml"):
        expressions += [
            (f"{path.name}: {rule['alert']}", rule["expr"])
            for document in read(path)
            for group in document["spec"]["groups"]
            for rule in group["rules"]
        ]
    for where, expression in expressions:
        metrics = set(_METRIC.findall(expression))
        if not metrics:
            yield f"{where}: asks for no metric"
        for metric in sorted(metrics - METRICS):
            yield f"{where}: nobody exports {metric}"
        for opening, closing in ("()", "{}", "[]"):
            if expression.count(opening) != expression.count(closing):
                yield f"{where}: {opening} and {closing} do not match"


def _named_ports(spec: Object) -> Iterator[str]:
    """Yields the names of container ports that a Service, NetworkPolicy or PodMonitor uses."""
    for port in spec.get("ports", []):
        yield port["targetPort"]
    for rule in spec.get("ingress", []):
        yield from (port["port"] for port in rule.get("ports", []))
    for endpoint in spec.get("podMetricsEndpoints", []):
        yield endpoint["port"]


def _containers(objects: list[Object]) -> Iterator[Object]:
    for each in objects:
        if each["kind"] == "Deployment":
            yield from each["spec"]["template"]["spec"]["containers"]


def _name(document: Object) -> str:
    return f"{document['kind']}/{document.get('metadata', {}).get('name')}"


def _root(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if (parent / "schemas").is_dir())


def main(arguments: list[str]) -> int:
    """Runs the command, and returns its exit code."""
    project = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(project))
    root = Path(arguments[0]) if arguments else project / "serving" / "k8s"
    problems = check(root)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(
            f"{root.name}: {len(list(root.rglob('kustomization.yaml')))} overlays without problems"
        )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
