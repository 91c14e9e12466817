"""Compiles the pipeline for Kubeflow Pipelines: the same DAG, with images and resources."""

import json
from pathlib import Path

from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner
from tfx.orchestration.pipeline import Pipeline

from bivrec_tf.errors import ConfigError
from pipeline.config import PipelineConfig, ResourcesConfig, with_paths
from pipeline.dag import PipelinePaths, create_pipeline


def cluster_paths(config: PipelineConfig) -> PipelinePaths:
    """Returns the paths of a run on the cluster, all below its pipeline root."""
    root = config.kubeflow.pipeline_root.rstrip("/")
    push = config.serving.push_directory or f"{root}/serving/{config.serving.model_name}"
    return PipelinePaths(
        root=root,
        content_cache=f"{root}/content_cache",
        tensorboard=f"{root}/tensorboard",
        checkpoints=f"{root}/checkpoints",
        push=push,
    )


def cluster_config(config: PipelineConfig) -> PipelineConfig:
    """Points tables and feature files at `kubeflow.data_root`; URIs stay as they are.

    Raises:
      ConfigError: A file is on this machine, where no component of the cluster sees it, or two
        files have one name.
    """
    local: dict[str, str] = {}

    def on_cluster(key: str, path: str) -> str:
        if "://" in path:
            return path
        if config.kubeflow.data_root is None:
            raise ConfigError(
                f"{key} is {path}, a file of this machine, which the cluster cannot "
                "read: copy the tables to a bucket and name it in kubeflow.data_root"
            )
        if local.setdefault(Path(path).name, path) != path:
            raise ConfigError(
                f"{local[Path(path).name]} and {path} would be one file of "
                "kubeflow.data_root: rename one, or give URIs"
            )
        return f"{config.kubeflow.data_root.rstrip('/')}/{Path(path).name}"

    tables = (("interactions", config.interactions), ("items", config.items))
    update: dict[str, object] = {
        name: source.model_copy(update={"path": on_cluster(f"{name}.path", source.path)})
        for name, source in tables
    }
    update["modalities"] = with_paths(
        config.modalities, lambda path: on_cluster("a file of a modality", path)
    )
    warm_start = config.training.warm_start
    if warm_start is not None and "://" not in warm_start:
        raise ConfigError(
            f"training.warm_start is {warm_start}, a folder of this machine, which the cluster "
            "cannot read: copy that version to a bucket and give its URI"
        )
    return config.model_copy(update=update)


def cluster_pipeline(config: PipelineConfig) -> Pipeline:
    """Returns the pipeline as it runs on the cluster.

    Raises:
      ConfigError: A table is on this machine, or resources are asked for a component that the
        pipeline does not have.
    """
    config = cluster_config(config)
    pipeline = create_pipeline(config, cluster_paths(config))
    known = {component.id for component in pipeline.components}
    unknown = sorted(set(config.kubeflow.resources) - known)
    if unknown:
        raise ConfigError(
            f"kubeflow.resources: no component is called {', '.join(unknown)}; there are "
            f"{', '.join(sorted(known))}"
        )
    return pipeline


def compile_pipeline(config: PipelineConfig, output: Path) -> dict:
    """Writes the pipeline spec.

    Args:
      config: The pipeline's configuration.
      output: A JSON file; its folder is created.

    Returns:
      The spec, as written: a `PipelineJob` whose `pipelineSpec` Kubeflow Pipelines takes.

    Raises:
      ConfigError: See `cluster_pipeline`.
    """
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        config=kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            display_name=config.name, default_image=config.kubeflow.image
        ),
        output_dir=str(output.parent),
        output_filename=output.name,
    )
    runner.run(cluster_pipeline(config), write_out=True)
    job = json.loads(output.read_text())
    _add_resources(job["pipelineSpec"], config.kubeflow.resources)
    output.write_text(json.dumps(job, indent=2, sort_keys=True))
    return job


def _add_resources(spec: dict, resources: dict[str, ResourcesConfig]) -> None:
    """Writes images and resource limits into the containers of the spec.

    The runner sets one image for all components and has no way to ask for resources.
    """
    executors = spec["deploymentSpec"]["executors"]
    for component_id, wanted in resources.items():
        task = spec["root"]["dag"]["tasks"][component_id]
        label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
        container = executors[label]["container"]
        if wanted.image:
            container["image"] = wanted.image
        limits: dict = container.setdefault("resources", {})
        if wanted.cpu:
            limits["resourceCpuLimit"] = wanted.cpu
        if wanted.memory:
            limits["resourceMemoryLimit"] = wanted.memory
        if wanted.gpu:
            limits["accelerator"] = {
                "resourceType": wanted.gpu_type,
                "resourceCount": str(wanted.gpu),
            }
