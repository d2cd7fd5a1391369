"""Audits an explainer: the stages in order."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxlrp import reference
from onnxlrp.audit import beginning, kernels, running
from onnxlrp.audit import inputs as feeding
from onnxlrp.audit.balance import Entry, balance, terms
from onnxlrp.audit.findings import DIFFERENCE, NOISE, OUTPUTS, Audit, Crossed, Layer, Special
from onnxlrp.audit.limits import limits
from onnxlrp.audit.recomputed import Recomputed, needed, recompute
from onnxlrp.audit.running import Provider
from onnxlrp.audit.written import Source, Written, parse, read
from onnxlrp.errors import InputError, ModelError
from onnxlrp.graph.canonical import Operation
from onnxlrp.graph.lifting import leave_out
from onnxlrp.inputs.targets import TOP, Difference
from onnxlrp.reference.network import CHOICES
from onnxlrp.running.contract import check_content
from onnxlrp.telling import tell

Array = NDArray[Any]

_CONSERVED = 1e-9
"""Part of the sum of |R| up to which a rule conserves relevance."""

_ACCOUNTLESS = CHOICES | {"Pad", "Concat"}
"""Operators at which relevance may stay without a division that tells of it."""


def check(
    model: Source,
    explainer: Source,
    inputs: Array | Mapping[str, Array] | str | PathLike[str] | None = None,
    *,
    random: int = 1,
    target: int | Difference = TOP,
    provider: Provider = "cpu",
    layers: str = "",
) -> Audit:
    """Audit an explainer against its model and against the definition.

    Both run in onnxruntime. Outputs are compared; relevance is accounted for layer by layer; each
    layer's relevance is recomputed on its own in float64 from the values on both sides.

    Parameters
    ----------
    model : the model that was converted, a path or a protobuf
    explainer : what `convert` made of it
    inputs : the model's input, [N, ...], by name where it has several, or the path of a .npy or
        .npz file; drawn at random if None
    random : how many inputs to draw
    target : the class to explain, -1 for the top-scoring one; or, of an explainer that takes
        weights, a difference
    provider : where both run
    layers : shell wildcard: recompute only these operations, however large

    Raises
    ------
    ModelError
        A file cannot be read, the explainer is another model's, or was written by another major
        version of onnxlrp.
    InputError
        Inputs or target do not fit the model, or are not finite; or no layer is of `layers`.
    DeviceError
        onnxruntime is missing, or did not take the provider.

    """
    begun = time.perf_counter()
    written = read(explainer)
    proto, name, folder = parse(model, "model")
    explainer_name = "the explainer" if isinstance(explainer, onnx.ModelProto) else str(explainer)
    _same_major(written, explainer_name)
    _same_model(written, model, proto, name, explainer_name)
    if any(not output.type.HasField("tensor_type") for output in proto.graph.output):
        # The explainer has tensors alone.
        proto = onnx.ModelProto.FromString(proto.SerializeToString())
        leave_out(proto.graph)
    feeds = _feeds(written, inputs, random)
    target = beginning.chosen(written, target)
    feeds |= _added(written, target, feeds)
    score = written.contract.score
    names = [one.name for one in written.facts.operations if one.operator in CHOICES]
    if layers and not any(fnmatchcase(name, layers) for name in names):
        raise InputError(
            f"no layer is called '{layers}': `onnxlrp inspect MODEL --nodes` lists them"
        )
    if written.contract.weights_input:
        before = running.trace(written, feeds, {score}, provider)[score]
        feeds[written.contract.weights_input] = beginning.weights(written, target, before)
    tell("running both")
    alone = running.outputs(running.session(proto, folder, name, provider), feeds)
    # Half precision onnxruntime may compute in float32 without a rounding, but where it is read.
    kept = running.keeping(proto) if written.precision > OUTPUTS else proto
    plain = running.session(kept, folder, name, provider, optimise=False)
    unfused = running.outputs(plain, feeds)
    del plain
    together = running.session(written.proto, written.folder, explainer_name, provider)
    inside = running.outputs(together, feeds)
    del together
    values = running.trace(written, feeds, terms(written) | needed(written), provider)
    root = written.at_reference(score)
    start = beginning.begin(written, target, values[score], values[root] if root else None)
    # What is not finite is found and told; numpy need not warn of it as well.
    with np.errstate(all="ignore"):
        recomputed = recompute(written, values, start.relevance, layers)
        found = [_layer(written, entry, recomputed, values) for entry in balance(written, values)]
    maps = written.contract.relevance.values()
    heatmap = sum(values[held].sum(dtype=np.float64) for held in maps)
    with np.errstate(all="ignore"):
        arrays = [values[held] for held in maps]
        # The state that a recurrent layer starts from does not have its samples along axis 0.
        lengths = {len(array) for array in (start.relevance, *arrays)}
        samples = lengths.pop() if len(lengths) == 1 else 1
        whole = _per_sample([start.relevance], samples)
        shares = _per_sample(arrays, samples) / whole
        sizes = _per_sample(map(np.abs, arrays), samples) / np.abs(whole)
        alike = _alike(written, feeds, values, provider)
        drawn = _drawn(written, feeds, values)
    return Audit(
        model=name,
        explainer=explainer_name,
        version=written.contract.version,
        provider=provider,
        samples=len(next(iter(feeds.values()))),
        targets=start.targets,
        contrast=written.contract.contrast,
        yields=written.contract.yields,
        score=start.total,
        scale=start.scale,
        heatmap=float(heatmap),
        shares=tuple(map(float, shares)),
        sizes=tuple(map(float, sizes)),
        alike=alike,
        drawn=drawn,
        bias_treatments=tuple(
            sorted(
                {
                    str(r.parameters["bias"])
                    for r in written.rules.values()
                    if "bias" in r.parameters
                }
            )
        ),
        precision=written.precision,
        outputs={key: _changed(inside[key], value) for key, value in alone.items()},
        noise=max((_changed(unfused[key], value) for key, value in alone.items()), default=0.0),
        start=recomputed.difference.get(score),
        layers=tuple(reversed(found)),
        special=_special(written, values),
        kernels=tuple(kernels.missing(written)),
        looked_up=len(kernels.run_each_time(written)),
        limits=tuple(limits(written)),
        scans=sum(node.op_type == "Scan" for node in written.emitted),
        seconds=time.perf_counter() - begun,
    )


def _per_sample(arrays: Iterable[Array], samples: int) -> Array:
    sums = [array.reshape(samples, -1).sum(axis=1, dtype=np.float64) for array in arrays]
    return np.asarray(np.sum(sums, axis=0))


def _alike(
    written: Written, feeds: Mapping[str, Array], values: Mapping[str, Array], provider: Provider
) -> float | None:
    """Correlate the maps of what is explained with those of the classes that score next; the least.

    None where no class can be chosen, or there is none but one.
    """
    chooses, score = written.contract.target_input, values[written.contract.score]
    scores = score.reshape(len(score), -1)
    if not chooses or written.contract.at or written.contract.signs or scores.shape[1] < 2:
        return None
    order = np.argsort(-scores, axis=1)
    target = np.where(feeds[chooses] < 0, order[:, 0], feeds[chooses])
    after = np.where(order[:, 0] == target, order[:, 1], order[:, 0])
    everything = written.contract.relevance.values()
    held = [name for name in everything if len(values[name]) == len(scores)]
    if not held:
        return None
    other = running.trace(written, {**feeds, chooses: after}, set(held), provider)
    maps = [
        np.concatenate([found[name].reshape(len(scores), -1) for name in held], axis=1)
        for found in (values, other)
    ]
    return min(float(np.corrcoef(*pair)[0, 1]) for pair in zip(*maps, strict=True))


def _drawn(
    written: Written, feeds: Mapping[str, Array], values: Mapping[str, Array]
) -> float | None:
    """Compare a class activation map with its definition, as a part of its largest value."""
    contract = written.contract
    if not contract.feature_maps:
        return None
    maps, gradient = values[contract.feature_maps], values[written.relevance[contract.feature_maps]]
    ((source, held),) = contract.relevance.items()
    # Each channel has the same part of the map.
    channel = 1 if not np.ptp(values[held], axis=1).any() else values[held].ndim - 1
    sizes = tuple(np.delete(feeds[source].shape, [0, channel]))
    wanted = reference.activation_map(contract.yields, maps, gradient, sizes)
    return _changed(values[held].sum(axis=channel, dtype=np.float64), wanted)


def _same_major(written: Written, name: str) -> None:
    theirs, ours = written.contract.version, version("onnxlrp")
    if theirs.split(".")[0] != ours.split(".")[0]:
        raise ModelError(
            f"{name} was written by onnxlrp {theirs}, and this is {ours}: check it with a version "
            f"{theirs.split('.')[0]}, or convert again"
        )


def _same_model(
    written: Written, source: Source, proto: onnx.ModelProto, name: str, explainer: str
) -> None:
    content = (
        proto.SerializeToString(deterministic=True)
        if isinstance(source, onnx.ModelProto)
        else Path(source).read_bytes()
    )
    given, stored = hashlib.sha256(content).hexdigest(), written.contract.model_sha256
    if given != stored:
        raise ModelError(
            f"{explainer} explains a model with SHA-256 {stored[:12]}..., but that of {name} is "
            f"{given[:12]}...: give the model it was made from, or convert again"
        )


def _feeds(written: Written, inputs: Any, random: int) -> dict[str, Array]:
    if inputs is None:
        return feeding.draw(written.inputs, random, written.contract.preprocessing)
    taken = feeding.load if isinstance(inputs, str | PathLike) else feeding.fitted
    feeds = taken(inputs, written.inputs)
    for name, array in feeds.items():
        check_content(name, array, name in written.contract.missing)
    return feeds


def _added(
    written: Written, target: int | Difference, feeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Feed what only relevance depends on: the target, weights, masks that let everything pass.

    A reference that is an input is the mean of what is explained.
    """
    shape = written.score.shape
    # One score may be of all that lies along axis 0, as of a recording.
    one = shape is not None and len(shape) > 0 and shape[0] == 1
    samples = 1 if one else len(next(iter(feeds.values())))
    found = {
        name: np.full(samples, target, np.int64)
        if name == written.contract.target_input
        else np.ones([size if isinstance(size, int) else 1 for size in tensor.shape], tensor.dtype)
        for name, tensor in written.added.items()
    }
    for source, name in written.contract.references.items():
        given = feeds[source]
        found[name] = np.broadcast_to(given.mean(), (1, *given.shape[1:])).astype(given.dtype)
    return found


