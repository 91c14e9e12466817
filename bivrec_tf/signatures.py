"""The signatures of an exported model: names, inputs with their defaults, functions."""

import tensorflow as tf

from bivrec_tf import features
from bivrec_tf.data import parse_sequences
from bivrec_tf.evaluation import ranking_metrics
from bivrec_tf.graphs import graph_function
from bivrec_tf.serving_module import ServingModule

_STRINGS = tf.TensorSpec([None, None], tf.string)
_LIST = tf.TensorSpec([None], tf.string)
_EXAMPLES = tf.TensorSpec([None], tf.string, name="examples")


def signatures(module: ServingModule) -> dict[str, tf.types.experimental.GenericFunction]:
    """Returns the functions to export, by signature name.

    A default value of an argument becomes one of the SignatureDef: a request may leave it out.
    """
    nothing = tf.constant([[""]])
    k_of_its_own = tf.constant(module.options.default_k)
    weight_of_its_own = tf.constant(-1.0)
    # Created here: a traced function may not create the metrics' variables.
    metrics = ranking_metrics()

    def without_reasons(answer):
        return {name: value for name, value in answer.items() if name != features.BECAUSE}

    @graph_function(input_signature=[_STRINGS, _STRINGS])
    def serving_default(history, exclude=nothing):
        return without_reasons(module.recommend(history, exclude))

    scalars = [tf.TensorSpec([], kind) for kind in (tf.int32, tf.float32, tf.float32, tf.bool)]

    @graph_function(input_signature=[_STRINGS, _STRINGS, _LIST, *scalars])
    def recommend(
        history,
        exclude=nothing,
        unavailable=nothing[0],
        k=k_of_its_own,
        id_weight=weight_of_its_own,
        diversity=tf.constant(0.0),  # noqa: B008
        filter_seen=tf.constant(True),  # noqa: B008
    ):
        return module.recommend(history, exclude, unavailable, k, id_weight, diversity, filter_seen)

    @graph_function(input_signature=[_STRINGS, _STRINGS])
    def because(history, item_ids):
        return module.because(history, item_ids)

    @graph_function(input_signature=[_LIST, scalars[0]])
    def similar_items(item_id, k=k_of_its_own):
        return module.similar_items(item_id, k)

    @graph_function(input_signature=[_STRINGS])
    def interests(history):
        return module.interests(history)

    @graph_function(input_signature=[_EXAMPLES])
    def examples(examples):
        return without_reasons(
            module.recommend(parse_sequences(examples)[features.HISTORY].to_tensor(""))
        )

    @graph_function(input_signature=[_EXAMPLES])
    def evaluate(examples):
        return module.evaluate(examples, metrics)

    @graph_function(input_signature=[_EXAMPLES])
    def transform_features(examples):
        return module.model_inputs(examples)

    return {
        features.SERVING_DEFAULT: serving_default,
        features.RECOMMEND: recommend,
        features.BECAUSE: because,
        features.SIMILAR_ITEMS: similar_items,
        features.INTERESTS: interests,
        features.EXAMPLES: examples,
        features.EVALUATE: evaluate,
        features.TRANSFORM_FEATURES: transform_features,
    }
