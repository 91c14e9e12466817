"""What a finished run decided and measured, read back from its metadata and artifacts."""

import json
from dataclasses import dataclass
from pathlib import Path

import tensorflow_model_analysis as tfma
from ml_metadata import proto
from tfx.orchestration import metadata

from components.artifacts import COUNTS_PROPERTY
from components.content_validator.executor import DRIFT_PROPERTY
from components.model_refresher.executor import REPORT_PROPERTY
from components.serving_validator.executor import VERDICT_PROPERTY

_RUN_CONTEXT = "pipeline_run"
_NODE_CONTEXT = "node"


@dataclass(frozen=True)
class RefreshResult:
    """The outcome of a refresh.

    Attributes:
      report: The ModelRefresher's report.
      serving_verdict: The ServingValidator's verdict.
      drift: How the items' content differs from the served model's, in words.
      pushed_to: Folder of the pushed version; none when nothing was pushed.
      counts: What each component read, kept and dropped.
    """

    report: dict
    serving_verdict: dict
    drift: list[str]
    pushed_to: Path | None
    counts: dict[str, dict[str, int]]


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run.

    Attributes:
      blessed: Whether the model passed the gates.
      failures: What it failed, in words.
      serving_verdict: The ServingValidator's verdict; empty when it did not run.
      drift: How the items' content differs from the latest blessed model's, in words.
      pushed_to: Folder of the pushed version; none when nothing was pushed.
      metrics: Means on the test split: slice (`()` is overall) -> metric -> value.
      baseline_metrics: The latest blessed model's, where there was one.
      counts: What each component read, kept and dropped.
    """

    blessed: bool
    failures: list[str]
    serving_verdict: dict
    drift: list[str]
    pushed_to: Path | None
    metrics: dict[tuple, dict[str, float]]
    baseline_metrics: dict[tuple, dict[str, float]]
    counts: dict[str, dict[str, int]]


def read_result(metadata_file: Path) -> RunResult:
    """Reads the result of the latest run.

    Args:
      metadata_file: The run's SQLite metadata store.
    """
    artifacts = latest_outputs(metadata_file)
    evaluation = artifacts[("Evaluator", "evaluation")].uri
    metrics, baseline = read_metrics(evaluation)
    validation = tfma.load_validation_result(evaluation)
    return RunResult(
        blessed=validation.validation_ok,
        failures=_failures(validation),
        serving_verdict=_serving_verdict(artifacts),
        drift=_drift(artifacts),
        pushed_to=_pushed_to(artifacts),
        metrics=metrics,
        baseline_metrics=baseline,
        counts=_counts(artifacts),
    )


def read_refresh_result(metadata_file: Path) -> RefreshResult:
    """Reads the result of the latest run, which was a refresh.

    Args:
      metadata_file: The run's SQLite metadata store.
    """
    artifacts = latest_outputs(metadata_file)
    report = _property(artifacts[("ModelRefresher", "blessing")], REPORT_PROPERTY)
    return RefreshResult(
        report=json.loads(report),
        serving_verdict=_serving_verdict(artifacts),
        drift=_drift(artifacts),
        pushed_to=_pushed_to(artifacts),
        counts=_counts(artifacts),
    )


def _serving_verdict(artifacts) -> dict:
    verdict = _property(artifacts.get(("ServingValidator", "blessing")), VERDICT_PROPERTY)
    return json.loads(verdict) if verdict else {}


def _drift(artifacts) -> list[str]:
    findings = _property(artifacts.get(("ContentValidator", "anomalies")), DRIFT_PROPERTY)
    return json.loads(findings) if findings else []


def _pushed_to(artifacts) -> Path | None:
    destination = _property(artifacts.get(("Pusher", "pushed_model")), "pushed_destination")
    return Path(destination) if destination else None


def _counts(artifacts) -> dict[str, dict[str, int]]:
    return {
        node: json.loads(text)
        for (node, _), artifact in artifacts.items()
        if (text := _property(artifact, COUNTS_PROPERTY))
    }


def read_metrics(
    evaluation: str,
) -> tuple[dict[tuple, dict[str, float]], dict[tuple, dict[str, float]]]:
    """Reads model analysis' metrics, of the candidate and of the baseline model.

    Args:
      evaluation: URI of the Evaluator's output.

    Returns:
      For both: slice -> metric -> mean.
    """
    found: tuple[dict, dict] = ({}, {})
    result = tfma.load_eval_result(evaluation)
    models = [(found[0], result)]
    if result.config.model_specs[0].name:
        candidate, baseline = (
            tfma.load_eval_result(evaluation, model_name=name) for name in _model_names(result)
        )
        models = [(found[0], candidate), (found[1], baseline)]
    for target, loaded in models:
        for slice_key, outputs in loaded.slicing_metrics:
            values = target.setdefault(tuple(slice_key), {})
            for name, by_class in outputs.items():
                mean = by_class.get("", {}).get("mean_prediction", {}).get("doubleValue")
                if mean is not None:
                    values[name] = mean
    return found


def _model_names(result) -> list[str]:
    specs = sorted(result.config.model_specs, key=lambda spec: spec.is_baseline)
    return [spec.name for spec in specs]


def _failures(validation) -> list[str]:
    found = []
    for by_slice in validation.metric_validations_per_slice:
        for failure in by_slice.failures:
            name = failure.metric_key.output_name
            value = failure.metric_value.double_value.value
            threshold = failure.metric_threshold
            if threshold.HasField("change_threshold"):
                allowed = threshold.change_threshold.absolute.value
                found.append(
                    f"{name}: {value:+.4f} against the latest blessed model, "
                    f"at least {allowed:+.4f} is asked"
                )
            else:
                wanted = threshold.value_threshold.lower_bound.value
                found.append(f"{name}: {value:+.4f}, more than {wanted:+.4f} is asked")
    for missing in validation.missing_slices:
        found.append(f"no examples in a slice: {missing}")
    return found


def latest_outputs(
    metadata_file: Path,
) -> dict[tuple[str, str], proto.Artifact]:
    """Outputs of the latest run by (component, name), whether made or taken from the cache."""
    config = metadata.sqlite_metadata_connection_config(str(metadata_file))
    with metadata.Metadata(config) as handle:
        store = handle.store
        runs = store.get_contexts_by_type(_RUN_CONTEXT)
        latest = max(runs, key=lambda run: run.create_time_since_epoch)
        executions = store.get_executions_by_context(latest.id)
        nodes = {execution.id: _node_of(store, execution.id) for execution in executions}
        events = store.get_events_by_execution_ids(list(nodes))
        outputs = [event for event in events if event.type == proto.Event.OUTPUT]
        by_id = {
            artifact.id: artifact
            for artifact in store.get_artifacts_by_id([event.artifact_id for event in outputs])
        }
    return {
        (nodes[event.execution_id], event.path.steps[0].key): by_id[event.artifact_id]
        for event in outputs
    }


def _node_of(store, execution_id: int) -> str:
    """Component id of an execution; TFX names the node's context `<pipeline>.<component>`."""
    names = [
        context.name
        for context in store.get_contexts_by_execution(execution_id)
        if context.type == _NODE_CONTEXT
    ]
    return names[0].rsplit(".", 1)[-1]


def _property(artifact: proto.Artifact | None, name: str) -> str:
    if artifact is None:
        return ""
    return artifact.custom_properties[name].string_value
