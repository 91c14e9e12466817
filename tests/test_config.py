"""Configuration: what is refused, and with which words."""

import pytest
from pydantic import ValidationError

from bivrec_tf.config import LossConfig, ModelConfig, TrainingConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": ()}, "views: expected 'id', 'mm' or both"),
        ({"views": ("id", "id")}, "views: expected 'id', 'mm' or both"),
        ({"views": ("text",)}, "Input should be 'id' or 'mm'"),
        ({"readout": "mean"}, "Input should be 'max'"),
        ({"dimension": 10, "attention_heads": 4}, "dimension 10 is not a multiple of attention_h"),
        ({"assignment_top_n": 5}, "assignment_top_n 5 is more than num_interests 4"),
        ({"scales": ()}, "expected distinct patch lengths of at least 1"),
        ({"scales": (1, 1)}, "expected distinct patch lengths of at least 1"),
        ({"scales": (0, 1)}, "expected distinct patch lengths of at least 1"),
        ({"max_history": 3}, "the longest patch 4 is longer than max_history 3"),
        ({"dropout": 1.0}, "less than 1"),
        ({"dimensions": 64}, "Extra inputs are not permitted"),
    ],
)
def test_an_architecture_that_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**changes)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (TrainingConfig, {"epochs": 0}),
        (TrainingConfig, {"learning_rate": 0.0}),
        (TrainingConfig, {"gradient_clip_norm": -1.0}),
        (TrainingConfig, {"loss": {"semantic_wieght": 0.1}}),
        (LossConfig, {"mm_weight": -0.1}),
        (LossConfig, {"sampled_negatives": 0}),
    ],
)
def test_values_out_of_range_and_unknown_keys_are_refused(kind, changes):
    with pytest.raises(ValidationError) as error:
        kind(**changes)
    assert next(iter(changes)) in str(error.value)


@pytest.mark.parametrize("kind", [ModelConfig, LossConfig, TrainingConfig])
def test_defaults_are_valid_frozen_and_survive_json(kind):
    config = kind()
    assert kind.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, next(iter(kind.model_fields)), None)
