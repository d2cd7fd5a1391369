"""Composites: which rule each node gets, as data.

A composite is a TOML file: an ordered list of lines, of which the first that matches a node
decides. The field calls such a mapping a composite (zennit).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from onnxlrp.errors import CompositeError, InputError
from onnxlrp.files import read_text
from onnxlrp.inputs.points import read_points
from onnxlrp.propagation.formulas import BIAS_TREATMENTS, RULES, Parameter
from onnxlrp.propagation.registry import OPERATORS

POSITIONS = ("first", "last", "preprocessing")
"""`first` (`last`): layers that the input (the score) reaches with no other layer between;
`preprocessing`: constant factors and terms between the input and the first layers."""

NETWORKS = ("attention", "depthwise")
"""Kinds of network that a line or a reference may be for: `attention`, where a softmax weighs live
values; else `depthwise`, where a convolution keeps its channels apart."""

CLASS_ACTIVATION_MAPS = ("Grad-CAM", "Grad-CAM++", "HiRes-CAM")

YIELDS = ("relevance", "gradient", "gradient times input", *CLASS_ACTIVATION_MAPS)
"""What a map may hold: relevance of the score; or, starting from 1 at the score, sensitivity to the
input, or that times the input, or that to the last feature maps, which it weighs."""

REFERENCES = ("zero", "mean", "black", "blur", "input")
"""What a composite may take for a reference by itself."""

FROM_PREPROCESSING = "preprocessing"
"""Bound of z-box that follows from the preprocessing stored in the explainer."""

_MATCHERS: Mapping[str, type] = {
    "operators": list,
    "nodes": list,
    "position": str,
    "network": str,
}
_TEXTS = ("description", "good_for", "source")
_CHOICES = {"yields": YIELDS}


@dataclass(frozen=True)
class Line:
    """One line of a composite.

    Attributes
    ----------
    rule : name of the rule
    parameters : that this line sets; the composite's own apply to the rest
    operators : ONNX operator types it matches; empty for all
    nodes : node names, with shell wildcards, it matches; empty for all
    position : one of `POSITIONS`, or None for anywhere
    network : one of `NETWORKS`, or None for all
    origin : where it was written, `file:line`
    by_user : not one of a shipped composite; a line of the user's that matches nothing is a mistake

    """

    rule: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    operators: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    position: str | None = None
    network: str | None = None
    origin: str = ""
    by_user: bool = True

    def matches(self, node: str, operator: str, places: Iterable[str]) -> bool:
        """Tell whether the line speaks of a node of that name and operator.

        `places` are its positions and the kinds of its network.
        """
        places = set(places)
        return (
            (not self.operators or operator in self.operators)
            and (not self.nodes or any(fnmatchcase(node, pattern) for pattern in self.nodes))
            and {self.position, self.network} - {None} <= places
        )


@dataclass(frozen=True)
class Composite:
    """An ordered list of lines, and parameters for all of them.

    Attributes
    ----------
    name : of the shipped composite, or the path of the file
    lines : the first that matches a node, with a rule the node's operator takes, decides
    parameters : values for every rule that takes them, below what a line sets itself
    yields : one of `YIELDS`
    points : where a gradient is averaged, as `onnxlrp.inputs.points` reads it; empty for the input
    reference : what contributions are differences from where `convert` is given none, one of
        `REFERENCES` by kind of network, "" for any; empty for no reference
    description, good_for, source : for people

    """

    name: str
    lines: tuple[Line, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    yields: str = YIELDS[0]
    points: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    good_for: str = ""
    source: str = ""

    @classmethod
    def load(cls, name: str | Path | Composite) -> Composite:
        """Read a shipped composite by name, or a file by path.

        Behind it may stand parameters and lines of one's own, each after a semicolon, as
        `with_parameters` and `with_lines` take them.

        >>> Composite.load("epsilon_plus; epsilon=0.01; LRN: identity").lines[0].rule
        'identity'

        Raises
        ------
        CompositeError
            If it is unknown, or malformed (the message names file and line).

        """
        if isinstance(name, Composite):
            return name
        base, *additions = (part.strip() for part in str(name).split(";"))
        if additions:
            lines = [part for part in additions if ":" in part]
            values = dict(parse_assignment(part) for part in additions if ":" not in part)
            return replace(
                # Parameters last, for some rule must take each.
                cls.load(base).with_lines(lines).with_parameters(values),
                name=str(name),
            )
        shipped = _shipped()
        if str(name) in shipped:
            return _parse(str(name), shipped[str(name)].read_text("utf-8"), by_user=False)
        path = Path(name)
        if not path.is_file():
            close = get_close_matches(str(name), shipped)
            meant = f" (did you mean {' or '.join(close)}?)" if close else ""
            raise CompositeError(
                f"there is no composite '{name}'{meant}; give the path of a TOML file or one of "
                f"{', '.join(sorted(shipped))}"
            )
        try:
            return _parse(str(path), read_text(path), by_user=True)
        except (OSError, InputError) as error:
            raise CompositeError(f"{path} cannot be read: {error}") from None

    def with_parameters(self, parameters: Mapping[str, Parameter]) -> Composite:
        """Return the composite with parameters that win over everything written in it.

        Raises
        ------
        CompositeError
            If no rule of the composite takes a parameter, or its value has the wrong type.

        """
        points = {**self.points, **{k: v for k, v in parameters.items() if k in self.points}}
        parameters = {k: v for k, v in parameters.items() if k not in self.points}
        if points:
            _check_points(points, "--set")
        for key, value in parameters.items():
            if not any(key in _rules()[line.rule] for line in self.lines):
                raise CompositeError(f"no rule of {self.name} takes a parameter '{key}'")
            _check_parameter(key, value, "--set")
        lines = tuple(
            replace(
                line, parameters={k: v for k, v in line.parameters.items() if k not in parameters}
            )
            for line in self.lines
        )
        merged = {**self.parameters, **parameters}
        return replace(self, lines=lines, parameters=merged, points=points)

    def with_lines(self, lines: Sequence[str], origin: str | None = None) -> Composite:
        """Return the composite with lines in front, written `SELECTOR: RULE [KEY=VALUE ...]`.

        The selector is `*`, or words that must all hold: operator types joined by commas, a
        position (`first`, `last`, `preprocessing`), `name=GLOB`.

        Messages call a line by its `origin`, `--rule 'LINE'` by default.

        >>> Composite.load("epsilon_plus").with_lines(["Conv first: flat"]).lines[0].rule
        'flat'

        Raises
        ------
        CompositeError
            If a line cannot be understood.

        """
        written = (_inline(line, origin or f"--rule '{line}'") for line in lines)
        return replace(self, lines=(*written, *self.lines))

    def parameters_of(
        self, line: Line | None, defaults: Mapping[str, Parameter]
    ) -> dict[str, Parameter]:
        """All parameters of a rule that a line, or none, gave, with the values that apply."""
        own = {} if line is None else line.parameters
        return {
            key: own.get(key, self.parameters.get(key, default))
            for key, default in defaults.items()
        }

    def reference_for(self, kinds: Iterable[str]) -> str:
        """Return what is taken for a reference in a network of these kinds; "" for none."""
        return next((self.reference[k] for k in ("", *kinds) if k in self.reference), "")

    def check_alone(self) -> None:
        """Check that it needs nothing from whoever runs the explainer.

        Raises
        ------
        InputError
            It takes its reference at run time.

        """
        if "input" in self.reference.values():
            raise InputError(
                f"composite {self.name} takes its reference when the explainer runs, and there is "
                "none to give here: take deeplift, or explain --reference"
            )

    def to_toml(self) -> str:
        """Return the composite as the text of a file that `load` reads."""
        texts = {key: getattr(self, key) for key in _TEXTS if getattr(self, key)}
        told: dict[str, Any] = texts | {
            key: getattr(self, key)
            for key, options in _CHOICES.items()
            if getattr(self, key) != options[0]
        }
        if self.reference:
            told["reference"] = self.reference.get("") or dict(self.reference)
        if self.points:
            told["points"] = dict(self.points)
        lines = []
        for line in self.lines:
            entry: dict[str, Any] = {}
            if line.operators:
                entry["operators"] = list(line.operators)
            if line.nodes:
                entry["nodes"] = list(line.nodes)
            if line.position:
                entry["position"] = line.position
            if line.network:
                entry["network"] = line.network
            lines.append({**entry, "rule": line.rule, **line.parameters})
        return tomli_w.dumps({**told, "parameters": dict(self.parameters), "rules": lines})


def available() -> list[Composite]:
    """Return the composites that ship, by name."""
    return [Composite.load(name) for name in sorted(_shipped())]


def _shipped() -> dict[str, Traversable]:
    folder = resources.files("onnxlrp.composites")
    return {
        file.name.removesuffix(".toml"): file
        for file in folder.iterdir()
        if file.name.endswith(".toml")
    }


def _rules() -> dict[str, Mapping[str, Parameter]]:
    """Return every rule that some operator takes, with its parameters' defaults."""
    return _merged(len(OPERATORS), len(RULES))


