"""What an item's explanation says, on the terminal: texts with their tokens in colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxlrp.cli.terminal import clean, console, echo

if TYPE_CHECKING:
    from onnxlrp.running.results import Record
    from onnxlrp.running.stream import Failure, Result


def tell(result: Result | Failure, rows: Sequence[Record], score: str, colours: str) -> None:
    """Print class, score and sum of relevance; of a text what speaks for and against it, too.

    Colours are left out where the output is no terminal, or NO_COLOR is set.

    Parameters
    ----------
    result : the item's
    rows : its records, one for each class explained
    score : what the model's output is called
    colours : a name that `onnxlrp.drawing.colours` knows

    """
    from onnxlrp.drawing.sentence import aside, in_words, styles
    from onnxlrp.running.stream import Failure

    explained = () if isinstance(result, Failure) else result.explained
    for row, one in zip(rows, explained, strict=True):
        echo(f"{row.source}: {row.explained}, {row.account.in_words(score)}")
        if isinstance(result, Failure) or result.sample.tokens is None:
            continue
        tokens = result.sample.tokens
        out = console()
        if out.is_terminal and not out.no_color:
            from rich.text import Text

            parts = styles(tokens, one.relevance, colours=colours)
            out.print(Text.assemble(*((clean(text), style) for text, style in parts)))
        words = in_words(tokens, one.relevance)
        rest = aside(tokens, one.relevance, one.padding)
        echo("  " + "; ".join(filter(None, [words, rest])))
