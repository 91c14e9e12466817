"""Runs a notebook from a clean kernel and writes it back with its outputs."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main() -> None:
    """Runs the notebooks named on the command line; stops at the first error."""
    for name in sys.argv[1:]:
        path = Path(name)
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook, timeout=600, resources={"metadata": {"path": path.parent}}
        ).execute()
        for cell in notebook.cells:
            # When and where it ran says nothing, and would change the file at every run.
            cell.metadata.pop("execution", None)
            # Start-up messages of native code; an error would have stopped the run.
            if cell.cell_type == "code":
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        notebook.metadata.pop("widgets", None)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