# Plugins add operators and rules, and nothing takes any away.
@lru_cache(maxsize=1)
def _merged(operators: int, rules: int) -> dict[str, Mapping[str, Parameter]]:
    result: dict[str, Mapping[str, Parameter]] = {}
    for operator in OPERATORS.values():
        for rule, defaults in operator.rules.items():
            result[rule] = {**result.get(rule, {}), **defaults}
    return result


def _parse(name: str, text: str, by_user: bool) -> Composite:
    try:
        data = tomllib.loads(text)
    # Also numbers of thousands of digits, and nests a thousand deep.
    except (ValueError, RecursionError) as error:
        raise CompositeError(f"{name}: {error}") from None
    where = _Places(name, text)
    for key, value in data.items():
        if key not in (*_TEXTS, *_CHOICES, "reference", "points", "parameters", "rules"):
            raise CompositeError(
                f"{where.key(key)}: unknown key '{key}'; a composite has "
                f"{', '.join((*_TEXTS, *_CHOICES, 'reference'))}, [points], [parameters] and "
                "[[rules]]"
            )
        wanted = {"points": dict, "parameters": dict, "rules": list, "reference": str | dict}.get(
            key, str
        )
        if not isinstance(value, wanted):
            kind = {
                "points": "a table",
                "parameters": "a table",
                "rules": "an array of tables [[rules]]",
                "reference": "a text, or a table of one for each kind of network",
            }
            raise CompositeError(f"{where.key(key)}: '{key}' must be {kind.get(key, 'a text')}")
    choices = {key: data.get(key, options[0]) for key, options in _CHOICES.items()}
    for key, chosen in choices.items():
        if chosen not in _CHOICES[key]:
            raise CompositeError(
                f"{where.key(key)}: '{key}' must be one of {', '.join(filter(None, _CHOICES[key]))}"
                f", not {_shown(chosen)}"
            )
    reference = _reference(data.get("reference", {}), where.key("reference"))
    points = data.get("points", {})
    if "points" in data:
        _check_points(points, where.key("points"))
        if choices["yields"] != "gradient":
            raise CompositeError(f"{where.key('points')}: only what yields a gradient has points")
    parameters = data.get("parameters", {})
    for key, value in parameters.items():
        _check_parameter(key, value, where.key(key))
    if not data.get("rules"):
        raise CompositeError(f"{name}: it has no [[rules]]")
    lines = tuple(_line(entry, where, index, by_user) for index, entry in enumerate(data["rules"]))
    texts = {key: " ".join(data.get(key, "").split()) for key in _TEXTS}
    return Composite(
        name, lines, parameters, points=points, reference=reference, **choices, **texts
    )


