"""Which versions of which models are served: policies, labels, configurations that change."""

import shutil
import threading
from pathlib import Path

import grpc
import pytest
import yaml
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from bivrec_contract.errors import ConfigError
from serving.client import ModelNotFound, RecommenderClient
from serving.development_server.batching import BatchingParameters
from serving.development_server.command_line import parse
from serving.development_server.model_config import read_message
from serving.development_server.model_registry import ModelRegistry
from serving.development_server.options import server_from_options
from serving.development_server.servable import Servable
from serving.development_server.status import StatusError
from serving.development_server.versions import Policy, VersionManager
from serving.process import ServerProcess, ServerProcessError

TIMEOUT = 60.0


@pytest.fixture
def five_versions(exports, tmp_path):
    base = tmp_path / "models"
    for version in range(1, 6):
        shutil.copytree(exports[1.0 + version % 2], base / str(version))
    return base


def loaded(versions):
    states = versions.states
    return {version for version in states if versions.loaded(version) is not None}


def refreshed(base, text):
    versions = VersionManager(base, text_format.Parse(text, Policy()))
    versions.refresh(wait_until_unchanged=False)
    return versions


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", {5}),
        ("latest {}", {5}),
        ("latest { num_versions: 2 }", {4, 5}),
        ("latest { num_versions: 9 }", {1, 2, 3, 4, 5}),
        ("all {}", {1, 2, 3, 4, 5}),
        ("specific { versions: 2 versions: 4 versions: 9 }", {2, 4}),
    ],
)
def test_policies(five_versions, policy, expected):
    versions = refreshed(five_versions, policy)
    assert loaded(versions) == expected
    assert versions.current.version == max(expected)


def test_a_version_that_is_asked_for_and_missing_is_logged_once(five_versions, caplog):
    versions = refreshed(five_versions, "specific { versions: 2 versions: 9 }")
    versions.refresh()
    assert caplog.text.count("version 9 is asked for by the version policy and not in") == 1


def test_damaged_versions_leave_their_place_to_older_ones(five_versions):
    (five_versions / "5" / "saved_model.pb").write_bytes(b"\xff" * 100)
    versions = refreshed(five_versions, "latest { num_versions: 2 }")
    assert loaded(versions) == {3, 4}
    assert "saved_model.pb cannot be read" in versions.problems()[5]


def test_a_new_version_takes_the_place_of_the_oldest(five_versions, exports):
    versions = refreshed(five_versions, "latest { num_versions: 2 }")
    shutil.copytree(exports[2.0], five_versions / "6")
    versions.refresh(wait_until_unchanged=False)
    assert loaded(versions) == {5, 6}
    assert versions.states[4].state.name == "END"


def test_the_policy_can_change(five_versions):
    versions = refreshed(five_versions, "all {}")
    versions.policy = text_format.Parse("specific { versions: 1 }", Policy())
    versions.refresh()
    assert loaded(versions) == {1}
    # A policy that nothing satisfies takes nothing away.
    versions.policy = text_format.Parse("specific { versions: 9 }", Policy())
    versions.refresh()
    assert loaded(versions) == {1}


def as_directory(version):
    path = version / "saved_model.pb"
    path.unlink()
    path.mkdir()


def variables_as_directory(version):
    path = next((version / "variables").glob("variables.data-*"))
    path.unlink()
    path.mkdir()


def half_of_the_variables(version):
    path = next((version / "variables").glob("variables.data-*"))
    path.write_bytes(path.read_bytes()[:-3])


def link_to_nowhere(version):
    path = next((version / "variables").glob("variables.data-*"))
    path.unlink()
    path.symlink_to("nowhere")


def index_missing(version):
    (version / "variables" / "variables.index").unlink()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (as_directory, "is skipped: no saved_model.pb in"),
        (variables_as_directory, "cannot be loaded: "),
        (half_of_the_variables, "cannot be loaded: "),
        (link_to_nowhere, "cannot be loaded: "),
        (index_missing, "cannot be loaded: "),
    ],
)
def test_a_version_that_cannot_be_read_is_skipped_with_one_line(
    base_path, exports, damage, text, caplog
):
    versions = refreshed(base_path, "")
    shutil.copytree(exports[2.0], base_path / "2")
    damage(base_path / "2")
    for _ in range(3):
        versions.refresh(wait_until_unchanged=False)
    assert loaded(versions) == {1}
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    lines = [line for line in lines if line.startswith("version 2 ")]
    assert len(lines) == 1
    assert text in lines[0]
    assert "\n" not in lines[0]


