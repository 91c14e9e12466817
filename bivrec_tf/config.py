"""Every default of the model and of its training, once, with its meaning and its range."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bivrec_tf.features import VIEWS

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]


class StrictModel(BaseModel):
    """A frozen configuration: unknown keys are errors, not typing mistakes that pass unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(StrictModel):
    """The architecture of `BiVRec`, see `docs/model.md` for the mathematics."""

    views: tuple[Literal["id", "mm"], ...] = Field(
        VIEWS, description="Views to train: id embeddings, multimodal content, or both."
    )
    multimodal_history: Literal["content", "content_and_id"] = Field(
        "content_and_id",
        description="What the multimodal view reads of a history's items: their content, or also "
        "what the id view has learned of them. What it scores is content alone either way.",
    )
    dimension: int = Field(64, ge=1, description="Width D of item vectors and interests.")
    num_interests: int = Field(4, ge=1, description="Interests K a view.")
    scales: tuple[int, ...] = Field((1, 2, 4), description="Patch lengths, in items.")
    max_history: int = Field(50, ge=1, description="Most recent items of a history that count.")
    context_blocks: int = Field(
        1,
        ge=0,
        description="Transformer blocks, N; what they make of a history is in every interest.",
    )
    attention_heads: int = Field(2, ge=1, description="Heads of a context block.")
    dropout: Probability = Field(0.2, description="Dropout on tokens and inside blocks.")
    interest_dropout: Probability = Field(
        0.0, description="Dropout on what the attentions add to the context of an interest."
    )
    gaussian_attention: bool = Field(True, description="Else plain attention: an ablation.")
    cluster_attention: bool = Field(True, description="Else no renewal: an ablation.")
    assignment_top_n: int = Field(1, ge=1, description="Interests a token is assigned to.")
    assignment_temperature: float = Field(1.0, gt=0, description="tau of the allocation.")
    score_temperature: float = Field(1.0, gt=0, description="Divides every training score.")
    readout: Literal["max", "logsumexp", "target"] = Field(
        "logsumexp",
        description="How K interest scores of an item become one in the full softmax; elsewhere "
        "it is the max, as in serving. logsumexp: its smooth upper bound, which trains every "
        "interest with every target; target: the interest that scores the target highest.",
    )
    modality_dropout: Probability = Field(
        0.0, description="Chance that a present modality counts as missing in a training step."
    )
    content_hidden_units: int = Field(
        0,
        ge=0,
        description="Hidden units between an item's content and its vector, beside the linear map; "
        "0: the linear map alone.",
    )
    content_dropout: Probability = Field(0.0, description="Dropout on these hidden units.")

    @field_validator("scales")
    @classmethod
    def _scales_are_distinct_and_positive(cls, scales: tuple[int, ...]) -> tuple[int, ...]:
        if not scales or min(scales) < 1 or len(set(scales)) != len(scales):
            raise ValueError(f"expected distinct patch lengths of at least 1, found {scales}")
        return scales

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "ModelConfig":
        if not self.views or len(set(self.views)) != len(self.views):
            raise ValueError(f"views: expected 'id', 'mm' or both, found {self.views}")
        if self.dimension % self.attention_heads:
            raise ValueError(
                f"dimension {self.dimension} is not a multiple of attention_heads "
                f"{self.attention_heads}"
            )
        if self.assignment_top_n > self.num_interests:
            raise ValueError(
                f"assignment_top_n {self.assignment_top_n} is more than num_interests "
                f"{self.num_interests}"
            )
        if max(self.scales) > self.max_history:
            raise ValueError(
                f"scales: the longest patch {max(self.scales)} is longer than max_history "
                f"{self.max_history}"
            )
        return self


MODEL_BEFORE = {"multimodal_history": "content"}
"""What models were before a setting of the architecture existed, where that is not its default."""

WEIGHTS_BEFORE = {"popularity_weight": 0.0}
"""The same of what a model stores beside its layers' weights."""


