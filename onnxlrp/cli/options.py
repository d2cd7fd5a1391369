"""The options that several commands share, and what they mean to the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from onnxlrp.cli.paths import Place, refuse_overwriting
from onnxlrp.compiler.default_composite import DEFAULT_COMPOSITE
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.errors import InputError

if TYPE_CHECKING:
    from onnxlrp.compiler.composite import Composite
    from onnxlrp.inputs.preprocessing import Preprocessing
    from onnxlrp.inputs.targets import Difference

Command = TypeVar("Command", bound=Callable[..., Any])

TOP = -1

MOST_THREADS = 1024


def target_number(text: str) -> int | Difference:
    """Read a class, a number from 0 or `top` (also -1), which is -1; or the difference of two."""
    from onnxlrp.inputs.targets import read_difference

    difference = read_difference(text)
    if difference is not None:
        return difference
    try:
        number = TOP if text == "top" else int(text)
    except ValueError:
        raise click.BadParameter(
            f"{text} is neither a class number nor 'top', nor a difference 3-5"
        ) from None
    if number < TOP:
        raise click.BadParameter(f"{number} is not a class: they start at 0; -1 is the top one")
    return number


def start_text(text: str) -> int | Difference | str:
    """Read what `target_number` does, or `weights`."""
    return text if text == "weights" else target_number(text)


def size(text: str) -> int | tuple[int, int]:
    """Read a length in pixels, or HEIGHTxWIDTH."""
    height, both, width = text.partition("x")
    try:
        return (int(height), int(width)) if both else int(height)
    except ValueError:
        raise click.BadParameter(f"{text} is neither a length nor HEIGHTxWIDTH") from None


def numbers(text: str) -> tuple[float, ...]:
    """Read numbers or fractions between commas."""
    try:
        return tuple(float(_ratio(number)) for number in text.split(","))
    except (ValueError, ZeroDivisionError):
        raise click.BadParameter(f"{text} is not numbers such as 104,117,123 or 1/255") from None


def _ratio(text: str) -> Fraction:
    over, _, under = text.partition("/")
    return Fraction(over) / Fraction(under or 1)


def amount(text: str) -> int | str:
    """Read a number from 1, or a share such as 20%."""
    share = text.removesuffix("%")
    try:
        number = float(share) if share != text else int(text)
    except ValueError:
        number = 0
    if not (0 < number <= 100 if share != text else number >= 1):
        raise click.BadParameter(f"{text} is neither a number from 1 nor a share such as 20%")
    return text if share != text else int(text)


def _stack(section: str, *options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        for parameter in vars(command)["__click_params__"][-len(options) :]:
            parameter.section = section
        return command

    return decorate


class Sectioned(click.Command):
    """A command whose help has what several commands share under headings of their own."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, unless it would write over what it reads."""
        refuse_overwriting(self.get_params(ctx), ctx.params)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, the command's own first."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                section = getattr(parameter, "section", "Options")
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Of all that is drawn by chance.",
)
batch_option = click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    default=4,
    show_default=True,
    help="Samples to a run.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, MOST_THREADS),
    metavar="N",
    help="Threads for one operator on the CPU.",
)
labels_option = click.option(
    "--labels",
    type=Place(),
    metavar="FILE",
    help="Names of the classes, one a line, or JSON.",
)


colours_option = click.option(
    "--colours",
    default=DEFAULT_COLOURS,
    show_default=True,
    metavar="NAME",
    help="orange-blue, red-blue, coldnhot, or one of matplotlib.",
)


