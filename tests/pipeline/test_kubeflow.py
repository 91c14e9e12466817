"""The compiled spec: the same components as locally, with images and resources."""

import json
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format

from bivrec_tf.errors import ConfigError
from pipeline.cli import _load_kubeflow
from pipeline.config import load_config

CONFIG = Path(__file__).parents[2] / "configs" / "ml-latest-small.yaml"


@pytest.fixture(scope="module")
def config():
    return load_config(CONFIG)


@pytest.fixture(scope="module")
def spec(config, tmp_path_factory):
    from kfp.pipeline_spec import pipeline_spec_pb2

    path = tmp_path_factory.mktemp("spec") / "spec.json"
    _load_kubeflow("compiler").compile_pipeline(config, path)
    # ParseDict refuses unknown fields: what is written is what Kubeflow Pipelines reads.
    return json_format.ParseDict(
        json.loads(path.read_text())["pipelineSpec"], pipeline_spec_pb2.PipelineSpec()
    )


def container(spec, component):
    task = spec.root.dag.tasks[component]
    label = spec.components[task.component_ref.name].executor_label
    executors = spec.deployment_spec["executors"]
    return executors[label]["container"]


def test_the_components_are_those_of_the_local_pipeline(spec, config, tmp_path):
    from pipeline.dag import create_components
    from pipeline.local_runner import Output

    local = create_components(config, Output(tmp_path).paths(config))
    tasks = set(spec.root.dag.tasks)
    # The resolver of the latest blessed model becomes two steps there.
    resolver = {name for name in tasks if name.startswith("LatestBlessedModel")}
    assert resolver
    assert tasks - resolver == {node.id for node in local} - {"LatestBlessedModel"}


def test_images_and_resources_come_from_the_configuration(spec, config):
    trainer = container(spec, "Trainer")
    assert trainer["image"] == config.kubeflow.image
    assert trainer["resources"]["resourceCpuLimit"] == "8"
    assert trainer["resources"]["resourceMemoryLimit"] == "32Gi"
    accelerator = trainer["resources"]["accelerator"]
    assert accelerator["resourceType"] == "nvidia.com/gpu"
    assert accelerator["resourceCount"] == "1"
    assert "resources" not in container(spec, "Pusher")


def test_no_path_of_this_machine_is_in_the_spec(spec):
    text = json_format.MessageToJson(spec)
    assert str(CONFIG.parents[1]) not in text
    assert "gs://your-bucket/bivrec/data/ml-latest-small" in text


@pytest.mark.parametrize(
    ("kubeflow", "told"),
    [
        ({}, "which the cluster cannot read"),
        (
            {"data_root": "gs://bucket", "resources": {"Trainor": {"gpu": 1}}},
            "no component is called Trainor",
        ),
    ],
)
def test_what_a_cluster_could_not_run_is_refused(kubeflow, told, tmp_path):
    values = yaml.safe_load(CONFIG.read_text()) | {"kubeflow": kubeflow}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=told):
        _load_kubeflow("compiler").compile_pipeline(load_config(path), tmp_path / "spec.json")


def test_feature_files_are_looked_for_where_the_tables_are(tmp_path):
    local = {"name": "audio", "kind": "precomputed", "file": "audio.npy", "ids": "ids/audio.csv"}
    remote = {"name": "video", "kind": "precomputed", "file": "gs://other/video.npy"}
    values = yaml.safe_load(CONFIG.read_text()) | {"modalities": [local, remote]}
    values["kubeflow"] = {"data_root": "gs://bucket/data"}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    config = load_config(path)
    assert config.modalities[0].file == str(tmp_path / "audio.npy")
    assert config.modalities[0].ids == str(tmp_path / "ids" / "audio.csv")
    audio, video = _load_kubeflow("compiler").cluster_config(config).modalities
    assert (audio.file, audio.ids) == ("gs://bucket/data/audio.npy", "gs://bucket/data/audio.csv")
    assert video.file == "gs://other/video.npy"
    values["modalities"][0]["ids"] = "other/audio.npy"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="would be one file of kubeflow.data_root"):
        _load_kubeflow("compiler").cluster_config(load_config(path))


def test_a_warm_start_from_this_machine_is_refused(config):
    compiler = _load_kubeflow("compiler")
    training = config.training.model_copy(update={"warm_start": "/models/1"})
    with pytest.raises(ConfigError, match="training.warm_start is /models/1, a folder of this"):
        compiler.cluster_config(config.model_copy(update={"training": training}))
