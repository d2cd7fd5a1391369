"""What an item's explanation says, on the terminal: features, and tokens in their colours."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnxlrp.cli.terminal import clean, console, echo
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxlrp.inputs.text import Tokens
    from onnxlrp.running.results import Record, Writer
    from onnxlrp.running.stream import Failure, Result


def tell(result: Result | Failure, rows: Sequence[Record], score: str, writer: Writer) -> None:
    """Print class, score and sum of relevance; of texts and tables what speaks for and against it.

    Parameters
    ----------
    result : the item's
    rows : its records, one for each class explained
    score : what the model's output is called
    writer : with the colours, and the names of a table's features

    """
    from onnxlrp.drawing.bars import in_words
    from onnxlrp.running.stream import Failure

    explained = () if isinstance(result, Failure) else result.explained
    for row, one in zip(rows, explained, strict=True):
        echo(f"{row.source}: {row.explained}, {row.account.in_words(score)}")
        if isinstance(result, Failure):
            continue
        if result.sample.tokens is not None:
            show(result.sample.tokens, one.relevance, one.padding, writer.colours)
        elif writer.features is not None:
            echo(f"  {in_words(one.relevance, result.sample.values, writer.features)}")


def show(
    tokens: Tokens, relevance: NDArray[Any], padding: float = 0.0, colours: str = DEFAULT_COLOURS
) -> None:
    """Print a text with its tokens in colours, and what speaks for and against the class.

    Where the output is no terminal, or NO_COLOR is set, the text is plain.

    Parameters
    ----------
    tokens, relevance, padding, colours : as for `onnxlrp.drawing.sentence.page`

    """
    from onnxlrp.drawing.sentence import aside, in_words, styles

    out = console()
    if out.is_terminal and not out.no_color:
        from rich.text import Text

        parts = styles(tokens, relevance, colours=colours)
        # Captured, for it goes above a bar as other lines do.
        with out.capture() as captured:
            out.print(Text.assemble(*((clean(text), style) for text, style in parts)))
        sys.stdout.write(captured.get())
    else:
        echo(" ".join(tokens.text.split()))
    said = [in_words(tokens, relevance), aside(tokens, relevance, padding)]
    echo("  " + "; ".join(filter(None, said)))


def complain(failure: Failure) -> None:
    """Say on stderr which item could not be explained, and why."""
    echo(f"Error: {failure.told}", err=True)
