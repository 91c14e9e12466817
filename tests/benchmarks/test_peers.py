"""What is handed to another project's model, and what is made of its lists."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from benchmarks.peers.exchange import main
from benchmarks.prepared import prepare, sequence_config

DEPTH = 50


@pytest.fixture
def written(data_root, tmp_path):
    """The folder that a peer reads, and the split that it was made from."""
    where = ["--folder", str(tmp_path / "peer"), "--cache", str(tmp_path / "cache")]
    done = CliRunner().invoke(
        main,
        ["write", "--data", "walks", "--max-history", "6", "--root", str(data_root), *where],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    config = sequence_config("leave_one_out", 6)
    prepared = prepare(data_root / "walks", config, tmp_path / "other", content=False)
    return tmp_path, where, prepared


def recommend(folder, examples, lists):
    """Writes lists as a peer does; a list is filled up with items that nobody knows."""
    rows = [
        (user, item, place + 1)
        for (user, *_), chosen in zip(examples, lists, strict=True)
        for place, item in enumerate([*chosen, *range(-DEPTH, 0)][:DEPTH])
    ]
    pd.DataFrame(rows, columns=["user", "item", "rank"]).to_csv(folder, index=False)


def test_a_peer_gets_the_histories_and_its_lists_are_measured_as_ours(written):
    folder, where, prepared = written
    for name, split in (("train", "validation"), ("test", "test")):
        table = pd.read_csv(folder / "peer" / f"{name}.csv")
        found = {u: rows.sort_values("position").item.tolist() for u, rows in table.groupby("user")}
        expected = {u: [i for i in h.tolist() if i] for u, h, _ in prepared.held_out[split]}
        assert found == {user: history for user, history in expected.items() if history}

    generator = np.random.default_rng(0)
    items = np.arange(1, prepared.catalogue.num_trained + 1)
    examples = prepared.held_out["test"]
    lists = [generator.permutation(items)[:12] for _ in examples]
    recommend(folder / "peer" / "recommended.csv", examples, lists)
    validation = prepared.held_out["validation"]
    # Every target at the third place.
    third = [[-1, -2, int(target[0])] for _, _, target in validation]
    recommend(folder / "peer" / "validation-2.csv", validation, third)
    run = {"model": "someone", "seed": 3, "training_seconds": 4.0, "points": [[2, 1.5]]}
    run["configuration"] = {"model": {}, "training": {"epochs": 2}}
    (folder / "peer" / "run.json").write_text(json.dumps(run))
    out = folder / "walks-someone-3.json"
    arguments = ["read", *where, "--json", str(out)]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output

    result = json.loads(out.read_text())
    places = [
        np.flatnonzero(chosen == target[0])
        for chosen, (_, _, target) in zip(lists, examples, strict=True)
    ]
    gains = [1 / np.log2(place[0] + 2) if len(place) and place[0] < 10 else 0 for place in places]
    assert result["test"]["ndcg_at_10"] == pytest.approx(np.mean(gains))
    assert result["test"]["hit_rate_at_50"] == pytest.approx(np.mean([len(p) > 0 for p in places]))
    assert result["curve"] == [[1.5, None, pytest.approx(1 / np.log2(4))]]
    # The lists of the last epoch are those of the weights that were saved.
    assert result["validation"]["ndcg_at_10"] == pytest.approx(1 / np.log2(4))
    assert result["data_fingerprint"] == prepared.fingerprint
    # Two epochs of all users in four seconds.
    assert result["epochs"] == 2
    assert result["windows_per_second"] == 2 * len(validation) / 4


def test_lists_that_are_too_short_are_refused(written):
    folder, where, prepared = written
    examples = prepared.held_out["test"]
    recommend(folder / "peer" / "recommended.csv", examples, [[1]] * len(examples))
    table = pd.read_csv(folder / "peer" / "recommended.csv")
    table[table["rank"] <= 20].to_csv(folder / "peer" / "recommended.csv", index=False)
    done = CliRunner().invoke(main, ["read", *where, "--json", str(folder / "out.json")])
    assert done.exit_code == 1 and "lists of 20, expected 50" in done.output
