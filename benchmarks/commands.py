"""The commands that repeat results: what a run had that its data set's configuration has not."""

import json

from benchmarks.measured import Runs, settings_of
from benchmarks.overview import noise_levels
from benchmarks.settings import DEFAULT_PROTOCOL, leaves, read_settings, validated
from bivrec_tf.models import MODEL_NAMES

# Given by the name of the model.
_GIVEN = "model.views"


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
    of_today = dict(leaves(settings_of({**found, "configuration": dumped})))
    parts = [f"--data {found['data']}", f"--model {found['model']}"]
    if found["protocol"] != today.get("protocol", DEFAULT_PROTOCOL):
        parts.append(f"--protocol {found['protocol']}")
    if runs.training_share < 1:
        parts.append(f"--share {runs.training_share:g}")
    if runs.warm_start is not None:
        parts.append(f"--warm-start output/transfer/{runs.warm_start}")
    if runs.saved.results:
        parts.append("--export FOLDER")
    for name, value in leaves(settings_of(found)):
        if name in of_today and of_today[name] != value and name != _GIVEN:
            parts.append(f"--set {name}={json.dumps(value, separators=(',', ':'))}")
    for kind in ("noise", "insert"):
        parts += [f"--{kind} {level:g}" for level in noise_levels({runs.label: runs}, kind)]
    return " ".join(parts)