def _reference(given: str | Mapping[str, Any], place: str) -> dict[str, str]:
    found = {"": given} if isinstance(given, str) else dict(given)
    for kind, reference in found.items():
        if kind not in ("", *NETWORKS):
            raise CompositeError(
                f"{place}: unknown network '{kind}'; there are {', '.join(NETWORKS)}"
            )
        if reference not in REFERENCES:
            raise CompositeError(
                f"{place}: 'reference' must be one of {', '.join(REFERENCES)}, not "
                f"{_shown(reference)}"
            )
    return found


@dataclass(frozen=True)
class _Places:
    """Finds the line of a TOML file in which something stands, for messages."""

    name: str
    text: str

    def key(self, key: str, start: int = 1) -> str:
        """Return `file:line` of the first assignment to a key from a line on."""
        pattern = re.compile(rf"\s*(\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*(=|\])")
        for number, line in enumerate(self.lines[start - 1 :], start):
            if pattern.match(line):
                return f"{self.name}:{number}"
        return f"{self.name}:{start}"

    def rule(self, index: int) -> int:
        """Return the line of the index-th [[rules]]."""
        return self.heads[index] if index < len(self.heads) else 1

    @cached_property
    def lines(self) -> list[str]:
        """The text's lines."""
        return self.text.splitlines()

    @cached_property
    def heads(self) -> list[int]:
        """The lines of all [[rules]]."""
        head = re.compile(r"\s*\[\[\s*rules\s*\]\]")
        return [number for number, line in enumerate(self.lines, 1) if head.match(line)]