class LossConfig(StrictModel):
    """Weights of the multi-task objective (`docs/model.md`, section 4)."""

    mm_weight: float = Field(1.0, ge=0, description="w_mm, of the multimodal view's own task.")
    fusion_weight: float = Field(
        0.0, ge=0, description="w_fus, of the task of both views' scores together."
    )
    semantic_weight: float = Field(0.1, ge=0, description="w_sem, coarse similarity.")
    allocation_weight: float = Field(0.1, ge=0, description="w_alloc, fine allocation.")
    balance_weight: float = Field(0.01, ge=0, description="w_bal, against interest collapse.")
    allocation_form: Literal["tied", "co_assignment"] = Field(
        "tied", description="tied: interest k of one view is interest k of the other."
    )
    cross_view_warmup_steps: int = Field(
        200, ge=0, description="Steps over which the cross-view weights rise from 0."
    )
    softmax: Literal["full", "sampled", "binary"] = Field(
        "full",
        description="full: over the whole catalogue; sampled: for larger ones; binary: SASRec's "
        "original loss against one drawn negative, for comparisons.",
    )
    softmax_dtype: Literal["float32", "bfloat16", "auto"] = Field(
        "float32",
        description="Of the full softmax and its products; bfloat16 halves their time on machines "
        "with instructions for it, and elsewhere takes half as long again; auto: bfloat16 on those "
        "machines alone.",
    )
    softmax_chunk_rows: int | None = Field(
        None,
        ge=1,
        description="Interests whose scores of the catalogue are in memory at once; without, as "
        "many as take 16 MiB, from 64 to 512. Two views with a common task take nine times that.",
    )
    sampled_negatives: int = Field(
        1024, ge=1, description="Uniformly drawn negatives of a step, beside the batch's own."
    )


class TrainingConfig(StrictModel):
    """How `bivrec_tf.training.fit` trains."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(
        64,
        ge=1,
        description="Sequences of full length a step, of shorter ones more: where histories are "
        "short, 128 are 33 steps an epoch for 150,000 interactions (decision 0025).",
    )
    positions_per_sequence: int | None = Field(
        None, ge=1, description="Positions of a sequence drawn for the loss; none: all."
    )
    item_initialisation: Literal["co_occurrence", "random"] = Field(
        "co_occurrence",
        description="Where item vectors start: from which items stand near one another in training "
        "histories (the multimodal view: from what content says of that), or at random.",
    )
    content_prior: float = Field(
        0.0,
        ge=0,
        description="With co_occurrence and both views: interactions that an item's content counts "
        "as where its id vector starts. 10 helps where most items are rare, and costs those that "
        "training never saw; 0: the id view starts from co-occurrence alone.",
    )
    learning_rate: float = Field(2e-3, gt=0, description="The highest, after the warm-up.")
    learning_rate_warmup_steps: int = Field(
        200,
        ge=0,
        description="Steps over which the learning rate rises from 0; with a decay at most a "
        "tenth of all.",
    )
    learning_rate_decay: Literal["cosine", "none"] = Field(
        "cosine", description="cosine: falls to a fiftieth over all epochs."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled (AdamW).")
    gradient_clip_norm: float = Field(5.0, gt=0, description="Global norm.")
    early_stopping_patience: int = Field(
        5, ge=1, description="Epochs without a better validation NDCG@10 before training stops."
    )
    evaluation_batch_size: int = Field(
        1024,
        ge=1,
        description="Held-out histories that are sorted by length together, before groups of them "
        "are ranked: larger ones leave less padding.",
    )
    max_evaluation_examples: int | None = Field(
        None, ge=1, description="Validation examples ranked after an epoch; none: all."
    )
    calibrate_popularity: bool = Field(
        True,
        description="Whether validation chooses a weight of popularity in the scores; else it is "
        "0. docs/model.md, section 5.",
    )
    cold_item_budget: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Share of the accuracy on trained items that may be lost to showing items "
        "that training never saw; docs/cold-start.md.",
    )
    warm_start: str | None = Field(
        None,
        description="Version folder of another catalogue's exported model, whose word on content "
        "the multimodal view starts from, beside co-occurrence.",
    )
    precision: Literal[
        "float32", "bfloat16_products", "auto", "mixed_float16", "mixed_bfloat16"
    ] = Field(
        "float32",
        description="What layers compute in, with float32 weights. bfloat16_products: the matrix "
        "products of dense layers, which is the fastest on machines with instructions for it, and "
        "slower elsewhere; auto: that on those machines, float32 on others; the mixed ones are "
        "Keras' policies, for GPUs.",
    )
    strategy: Literal["one_device", "mirrored"] = Field(
        "one_device",
        description="mirrored: a copy of the model on every visible GPU, or CPU device, each with "
        "its part of every batch.",
    )
    seed: int = Field(0, ge=0)
    loss: LossConfig = LossConfig()


class ExportConfig(StrictModel):
    """How a trained model is exported."""

    default_k: int = Field(20, ge=1, description="Results where a request does not say.")
    max_k: int = Field(1000, ge=1, description="The most results that a request may ask for.")
    table_dtype: Literal["float32", "float16", "int8"] = Field(
        "float32",
        description="What the item vectors are kept in: 4, 2 or about 1 byte a value; what that "
        "costs in recall is in docs/serving.md.",
    )

    @model_validator(mode="after")
    def _default_is_within_the_most(self) -> "ExportConfig":
        if self.default_k > self.max_k:
            raise ValueError(f"default_k {self.default_k} is more than max_k {self.max_k}")
        return self
