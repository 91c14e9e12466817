"""The commands that repeat results: what a run had that its data set's configuration has not."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.measured import Runs, settings_of
from benchmarks.settings import read_settings, validated
from bivrec_tf.models import MODEL_NAMES

# Given by the model's name, by `--seed`, and by the machine.
_GIVEN = ("model.views", "training.seed", "training.warm_start")


def command(runs: Runs) -> str:
    """Returns the options of `benchmarks.accuracy` that repeat runs of one label, for its seeds.

    Settings are compared with today's configuration, so that an old result says what has changed
    since. Of a model of another project, empty.

    Example:
      `--data ml-1m --model bivrec --set training.epochs=16`
    """
    found = runs.example
    if found["model"] not in MODEL_NAMES:
        return ""
    today = read_settings(found["data"], (), found["model"])
    config, options = validated(today, found["seed"])
    dumped = {"model": config.model_dump(mode="json"), "training": options.model_dump(mode="json")}
    of_today = dict(_leaves(settings_of({**found, "configuration": dumped})))
    parts = [f"--data {found['data']}", f"--model {found['model']}"]
    if found["protocol"] != today.get("protocol", "leave_one_out"):
        parts.append(f"--protocol {found['protocol']}")
    if runs.training_share < 1:
        parts.append(f"--share {runs.training_share:g}")
    if runs.warm_start is not None:
        parts.append(f"--warm-start output/transfer/{runs.warm_start}")
    for name, value in _leaves(settings_of(found)):
        if name in of_today and of_today[name] != value and name not in _GIVEN:
            parts.append(f"--set {name}={json.dumps(value, separators=(',', ':'))}")
    every = {part for run in runs.results.values() for part in run}
    for kind in ("noise", "insert"):
        head = f"test_{kind}_"
        levels = sorted(part.removeprefix(head) for part in every if part.startswith(head))
        parts += [f"--{kind} {level}" for level in levels]
    return " ".join(parts)


def _leaves(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every setting with its path, as `--set` names it."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")
        elif before:
            yield f"{before}{name}", value
