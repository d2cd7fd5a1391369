"""From a model to its explainer, stage by stage."""

from __future__ import annotations

import gc
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxlrp.compiler import folding, writing
from onnxlrp.compiler.activation_map import drawn, from_feature_maps
from onnxlrp.compiler.assembly import assemble
from onnxlrp.compiler.assignment import Assignment, assign, kinds_of, unmatched
from onnxlrp.compiler.batching import prove_batch
from onnxlrp.compiler.composite import CLASS_ACTIVATION_MAPS, YIELDS, Composite
from onnxlrp.compiler.default_composite import DEFAULT_COMPOSITE
from onnxlrp.compiler.reunion import reunite
from onnxlrp.compiler.several import takes_several
from onnxlrp.compiler.start import read_start
from onnxlrp.compiler.walk import propagate
from onnxlrp.errors import InputError, ModelError
from onnxlrp.graph.analysis import analyse, non_negative
from onnxlrp.graph.canonical import Array, Network, Operation
from onnxlrp.graph.gates import bounded_values
from onnxlrp.graph.head import canonicalise
from onnxlrp.graph.loading import load
from onnxlrp.graph.missing import filled_in
from onnxlrp.graph.score import FLOATS
from onnxlrp.graph.shapes import dims_of, signature
from onnxlrp.graph.texts import texts_read
from onnxlrp.inputs.columns import mean_row, named_features
from onnxlrp.inputs.passages import TABLES
from onnxlrp.inputs.points import read_points
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.presets import doubts, misfits
from onnxlrp.inputs.references import NAMES, read_reference
from onnxlrp.inputs.targets import Difference
from onnxlrp.propagation.formulas import Parameter
from onnxlrp.runtime import open_session
from onnxlrp.telling import tell

Reference = Array | str | os.PathLike[str]
"""What contributions are differences from, as `read_reference` takes it."""


@dataclass(frozen=True)
class ExplainedNode:
    """A node of the model and the rule it got.

    Attributes
    ----------
    name, operator : of the node; `merged` names the nodes that were taken together with it
    value : name of what it computes
    rule, parameters : the rule's name, "" where the operator leaves no choice
    line : the line of the composite that decided, `file:line`

    """

    name: str
    operator: str
    rule: str
    parameters: Mapping[str, Parameter]
    line: str
    merged: tuple[str, ...]
    value: str

    def in_words(self) -> str:
        """Return the rule with its parameters."""
        parameters = (f"{key}={value}" for key, value in self.parameters.items())
        return " ".join([self.rule or "passes on", *parameters])


@dataclass(frozen=True)
class Conversion:
    """An explainer, and how it came about.

    Attributes
    ----------
    model : the explainer in memory
    nodes : what relevance crosses, in the model's order
    composite : the effective composite
    score : name of the value that relevance starts from
    kinds : what kind of network it is, `attention` or none, each with a node that shows it
    warnings : what the user should know
    source : path of the model; None if it was in memory

    """

    model: ir.Model = field(repr=False)
    nodes: tuple[ExplainedNode, ...] = field(repr=False)
    composite: Composite = field(repr=False)
    score: str
    kinds: Mapping[str, str]
    warnings: tuple[str, ...]
    source: Path | None

    @property
    def inputs(self) -> list[tuple[str, str, tuple[int | str | None, ...]]]:
        """Name, type and shape of the explainer's inputs."""
        return [signature(value) for value in self.model.graph.inputs]

    @property
    def outputs(self) -> list[tuple[str, str, tuple[int | str | None, ...]]]:
        """Name, type and shape of the explainer's outputs."""
        return [signature(value) for value in self.model.graph.outputs]

    def warn(self) -> None:
        """Hand what the user should know to Python's warnings."""
        for warning in self.warnings:
            warnings.warn(f"{self.composite.name}: {warning}", stacklevel=2)

    def to_proto(self) -> onnx.ModelProto:
        """Return the explainer as a protobuf, all weights in it."""
        return ir.to_proto(ir.external_data.load_to_model(self.model))

    def save(
        self, path: str | os.PathLike[str], *, external_data: bool = False, check: bool = True
    ) -> bool:
        """Write the explainer; a file is only there once it is complete, valid, and loads.

        Parameters
        ----------
        path : of the .onnx file
        external_data : put the weights into a file beside it, `<name>.data`, or `<name>.2.data` and
            so on if there is one; that of an explainer that is replaced is removed at the end
        check : check it as onnx does, and load it in onnxruntime, if that is installed

        Returns
        -------
        whether onnxruntime has loaded it

        Raises
        ------
        OSError
            If it cannot be written.
        InputError
            If `path` is the model itself.
        ModelError
            If it is larger than 2 GB, which a protobuf cannot hold, without external data; or if it
            is not valid, or does not load.

        """
        if self.source is not None and Path(path).resolve() == self.source.resolve():
            raise InputError(f"{path} is the model itself; write the explainer to another file")
        return writing.save(self.model, Path(path), external_data, check)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from looking through all of a growing graph, again and again, for garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collection()
