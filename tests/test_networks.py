"""Whole networks: the topologies of the model zoo, and real trained ones."""

from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation
from support import EXACT, SHARING, run, with_outputs

import onnxlrp
from onnxlrp import audit, reference
from onnxlrp.inputs.presets import PRESETS

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
ZOO = {
    "bvlc_alexnet": True, "densenet121": True, "inception_v1": True, "inception_v2": True,
    "resnet50": True, "shufflenet": False, "squeezenet": False, "vgg19": True, "zfnet512": True,
}  # fmt: skip
"""Every light topology in the onnx wheel, and whether it takes long."""

SHARED = Path(__file__).parents[2] / "shared"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the trained networks of the development machine"
)


def with_random_weights(name: str, bias: float) -> onnx.ModelProto:
    """Fill a topology, whose weights are all 0.02, with weights and biases that keep its scale."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    random = np.random.default_rng(0)
    sizes = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    roles = {}
    for node in model.graph.node:
        for position, value in enumerate(node.input):
            roles[value] = (node, position)
    kept, filled = [], []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(int(d) for d in sizes[node.input[0]])
        user, position = roles.get(node.output[0], (None, 0))
        array = random.normal(size=shape) * bias
        if user is not None and user.op_type in ("Conv", "Gemm") and position == 1:
            fan_in = np.prod(shape[1:])
            array = random.normal(size=shape) * np.sqrt(2 / fan_in)
        elif user is not None and user.op_type == "BatchNormalization" and position in (1, 4):
            array = random.uniform(0.5, 1.5, shape)
        elif user is not None and user.op_type in ("Mul", "Unsqueeze") and len(shape) <= 1:
            array = random.uniform(0.5, 1.5, shape) if user.op_type == "Mul" else array + 1
        filled.append(onnx.numpy_helper.from_array(array.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(filled)
    for tensor in filled:
        if tensor.name not in {i.name for i in model.graph.input}:
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return model


def balance(explainer, feeds):
    """Account for all relevance of an explainer on one input."""
    written = audit.read(explainer)
    return audit.balance(written, audit.trace(written, feeds, audit.terms(written)))


@pytest.mark.parametrize("treatment", ["absorb", "exclude"])
@pytest.mark.parametrize("bias", [0.0, 0.1], ids=["no bias", "biased"])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if slow else ()) for n, slow in ZOO.items()]
)
def test_relevance_adds_up_in_every_layer(name, bias, treatment):
    model = with_random_weights(name, bias)
    composite = onnxlrp.Composite.load("epsilon_plus").with_parameters({"bias": treatment})
    explainer = onnxlrp.convert(model, composite).to_proto()
    onnx.checker.check_model(explainer, full_check=True)
    inputs = [i for i in explainer.graph.input if i.name != "target"]
    shape = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim]
    x = {inputs[0].name: np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    ours, theirs = run(explainer, {**x, "target": np.array([-1])}), run(model, x)
    for output, value in theirs.items():
        assert np.abs(ours[output] - value).max() <= 1e-5 * np.abs(value).max()
    entries = balance(explainer, {**x, "target": np.array([-1])})
    worst = max(entries, key=lambda entry: entry.leak)
    assert worst.leak <= 1e-5, worst
    assert len(entries) > 10


def test_a_leak_is_seen():
    """The negative control: relevance that grows by a thousandth on its way is reported."""
    model = with_random_weights("squeezenet", 0.1)
    explainer = onnxlrp.convert(model, "epsilon_plus").to_proto()
    concat = [node.output[0] for node in explainer.graph.node if node.op_type == "Concat"][2]
    name = f"onnxlrp/relevance/{concat}"
    producer = next(node for node in explainer.graph.node if name in node.output)
    producer.output[0] = "before"
    factor = onnx.numpy_helper.from_array(np.float32(1.001), "factor")
    explainer.graph.initializer.append(factor)
    position = list(explainer.graph.node).index(producer)
    explainer.graph.node.insert(
        position + 1, onnx.helper.make_node("Mul", ["before", "factor"], [name], name="onnxlrp/x")
    )
    x = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
    entries = balance(explainer, {"data_0": x, "target": np.array([-1])})
    leaking = [entry for entry in entries if entry.leak > 1e-5]
    assert len(leaking) == 1
    assert leaking[0].leak == pytest.approx(5e-4, rel=0.05)


COMPOSITES = [composite.name for composite in SHARING]


def images(network, count):
    """Feed what each trained network was made for."""
    if network == "cifar10_resnet20_bn":
        pixels = np.load(SHARED / "data/cifar10_test.npz")["x"][:count] / 255.0
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return ((pixels - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    files = sorted((SHARED / "data/imagenet100").iterdir())[:count]
    pixels = [np.asarray(Image.open(f).convert("RGB"), np.float32)[16:240, 16:240] for f in files]
    return (np.stack(pixels)[..., ::-1] - (104, 117, 123)).transpose(0, 3, 1, 2).astype(np.float32)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize(
    "network", ["cifar10_resnet20_bn", "squeezenet_winml_fp32", "googlenet_bvlc"]
)
def test_trained_networks_add_up(network, composite):
    path = SHARED / f"models/{network}.onnx"
    model = onnx.load(path)
    x = {model.graph.input[0].name: images(network, 2)}
    prepared = PRESETS["imagenet" if network.startswith("cifar") else "imagenet-caffe"]
    explainer = onnxlrp.convert(path, composite, preprocessing=prepared).to_proto()
    feeds = {**x, "target": np.array([-1])}
    ours, theirs = run(explainer, feeds), run(model, x)
    assert np.abs(ours["logits"] - theirs["logits"]).max() <= 1e-5 * np.abs(theirs["logits"]).max()
    worst = max(balance(explainer, feeds), key=lambda entry: entry.leak)
    assert worst.leak <= 1e-4, worst


def line_of_text(text, turned):
    """Draw a line of text as the model of its direction reads it, and where its ink is."""
    picture = Image.new("L", (192, 48), "white")
    font = ImageFont.load_default(30)
    ImageDraw.Draw(picture).text((8, 6), text, font=font, fill="black")
    pixels = np.asarray(picture.rotate(180 * turned), np.float32) / 255
    return np.broadcast_to(2 * pixels - 1, (3, 48, 192)), binary_dilation(
        pixels < 0.8, iterations=3
    )


@needs_shared
def test_the_direction_of_a_text_is_seen_in_its_letters():
    """Squeeze-and-excitation and hard swish, undecomposed: a real network of PaddleOCR.

    The reference of a text is the empty, white page: against grey, paper speaks as well.
    """
    path = SHARED / "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
    drawn = [line_of_text("Hello 2745", False), line_of_text("pay 19.50", True)]
    x = np.stack([picture for picture, _ in drawn])
    least = {"epsilon_plus_even": (None, 0.75), "default": (np.ones(1), 0.99)}
    for composite, (root, part) in least.items():
        explainer = onnxlrp.convert(path, composite, reference=root).to_proto()
        checked = audit.check(path, explainer, x)
        assert checked.passed
        assert checked.targets == (0, 1)
        feeds = {explainer.graph.input[0].name: x, "target": np.array([-1])}
        relevance = np.abs(run(explainer, feeds)["relevance"]).sum(1)
        for found, (_, letters) in zip(relevance, drawn, strict=True):
            assert letters.mean() < 0.35
            assert found[letters].sum() > part * found.sum()


MOBILE = {
    "efficientnet_lite0": (224, 127, 128),
    "mobilenet_v1_0.5_160_quant_f32": (160, 127.5, 127.5),
}
"""By file, the size of its input, and the mean and scale of its pixels."""


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("composite", ["default", "attn_lrp"])
@pytest.mark.parametrize("network", MOBILE)
def test_mobile_networks_pass_the_audit(network, composite):
    path, (size, mean, scale) = SHARED / f"models/{network}.onnx", MOBILE[network]
    picture = Image.open(sorted((SHARED / "data/imagenet100").iterdir())[3]).convert("RGB")
    pixels = np.asarray(picture.resize((size, size)), np.float32)
    x = ((pixels - mean) / scale).transpose(2, 0, 1)[None]
    checked = audit.check(path, onnxlrp.convert(path, composite).to_proto(), x)
    assert checked.passed
    assert not any(o.skipped for layer in checked.layers for o in layer.operations)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "epsilon_alpha2_beta1"])
def test_every_layer_of_googlenet_is_as_defined(composite):
    """Each node's relevance recomputed in float64 from the values on both sides of it."""
    model = onnx.load(SHARED / "models/googlenet_bvlc.onnx")
    model = onnx.version_converter.convert_version(model, 18)
    names = [name for node in model.graph.node for name in node.output if name != "logits"]
    conversion = onnxlrp.convert(model, composite, intermediates=names)
    explainer = with_outputs(conversion.to_proto(), names)
    x = {"data": images("googlenet_bvlc", 1)}
    relevance = run(explainer, {**x, "target": np.array([-1])})
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    values = {**weights, **x, **relevance}
    rules = {n.name: (n.rule, dict(n.parameters)) for n in conversion.nodes}
    known = {n: relevance[f"onnxlrp/relevance/{n}"].astype(np.float64) for n in names}
    known["data"] = relevance["relevance"].astype(np.float64)
    known["logits"] = reference.start(values["logits"], -1)
    live = reference.live_names(model, ["data"])
    messages: dict[str, np.ndarray] = {}
    for node in model.graph.node:
        rule, parameters = rules[node.name] if rules[node.name][0] else ("pass", {})
        result = reference.propagate(
            node,
            [values[name] if name else None for name in node.input],
            [known[node.output[0]], *[None] * (len(node.output) - 1)],
            rule,
            parameters,
            [name in live for name in node.input],
        )
        for name, part in zip(node.input, result.relevance, strict=True):
            if part is not None:
                messages[name] = messages[name] + part if name in messages else part
    for name, wanted in messages.items():
        worst = np.abs(known[name] - wanted).max() / np.abs(wanted).max()
        assert worst <= EXACT, f"{name}: {worst:.2e}"