def _changed(ours: Array, theirs: Array) -> float:
    """Largest difference as a part of the largest value; infinite where one alone is no number."""
    if not np.issubdtype(theirs.dtype, np.number) or ours.shape != theirs.shape:
        return 0.0 if np.array_equal(ours, theirs) else float("inf")
    if np.array_equal(ours, theirs, equal_nan=True):
        return 0.0
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    part = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))
    return part if np.isfinite(part) else float("inf")


def _layer(
    written: Written, entry: Entry, recomputed: Recomputed, values: Mapping[str, Array]
) -> Layer:
    bias = stabiliser = empty = beyond = 0.0
    judged = True
    for operation in entry.operations:
        division = entry.divisions.get(operation)
        taken = recomputed.taken.get(operation)
        if division is not None:
            bias += division.bias
            stabiliser += division.stabiliser
            empty += division.empty
            if taken is not None and written.distributes(operation):
                # What outputs without inputs, as in the gaps of a ConvTranspose, cannot spread.
                bias += taken.bias
        elif taken is not None:
            bias += taken.bias
            stabiliser += taken.stabiliser
        elif operation in recomputed.skipped and operation.operator in _ACCOUNTLESS:
            judged = False
        # Rules that conserve leave no more than float64's rounding.
        if taken is not None and abs(taken.beyond) > _CONSERVED * entry.size:
            beyond += taken.beyond
        if taken is not None and division is not None:
            # Where it is known that nothing can contribute, no division is written, and the
            # definition says that the stabiliser takes it.
            undivided = taken.relevance - division.relevance
            missing = taken.stabiliser - division.stabiliser
            if abs(missing - undivided) < abs(missing):
                stabiliser += undivided
                empty += undivided
    beyond += sum(recomputed.multiplied.get(v, 0.0) for v in entry.reads)
    differences = [recomputed.difference[v] for v in entry.reads if v in recomputed.difference]
    noise = max((recomputed.noise.get(v, 0.0) for v in entry.reads), default=0.0)
    shift = sum(recomputed.shift.get(v, 0.0) for v in entry.reads)
    rest = entry.incoming - entry.outgoing - bias - stabiliser - beyond
    spread = sum(np.abs(values[written.relevance[v]]).sum(dtype=np.float64) for v in entry.reads)
    return Layer(
        operations=tuple(_crossed(written, o, recomputed) for o in entry.operations),
        incoming=entry.incoming,
        outgoing=entry.outgoing,
        size=entry.size,
        spread=float(spread),
        bias=bias,
        stabiliser=stabiliser,
        empty=empty,
        beyond=beyond,
        unexplained=rest,
        rounding=shift,
        judged=judged,
        difference=max(differences, default=None),
        noise=noise,
        allowed=max(DIFFERENCE, written.precision, NOISE * noise),
    )


def _crossed(written: Written, operation: Operation, recomputed: Recomputed) -> Crossed:
    rule = written.rules[operation.name]
    return Crossed(
        operation.name,
        operation.operator,
        tuple(node.name or "" for node in operation.nodes if node is not operation.node),
        rule.name,
        dict(rule.parameters),
        recomputed.skipped.get(operation, ""),
    )


def _special(written: Written, values: Mapping[str, Array]) -> tuple[Special, ...]:
    found = []
    for value, held in written.relevance.items():
        array = values[held]
        tiny = np.finfo(array.dtype).smallest_normal
        with np.errstate(invalid="ignore"):
            denormal = np.count_nonzero((array != 0) & (np.abs(array) < tiny))
        entry = Special(
            value,
            int(np.isnan(array).sum()),
            int(np.isinf(array).sum()),
            int(denormal),
        )
        if entry.nan or entry.infinite or entry.denormal:
            found.append(entry)
    return tuple(found)
