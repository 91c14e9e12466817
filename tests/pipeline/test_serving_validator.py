"""The ServingValidator and the Pusher behind it, as executors, on the shop's real model."""

import json
import shutil

import pytest

from components.serving_validator.offline import (
    OFFLINE_ANSWERS,
    OfflineAnswer,
    read_offline_answers,
)
from components.serving_validator.validate import compare

ANSWER = OfflineAnswer(["x"], ["a", "b", "c"], [3.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("ids", "scores", "difference"),
    [
        (["a", "b", "c"], [3.0, 2.0, 1.0], None),
        (["a", "b", "c"], [3.00001, 2.0, 1.0], None),
        (["a", "b"], [3.0, 2.0], "2 items served, 3 offline"),
        (["a", "b", "c"], [3.1, 2.0, 1.0], "place 1: score"),
        (["a", "b", "c"], [float("nan"), 2.0, 1.0], "place 1: score"),
        (["b", "a", "c"], [3.0, 2.0, 1.0], "place 1: item 'b' served, 'a' offline"),
        # An item just below the cut, with the score of the last: a tie may fall either way.
        (["a", "b", "d"], [3.0, 2.0, 1.0], None),
    ],
)
def test_what_counts_as_a_difference(ids, scores, difference):
    found = compare(ids, scores, ANSWER, tolerance=1e-4)
    assert (found is None) if difference is None else (difference in found)


def test_items_of_equal_score_may_stand_in_either_order():
    answer = OfflineAnswer(["x"], ["a", "b", "c"], [3.0, 3.0, 1.0])
    assert compare(["b", "a", "c"], [3.0, 3.0, 1.0], answer, 1e-4) is None


@pytest.fixture
def artifacts(shop, tmp_path):
    """The shop's model and a copy of its training run, as the executors take them."""
    from tfx.types import standard_artifacts

    from components.serving_validator import executor

    trainer = shop.output / "pipeline" / "Trainer"
    [model_uri] = [p for p in (trainer / "model").glob("*") if is_first_model(p, shop)]
    run_copy = tmp_path / "run"
    run_copy.mkdir()
    shutil.copy(trainer / "model_run" / model_uri.name / OFFLINE_ANSWERS, run_copy)
    model, run, blessing = (
        standard_artifacts.Model(),
        standard_artifacts.ModelRun(),
        standard_artifacts.InfraBlessing(),
    )
    model.uri, run.uri = str(model_uri), str(run_copy)
    blessing.uri = str(tmp_path / "blessing")
    (tmp_path / "blessing").mkdir()
    return {executor.MODEL_KEY: [model], executor.MODEL_RUN_KEY: [run]}, blessing


def is_first_model(path, shop):
    """Whether this is the model of the fixture's run, not of a later one in the same folder."""
    names = sorted((p.name for p in path.parent.glob("*")), key=int)
    return path.name == names[0]


def validate(inputs, blessing):
    from components.serving_validator import executor

    executor.Executor().Do(
        inputs, {executor.BLESSING_KEY: [blessing]}, {executor.TOLERANCE_KEY: 1e-4}
    )


def push(inputs, infra_blessing, folder):
    """Runs the standard Pusher, with a model that the Evaluator blessed."""
    from tfx.components.pusher.executor import Executor
    from tfx.types import standard_artifacts

    model_blessing, pushed = standard_artifacts.ModelBlessing(), standard_artifacts.PushedModel()
    model_blessing.set_int_custom_property("blessed", 1)
    pushed.uri = str(folder / "pushed")
    Executor().Do(
        {
            "model": inputs["model"],
            "model_blessing": [model_blessing],
            "infra_blessing": [infra_blessing],
        },
        {"pushed_model": [pushed]},
        {
            "push_destination": json.dumps(
                {"filesystem": {"base_directory": str(folder / "served")}}
            )
        },
    )
    return list((folder / "served").glob("*")) if (folder / "served").exists() else []


@pytest.mark.slow
def test_a_model_that_serves_what_was_computed_offline_is_pushed(artifacts, tmp_path):
    inputs, blessing = artifacts
    validate(inputs, blessing)
    assert blessing.get_int_custom_property("blessed") == 1
    assert len(push(inputs, blessing, tmp_path)) == 1


@pytest.mark.slow
def test_a_model_that_serves_something_else_is_not_pushed(artifacts, tmp_path):
    inputs, blessing = artifacts
    path = f"{inputs['model_run'][0].uri}/{OFFLINE_ANSWERS}"
    answers = read_offline_answers(path)
    # What the Keras model said, with two places exchanged: the export would be at fault.
    with open(path, "w") as file:
        for answer in answers:
            answer.item_ids[:2] = answer.item_ids[1::-1]
            file.write(json.dumps(vars(answer)) + "\n")
    validate(inputs, blessing)
    assert blessing.get_int_custom_property("blessed") == 0
    verdict = json.loads(blessing.get_string_custom_property("verdict"))
    assert "place 1: item" in verdict["differences"][0]
    assert push(inputs, blessing, tmp_path) == []


@pytest.mark.slow
def test_a_model_that_no_server_loads_is_not_pushed(artifacts, tmp_path):
    inputs, blessing = artifacts
    damaged = tmp_path / "damaged"
    shutil.copytree(inputs["model"][0].uri, damaged)
    [graph] = damaged.rglob("saved_model.pb")
    graph.write_bytes(graph.read_bytes()[:1000])
    inputs["model"][0].uri = str(damaged)
    validate(inputs, blessing)
    assert blessing.get_int_custom_property("blessed") == 0
    assert push(inputs, blessing, tmp_path) == []
