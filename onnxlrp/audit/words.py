"""What an audit found, in words: what is wrong, what is odd, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

from onnxlrp.audit.findings import (
    ALIKE,
    DIFFERENCE,
    EXPLODED,
    LEAK,
    NOISE,
    Audit,
    Finding,
    Layer,
)
from onnxlrp.audit.kernels import PROVIDERS, Missing
from onnxlrp.running.explanation import CANCELLING, strays

MENTIONED = 3
"""How many layers are named of those that have the same thing to tell."""

WORTH_TELLING = 0.05
"""Part of the score from which on an absorption is explained."""


def findings(audit: Audit) -> list[Finding]:
    """Explain what is wrong or odd; failures come first."""
    found = [
        *_failures(audit),
        *_warnings(audit),
        *_doubts(audit),
        *_kernels(audit),
        *_limits(audit),
        *_scans(audit),
    ]
    # Where relevance explodes, what is absorbed is a remainder of cancellation and tells nothing; a
    # gradient is no part of the score.
    if not audit.explodes and not audit.sensitivity:
        found += _absorptions(audit)
    order = {"failure": 0, "warning": 1, "doubt": 2, "note": 3}
    return sorted(found, key=lambda finding: order[finding.kind])


def verdict(audit: Audit) -> list[str]:
    """Say what was looked at and how it came out, a line for each kind of check."""
    chosen = ", ".join(map(str, sorted(set(audit.targets))))
    if any(isinstance(target, str) for target in audit.targets):
        classes = "difference of scores"
    else:
        classes = "class" if len(set(audit.targets)) == 1 else "classes"
    if audit.contrast:
        chosen += f" contrasted to {audit.contrast}"
    inputs = "1 input" if audit.samples == 1 else f"{audit.samples} inputs"
    return [
        f"{audit.explainer} (onnxlrp {audit.version}) of {audit.model}: {inputs}, "
        f"{classes} {chosen}, on {PROVIDERS[audit.provider]}",
        _outputs(audit),
        _recomputed(audit),
        _looked_up(audit),
        _shares(audit),
    ]


def _outputs(audit: Audit) -> str:
    worst = max(audit.outputs.values(), default=0.0)
    if worst == 0:
        return "Outputs: bit for bit those of the model alone"
    if not worst <= audit.allowed_change:
        return f"Outputs: not those of the model alone, off by {worst:.1e} of the largest value"
    return f"Outputs: those of the model alone, up to {worst:.1e} of the largest value"


def _recomputed(audit: Audit) -> str:
    crossed = [operation for layer in audit.layers for operation in layer.operations]
    done = sum(not operation.skipped for operation in crossed)
    compared = [layer for layer in audit.layers if layer.difference is not None]
    if not compared:
        return f"Layers: none of {len(crossed)} nodes could be recomputed"
    off = max(compared, key=lambda layer: layer.difference or 0.0)
    leak = max(audit.layers, key=lambda layer: layer.leak)
    return (
        f"Layers: {done} of {len(crossed)} nodes recomputed in float64; at most "
        f"{off.difference:.1e} of max |R| off ({off.name}); at most {leak.leak:.1e} of the sum of "
        f"|R| unexplained ({leak.name})"
    )


def _looked_up(audit: Audit) -> str:
    whole = [
        called
        for provider, called in PROVIDERS.items()
        if not any(entry.provider == provider for entry in audit.kernels)
    ]
    told = f"kernels for all of them in {', '.join(whole)}" if whole else "no provider has them all"
    return (
        f"Kernels: {audit.looked_up} nodes written that run each time, looked up in onnxruntime's "
        f"tables (not run; WebGPU's tells no types): {told}"
    )


def _shares(audit: Audit) -> str:
    layers = audit.layers
    if audit.sensitivity:
        exact = "" if audit.drawn is None else f" ({audit.drawn:.1e} off its definition)"
        return f"Map: {audit.yields}{exact}, no part of the score: it need not add up to it"
    if audit.explodes:
        return f"Score: {audit.score:.4g}; relevance explodes on its way"
    amounts = {
        "arrives at the input": audit.heatmap,
        "stays in biases": sum(layer.bias for layer in layers),
        "stays in stabilisers": sum(layer.stabiliser for layer in layers),
        "is dropped by rules that do not conserve": sum(layer.beyond for layer in layers),
        "is unexplained": sum(layer.unexplained for layer in layers),
    }
    told = [
        f"{percent(audit.share(amount))} {words}"
        for words, amount in amounts.items()
        if words.startswith("arrives") or abs(audit.share(amount)) >= 5e-4
    ]
    if audit.contrast:
        return f"Contrast: of {audit.scale:.4g} for and as much against, {', '.join(told)}"
    return f"Score: of {audit.score:.4g}, {', '.join(told)}"


def percent(part: float) -> str:
    """Write a part as a percentage, with as many digits as it takes to see it."""
    if abs(part) < 5e-6:
        return "0 %"
    if part != part or abs(part) >= 100:
        return f"{part * 100:.2g} %"
    return f"{part * 100:.{0 if abs(part) >= 0.0995 else 1 if abs(part) >= 5e-4 else 3}f} %"


def _failures(audit: Audit) -> Iterator[Finding]:
    for name, difference in audit.outputs.items():
        if not difference <= audit.allowed_change:
            yield Finding(
                "failure",
                f"output '{name}' is not the model's: it differs by {difference:.1e} of its "
                f"largest value ({audit.allowed_change:.0e} is allowed)",
            )
    if audit.start is not None and not audit.start <= max(DIFFERENCE, audit.precision):
        yield Finding(
            "failure", f"relevance starts from something else than the score ({audit.start:.1e})"
        )
    if audit.drawn is not None and not audit.drawn <= max(DIFFERENCE, audit.precision):
        yield Finding(
            "failure",
            f"the map differs by {audit.drawn:.1e} of its largest value from {audit.yields}'s "
            f"definition in float64 ({DIFFERENCE:.0e} is allowed)",
        )
    for entry in audit.special:
        if entry.nan or entry.infinite:
            yield Finding(
                "failure",
                f"relevance of '{entry.value}' holds {entry.nan} NaN, {entry.infinite} infinities",
            )
    for layer in audit.layers:
        if layer.leaks:
            yield Finding(
                "failure",
                f"{layer.name}: {layer.leak:.1e} of its sum of |R| is unexplained by biases and "
                f"stabilisers ({LEAK:.0e} is allowed)",
            )
    for layer in audit.layers:
        if layer.differs and layer.difference is not None:
            yield Finding(
                "failure",
                f"{layer.name}: differs by {layer.difference:.1e} of max |R| from its definition "
                f"({layer.rules}) in float64 ({layer.allowed:.1e} is allowed)",
            )


def _doubts(audit: Audit) -> Iterator[Finding]:
    if not audit.contrast and not audit.sensitivity:
        lost = [share for share in audit.shares if strays(share)]
        large = [size for size in audit.sizes if size > CANCELLING]
        if lost:
            yield Finding(
                "doubt",
                f"for {len(lost)} of {audit.samples} samples the map accounts for less than half "
                f"or more than twice of the score ({median(lost):.1%} in the middle): what biases "
                "hold, convert --reference leaves to the input",
            )
        elif large and not audit.explodes:
            yield Finding(
                "doubt",
                f"for {len(large)} of {audit.samples} samples relevance at the input is more than "
                f"{CANCELLING:.0f} times the score ({median(large):.0f} in the middle), and "
                "cancels: a rule that bounds it, such as z-plus or gamma, says more",
            )
    if audit.alike is not None and audit.alike > ALIKE:
        yield Finding(
            "doubt",
            f"the map hardly depends on the class: it correlates by {audit.alike:.3f} with that of "
            "the class that scores next; --target A-B or --contrast others tells them apart",
        )


def _warnings(audit: Audit) -> Iterator[Finding]:
    if exploded := audit.explodes:
        worst = max(exploded, key=lambda layer: layer.spread)
        advice = "a rule without cancellation, such as z-plus, or a larger epsilon bounds it"
        if set(audit.bias_treatments) & {"exclude", "distribute"}:
            advice = (
                "under the epsilon rule residual networks do that unless their biases absorb: try "
                "--set bias=absorb, or a composite with z-plus on convolutions"
            )
        yield Finding(
            "warning",
            f"relevance explodes: from {exploded[0].name} on the sum of |R| is more than "
            f"{EXPLODED:.0e} times the score, {worst.spread / audit.scale:.1e} times at "
            f"{worst.name}, so the map is what is left of large numbers that cancel; {advice}",
        )
    rounded = [
        f"{layer.name} ({layer.difference:.1e}; rounding moves it by {layer.noise:.1e})"
        for layer in audit.layers
        if layer.difference is not None
        and layer.difference > max(DIFFERENCE, audit.precision)
        and not layer.differs
    ]
    if rounded:
        yield Finding(
            "warning",
            f"more than {DIFFERENCE:.0e} of max |R| off float64, but not more than {NOISE} times "
            f"what rounding the layer's inputs does to its definition: {_some(rounded)}; "
            "denominators nearly cancel there, and a larger epsilon would steady them",
        )
    reasons: dict[str, list[str]] = {}
    for layer in audit.layers:
        for operation in layer.operations:
            if operation.skipped:
                reasons.setdefault(operation.skipped, []).append(operation.name)
    for reason, names in reasons.items():
        yield Finding("warning", f"not recomputed: {_some(names)} ({reason})")
    unjudged = [layer.name for layer in audit.layers if not layer.judged and layer.leak > LEAK]
    if unjudged and not audit.sensitivity:
        yield Finding(
            "warning",
            f"relevance is unexplained at {_some(unjudged)}, which may be as the rule wants it: "
            "what it takes is only known where it is recomputed",
        )
    denormal = sum(entry.denormal for entry in audit.special)
    if denormal:
        where = _some([entry.value for entry in audit.special if entry.denormal])
        yield Finding(
            "note",
            f"{denormal} elements of relevance are denormal (in {where}): no harm to the map, but "
            "CPUs are slow on them",
        )


def _absorptions(audit: Audit) -> Iterator[Finding]:
    with_bias = [layer for layer in audit.layers if _treats_bias(layer)]
    constant = [layer for layer in audit.layers if layer not in with_bias]
    empty = [layer for layer in audit.layers if abs(layer.empty) >= abs(layer.stabiliser) / 2]
    damped = [layer for layer in audit.layers if layer not in empty]
    told: list[tuple[list[Layer], Callable[[Layer], float], str, str]] = [
        (
            with_bias,
            lambda layer: layer.bias,
            "is in biases",
            "it does not reach the input; consider --set bias=distribute, which spreads it over "
            "the inputs of its layer (bias=exclude leaves biases out; under the epsilon rule both "
            "can make maps of residual networks explode)",
        ),
        (
            constant,
            lambda layer: layer.bias,
            "is in constants that the network adds",
            "it does not reach the input",
        ),
        (
            empty,
            lambda layer: layer.stabiliser,
            "reaches outputs to which nothing contributes under their rule",
            "it ends there",
        ),
        (
            damped,
            lambda layer: layer.stabiliser,
            "stays in stabilisers",
            f"{_stabilisers(damped)} is large beside the denominators: try a smaller one",
        ),
    ]
    for layers, amount, where, advice in told:
        large = [n for n in layers if abs(audit.share(amount(n))) >= WORTH_TELLING]
        if large:
            total = percent(audit.share(sum(amount(layer) for layer in layers)))
            worst = sorted(large, key=lambda layer: -abs(amount(layer)))[:MENTIONED]
            at = ", ".join(_at(audit, layer, amount(layer)) for layer in worst)
            yield Finding("note", f"{total} of the score {where}, most at {at}: {advice}")


def _treats_bias(layer: Layer) -> bool:
    return any(operation.parameters.get("bias") == "absorb" for operation in layer.operations)


def _at(audit: Audit, layer: Layer, amount: float) -> str:
    """Name a layer, with what part of the score and of its own relevance an amount is."""
    own = amount / layer.incoming if layer.incoming > 0 else 0.0
    score = percent(audit.share(amount))
    if not 0 < own <= 1 or percent(own) == score:
        return f"{layer.name} ({score})"
    return f"{layer.name} ({score}; {percent(own)} of the evidence there)"


def _stabilisers(layers: list[Layer]) -> str:
    used = {
        f"{key}={operation.parameters[key]:g}"
        for layer in layers
        for operation in layer.operations
        for key in ("epsilon", "stabiliser")
        if key in operation.parameters
    }
    return " or ".join(sorted(used)) or "the stabiliser"


def _kernels(audit: Audit) -> Iterator[Finding]:
    for provider, called in PROVIDERS.items():
        absent = [entry for entry in audit.kernels if entry.provider == provider]
        if not absent:
            continue
        count = sum(entry.count for entry in absent)
        listed = "; ".join(_kernel(entry) for entry in absent)
        remedy = "cannot run there" if provider == "cpu" else "fall back to the CPU, with copies"
        yield Finding(
            "note",
            f"{count} of the {audit.looked_up} nodes have no {called} kernel in onnxruntime and "
            f"{remedy}: {listed}",
        )


def _limits(audit: Audit) -> Iterator[Finding]:
    for limit in audit.limits:
        nodes, operator = _some(list(limit.nodes)), limit.operator.replace("*", "any node")
        what = f"{operator} with {limit.condition}"
        if limit.outcome == "none":
            told = f"no browser opens this file: there {what} has no kernel at all"
        else:
            outcome = {
                "refused": "refuses",
                "refused-without-f16": "refuses, on a GPU without shader-f16,",
                "wrong": "computes wrong numbers, without an error, of",
            }
            told = (
                f"in a browser WebGPU by {limit.package} {outcome[limit.outcome]} {what}; by "
                "WebAssembly it runs, slower"
            )
            if limit.package.endswith("webgpu"):
                told += ", as the page of `onnxlrp serve` then does by itself"
        yield Finding("note", f"{told}: {nodes}")


def _scans(audit: Audit) -> Iterator[Finding]:
    if audit.scans:
        yield Finding(
            "note",
            f"recurrent layers go step by step, in {audit.scans} Scans: TensorRT takes those for "
            "loops, onnxruntime-web runs them on the CPU, and what knows no subgraphs cannot load "
            "this file",
        )


def _kernel(entry: Missing) -> str:
    why = {
        "operator": "",
        "version": f" in version {entry.version}",
        "types": f" for {entry.types}",
    }[entry.cause]
    return f"{entry.operator}{why} ({entry.count})"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MENTIONED])
    return shown if len(names) <= MENTIONED else f"{shown} and {len(names) - MENTIONED} more"