def test_serving_writes_nothing_to_the_model_folder(base_path):
    before = {path: path.stat().st_mtime_ns for path in [base_path, *base_path.rglob("*")]}
    versions = refreshed(base_path, "")
    versions.refresh()
    after = {path: path.stat().st_mtime_ns for path in [base_path, *base_path.rglob("*")]}
    assert after == before


def model(name, base, rest=""):
    return f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" {rest} }}'


def config(*models):
    return text_format.Parse(
        f"model_config_list {{ {' '.join(models)} }}", model_server_config_pb2.ModelServerConfig()
    )


@pytest.fixture
def registry():
    return ModelRegistry(lambda name, directory, version: Servable(directory, version))


LABEL = 'version_labels {{ key: "{}" value: {} }}'
ALL = "model_version_policy { all {} }"


@pytest.mark.parametrize(
    ("models", "code", "text"),
    [
        (
            [model("a", "/x"), model("a", "/y")],
            "INVALID_ARGUMENT",
            "Illegal to list model a multiple times in config list",
        ),
        (
            [model("a", "relative/path")],
            "INVALID_ARGUMENT",
            "Expected model a to have an absolute path or URI; got base_path()=relative/path",
        ),
        (
            ['config { name: "a" base_path: "/x" }'],
            "INVALID_ARGUMENT",
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform.",
        ),
        (
            ['config { name: "a" base_path: "/x" model_platform: "caffe" }'],
            "INVALID_ARGUMENT",
            "Model a requests unsupported platform caffe",
        ),
        (
            [model("a", "/nowhere")],
            "INVALID_ARGUMENT",
            "Could not find base path /nowhere for servable a with error No such file or directory",
        ),
        (
            [model("a", "/x", LABEL.format("stable", 1))],
            "FAILED_PRECONDITION",
            "Request to assign label to version 1 of model a, which is not currently available "
            "for inference",
        ),
    ],
)
def test_configurations_that_are_refused(registry, base_path, models, code, text):
    registry.configure(config(model("kept", base_path)))
    with pytest.raises(StatusError) as caught:
        registry.configure(config(model("kept", base_path), *models))
    assert (caught.value.code.name, caught.value.message) == (code, text)
    assert set(registry.models) == {"kept"}


def test_a_new_model_without_a_version_changes_nothing(registry, base_path, tmp_path):
    registry.configure(config(model("kept", base_path)))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(StatusError, match="Unable to find a numerical version path for servable"):
        registry.configure(config(model("new", empty)))
    (empty / "4").mkdir()
    (empty / "4" / "saved_model.pb").write_bytes(b"\xff" * 10)
    with pytest.raises(StatusError, match="did not become available: {{name: new version: 4}"):
        registry.configure(config(model("new", empty)))
    assert set(registry.models) == {"kept"}
    assert registry.models["kept"].versions.current.version == 1


def test_a_base_path_that_goes_away_is_logged_once(registry, base_path, caplog):
    registry.configure(config(model("kept", base_path)))
    base_path.rename(base_path.with_name("away"))
    for _ in range(3):
        registry.refresh()
    assert caplog.text.count("cannot look for versions of kept") == 1
    assert registry.models["kept"].versions.current.version == 1


