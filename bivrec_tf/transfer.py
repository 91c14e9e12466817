"""Starting a catalogue's multimodal view from what another catalogue's model knows of content."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bivrec_tf.catalogue import ItemCatalogue
from bivrec_tf.errors import ConfigError
from bivrec_tf.features import VIEWS
from bivrec_tf.layers import ContentProjection
from bivrec_tf.models import BiVRec
from bivrec_tf.saved_model import SavedRecommender

logger = logging.getLogger(__name__)

_MM = VIEWS[1]


@dataclass
class TransferReport:
    """What a warm start did.

    Attributes:
      modalities: Names of the modalities whose meaning was taken over.
      left_out: The other modalities, with the reason.
      items: Number of items that the other model knows something of.
    """

    modalities: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    items: int = 0


def warm_start(
    model: BiVRec,
    saved: SavedRecommender,
    encoders: Mapping[str, Mapping[str, Any]] | None = None,
) -> TransferReport:
    """Shows a new model what an exported one makes of the content of the new model's items.

    What is taken over is where the other model's content projection puts every item of this
    catalogue that has a modality which both have from one encoder. Before training, the new
    model's projection is fitted to these vectors and to the new catalogue's own co-occurrence at
    once (`SequentialRecommender.start_from`): the fewer interactions, the more the other model
    says. No weight is copied, so the two may differ in width, interests and modalities. The id
    view's ids mean other items even where they are equal, and the other catalogue's tower, which
    knows how its customers go on, did harm (`docs/decisions/0015`).

    Args:
      model: A model before training.
      saved: The other catalogue's model.
      encoders: `fingerprint` of the encoder of each of the new model's modalities, where known.

    Returns:
      What was taken over and what was not; logged too.

    Raises:
      ConfigError: Nothing can be taken over.
    """
    if _MM not in model.config.views or _MM not in saved.config.views:
        which = "the new model" if _MM not in model.config.views else saved.directory
        raise ConfigError(f"warm start: {which} has no multimodal view, and only that transfers")
    report = TransferReport()
    report.modalities = sorted(_common_modalities(model.catalogue, saved, encoders or {}, report))
    if not report.modalities:
        raise ConfigError(
            f"warm start from {saved.directory}: no modality is the same there and here; "
            + "; ".join(f"{name}: {why}" for name, why in report.left_out.items())
        )
    vectors = _vectors_there(model.catalogue, saved, report.modalities)
    model.known_of_content = vectors
    report.items = int(np.any(vectors, axis=1).sum())
    logger.info(
        "warm start from %s: content of %d of %d items, by %s; left out: %s",
        saved.directory,
        report.items,
        len(vectors),
        ", ".join(report.modalities),
        "; ".join(f"{name} ({why})" for name, why in report.left_out.items()) or "nothing",
    )
    return report


def _common_modalities(catalogue: ItemCatalogue, saved, encoders, report) -> set[str]:
    common = set()
    for name, dimension in catalogue.modalities.items():
        there = saved.modalities.get(name)
        here = encoders.get(name, {}).get("fingerprint")
        if there is None:
            report.left_out[name] = "the other model has no such modality"
        elif there["dimension"] != dimension:
            report.left_out[name] = f"{there['dimension']} values there, {dimension} here"
        elif here is None or there.get("fingerprint") != here:
            # Two shops' own vectors of one name and length: nothing says that they mean the same.
            report.left_out[name] = (
                f"made by another encoder there ({there.get('encoder') or 'not named'})"
            )
        elif f"whitening_{name}" not in saved.weights:
            report.left_out[name] = "exported by a version that did not whiten content"
        else:
            common.add(name)
    for name in sorted(saved.modalities.keys() - catalogue.modalities.keys()):
        report.left_out[name] = "no item here has this modality"
    return common


def _vectors_there(catalogue: ItemCatalogue, saved, common: list[str]) -> np.ndarray:
    """Where the other model puts this catalogue's items, float32 `[num_items, D there]`.

    Zero where it knows nothing of one.
    """
    sizes = {name: part["dimension"] for name, part in saved.modalities.items()}
    items = catalogue.num_items
    content = {name: np.zeros([items, size], np.float32) for name, size in sizes.items()}
    presence = {name: np.zeros(items, bool) for name in sizes}
    for name in common:
        content[name] = np.asarray(catalogue.content[name], np.float32)[1:]
        presence[name] = np.asarray(catalogue.presence[name], bool)[1:]
    projection = ContentProjection(
        sizes,
        saved.config.dimension,
        hidden_units=saved.config.content_hidden_units,
        name="content_projection",
    )
    # In the order in which the model builds it, on which the names of weights depend.
    projection.build(None)
    projection(*({name: part[:1] for name, part in of.items()} for of in (content, presence)))
    for variable in projection.variables:
        name = variable.name.removesuffix(":0")
        values = saved.weights.get(name)
        if values is None or values.shape != tuple(variable.shape):
            raise ConfigError(
                f"warm start from {saved.directory}: exported by version "
                f"{saved.description['bivrec_tf_version']}, whose content projection is not that "
                f"of this one ({name}). Train that model again."
            )
        variable.assign(values)
    known = np.any([presence[name] for name in common], axis=0)[:, np.newaxis]
    return np.asarray(projection(content, presence), np.float32) * known
