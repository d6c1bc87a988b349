"""Notebooks for Colab and Kaggle, from the pages that the tests run.

    python tools/notebooks.py           # writes notebooks/
    python tools/notebooks.py --check   # tells whether they are current

--repository=owner/name adds links that open them in Colab and Kaggle.

Python blocks become cells; others, and those that are not run, stay text.
The first cell installs the package where it is missing: from --repository, or
from a wheel that lies beside the notebook.
"""

import argparse
import pathlib
import re
import sys

import pages

FOLDER = pages.ROOT / "notebooks"
NAMES = (
    "choose",
    "extending",
    "few_steps",
    "first_hour",
    "images",
    "own_data",
    "own_objective",
    "own_robot",
    "solvers",
)
SET_UP = """\
# Set up: the backend, and the package where it is missing.
import glob
import importlib.util
import os
import subprocess
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
if importlib.util.find_spec("keras_flows") is None:
    found = {sources}
    if not found:
        raise ImportError(
            "Upload the wheel of keras_flows beside this notebook: "
            "python -m build --wheel"
        )
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", found[-1] + "{extras}"],
        check=True,
    )
"""
RELATIVE = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")
EXTRAS = "[jax,export,onnx,serve,recipes]"
LINKS = (
    "[Open in Colab](https://colab.research.google.com/github/{repository}/blob/"
    "main/notebooks/{name}.ipynb) | [Open in Kaggle](https://kaggle.com/kernels/"
    "welcome?src=https://github.com/{repository}/blob/main/notebooks/{name}.ipynb)"
)


def markdown(text):
    """A page as jupytext reads it: blocks that are not run are text."""
    lines = text.splitlines()
    for block in pages.blocks(text):
        if block.language in pages.PYTHON + pages.SHELL and not block.python:
            first = block.line - 2
            lines[first] = lines[first].replace(
                f"```{block.language}", f"```{{.{block.language} .noeval}}"
            )
    # Pages and pictures lie in docs/.
    lines = [RELATIVE.sub(r"](../docs/\1)", line) for line in lines]
    kept = [line for line in lines if not pages.NOT_RUN.match(line)]
    return "\n".join(kept) + "\n"


def notebook(name, repository=""):
    """The notebook of a page, as text."""
    import jupytext
    import nbformat

    text = (pages.DOCS / f"{name}.md").read_text()
    found = jupytext.reads(markdown(text), fmt="md")
    sources = "sorted(glob.glob('keras_flows*.whl'))"
    extras = EXTRAS
    links = f"From docs/{name}.md, by tools/notebooks.py."
    if repository:
        sources = (
            f'["keras_flows{EXTRAS} @ git+https://github.com/{repository}"]'
        )
        extras = ""
        links = LINKS.format(repository=repository, name=name)
    first = nbformat.v4.new_markdown_cell(links)
    set_up = nbformat.v4.new_code_cell(
        SET_UP.format(sources=sources, extras=extras).rstrip()
    )
    found.cells[:0] = [first, set_up]
    for number, cell in enumerate(found.cells):
        # Else they would be drawn anew in every run.
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
    found.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    found.nbformat, found.nbformat_minor = 4, 5
    nbformat.validate(found)
    return nbformat.writes(found) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", default=str(FOLDER), help="folder to write")
    parser.add_argument("--repository", default="", help="owner/name on GitHub")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; 1 where they differ",
    )
    flags = parser.parse_args()
    out, stale = pathlib.Path(flags.out), []
    made = {f"{name}.ipynb": notebook(name, flags.repository) for name in NAMES}
    there = {path.name: path.read_text() for path in out.glob("*.ipynb")}
    if flags.check:
        stale = sorted(
            name
            for name in {*made, *there}
            if made.get(name) != there.get(name)
        )
        if stale:
            sys.exit(f"python tools/notebooks.py would change {stale}")
        return
    out.mkdir(parents=True, exist_ok=True)
    for name in {*there} - {*made}:
        (out / name).unlink()
    for name, text in made.items():
        (out / name).write_text(text)
    print(f"{len(made)} notebooks in {out}")


if __name__ == "__main__":
    main()
