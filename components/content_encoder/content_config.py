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


class ImageModality(ComponentConfig):
    """A column of pictures that become vectors.

    Attributes:
        name: feature name of the vector.
        kind: `image`.
        column: column of the item table. A cell holds a path relative to the table's folder, an
            absolute path, a URI that Beam's file systems open, or the bytes of a picture file.
        encoder: a short name (`efficientnet-lite0`) or an import path `module:Class`.
        max_unreadable: the run fails when a larger share of the pictures cannot be read.
    """

    name: ModalityName
    kind: Literal["image"]
    column: str
    encoder: str = "efficientnet-lite0"
    max_unreadable: float = Field(default=0.05, ge=0, le=1)


class PrecomputedModality(ComponentConfig):
    """Vectors that pass through: of a column of the item table, or of a file beside it.

    Attributes:
        name: feature name of the vector.
        kind: `precomputed`.
        column: embedding column of the item table.
        file: instead of `column`, a `.npy` file with one row for an item.
        ids: tells which row belongs to which item: a table (`.csv`, `.tsv`, `.parquet`) with the
            two columns below, or a list (`.npy`, `.txt`) with one id for every row. Without it,
            row i of the file belongs to row i of the item table.
        id_column: column of `ids` with the item ids.
        row_column: column of `ids` with the rows, counted from 0.
        made_by: name of what made the vectors, with its version. Where a model and a catalogue
            name the same, their vectors mean the same: needed for a warm start.
    """

    name: ModalityName
    kind: Literal["precomputed"]
    column: str | None = None
    file: str | None = None
    ids: str | None = None
    id_column: str = features.ITEM_ID
    row_column: str = features.ROW
    made_by: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "PrecomputedModality":
        if (self.column is None) == (self.file is None):
            raise ValueError(
                "precomputed features need either `column` (of the item table) or `file` (.npy)"
            )
        if self.ids is not None and self.file is None:
            raise ValueError("`ids` says which row of a `file` is whose; there is no `file`")
        if self.file is not None and not self.file.lower().endswith(".npy"):
            raise ValueError(
                f"`file` is {self.file}; expected a .npy file with one row for an item"
            )
        return self


EncodedModality = TextModality | ImageModality
Modality = Annotated[
    TextModality | ImageModality | PrecomputedModality, Field(discriminator="kind")
]


class ContentConfig(ComponentConfig):
    """Configuration of the ContentEncoder.

    Attributes:
        modalities: what to write for every item.
        picture_folder: where the relative paths of pictures start: the item table's folder.
        cache_gib: limit of the cache, in GiB; vectors that a run used are never removed by it.
    """

    modalities: tuple[Modality, ...] = Field(min_length=1)
    picture_folder: str = ""
    cache_gib: float = Field(default=10.0, ge=0)

    @model_validator(mode="after")
    def _check_names(self) -> "ContentConfig":
        names = [features.ITEM_ID]
        for modality in self.modalities:
            names += [modality.name, features.presence_name(modality.name)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"feature names {twice} would be written twice")
        return self

    @property
    def encoded(self) -> tuple[EncodedModality, ...]:
        """The modalities that an encoder makes vectors of."""
        return tuple(m for m in self.modalities if not isinstance(m, PrecomputedModality))