def convert(
    model: str | os.PathLike[str] | onnx.ModelProto,
    composite: str | Path | Composite = DEFAULT_COMPOSITE,
    *,
    inputs: Sequence[str] | None = None,
    output: str | None = None,
    target: int | str | Difference | None = None,
    contrast: str | None = None,
    at: str | None = None,
    class_axis: int | None = None,
    intermediates: Sequence[str] = (),
    masks: Sequence[str] = (),
    dynamic_batch: bool = False,
    fold_weights: bool = False,
    preprocessing: Preprocessing | None = None,
    features: Sequence[str] = (),
    reference: Reference | Mapping[str, Reference] | None = None,
) -> Conversion:
    """Compile a classifier into an explainer.

    Parameters
    ----------
    model : path of an ONNX file, or the model itself; it is not changed
    composite : which rule each node gets: a name, a TOML file, or a `Composite`
    inputs : names of the inputs to explain; by default all that look like images or signals
    output : name of the output to explain, or of a value inside, which becomes one; by default the
        output with a class axis
    target : class written into the explainer, or "top", or a difference such as "3-5", which starts
        from the score of 3 and minus that of 5; None makes it the input `target`, int64 [N] or [1],
        and "weights" the input `weights`, float32 [N, classes] or [1, classes], in its place
    contrast : of that class to all `others`, or by the gradient of `softmax`: see
        `onnxlrp.compiler.start.Start`
    at, class_axis : where in a dense output such as [N, C, H, W] the score is: an index or a range
        `FIRST:END` for each axis of places, by commas, or `all`; the score of a class is its sum
        over them. Classes are on axis 1, of three axes on the last, unless `class_axis` says so
    intermediates : values of the model whose relevance becomes an output too
    masks : names, with shell wildcards, of values inside; each gets an input `mask_<value>` that
        multiplies the relevance passing through it, for concept-conditional relevance (Achtibat
        et al. 2023); float32, of any shape that broadcasts to the value's
    dynamic_batch : make a fixed batch symbolic, and prove with onnxruntime that two samples at
        once give what they give one by one
    fold_weights : write out tensors derived from weights, for runtimes that do not fold constants
    preprocessing : stored in the explainer, for whoever feeds it images
    features : names of a table's features, stored likewise: of all inputs [N, F], in their order
    reference : what every contribution is a difference from, so that relevance sums to
        f(x) - f(reference) and biases take none of it: an array that broadcasts to one sample of
        the explained input, or what `onnxlrp.inputs.references` reads: "mean", "black", "zero",
        "blur", a file, or "input" for an input of the explainer; a mapping by name where several
        are explained; or a table, .csv, whose mean row it is

    Raises
    ------
    ModelError
        If the model cannot be read, or has no input or output to explain.
    UnsupportedError
        If relevance would have to cross an operator that it cannot; it lists every such node.
    CompositeError
        If the composite is malformed or has no line for a node.
    InputError
        If `target`, `at`, `intermediates` or `masks` name what does not exist, `features` are more
        or fewer than the model's, or the rule z-box has no bounds.

    """
    chosen = Composite.load(composite)
    sensitivity = chosen.yields != YIELDS[0]
    if sensitivity and reference is not None:
        raise InputError(
            f"composite {chosen.name} yields a {chosen.yields}, which knows no reference: convert "
            "without one, or take a composite of relevance"
        )
    start = read_start(target, contrast, sensitivity)
    if chosen.points and "top" in str(start):
        raise InputError(
            f"composite {chosen.name} takes gradients at several points, and which class scores "
            "best is not the same at all: let an input choose it (no --target), or name one"
        )
    tell("reading the model")
    loaded = load(model, dynamic_batch)
    read = {
        name: (dtype, shape) for name, dtype, shape in map(signature, loaded.model.graph.inputs)
    }
    named = named_features(features, read) if features else {}
    missing = filled_in(loaded.model.graph)
    network = canonicalise(loaded.model.graph, output, inputs, at, class_axis)
    facts, explained, kind = analyse(network), network, chosen.yields
    maps: ir.Value | None = None
    together = True
    if kind in CLASS_ACTIVATION_MAPS:
        together = takes_several(explained, facts)
        network = from_feature_maps(explained, facts)
        facts = analyse(network)
    facts, assigned = assign(chosen, network, facts, preprocessing)
    own = chosen.reference_for(kinds_of(facts))
    if reference is None and own:
        reference = {value.name or "": own for value in network.inputs}
    said = _told(reference)
    if isinstance(reference, str | os.PathLike) and Path(reference).suffix.lower() in TABLES:
        reference = mean_row(Path(reference), read, [v.name or "" for v in network.inputs], named)
    against = _by_input(network, reference, preprocessing)
    scaled = chosen.yields == YIELDS[2]
    flow = propagate(network, facts, assigned, start, scaled, masks, against, together)
    if explained is not network:
        ((maps,), (source,)) = network.inputs, explained.inputs
        flow, network = drawn(flow, kind, maps, source, preprocessing), explained
    metadata = {
        "version": version("onnxlrp"),
        "composite": chosen.to_toml(),
        "composite_name": chosen.name,
        "yields": kind,
        "feature_maps": "" if maps is None else maps.name or "",
        "points": _points(chosen, network, preprocessing),
        "model_sha256": loaded.sha256,
        "model_file": "" if isinstance(model, onnx.ModelProto) else _name(model),
        "reference": said,
        "at": at or "",
        "class_axis": "" if class_axis is None else str(class_axis),
        **({} if preprocessing is None else {"preprocessing": preprocessing.to_json()}),
        **({"features": json.dumps(named)} if named else {}),
        "missing": json.dumps(missing),
    }
    tell("putting it together")
    renamed = assemble(loaded.model, network, flow, intermediates, metadata)
    score = network.score.name or ""
    nodes = tuple(_explained(operation, assigned[operation]) for operation in facts.operations)
    if loaded.own is not None:
        ends = {score, network.output.name or ""}
        reunite(loaded.model, loaded.own, loaded.weights, ends)
    if fold_weights:
        folding.fold_weights(loaded.model)
    result = Conversion(
        loaded.model,
        nodes,
        chosen,
        score,
        kinds_of(facts),
        (
            *loaded.notes,
            *doubts(loaded.model.metadata_props, preprocessing),
            *misfits(
                (dims_of(v.shape) for v in network.inputs if v.shape),
                preprocessing,
                whole=any(v.dtype is not None and v.dtype.is_integer() for v in network.inputs),
            ),
            *(f"{line.origin}: {why}" for line, why in unmatched(chosen, facts, assigned)),
            *_multiplied(assigned),
            *_bounded(network),
            *_texts(network),
            *renamed,
        ),
        None if isinstance(model, onnx.ModelProto) else Path(model),
    )
    if dynamic_batch:
        proto = result.to_proto()
        session = open_session(proto.SerializeToString(), "the explainer", "cpu")
        try:
            prove_batch(
                proto.graph,
                session,
                None if flow.chooser is None else flow.chooser.name,
                {mask.name or "" for mask in flow.masks.values()},
            )
        except ModelError as error:
            raise ModelError(
                f"{error}; convert without --dynamic-batch, or export the model with a symbolic "
                "batch"
            ) from error
    return result