def _line(entry: Any, where: _Places, index: int, by_user: bool) -> Line:
    start = where.rule(index)
    origin = f"{where.name}:{start}"
    if not isinstance(entry, dict) or not isinstance(entry.get("rule"), str):
        raise CompositeError(f'{origin}: a line needs a rule = "NAME"')
    for key, wanted in _MATCHERS.items():
        value = entry.get(key, wanted())
        items = value if isinstance(value, list) else []
        if not isinstance(value, wanted) or not all(isinstance(item, str) for item in items):
            kind = "a list of texts" if wanted is list else "a text"
            raise CompositeError(f"{where.key(key, start)}: '{key}' must be {kind}")
    parameters = {k: v for k, v in entry.items() if k not in (*_MATCHERS, "rule")}
    line = Line(
        rule=entry["rule"],
        parameters=parameters,
        operators=tuple(entry.get("operators", ())),
        nodes=tuple(entry.get("nodes", ())),
        position=entry.get("position"),
        network=entry.get("network"),
        origin=origin,
        by_user=by_user,
    )
    _check_line(line, lambda key: where.key(key, start))
    return line


def _check_line(line: Line, place: Any) -> None:
    if line.rule not in _rules():
        takers = [OPERATORS[name] for name in line.operators if name in OPERATORS]
        choice = {rule for taker in takers for rule in taker.rules} or set(_rules())
        raise CompositeError(
            f"{place('rule')}: unknown rule '{line.rule}'; there are {', '.join(sorted(choice))}"
        )
    for operator in line.operators:
        if operator not in OPERATORS:
            raise CompositeError(f"{place('operators')}: unknown operator '{operator}'")
        if line.rule not in OPERATORS[operator].rules:
            raise CompositeError(
                f"{place('operators')}: {operator} does not take rule '{line.rule}', but "
                f"{', '.join(OPERATORS[operator].rules) or 'none'}"
            )
    for key, value, there in (
        ("position", line.position, POSITIONS),
        ("network", line.network, NETWORKS),
    ):
        if value not in (None, *there):
            raise CompositeError(
                f"{place(key)}: unknown {key} '{value}'; there are {', '.join(there)}"
            )
    known = _rules()[line.rule]
    for parameter, number in line.parameters.items():
        if parameter not in known:
            raise CompositeError(
                f"{place(parameter)}: rule '{line.rule}' takes no parameter '{parameter}', but "
                f"{', '.join(known) or 'none'}"
            )
        _check_parameter(parameter, number, place(parameter))


