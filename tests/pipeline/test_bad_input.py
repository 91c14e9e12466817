"""Bad input through the whole pipeline: a sentence that says where, and exit code 2."""

import csv

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli import main


def edit_rows(path, change):
    """Rewrites a CSV table after `change(rows)`; rows are dictionaries."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows = change(rows) or rows
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def set_cell(row, column, value):
    def change(rows):
        rows[row][column] = value

    return change


def add_vectors(bad_row, bad_vector):
    """Gives every product an embedding, one of them a bad one."""

    def change(rows):
        for number, row in enumerate(rows):
            row["vector"] = bad_vector if number == bad_row else "[0.5, 1.0, 2.0]"

    return change


def twin_with_other_name(rows):
    return [*rows, {**rows[4], "name": "something else"}]


def rename(old, new):
    def change(rows):
        return [{new if key == old else key: value for key, value in row.items()} for row in rows]

    return change


CASES = {
    "unparsable time": (
        "orders.csv",
        set_cell(2, "ordered_at", "last tuesday"),
        ["orders.csv, row 2 (line 4), column 'ordered_at'", "last tuesday"],
    ),
    "milliseconds": (
        "orders.csv",
        set_cell(0, "ordered_at", "1700000000000"),
        ["orders.csv, row 0 (line 2), column 'ordered_at'", "milliseconds"],
    ),
    "missing id": (
        "orders.csv",
        set_cell(7, "sku", ""),
        ["orders.csv, row 7 (line 9), column 'sku'"],
    ),
    "unknown column": (
        "products.csv",
        rename("description", "descripton"),
        ["products.csv", "no column 'description'", "'descripton'"],
    ),
    "an item twice with other content": (
        "products.csv",
        twin_with_other_name,
        ["products.csv", "'1004'", "row 4", "name"],
    ),
    "a feature that is not finite": (
        "products.csv",
        add_vectors(3, "[0.5, NaN, 2.0]"),
        ["products.csv, row 3 (line 5), column 'vector'", "finite"],
    ),
    "features of two lengths": (
        "products.csv",
        add_vectors(6, "[0.5, 1.0]"),
        ["products.csv", "'vector'", "row 6", "2", "3"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_names_file_row_and_column(case, new_shop, tmp_path):
    shop = new_shop(tmp_path)
    table, change, told = CASES[case]
    edit_rows(shop.folder / table, change)
    if "feature" in case:
        values = yaml.safe_load(shop.config.read_text())
        vector = {"name": "vector", "kind": "precomputed", "column": "vector"}
        values["modalities"].append(vector)
        shop.config.write_text(yaml.safe_dump(values))
    arguments = ["run", "--config", str(shop.config), "--output", str(shop.output)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    for text in told:
        assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert not shop.served.exists()


@pytest.mark.slow
def test_a_shop_without_content_trains_the_id_view_alone(new_shop, tmp_path):
    shop = new_shop(tmp_path)
    values = yaml.safe_load(shop.config.read_text())
    del values["modalities"]
    values["model"]["views"] = ["id"]
    shop.config.write_text(yaml.safe_dump(values))
    arguments = ["run", "--config", str(shop.config), "--output", str(shop.output)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "ContentEncoder" not in result.output
    assert len(shop.versions()) == 1