def _told(reference: Reference | Mapping[str, Reference] | None) -> str:
    """Name a reference: as it was given, but files without their folders."""
    if isinstance(reference, Mapping):
        names = {key: _told(one) for key, one in reference.items()}
        if len(set(names.values())) == 1:
            return next(iter(names.values()))
        return ", ".join(f"{name} of '{key}'" for key, name in names.items())
    if isinstance(reference, str | os.PathLike):
        return _name(reference)
    return "" if reference is None else "an array"


def _name(path: str | os.PathLike[str]) -> str:
    """Return a file's name, with bytes of it that are no text written out."""
    return os.fsencode(Path(path).name).decode(errors="backslashreplace")


def _points(chosen: Composite, network: Network, preprocessing: Preprocessing | None) -> str:
    """Write where gradients are averaged, a baseline in numbers; "" for the input alone."""
    if not chosen.points:
        return ""
    for value in network.inputs:
        if value.dtype not in FLOATS:
            raise InputError(
                f"'{value.name}' holds whole numbers, and composite {chosen.name} takes gradients "
                "between them: let the model take real numbers"
            )
    return json.dumps(asdict(read_points(chosen.points).known(preprocessing)))


def _by_input(
    network: Network,
    reference: Reference | Mapping[str, Reference] | None,
    preprocessing: Preprocessing | None,
) -> Mapping[str, Array | str]:
    names = [value.name or "" for value in network.inputs]
    if reference is None:
        return {}
    if isinstance(reference, str) and reference in NAMES:
        reference = dict.fromkeys(names, reference)
    if not isinstance(reference, Mapping):
        if len(names) > 1:
            raise InputError(f"a reference is needed for each of {', '.join(names)}, by name")
        reference = {names[0]: reference}
    if set(reference) != set(names):
        raise InputError(
            f"a reference is needed for each of {', '.join(names)}, and no other input"
        )
    return {name: read_reference(given, preprocessing) for name, given in reference.items()}


