"""What the site shows beside docs/: README.md, the models' cards, the command line, notebooks."""

from __future__ import annotations

import re
from pathlib import Path

import click
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

from onnxlrp.cli import main

ROOT = Path(__file__).parents[2]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made when the site is."""
    made = {"index.md": _start(), "reference/command-line.md": _command_line()}
    made |= {f"models/{card.name}": card.read_text("utf-8") for card in ROOT.glob("models/*.md")}
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        made |= _notebook(Path(file.abs_src_path))
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Have links to notebooks lead to their pages."""
    return markdown.replace(".ipynb)", ".md)")


def _start() -> str:
    text = (ROOT / "README.md").read_text("utf-8").replace("](docs/", "](").replace("[docs/", "[")
    text = text.replace("](onnxlrp/plugin.py)", "](reference/plugin.md)")
    return f"---\nhide: [navigation]\n---\n\n{text}"


def _notebook(path: Path) -> dict[str, str | bytes]:
    """Return the page, and its pictures, by where they go."""
    body, resources = MarkdownExporter().from_notebook_node(
        nbformat.read(path, as_version=4),
        {"unique_key": path.stem, "output_files_dir": path.stem},
    )

    def printed(block: re.Match[str]) -> str:
        return "\n\n```text\n" + re.sub("^ {4}", "", block[1].rstrip(), flags=re.M) + "\n```\n\n"

    # nbconvert indents what is printed, which would be coloured as if it were code.
    body = re.sub(r"\n\n((?: {4}.*\n| *\n)* {4} *\S.*\n)", printed, body)
    found = {"": body, **resources["outputs"]}
    return {f"notebooks/{name or f'{path.stem}.md'}": content for name, content in found.items()}


def _command_line() -> str:
    """Write what --help says, command by command."""
    parts = [
        "# Command line",
        "Errors that can be foreseen are one line on standard error and exit status 1, wrong "
        "options exit status 2, Ctrl-C 130.",
        *_command(main, "onnxlrp"),
    ]
    for name, command in main.commands.items():
        parts += [f"## onnxlrp {name}", *_command(command, f"onnxlrp {name}")]
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, name: str) -> list[str]:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    records = [option.get_help_record(context) for option in command.get_params(context)]
    rows = [f"| {_cell(f'`{record[0]}`')} | {_cell(record[1])} |" for record in records if record]
    table = "\n".join(["| option | |", "|---|---|", *rows])
    return [f"```text\n{usage}\n```", re.sub(r"(?m)^ +", "", command.help or ""), table]


def _cell(text: str) -> str:
    """Escape what a cell must not hold, but in code."""
    escaped = {"<": "&lt;", "|": r"\|"}
    return re.sub("`[^`]*`|[<|]", lambda found: escaped.get(found[0], found[0]), text)
