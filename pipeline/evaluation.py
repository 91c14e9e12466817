"""What the Evaluator measures, in which slices, and what a model must reach."""

# TFMA has these messages as attributes only where TFX was imported.
from tensorflow_model_analysis.proto import config_pb2

from bivrec_tf import features
from bivrec_tf.evaluation import CUT_OFFS
from bivrec_tf.serving_module import GATED_METRICS
from pipeline.config import GateConfig

REPORTED = tuple(f"{kind}_at_{k}" for k in CUT_OFFS for kind in ("recall", "ndcg", "mrr"))
"""Outputs of the `evaluate` signature that are averaged and reported."""


def evaluation_config(gate: GateConfig) -> config_pb2.EvalConfig:
    """Returns the Evaluator's configuration.

    The signature `evaluate` emits metrics for every example, of the model and of its gain over
    the popularity baseline on the very same examples; model analysis averages them.

    Args:
      gate: The floors.
    """
    # Exactly popularity's number is no gain.
    floor = config_pb2.GenericValueThreshold(
        lower_bound={"value": gate.minimum_gain_over_popularity + 1e-9}
    )
    no_worse = config_pb2.GenericChangeThreshold(
        direction=config_pb2.MetricDirection.HIGHER_IS_BETTER,
        absolute={"value": -gate.tolerance_to_blessed},
    )
    thresholds: dict[str, list] = {name: [] for name in REPORTED}
    for name in GATED_METRICS:
        thresholds[name] = _overall(config_pb2.MetricThreshold(change_threshold=no_worse))
        gain = f"{name}_{features.POPULARITY_GAIN}"
        thresholds[gain] = _overall(config_pb2.MetricThreshold(value_threshold=floor))
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name=features.EVALUATE,
                # Model analysis gives a silent 0 for an output without a label, whatever it is.
                label_keys={name: features.EXAMPLE_WEIGHT for name in thresholds},
            )
        ],
        slicing_specs=[
            config_pb2.SlicingSpec(),
            config_pb2.SlicingSpec(feature_keys=[features.HISTORY_LENGTH_BUCKET]),
            config_pb2.SlicingSpec(feature_keys=[features.TARGET_POPULARITY]),
        ],
        metrics_specs=[
            config_pb2.MetricsSpec(
                output_names=[name],
                metrics=[
                    config_pb2.MetricConfig(
                        class_name="MeanPrediction", per_slice_thresholds=wanted
                    )
                ],
            )
            for name, wanted in thresholds.items()
        ],
    )


def _overall(threshold: config_pb2.MetricThreshold) -> list[config_pb2.PerSliceMetricThreshold]:
    """A threshold on all examples together: a slice of cold items is no reason to stop a push."""
    everything = config_pb2.SlicingSpec()
    return [config_pb2.PerSliceMetricThreshold(slicing_specs=[everything], threshold=threshold)]