def _multiplied(assigned: Mapping[Operation, Assignment]) -> list[str]:
    """Name the operations whose rule does not hand on what it gets."""
    return sorted(
        f"{op.name}: alpha - beta is {difference:g}, and relevance is multiplied by it"
        for op, entry in assigned.items()
        if entry.rule == "alpha-beta"
        and (difference := _number(entry, "alpha") - _number(entry, "beta")) != 1
    )


def _bounded(network: Network) -> list[str]:
    """Say so where the score is a probability, of which a map explains little once it is near 1."""
    graph = network.graph
    bounded = bounded_values(graph, network.operations) & non_negative(graph)
    if not network.squashed and id(network.score) not in bounded:
        return []
    return [
        f"relevance starts from '{network.score.name}', which lies between two numbers like a "
        "probability: no logit was found that it comes from; if a value inside the model is one, "
        "convert with --output and its name"
    ]


def _texts(network: Network) -> list[str]:
    """Name the inputs that hold texts, beside those that are explained."""
    return [
        f"input '{value.name}' holds texts, which get no relevance: what is made of them counts as "
        "given; cut the model behind it to explain that too"
        for value in texts_read(network.graph, network.score)
    ]


def _number(assignment: Assignment, name: str) -> float:
    value = assignment.parameters[name]
    assert isinstance(value, int | float)
    return value


def _explained(operation: Operation, assignment: Assignment) -> ExplainedNode:
    return ExplainedNode(
        operation.name,
        operation.operator,
        assignment.rule,
        assignment.parameters,
        assignment.line.origin if assignment.line is not None else "",
        tuple(node.name or "" for node in operation.nodes if node is not operation.node),
        operation.outputs[0].name or "",
    )
