"""`onnxlrp explain --watch`: what is put into folders, as it comes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from onnxlrp.cli.sentences import complain
from onnxlrp.cli.sources import given
from onnxlrp.cli.terminal import echo
from onnxlrp.errors import InputError
from onnxlrp.inputs.items import Item, check_apart
from onnxlrp.inputs.rows import Row, Table
from onnxlrp.running.stream import Failure, How, Source
from onnxlrp.running.watching import changes

if TYPE_CHECKING:
    from onnxlrp.running.explainer import Explainer


class Round(NamedTuple):
    """What is to be explained next.

    Attributes
    ----------
    items : what
    how : how it is read
    files : those that it is from, or that are gone: what was said of them before is void
    failures : files of them that cannot be opened

    """

    items: Sequence[Source]
    how: How
    files: Collection[Path] = ()
    failures: Sequence[Failure] = ()

    def void(self, failure: Failure) -> bool:
        """Tell whether a failure is of a file that has changed since, or is gone."""
        source = failure.item.source
        return not {source, source.rpartition(":")[0]}.isdisjoint(map(str, self.files))


def rounds(
    run: Explainer, inputs: Sequence[str], folder: Path, options: Mapping[str, Any]
) -> Iterator[Round]:
    """Yield what is in folders, and then what is put there or changed, until Ctrl-C.

    Parameters
    ----------
    inputs, folder, options : as for `onnxlrp.cli.sources.given`

    Raises
    ------
    click.UsageError
        Something else than folders is given.
    InputError
        Results would go into one of them.
    OSError
        There is no such folder.

    """
    folders = [Path(name) for name in inputs]
    for path in folders:
        if options["text"] or not (path.stat() and path.is_dir()):
            raise click.UsageError("--watch takes folders: leave everything else out.")
        check_apart(path, folder)
    before: list[Table] = []

    def opened(files: Sequence[Path]) -> Iterator[Round]:
        try:
            items, how = given(run, inputs, folder, options, set(files), before)
        except (InputError, OSError) as error:
            if len(files) > 1:
                yield from opened(files[: len(files) // 2])
                yield from opened(files[len(files) // 2 :])
                return
            reason = str(error) if isinstance(error, InputError) else error.strerror or str(error)
            failure = Failure(Item(files[0].name, files[0]), reason)
            complain(failure)
            yield Round((), None, files, [failure])
            return
        before.extend(item.table for item in items[:1] if isinstance(item, Row) and not before)
        yield Round(items, how, files)

    echo(f"Watching {', '.join(inputs)}: Ctrl-C ends", err=True)
    try:
        for due, gone in changes(folders, folder):
            if due:
                yield from opened(sorted(due))
            if gone:
                yield Round((), None, gone)
    except KeyboardInterrupt:
        return


def until_items(coming: Iterator[Round]) -> list[Round]:
    """Return rounds up to the first that has anything to explain; none after Ctrl-C."""
    begun = []
    for one in coming:
        begun.append(one)
        if one.items:
            return begun
    return []
