"""Writes docs/rules.md, and a picture of each rule, from the code that computes them.

    python docs/make_rules.py

A test holds the text against the code, so that it cannot drift.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

import onnxlrp
from onnxlrp.compiler.composite import DOMAINS, available
from onnxlrp.compiler.start import Start
from onnxlrp.demo import PREPROCESSING
from onnxlrp.drawing.heatmap import heatmap
from onnxlrp.propagation import (
    elementwise,
    formulas,
    kernels,
    moments,
    normalization,
    pooling,
    products,
    trees,
)
from onnxlrp.propagation.registry import OPERATORS

HERE = Path(__file__).parent
PICTURES = HERE / "rules"

INTRODUCTION = """\
# Rules and composites

Written by `docs/make_rules.py` from the code. Notation: a layer computes z_j = sum_i z_ij + b_j
with z_ij = x_i w_ij; ⁺ and ⁻ are max(., 0) and min(., 0); stab(d) = d + epsilon sign(d), sign(0)
= +1. The pictures are the demo's: the bundled network's relevance for "cat", the rule on its
convolutions (or normalisations, or max pooling), `epsilon` on the dense layer.

**Bias.** A parameter of every rule whose denominator has one: `absorb` (it takes part and keeps
its share, zennit), `exclude` (it is left out, Binder et al. 2016, eq. 5), `distribute` (its share
is spread evenly over the connected inputs).

**Stabiliser.** Called `epsilon` for the epsilon rule and `stabiliser` for all others, as zennit
has two.

**Products.** A product of two live values is a `Gate` where one operand is bounded by how it is
computed (Sigmoid, Softmax, Tanh, ...) or divides, a `Mixture` where it is a matrix product by such
(attention), else a `Product` or `MatrixProduct`. Layer-, RMS-, Instance-, Group-, MeanVariance- and
LpNormalization are linear once their deviation is fixed, and take every rule for linear layers
(Achtibat et al. 2024, prop. 3.4).

**Recurrent layers.** LSTM, GRU and RNN are crossed as the steps that they are short for: what is
linear by epsilon, a gate times a signal by the rule, `signal` (all to the signal, Arras et al.
2017) unless a line says `uniform`: [recurrent.md](recurrent.md).

**What leaves no choice.** A function of one live value, elementwise (activations, Exp, Log, Sqrt,
Pow with a constant, c / x, trigonometric functions, Round, Sign, ...), passes relevance on, as
zennit and LXT do, unless a line gives it `gradient`, `guided` or `deconvnet`; what compares
or counts (Equal, IsNaN, ArgMax, Shape) carries none. Max and Min
of live values: the first of the largest takes all; with a constant they are a Clip. ReduceProd:
`uniform`. Reductions that ONNX defines by others follow these: ReduceL1 shares in proportion to
|x|, ReduceL2 and ReduceSumSquare to x², ReduceLogSum to x, ReduceLogSumExp to exp(x), its softmax.
Resize and CumSum are linear layers; by default they share as `norm` does, in every mode. Pad that
repeats (edge, reflect, wrap) gives an element what its copies got.

**`taylor`, one strategy for all that multiplies** (Binder et al. 2016, eqs. 8 to 10, 3 and 7):
expand the layer at x to first order, towards a point where part of x is gone; give what is left
there to who is left, and to each other its slope times its value; divide by the sum. On LRN this is
the seed paper. Caffe's normalisation within channels and GDN are recognised and are an `LRN` too.
On x / |x| and the normalisations by deviation it is the same formula, everything being a neighbour.
On a `Gate` or `Mixture` it is `signal`, on a `Product` or `MatrixProduct` `uniform`, on a softmax
AttnLRP's rule, which leaves out the division (`bias = "absorb"`).

**Trees** are no layers, and what crosses them is not LRP: a score is a mean and what features add
to it, by `treeshap` (the default) or `saabas`, and relevance is shared out along these terms. The
mean is that of the leaves, which count alike unless the file says in `nodes_hitrates` how many
samples reached each: exporters write ones there, so that without a reference the terms are not
those of `shap` or treeinterpreter, which know the training samples. With `--reference` nothing of
training is needed, and `treeshap` is SHAP's interventional value. A class whose score is exactly 0
has no relevance to share out.