@pytest.mark.slow
def test_reload_labels_and_models_while_requests_run(five_versions, exports, tmp_path, wait_for):
    """Over gRPC, in a real process: no request fails while models, versions and labels change."""
    other = tmp_path / "other"
    shutil.copytree(exports[2.0], other / "1")
    path = tmp_path / "models.config"
    path.write_text(text_format.MessageToString(config(model("toy", five_versions))))
    arguments = ["--model_config_file", str(path), "--model_config_file_poll_wait_seconds", "0.1"]
    arguments += ["--enable_grpc_healthcheck_service=false"]
    stop = threading.Event()
    problems: list[Exception] = []
    with ServerProcess(five_versions, poll_seconds=0.1, arguments=arguments) as server:

        def ask_again_and_again() -> None:
            try:
                with RecommenderClient(server.target, "toy", timeout=120.0) as client:
                    while not stop.is_set():
                        client.recommend(["item-1"], k=1)
            except Exception as error:
                problems.append(error)

        asker = threading.Thread(target=ask_again_and_again)
        asker.start()
        with grpc.insecure_channel(server.target) as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)

            def reload(*models):
                request = model_management_pb2.ReloadConfigRequest(config=config(*models))
                return stub.HandleReloadConfigRequest(request, timeout=TIMEOUT)

            assert reload(model("toy", five_versions, ALL)).status.error_code == 0
            labels = LABEL.format("stable", 1) + LABEL.format("canary", 4)
            reload(model("toy", five_versions, ALL + labels), model("other", other))
            with pytest.raises(grpc.RpcError) as caught:
                reload(model("toy", five_versions, ALL + LABEL.format("stable", 9)))
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert served_by_label(channel, "stable") == 1
            assert served_by_label(channel, "canary") == 4
            with pytest.raises(grpc.RpcError) as caught:
                served_by_label(channel, "beta")
            assert caught.value.details() == "Unrecognized servable version label: beta"
            with RecommenderClient(server.target, "other", timeout=TIMEOUT) as client:
                assert client.predict("double", {"x": [1.0]})["y"].tolist() == [2.0]

            # The file: one that is wrong is logged and changes nothing, the next one counts.
            path.write_text("model_config_list { config { nam: 1 } }")
            wait_for(lambda: "is not a ModelServerConfig in text form" in server.log())
            policy = "model_version_policy { specific { versions: 2 } }"
            path.write_text(
                text_format.MessageToString(config(model("toy", five_versions, policy)))
            )
            wait_for(lambda: "configured again from" in server.log())
            with RecommenderClient(server.target, "toy", timeout=TIMEOUT) as client:
                states = {status.version: status.state for status in client.status()}
            assert states == {1: "END", 2: "AVAILABLE", 3: "END", 4: "END", 5: "END"}
            with (
                RecommenderClient(server.target, "other", timeout=TIMEOUT) as client,
                pytest.raises(ModelNotFound),
            ):
                client.predict("double", {"x": [1.0]})
            with pytest.raises(grpc.RpcError) as caught:
                health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        stop.set()
        asker.join()
        assert problems == []


def served_by_label(channel, label):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "toy"
    request.model_spec.version_label = label
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return stub.GetModelMetadata(request, timeout=TIMEOUT).model_spec.version.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model_config_list { config { nam: 1 } }", "models.config is not a ModelServerConfig in"),
        ("", "holds no model_config_list"),
        (model("a", "/nowhere"), "no field named"),
        (f"model_config_list {{ {model('a', '.')} }}", "to have an absolute path or URI; got"),
    ],
)
def test_a_configuration_file_that_is_wrong(tmp_path, text, expected):
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        server_from_options(parse(["--model_config_file", str(path), "--port", "0"])).start()


def test_a_configuration_file_that_is_wrong_ends_the_process(tmp_path):
    path = tmp_path / "models.config"
    path.write_text(text_format.MessageToString(config(model("a", "/nowhere"))))
    with (
        pytest.raises(ServerProcessError) as caught,
        ServerProcess(tmp_path, arguments=["--model_config_file", str(path)]),
    ):
        pass
    assert caught.value.exit_code == 2
    assert "models.config: model a: no such directory: /nowhere" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_the_flags_of_the_kubernetes_deployment_are_understood(base_path, tmp_path):
    """All but the paths as they stand in `serving/k8s/base/deployment.yaml`."""
    root = Path(__file__).parents[2] / "serving" / "k8s" / "base"
    (deployment,) = yaml.safe_load_all((root / "deployment.yaml").read_text())
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    models = tmp_path / "models.config"
    models.write_text(text_format.MessageToString(config(model("recommender", base_path))))
    replaced = {
        "--model_config_file=": str(models),
        "--monitoring_config_file=": str(root / "config" / "monitoring.config"),
        "--port=": "0",
        "--rest_api_port=": "any",
    }
    for number, argument in enumerate(arguments):
        flag = argument.partition("=")[0] + "="
        arguments[number] = flag + replaced.get(flag, argument.removeprefix(flag))
    options = parse(arguments)
    assert options.allow_version_labels_for_unavailable_models is True
    server = server_from_options(options)
    server.start()
    assert server.versions == {"recommender": 1}
    server.stop()
    batching = root / "config" / "batching.config"
    assert BatchingParameters.from_message(
        read_message(batching, "BatchingParameters", "--batching_parameters_file"), "the file"
    )


def test_labels_at_the_start_need_the_flag(base_path):
    labelled = config(model("toy", base_path, LABEL.format("stable", 1)))
    load = lambda name, directory, version: Servable(directory, version)  # noqa: E731
    with pytest.raises(StatusError, match="Request to assign label to version 1 of model toy"):
        ModelRegistry(load).configure(labelled)
    registry = ModelRegistry(load, allow_labels_for_unavailable_models=True)
    registry.configure(labelled)
    # The flag is for labels that are not in use.
    with pytest.raises(StatusError, match="Request to assign label to version 9 of model toy"):
        registry.configure(config(model("toy", base_path, LABEL.format("stable", 9))))
