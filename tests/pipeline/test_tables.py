"""What `recommend` and the demo read from the user's tables, and how it is shown."""

import pytest
from rich.console import Console

from bivrec_tf.errors import DataError
from pipeline.config import load_config
from pipeline.show import show_recommendations
from pipeline.tables import first_users, read_histories, read_titles
from serving.client import Recommendation, Recommendations


@pytest.fixture
def config(new_shop, tmp_path):
    shop = new_shop(tmp_path)
    lines = ["customer,sku,ordered_at,shop", "7,1002,30,x", "8,1000,10,x", "7,1001,20,x"]
    # Equal times keep the order of the file; a second purchase of a product does not count.
    lines += ["7,1005,30,x", "7,1001,40,x", "9,1000,5,x"]
    (shop.folder / "orders.csv").write_text("\n".join(lines) + "\n")
    return load_config(shop.config)


def test_histories_are_in_order_of_time_then_of_the_file(config):
    histories = read_histories(config.interactions, ["7", "9"])
    assert histories == {"7": ["1001", "1002", "1005"], "9": ["1000"]}
    assert first_users(config.interactions, 2) == ["7", "8"]


def test_bad_cells_are_told_by_their_place(config):
    with open(config.interactions.path, "a") as file:
        file.write("7,1001,soon,x\n")
    with pytest.raises(DataError, match=r"orders\.csv, row 6 \(line 8\), column 'ordered_at'"):
        read_histories(config.interactions, ["7"])


def test_titles_are_shown_as_they_are_whatever_they_hold(config, capsys):
    titles = {**read_titles(config.items), "a": "[new] Tea [/x]"}
    assert titles["1004"] == "red mug"
    answer = Recommendations(
        items=(Recommendation("a", 1.5, 2, 1.0, 2.0, ("1004", "b")),),
        model_version=1,
        unknown_items=1,
    )
    console = Console(width=120, highlight=False, markup=False)
    show_recommendations(console, "User [x]", ["1004", "a"], answer, titles)
    shown = capsys.readouterr().out
    assert "[new] Tea [/x]" in shown and "User [x]" in shown
    assert "red mug; b" in shown and "1.50" in shown
    assert "1 items of the history are not known" in shown
