"""Starting a catalogue's multimodal view from another catalogue's model."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from bivrec_tf.errors import ConfigError
from bivrec_tf.features import VIEWS
from bivrec_tf.models import BiVRec
from bivrec_tf.saved_model import SavedRecommender

logger = logging.getLogger(__name__)

_MM = VIEWS[1]
_TOWER = f"{_MM}_tower/"
_PROJECTION = "content_projection/"
_MIXING = f"{_PROJECTION}output/kernel"


@dataclass
class TransferReport:
    """What a warm start did.

    Attributes:
      loaded: Names of the weights that were taken over.
      not_loaded: Weights of the multimodal view that were not, with the reason.
    """

    loaded: list[str] = field(default_factory=list)
    not_loaded: dict[str, str] = field(default_factory=dict)


def warm_start(
    model: BiVRec,
    saved: SavedRecommender,
    encoders: Mapping[str, Mapping[str, Any]] | None = None,
) -> TransferReport:
    """Gives a new model the multimodal view of an exported one.

    Taken over are the multimodal tower and, for every modality that both have from one encoder,
    its projection with its whitening: together they map the same content to the same
    vectors. None of them depends on an item's id. The id view starts from nothing, as ever: ids
    of two catalogues mean different items even where they are equal.

    Args:
      model: A model before training.
      saved: The other catalogue's model.
      encoders: `fingerprint` of the encoder of each of the new model's modalities, where known.

    Returns:
      What was loaded and what was not; logged too.

    Raises:
      ConfigError: Nothing can be taken over.
    """
    if _MM not in model.config.views or _MM not in saved.config.views:
        which = "the new model" if _MM not in model.config.views else saved.directory
        raise ConfigError(f"warm start: {which} has no multimodal view, and only that transfers")
    model.build_variables()
    report = TransferReport()
    common = _common_modalities(model, saved, encoders or {}, report)
    for name, variable in model.named_variables().items():
        modality = _modality_of(name, model.catalogue.modalities)
        if not name.startswith((_TOWER, _PROJECTION)) and modality is None:
            continue
        if modality is not None and modality not in common:
            continue  # The reason stands in the report once, under the modality's own name.
        if name == _MIXING:
            _load_mixing(variable, model, saved, common, report)
            continue
        values = saved.weights.get(name)
        if values is None:
            report.not_loaded[name] = "the other model has no such weight"
        elif values.shape != tuple(variable.shape):
            report.not_loaded[name] = (
                f"shape {list(values.shape)} there, {variable.shape.as_list()} here"
            )
        else:
            variable.assign(values)
            report.loaded.append(name)
    model.prepare_content()
    # Or the training to come would start it from other items' neighbourhood.
    model.given_views.add(_MM)
    fits = sum(name.startswith(_TOWER) for name in report.loaded)
    unfit = [name for name in report.not_loaded if name.startswith(_TOWER)]
    if fits <= len(unfit):
        raise ConfigError(
            f"warm start from {saved.directory}: most weights of its multimodal tower do not fit "
            f"(such as {unfit[0]}: {report.not_loaded[unfit[0]]}). Use its model.dimension, "
            "num_interests and scales."
        )
    logger.info(
        "warm start from %s: %d weights loaded, of the tower and of modalities %s; not loaded: %s",
        saved.directory,
        len(report.loaded),
        ", ".join(sorted(common)) or "none",
        "; ".join(f"{name} ({why})" for name, why in report.not_loaded.items()) or "nothing",
    )
    return report


def _common_modalities(model, saved, encoders, report) -> set[str]:
    common = set()
    for name, dimension in model.catalogue.modalities.items():
        there = saved.modalities.get(name)
        here = encoders.get(name, {}).get("fingerprint")
        if there is None:
            report.not_loaded[name] = "the other model has no such modality"
        elif there["dimension"] != dimension:
            report.not_loaded[name] = f"{there['dimension']} values there, {dimension} here"
        elif here is None or there.get("fingerprint") != here:
            # Two shops' own vectors of one name and length: nothing says that they mean the same.
            report.not_loaded[name] = (
                f"made by another encoder there ({there.get('encoder') or 'not named'})"
            )
        elif f"whitening_{name}" not in saved.weights:
            report.not_loaded[name] = "exported by a version that did not whiten content"
        else:
            common.add(name)
    for name in sorted(saved.modalities.keys() - model.catalogue.modalities.keys()):
        report.not_loaded[name] = "no item here has this modality"
    return common


def _modality_of(weight: str, modalities: Mapping[str, int]) -> str | None:
    """The modality that a weight belongs to alone, if it does."""
    for name in modalities:
        own = (f"missing_{name}", f"mean_{name}", f"whitening_{name}")
        layers = (f"{_PROJECTION}project_{name}/", f"{_PROJECTION}norm_{name}/")
        if weight in own or weight.startswith(layers):
            return name
    return None


def _load_mixing(variable, model, saved, common, report) -> None:
    """The matrix that mixes modalities has a block of rows for each, in order of their names."""
    values = saved.weights.get(_MIXING)
    width = model.config.dimension
    here, there = sorted(model.catalogue.modalities), sorted(saved.modalities)
    if values is None or values.shape != (width * len(there), width):
        report.not_loaded[_MIXING] = f"other width than {width} there"
        return
    mixed = variable.numpy()
    for name in sorted(common):
        to, start = here.index(name) * width, there.index(name) * width
        mixed[to : to + width] = values[start : start + width]
    if common:
        variable.assign(tf.constant(np.asarray(mixed)))
        report.loaded.append(_MIXING)