def _check_points(table: Mapping[str, Any], place: str) -> None:
    try:
        read_points(table)
    except InputError as error:
        raise CompositeError(f"{place}: {error}") from None


def _check_parameter(key: str, value: Any, place: str) -> None:
    kinds = {k: v for defaults in _rules().values() for k, v in defaults.items()}
    if key not in kinds:
        raise CompositeError(
            f"{place}: no rule takes a parameter '{key}'; there are {', '.join(sorted(kinds))}"
        )
    if key == "bias":
        if value not in BIAS_TREATMENTS:
            raise CompositeError(f"{place}: bias must be one of {', '.join(BIAS_TREATMENTS)}")
        return
    if key in ("low", "high"):
        numbers = value if isinstance(value, list | tuple) else [value]
        if value != FROM_PREPROCESSING and not (numbers and all(map(_is_number, numbers))):
            raise CompositeError(
                f"{place}: '{key}' must be a finite number, a list of them (one per channel), or "
                f"'{FROM_PREPROCESSING}'"
            )
        return
    if not _is_number(value) and _is_number(kinds[key]):
        raise CompositeError(
            f"{place}: '{key}' must be a finite number that float32 holds, not {_shown(value)}"
        )
    if key in DOMAINS:
        domain, holds = DOMAINS[key]
        if not holds(value):
            raise CompositeError(f"{place}: '{key}' must be {domain}, not {_shown(value)}")


_TINY, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)

DOMAINS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    # Anything less is 0 to float32, or to a runtime without denormal numbers.
    "epsilon": ("greater than 0 (at least 1.2e-38)", lambda value: value >= _TINY),
    "stabiliser": ("greater than 0 (at least 1.2e-38)", lambda value: value >= _TINY),
    "gamma": ("0 or more", lambda value: value >= 0),
    "alpha": ("0 or more", lambda value: value >= 0),
    "beta": ("0 or more", lambda value: value >= 0),
    "power": ("a whole number from 1 on", lambda value: isinstance(value, int) and value >= 1),
}
"""What a parameter's number may be: in words, and as a test. All are numbers that float32 holds."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONG else text[:_LONG] + "..."


_LONG = 60
"""Letters of a value that a message shows."""


def _inline(text: str, origin: str) -> Line:
    selector, colon, rule = text.rpartition(": ") if ": " in text else text.rpartition(":")
    words = rule.split()
    if not colon or not words:
        raise CompositeError(
            f"{origin}: write it as 'SELECTOR: RULE KEY=VALUE ...', for example 'Conv first: flat'"
        )
    operators: list[str] = []
    nodes: list[str] = []
    position = network = None
    for word in selector.split():
        if word.startswith("name="):
            nodes.append(word.removeprefix("name="))
        elif word in POSITIONS:
            position = word
        elif word in NETWORKS:
            network = word
        elif word != "*":
            operators.extend(word.split(","))
    parameters = dict(parse_assignment(word) for word in words[1:])
    line = Line(words[0], parameters, tuple(operators), tuple(nodes), position, network, origin)
    _check_line(line, lambda _: origin)
    return line


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read `KEY=VALUE`, the value as TOML; a bare word is a text, `1,2,3` a list.

    Raises
    ------
    CompositeError
        If it is not of that form.

    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key or not value:
        raise CompositeError(f"'{text}': write KEY=VALUE, such as epsilon=1e-3")
    for written in (value, f"[{value}]"):
        try:
            return key, tomllib.loads(f"value = {written}")["value"]
        # Also numbers of thousands of digits.
        except ValueError:
            continue
    return key, value
