"""Configuration of the ContentEncoder."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bivrec_tf import features
from components.configuration import ComponentConfig

ModalityName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class TextModality(ComponentConfig):
    """Text columns that become one vector.

    Attributes:
        name: feature name of the vector.
        kind: `text`.
        columns: text columns of the item table; `join_texts` tells how they become one text.
        encoder: a short name (`minilm`) or an import path `module:Class`.
    """

    name: ModalityName
    kind: Literal["text"]
    columns: tuple[str, ...] = Field(min_length=1)
    encoder: str = "minilm"


class PrecomputedModality(ComponentConfig):
    """An embedding column that passes through.

    Attributes:
        name: feature name of the vector.
        kind: `precomputed`.
        column: embedding column of the item table.
    """

    name: ModalityName
    kind: Literal["precomputed"]
    column: str


Modality = Annotated[TextModality | PrecomputedModality, Field(discriminator="kind")]


class ContentConfig(ComponentConfig):
    """Configuration of the ContentEncoder.

    Attributes:
        modalities: what to write for every item.
    """

    modalities: tuple[Modality, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_names(self) -> "ContentConfig":
        names = [features.ITEM_ID]
        for modality in self.modalities:
            names += [modality.name, features.presence_name(modality.name)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"feature names {twice} would be written twice")
        return self
