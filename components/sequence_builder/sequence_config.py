"""Configuration of the SequenceBuilder."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.configuration import ComponentConfig

Fraction = Annotated[float, Field(gt=0, lt=1)]


class SequenceConfig(ComponentConfig):
    """How interactions become sequence examples.

    Attributes:
        protocol: `temporal`: two cut-off times for everybody; `leave_one_out`: the last
            interaction of every user is tested, the one before validates; `user`: whole users
            are held out, and the beginning of their history predicts the rest.
        max_history: how many items the model sees; a training window holds one item more.
        window_overlap: how many items of a user's previous window the next one starts with.
        min_user_interactions: users with fewer are dropped (repeatedly, with the items).
        min_item_interactions: items with fewer are dropped (repeatedly, with the users).
        validation_quantile: `temporal`: the quantile of all timestamps at which training ends.
        test_quantile: `temporal`: the quantile of all timestamps at which validation ends.
        temporal_targets: `temporal`: every interaction after a cut-off is a target, or only the
            user's last one in each split.
        user_fractions: `user`: shares of training, validation and test users; not used when the
            data brings a split of its own.
        holdout_fraction: `user`: the share of a held-out user's history that is predicted.
        seed: `user`: changes which users are held out.
        max_seen: at most so many items of a validation or test history are kept, the latest.
    """

    protocol: Literal["temporal", "leave_one_out", "user"] = "temporal"
    max_history: int = Field(default=50, ge=1)
    window_overlap: int = Field(default=25, ge=1)
    min_user_interactions: int = Field(default=5, ge=1)
    min_item_interactions: int = Field(default=5, ge=1)
    validation_quantile: Fraction = 0.8
    test_quantile: Fraction = 0.9
    temporal_targets: Literal["all", "last"] = "all"
    user_fractions: tuple[Fraction, Fraction, Fraction] = (0.8, 0.1, 0.1)
    holdout_fraction: Fraction = 0.2
    seed: int = 0
    max_seen: int = Field(default=2048, ge=1)

    @model_validator(mode="after")
    def _check_together(self) -> "SequenceConfig":
        if self.window_overlap > self.max_history:
            raise ValueError("window_overlap must not exceed max_history")
        if self.validation_quantile >= self.test_quantile:
            raise ValueError("validation_quantile must be smaller than test_quantile")
        if not math.isclose(sum(self.user_fractions), 1.0, abs_tol=1e-6):
            raise ValueError("user_fractions must sum to 1")
        if self.max_seen < self.max_history:
            raise ValueError("max_seen must not be smaller than max_history")
        return self
