"""The quickstart runs from a clean kernel and shows what its committed copy shows."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"
POPULARITY_NDCG_AT_10 = 0.0215
"""Of the popularity ranking on the notebook's 2,000 validation targets."""


def outputs_by_kind(notebook):
    return [
        [sorted(o.get("data", {})) for o in cell.outputs if o.get("name") != "stderr"]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def metrics_shown(notebook):
    [text] = [
        output.data["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "ndcg_at_10" in output.get("data", {}).get("text/plain", "")
    ]
    return ast.literal_eval(text)


def test_the_committed_copy_has_its_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    pictures = [
        kinds for cell in outputs_by_kind(notebook) for kinds in cell if "image/png" in kinds
    ]
    assert len(pictures) == 2
    text = NOTEBOOK.read_text()
    assert not any(place in text for place in (str(Path.cwd()), "/home/", "/root/"))
    assert metrics_shown(notebook)["ndcg_at_10"] > POPULARITY_NDCG_AT_10


@pytest.mark.slow
def test_it_runs_from_a_clean_kernel_and_learns():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    committed = outputs_by_kind(notebook)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    executed = NotebookClient(notebook, timeout=560, resources=resources).execute()
    assert outputs_by_kind(executed) == committed
    assert metrics_shown(executed)["ndcg_at_10"] > POPULARITY_NDCG_AT_10