def complete_composite(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer the shell the composites that ship; of files it knows itself."""
    from onnxlrp.compiler.composite import available

    names = [CompletionItem(c.name) for c in available() if c.name.startswith(typed)]
    return names or [CompletionItem(typed, type="file")]


composite_options = _stack(
    "Which rules",
    click.option(
        "--composite",
        shell_complete=complete_composite,
        default=DEFAULT_COMPOSITE,
        show_default=True,
        metavar="NAME|FILE",
        help="Which rule each node gets: one that ships (see `onnxlrp composites`), or your TOML; "
        "also with additions, as in 'epsilon_plus; epsilon=1; LRN: identity'.",
    ),
    click.option(
        "--rule",
        "rules",
        multiple=True,
        metavar="LINE",
        help="A line before the composite's, such as 'Conv: z-plus'. Repeatable.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="A parameter of the composite, such as epsilon=1e-3. Repeatable.",
    ),
    click.option(
        "--lrn", metavar="TREATMENT", help="How relevance crosses LRN: taylor, identity, ..."
    ),
    click.option(
        "--plugin",
        "plugins",
        multiple=True,
        metavar="FILE.py",
        help="A Python file that registers rules or operators of your own. Repeatable.",
    ),
)

graph_options = _stack(
    "What the explainer does",
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME",
        help="An input to explain, where the model has several. Repeatable.",
    ),
    click.option(
        "--output",
        metavar="NAME",
        help="The output to explain, if the model has several, or a value inside.",
    ),
    click.option(
        "--intermediate",
        "intermediates",
        multiple=True,
        metavar="NAME",
        help="A value inside whose relevance becomes an output too. Repeatable.",
    ),
    click.option(
        "--mask",
        "masks",
        multiple=True,
        metavar="PATTERN",
        help="Values inside whose relevance an input mask_<value> multiplies. Repeatable.",
    ),
    click.option(
        "--target",
        type=start_text,
        metavar="N|top|N-M|weights",
        help="Write the class into the file, instead of the input that chooses it; or N-M, the "
        "score of N minus that of M; or let an input weight all scores.",
    ),
    click.option(
        "--contrast",
        type=click.Choice(["others", "softmax"]),
        help="Contrast the class to all others, alike, or by the gradient of softmax.",
    ),
    click.option(
        "--at",
        metavar="PLACE",
        help="Of a dense output, [N, C, H, W] or [N, T, C], what to sum the score over: 'y,x', "
        "'y0:y1,x0:x1', 't', 'all'.",
    ),
    click.option(
        "--class-axis",
        type=int,
        metavar="AXIS",
        help="Of a dense output, where classes lie: by default 1, of three axes the last.",
    ),
    click.option(
        "--reference",
        metavar="mean|black|zero|blur|input|FILE",
        help="Count relevance from what the model makes of this: a picture of the mean colour, a "
        "black one, zeros, the picture itself blurred, a file (of a table the mean row), or an "
        "input of the explainer.",
    ),
    click.option("--dynamic-batch", is_flag=True, help="Free a batch size that the model fixes."),
    click.option(
        "--fold-weights",
        is_flag=True,
        help="Store tensors derived from weights, for runtimes that do not fold constants.",
    ),
)

source_options = _stack(
    "Texts and tables",
    click.option("--text", multiple=True, metavar="TEXT", help="A text to explain. Repeatable."),
    click.option(
        "--column",
        metavar="NAME",
        help="The column of a .csv or .tsv that holds texts, or of .parquet that holds pictures or "
        "arrays; of a .tar the ending of the files that are meant.",
    ),
    click.option(
        "--tokenizer",
        type=Place(),
        metavar="FILE",
        help="Splits texts. By default EXPLAINER's name with .tokenizer.json, or tokenizer.json, "
        "beside it.",
    ),
    click.option(
        "--tokens", type=click.IntRange(min=1), metavar="N", help="Cut texts after so many tokens."
    ),
    click.option(
        "--features",
        type=Place(),
        metavar="FILE",
        help="Names of a table's features in the order of the model, one a line, or JSON; they "
        "find its columns. By default those that the explainer stores.",
    ),
    click.option(
        "--ignore",
        multiple=True,
        metavar="NAME",
        help="A column of tables that the model does not read. Repeatable.",
    ),
)

preprocessing_options = _stack(
    "How pictures are made",
    click.option(
        "--preprocess",
        metavar="NAME|FILE",
        help="imagenet, imagenet-caffe, cifar10, tf, raw, or a JSON file.",
    ),
    click.option(
        "--resize",
        type=size,
        metavar="N|HxW",
        help="Length of the shorter side, or height and width.",
    ),
    click.option("--crop", type=size, metavar="N|HxW", help="Cut so much out of the middle."),
    click.option(
        "--scale", type=numbers, metavar="X", help="Factor on pixels of 0..255, such as 1/255."
    ),
    click.option(
        "--mean", type=numbers, metavar="X,...", help="Subtracted of each channel after scaling."
    ),
    click.option(
        "--std", type=numbers, metavar="X,...", help="What is left is divided by, of each channel."
    ),
    click.option(
        "--channels",
        type=click.Choice(["RGB", "BGR", "grey"]),
        help="Channels that the model reads.",
    ),
    click.option(
        "--layout", type=click.Choice(["NCHW", "NHWC"]), help="Whether they come first or last."
    ),
)

worker_options = _stack(
    "Several processes",
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Processes that share the work, each with --threads cores, by default 1, or a GPU. "
        "Needs the extra [ray]; see docs/scale.md.",
    ),
    click.option(
        "--ray",
        "address",
        metavar="ADDRESS",
        help="Of the Ray cluster that --workers run in, or auto; by default one is started here.",
    ),
)


def chosen_composite(
    composite: str,
    rules: tuple[str, ...],
    settings: tuple[str, ...],
    lrn: str | None,
    plugins: tuple[str, ...],
) -> Composite:
    """Load the composite and put the command line's own lines and parameters on top.

    Raises
    ------
    CompositeError
        The composite, a line or a parameter is unknown or malformed.
    InputError
        A plugin cannot be loaded.

    """
    from onnxlrp.compiler.composite import Composite, parse_assignment
    from onnxlrp.plugin import load

    for plugin in plugins:
        load(plugin)
    chosen = Composite.load(composite)
    if lrn:
        chosen = chosen.with_lines([f"LRN: {lrn}"], origin=f"--lrn {lrn}")
    if rules:
        chosen = chosen.with_lines(rules)
    # Last, for a parameter must be one that some rule takes.
    return chosen.with_parameters(dict(map(parse_assignment, settings))) if settings else chosen


def conversion_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `onnxlrp.convert` that the three groups of options above say.

    Raises
    ------
    CompositeError, InputError
        As `chosen_composite` and `chosen_preprocessing`.

    """
    target = options["target"]
    return {
        "composite": chosen_composite(
            options["composite"],
            options["rules"],
            options["settings"],
            options["lrn"],
            options["plugins"],
        ),
        "inputs": options["inputs"] or None,
        "output": options["output"],
        "target": "top" if target == TOP else target,
        "contrast": options["contrast"],
        "at": options["at"],
        "class_axis": options["class_axis"],
        "intermediates": options["intermediates"],
        "masks": options["masks"],
        "dynamic_batch": options["dynamic_batch"],
        "fold_weights": options["fold_weights"],
        "reference": options["reference"],
        "preprocessing": chosen_preprocessing(options),
    }


def chosen_preprocessing(
    options: Mapping[str, Any], stored: Preprocessing | None = None
) -> Preprocessing | None:
    """Apply the preprocessing options to the preset they name, or else to the stored settings.

    Returns
    -------
    `stored` where no option is given

    Raises
    ------
    InputError
        The preset is unknown, or the settings make no sense.

    """
    from onnxlrp.inputs.preprocessing import Preprocessing
    from onnxlrp.inputs.presets import load_preprocessing

    base, name = stored, options["preprocess"]
    if name is not None:
        base = load_preprocessing(name)
    keys = ("resize", "crop", "scale", "mean", "std", "channels", "layout")
    changes = {key: options[key] for key in keys if options[key] is not None}
    if isinstance(changes.get("resize"), tuple) and "crop" not in changes:
        # A height and width are what is wanted, not what a preset's own crop is cut out of.
        changes["crop"] = None
    if isinstance(changes.get("crop"), int):
        changes["crop"] = (changes["crop"], changes["crop"])
    if "scale" in changes:
        if len(changes["scale"]) != 1:
            raise InputError("--scale is one number, such as 1/255")
        changes["scale"] = changes["scale"][0]
    return replace(base or Preprocessing(), **changes) if changes else base


def refuse_tables(given: Sequence[str], reads: str) -> None:
    """Refuse files of tables, where only `explain`, `report` and `evaluate` read them.

    Raises
    ------
    InputError
        One of the files given is a table; `reads` says what is read in its place.

    """
    from onnxlrp.inputs.passages import TABLES

    for file in given:
        if Path(file).suffix.lower() in TABLES:
            raise InputError(
                f"{file} is a table, and {reads}: `onnxlrp explain` reads tables; rows may also be "
                "saved as one array [N, F] in .npy"
            )