**Where peers are wrong or undefined.** A plain `+` in zennit gives both branches all relevance;
here a sum shares in proportion. zennit takes the first layer in definition order; here it is
every layer that the input reaches with no other layer between. zennit's `Gamma` drops relevance
at z = 0; here it counts as positive. zennit passes LRN's gradient on without a word; here it is
`taylor`.
"""


def rules() -> dict[str, tuple[Callable[..., Any], Mapping[str, Any], str]]:
    """Every rule: what computes it, its parameters, and the line that shows it in a picture."""
    found: dict[str, tuple[Callable[..., Any], Mapping[str, Any], str]] = {}
    for name, rule in formulas.RULES.items():
        if rule.formula is not None:
            bounds = " low=-126 high=142" if name == "z-box" else ""
            first = "Conv first" if name in ("flat", "w-square", "z-box") else "Conv"
            found[name] = rule.formula, rule.defaults, f"{first}: {name}{bounds}"
    for name, treatment in normalization.TREATMENTS.items():
        found[f"LRN {name}"] = treatment, OPERATORS["LRN"].rules[name], f"LRN: {name}"
    maxima = {
        "winner-takes-all": pooling.winner_takes_all,
        "proportional": pooling.proportional,
    }
    for name, maximum in maxima.items():
        found[f"MaxPool {name}"] = maximum, OPERATORS["MaxPool"].rules[name], f"MaxPool: {name}"
    for name, treatment in products.TREATMENTS.items():
        found[f"product {name}"] = treatment, OPERATORS["Mixture"].rules[name], ""
    for name, treatment in elementwise.TREATMENTS.items():
        if name != "gradient":
            found[f"activation {name}"] = treatment, OPERATORS["Relu"].rules[name], f"Relu: {name}"
    own = OPERATORS["LayerNormalization"].rules["taylor"]
    found["normalisation taylor"] = moments.taylor, own, ""
    for name, terms in trees.TREATMENTS.items():
        found[f"trees {name}"] = terms, OPERATORS["ai.onnx.ml::TreeEnsemble"].rules[name], ""
    radial = OPERATORS["ai.onnx.ml::SVMRegressor"].rules["log-ratio"]
    found["SVM log-ratio"] = kernels.radial, radial, ""
    found["Softmax taylor"] = products.softmax, OPERATORS["Softmax"].rules["taylor"], ""
    return found


def text() -> str:
    """Return docs/rules.md."""
    parts = [INTRODUCTION, f"## Where relevance starts\n\n{_start()}", "## Rules\n"]
    for name, (formula, defaults, line) in rules().items():
        docstring = inspect.getdoc(formula) or ""
        for label in ("Equals:", "Use:"):
            assert label in docstring, f"{name} does not say {label}"
        given = "; ".join(
            f"`{key} = {value}`" + (f", {DOMAINS[key][0]}" if key in DOMAINS else "")
            for key, value in defaults.items()
        )
        body = re.sub(r"\n(Equals|Use):", r"\n- **\1:**", docstring)
        file = f"rules/{name.replace(' ', '_')}.png"
        # The demo's network has no products.
        shown = f"\n![{name}]({file})\n" if line else ""
        parts.append(f"### {name}\n\n{body}\n- **Parameters:** {given or 'none'}\n{shown}")
    parts.append("## Composites\n")
    for composite in available():
        parts.append(
            f"### {composite.name}\n\n{composite.description}.\n\n- **Use:** {composite.good_for}\n"
            f"- **Source:** {composite.source}\n\n```toml\n{_lines(composite)}\n```\n\n"
            f"![{composite.name}](rules/composite_{composite.name}.png)\n"
        )
    return "\n".join(parts)


def _start() -> str:
    """Return what the class says that holds it, without its first line and its attributes."""
    whole = inspect.getdoc(Start) or ""
    return whole[whole.index("\n\n") : whole.index("Attributes")].strip() + "\n"


def _lines(composite: onnxlrp.Composite) -> str:
    source = resources.files("onnxlrp.composites").joinpath(f"{composite.name}.toml")
    whole = source.read_text("utf-8")
    told = re.search(r"^(yields|reference|\[)", whole, re.MULTILINE)
    assert told is not None
    return whole[told.start() :].strip()


def draw(name: str, composite: onnxlrp.Composite) -> None:
    """Write the picture of a composite."""
    bundled = resources.files("onnxlrp.bundled")
    root = "zero" if composite.reference.get("") == "input" else None
    with resources.as_file(bundled.joinpath("cifar10_lrn.onnx")) as model:
        conversion = onnxlrp.convert(model, composite, preprocessing=PREPROCESSING, reference=root)
    with bundled.joinpath("demo.png").open("rb") as file:
        x = PREPROCESSING(Image.open(file))[None]
    with tempfile.TemporaryDirectory() as folder:
        conversion.save(Path(folder) / "explainer.onnx")
        relevance = onnxlrp.Explainer(Path(folder) / "explainer.onnx")(x).relevance
    picture = heatmap(relevance[0]).resize((128, 128), Image.Resampling.NEAREST)
    keep(picture.quantize(64), PICTURES / f"{name.replace(' ', '_')}.png")


def keep(picture: Image.Image, path: Path) -> None:
    """Write a picture, unless the file shows the same pixels already."""
    if path.exists():
        with Image.open(path) as there:
            before = there.convert("RGB")
        if before.size == picture.size and before.tobytes() == picture.convert("RGB").tobytes():
            return
    picture.save(path, optimize=True)


def main() -> None:
    """Write what changed of the document and its pictures."""
    PICTURES.mkdir(exist_ok=True)
    described = HERE / "rules.md"
    if described.read_text("utf-8") != text():
        described.write_text(text(), "utf-8")
    base = onnxlrp.Composite.load("epsilon_plus")
    for name, (_, _, line) in rules().items():
        if line:
            draw(name, base.with_lines([line]))
    for composite in available():
        draw(f"composite_{composite.name}", composite)


if __name__ == "__main__":
    main()
