"""Runs the notebooks of docs/notebooks/ anew, and keeps what they show.

    python docs/make_notebooks.py [NAME ...]

They are kept with what they show, so that a forge and the site show it without running them; a test
runs them and holds what they print against it. Edit one in Jupyter, then run this, which drops when
and by which Python it was run.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parent / "notebooks"


def execute(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in an empty folder by this Python, and return it with what it shows."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=300,
            resources={"metadata": {"path": folder}},
            coalesce_streams=True,
        )
        return client.execute()


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs from run to run, and transparency."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells, 1):
        cell.id, cell.metadata = f"cell-{number}", {}
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
                buffer = io.BytesIO()
                picture.convert("RGB").save(buffer, "PNG", optimize=True)
                output.data = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
                output.metadata = {}
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(clean(execute(NOTEBOOKS / f"{name}.ipynb")), NOTEBOOKS / f"{name}.ipynb")
