"""What the user says about a table: its kind and the names of its columns."""

from typing import Literal

from pydantic import Field, model_validator

from bivrec_tf import features
from components.configuration import ComponentConfig

REQUIRED_COLUMNS = {
    "interactions": (features.USER_ID, features.ITEM_ID, features.TIMESTAMP),
    "items": (features.ITEM_ID,),
}
OPTIONAL_COLUMNS = {"interactions": (features.SPLIT,), "items": ()}


class TableConfig(ComponentConfig):
    """Configuration of one table.

    Attributes:
        kind: `interactions` (one row for an event) or `items` (one row for an item).
        columns: canonical name -> the user's column name. Required columns that are left out are
            expected under their canonical name; `split` is read only when it is named here.
        text_columns: item columns that hold a string, a number or a list of strings, kept under
            their own names as bytes; a missing cell becomes an empty feature.
        embedding_columns: item columns that hold lists of numbers of one length, kept under their
            own names as floats; a missing cell becomes an empty feature.
        image_columns: item columns that hold a picture's bytes or the path of its file, kept under
            their own names as bytes; a missing cell becomes an empty feature.
    """

    kind: Literal["interactions", "items"]
    columns: dict[str, str] = Field(default_factory=dict)
    text_columns: tuple[str, ...] = ()
    embedding_columns: tuple[str, ...] = ()
    image_columns: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_columns(self) -> "TableConfig":
        allowed = REQUIRED_COLUMNS[self.kind] + OPTIONAL_COLUMNS[self.kind]
        unknown = sorted(set(self.columns) - set(allowed))
        if unknown:
            raise ValueError(f"columns {unknown} mean nothing in {self.kind}; known: {allowed}")
        kept = self.kept_columns
        if kept and self.kind != "items":
            raise ValueError("text, embedding and image columns belong to the items table")
        reserved = {features.ITEM_ID, features.ROW}
        twice = sorted({name for name in kept if kept.count(name) > 1 or name in reserved})
        if twice:
            raise ValueError(f"columns {twice} are named twice or carry a reserved name")
        return self

    @property
    def kept_columns(self) -> tuple[str, ...]:
        """Item columns that are kept under their own names."""
        return self.text_columns + self.embedding_columns + self.image_columns

    def user_columns(self) -> dict[str, str]:
        """Returns canonical or kept name -> the user's column name, in the order of reading."""
        columns = {name: self.columns.get(name, name) for name in REQUIRED_COLUMNS[self.kind]}
        for name in OPTIONAL_COLUMNS[self.kind]:
            if name in self.columns:
                columns[name] = self.columns[name]
        for name in self.kept_columns:
            columns[name] = name
        return columns
