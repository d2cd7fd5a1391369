"""Composites: what ships, what a file may say, and how mistakes are reported."""

import numpy as np
import pytest
from support import lines, model, node, normal, run

import onnxlrp
from onnxlrp.cli import tables
from onnxlrp.compiler.composite import Composite, available
from onnxlrp.errors import CompositeError
from onnxlrp.inputs.presets import PRESETS

SHIPPED = [
    "attn_lrp",
    "binder2016_beta",
    "binder2016_epsilon",
    "cp_lrp",
    "deconvnet",
    "deep_taylor",
    "deep_taylor_bounded",
    "deeplift",
    "deepshap",
    "default",
    "epsilon",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_gamma_even",
    "epsilon_plus",
    "epsilon_plus_even",
    "epsilon_plus_flat",
    "epsilon_plus_flat_exclude",
    "excitation_backprop",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient",
    "gradient_x_input",
    "guided_backprop",
    "hires_cam",
    "integrated_gradients",
    "sequential_preset_a",
    "sequential_preset_a_flat",
    "sequential_preset_b",
    "sequential_preset_b_flat",
    "smooth_grad",
]

WEIGHTS = {
    "w1": normal(4, 3, 3, 3),
    "w2": normal(4, 4, 3, 3),
    "w3": normal(4, 5),
    "w4": normal(5, 3),
    "t": normal(4, 6, 6, seed=1),
}
NETWORK = [
    node("Conv", ["x", "w1"], "c1"),
    node("LRN", ["c1"], "n1", size=3),
    node("MaxPool", ["n1"], "p1", kernel_shape=[2, 2], strides=[1, 1]),
    node("Conv", ["p1", "w2"], "c2", pads=[1, 1, 1, 1]),
    node("Add", ["c2", "p1"], "s1"),
    node("GlobalAveragePool", ["s1"], "g"),
    node("Flatten", ["g"], "f"),
    node("Gemm", ["f", "w3"], "d1"),
    node("Relu", ["d1"], "r1"),
    node("Gemm", ["r1", "w4"], "logits"),
]


def rules(composite):
    proto = model(NETWORK, {"x": ["N", 3, 9, 9]}, ["logits"], WEIGHTS)
    imagenet = PRESETS["imagenet"]
    found = onnxlrp.convert(proto, composite, preprocessing=imagenet).nodes
    return {n.name.removeprefix("node_"): n.rule for n in found if n.rule}


def test_what_ships():
    assert [composite.name for composite in available()] == SHIPPED
    assert all(c.description and c.good_for and c.source for c in available())


LAYER_MAPS = {
    "epsilon_plus_flat_exclude": ("flat", "z-plus", "epsilon"),
    "epsilon_gamma_box": ("z-box", "gamma", "epsilon"),
    "epsilon_plus_even": ("even", "z-plus", "epsilon"),
    "epsilon_gamma_even": ("even", "gamma", "epsilon"),
    "excitation_backprop": ("z-plus", "z-plus", "z-plus"),
    "deep_taylor": ("w-square", "z-plus", "z-plus"),
    "deep_taylor_bounded": ("z-box", "z-plus", "z-plus"),
    "sequential_preset_a": ("alpha-beta", "alpha-beta", "epsilon"),
    "sequential_preset_b": ("alpha-beta", "alpha-beta", "epsilon"),
    "sequential_preset_a_flat": ("flat", "alpha-beta", "epsilon"),
    "sequential_preset_b_flat": ("flat", "alpha-beta", "epsilon"),
    "epsilon_plus": ("z-plus", "z-plus", "epsilon"),
    "epsilon_plus_flat": ("flat", "z-plus", "epsilon"),
    "epsilon_alpha2_beta1": ("alpha-beta", "alpha-beta", "epsilon"),
    "epsilon_alpha2_beta1_flat": ("flat", "alpha-beta", "epsilon"),
    "epsilon": ("epsilon", "epsilon", "epsilon"),
}


@pytest.mark.parametrize("name", LAYER_MAPS)
def test_the_peers_layer_maps(name):
    first, convolution, dense = LAYER_MAPS[name]
    assert rules(name) == {
        "c1": first,
        "n1": "taylor",
        "p1": "winner-takes-all",
        "c2": convolution,
        "s1": "norm",
        "g": "norm",
        "d1": dense,
        "logits": dense,
    }


@pytest.mark.parametrize("name", ["epsilon", "beta"])
def test_the_papers_one_rule_for_all_layers_with_weights(name):
    """Means and sums share in proportion: beta would double relevance where nothing inhibits."""
    assert rules(f"binder2016_{name}") == {
        "c1": name,
        "n1": "taylor",
        "p1": "winner-takes-all",
        "c2": name,
        "s1": "norm",
        "g": "norm",
        "d1": name,
        "logits": name,
    }
    assert Composite.load(f"binder2016_{name}").parameters["bias"] == "exclude"


def test_the_default_leaves_biases_out_of_convolutions_alone():
    proto = model(NETWORK, {"x": ["N", 3, 9, 9]}, ["logits"], WEIGHTS)
    found = {n.name.removeprefix("node_"): n for n in onnxlrp.convert(proto).nodes}
    assert found["c2"].parameters["bias"] == "exclude"
    assert {found[name].parameters["bias"] for name in ("d1", "logits")} == {"absorb"}


def test_the_default_tells_the_inputs_of_a_table_apart():
    """Flat on a first dense layer would give all inputs the same."""
    body = [node("Gemm", ["x", "w3"], "logits")]
    proto = model(body, {"x": ["N", 4]}, ["logits"], {"w3": WEIGHTS["w3"]})
    assert {n.name: n.rule for n in onnxlrp.convert(proto).nodes} == {"node_logits": "epsilon"}


def test_bounds_follow_from_the_preprocessing():
    """(0 - mean) / std and (1 - mean) / std for values scaled to 0..1."""
    proto = model(NETWORK, {"x": ["N", 3, 9, 9]}, ["logits"], WEIGHTS)
    imagenet = PRESETS["imagenet"]
    found = onnxlrp.convert(proto, "epsilon_gamma_box", preprocessing=imagenet).nodes
    box = next(n for n in found if n.rule == "z-box")
    assert box.parameters["low"] == pytest.approx([-2.1179, -2.0357, -1.8044], abs=1e-4)
    assert box.parameters["high"] == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)
    with pytest.raises(onnxlrp.InputError, match="--set low"):
        onnxlrp.convert(proto, "epsilon_gamma_box")
    given = Composite.load("epsilon_gamma_box").with_parameters({"low": [-1, -2, -3], "high": 3})
    box = next(n for n in onnxlrp.convert(proto, given).nodes if n.rule == "z-box")
    assert (box.parameters["low"], box.parameters["high"]) == ([-1, -2, -3], 3)


def test_first_layers_are_those_that_the_input_reaches_and_not_those_written_first():
    body = [
        node("Conv", ["x", "w1"], "c1"),
        node("Conv", ["x", "w1"], "c2"),
        node("Add", ["c1", "c2"], "s"),
        node("Conv", ["s", "w2"], "c3"),
        node("GlobalAveragePool", ["c3"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "w3"], "d1"),
        node("Gemm", ["d1", "w4"], "logits"),
    ]
    proto = model(body, {"x": ["N", 3, 9, 9]}, ["logits"], WEIGHTS)
    composite = lines("first: flat", "last: z-plus", "*: epsilon")
    found = {n.name: n.rule for n in onnxlrp.convert(proto, composite).nodes if n.rule}
    assert found["node_c1"] == found["node_c2"] == "flat"
    assert found["node_c3"] == found["node_d1"] == "epsilon"
    assert found["node_logits"] == "z-plus"


def test_constants_in_front_of_the_first_layer_are_preprocessing():
    body = [
        node("Sub", ["x", "mean"], "centred"),
        node("Div", ["centred", "deviation"], "scaled"),
        node("Conv", ["scaled", "w1"], "c1", pads=[1, 1, 1, 1]),
        node("Add", ["c1", "t"], "shifted"),
        node("GlobalAveragePool", ["shifted"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "w3"], "d1"),
        node("Gemm", ["d1", "w4"], "logits"),
    ]
    weights = {**WEIGHTS, "mean": normal(3, 1, 1), "deviation": normal(3, 1, 1)}
    proto = model(body, {"x": ["N", 3, 6, 6]}, ["logits"], weights)
    found = {n.name: n.rule for n in onnxlrp.convert(proto, "epsilon_plus_flat").nodes}
    assert found["node_centred"] == found["node_scaled"] == "pass"
    assert found["node_shifted"] == "norm"
    assert found["node_c1"] == "flat"


def test_a_sum_of_live_values_is_no_preprocessing():
    """x + relu(x) in front of the first layer shares in proportion; only constants are passed."""
    body = [
        node("Relu", ["x"], "r"),
        node("Add", ["x", "r"], "s"),
        node("Flatten", ["s"], "f"),
        node("Gemm", ["f", "w"], "logits"),
    ]
    proto = model(body, {"x": ["N", 2, 2, 1]}, ["logits"], {"w": normal(4, 3)})
    found = {n.name: n.rule for n in onnxlrp.convert(proto, "epsilon").nodes}
    assert found["node_s"] == "norm"


def test_nodes_are_matched_by_name_with_wildcards():
    composite = Composite.load("epsilon").with_lines(["Gemm name=node_d*: z-plus"])
    assert rules(composite)["d1"] == "z-plus"
    assert rules(composite)["logits"] == "epsilon"


def test_the_first_line_that_matches_decides():
    rest = ("LRN: taylor", "MaxPool: winner-takes-all", "*: norm")
    assert rules(lines("Conv: flat", "Conv: z-plus", *rest))["c2"] == "flat"


def test_parameters_of_line_composite_and_set():
    composite = lines("Conv: epsilon epsilon=0.5", "*: epsilon")
    first, second = composite.lines
    assert composite.parameters_of(first, {"epsilon": 1.0})["epsilon"] == 0.5
    assert composite.parameters_of(second, {"epsilon": 1e-6})["epsilon"] == 1e-6
    overridden = composite.with_parameters({"epsilon": 2})
    assert [
        overridden.parameters_of(line, {"epsilon": 1.0})["epsilon"] for line in overridden.lines
    ] == [2, 2]


def test_a_composite_survives_as_text(tmp_path):
    for composite in [*available(), lines("Conv first name=a*: alpha-beta alpha=3 beta=2")]:
        file = tmp_path / "copy.toml"
        file.write_text(composite.to_toml())
        copy = Composite.load(file)
        assert copy.parameters == composite.parameters
        strip = [(x.rule, x.parameters, x.operators, x.nodes, x.position) for x in copy.lines]
        assert strip == [
            (x.rule, x.parameters, x.operators, x.nodes, x.position) for x in composite.lines
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules = [\n", "line 2|end of document"),
        ('[[rules]]\nrule = "epsilon"\n\n[colours]\n', r"my\.toml:4: unknown key 'colours'"),
        ("[parameters]\nepsilon = 1\n", "has no"),
        ("[[rules]]\noperators = ['Conv']\n", r"my\.toml:1: a line needs a rule"),
        (
            "[[rules]]\nnetwork = 'spiking'\nrule = 'flat'\n",
            r"my\.toml:2: unknown network 'spiking'; there are attention",
        ),
        ("[[rules]]\nrule = 'nonsense'\n", r"my\.toml:2: unknown rule 'nonsense'"),
        (
            "[[rules]]\noperators = 'Conv'\nrule = 'flat'\n",
            r"my\.toml:2: 'operators' must be a list",
        ),
        ("[[rules]]\noperators = ['Cnv']\nrule = 'flat'\n", r"my\.toml:2: unknown operator 'Cnv'"),
        ("[[rules]]\noperators = ['LRN']\nrule = 'flat'\n", r"my\.toml:2: LRN does not take"),
        ("[[rules]]\nposition = 'top'\nrule = 'flat'\n", r"my\.toml:2: unknown position 'top'"),
        ("[[rules]]\nrule = 'flat'\n[[rules]]\nrule = 'z-plus'\nalpha = 2\n", r"my\.toml:5: rule"),
        (
            "[[rules]]\nrule = 'epsilon'\nepsilon = 'a'\n",
            r"my\.toml:3: 'epsilon' must be a finite number",
        ),
        ("[[rules]]\nrule = 'epsilon'\nepsilon = 0\n", r"my\.toml:3: 'epsilon' must be greater"),
        ("[[rules]]\nrule = 'gamma'\ngamma = nan\n", r"my\.toml:3: 'gamma' must be a finite"),
        ("[[rules]]\nrule = 'gamma'\ngamma = -2\n", r"my\.toml:3: 'gamma' must be 0 or more"),
        ("[[rules]]\nrule = 'beta'\nbeta = inf\n", r"my\.toml:3: 'beta' must be a finite"),
        ("[[rules]]\nrule = 'z-box'\nlow = []\n", r"my\.toml:3: 'low' must be a finite number"),
        (
            "[[rules]]\nrule = 'epsilon'\nepsilon = 1e-60\n",
            r"my\.toml:3: 'epsilon' must be greater",
        ),
        ("[[rules]]\nrule = 'gamma'\ngamma = 1e39\n", r"my\.toml:3: 'gamma' .* float32 holds"),
        (f"[[rules]]\nrule = 'gamma'\ngamma = 1{400 * '0'}\n", r"my\.toml:3: 'gamma' .* 1000"),
        (
            "[parameters]\nhigh = [1, -4e38]\n[[rules]]\nrule = 'z-box'\n",
            r"my\.toml:2: 'high' must",
        ),
        ("[[rules]]\nrule = 'epsilon'\nbias = 'keep'\n", r"my\.toml:3: bias must be one of"),
        ("[[rules]]\nrule = 'epsilon'\npower = 1.5\n", r"my\.toml:3: 'power' must be a whole"),
        ("[parameters]\ngain = 1\n[[rules]]\nrule = 'epsilon'\n", r"my\.toml:2: no rule takes"),
        ("description = 3\n[[rules]]\nrule = 'epsilon'\n", r"my\.toml:1: 'description' must be"),
    ],
)
def test_mistakes_are_reported_with_file_and_line(tmp_path, text, message):
    file = tmp_path / "my.toml"
    file.write_text(text)
    with pytest.raises(CompositeError, match=message):
        Composite.load(file)


def test_an_unknown_composite_lists_those_that_ship():
    with pytest.raises(CompositeError, match="epsilon_plus_flat"):
        Composite.load("epsilon_plus_falt")


@pytest.mark.parametrize(
    "line",
    [
        *("Conv flat", "Conv:", "Conv: ", "Conv: nonsense", "Conf: flat", "Conv: flat x"),
        "Conv: gamma gamma=1" + 5000 * "0",
    ],
    ids=lambda line: line[:20],
)
def test_mistakes_in_lines(line):
    with pytest.raises(CompositeError, match=r"--rule|KEY=VALUE"):
        Composite.load("epsilon").with_lines([line])


def test_a_parameter_that_no_rule_takes():
    with pytest.raises(CompositeError, match="takes a parameter 'beta'"):
        Composite.load("epsilon").with_parameters({"beta": 1})


def test_pass_needs_equal_shapes():
    proto = model(NETWORK, {"x": ["N", 3, 9, 9]}, ["logits"], WEIGHTS)
    composite = Composite.load("epsilon").with_lines(["GlobalAveragePool: pass"])
    with pytest.raises(onnxlrp.UnsupportedError, match=r"node_g \(GlobalAveragePool"):
        onnxlrp.convert(proto, composite)


def test_a_name_may_carry_parameters_and_lines():
    spec = "epsilon_plus; epsilon=0.5; Conv first: flat; low=1,2"
    composite = Composite.load("epsilon_plus; epsilon=0.5; Conv first: flat")
    assert composite.lines[0].rule == "flat"
    assert composite.parameters["epsilon"] == 0.5
    assert composite.name == "epsilon_plus; epsilon=0.5; Conv first: flat"
    with pytest.raises(CompositeError, match=r"no rule of .* takes a parameter 'low'"):
        Composite.load(spec)


def test_lines_for_networks_with_attention():
    """The default is attn_lrp where a softmax weighs live values, by its own lines elsewhere."""
    weights = {"k": normal(4, 3, 1, 1), "r": np.array([0, 4, -1], np.int64), "w": normal(4, 2)}
    stem = [node("Conv", ["x", "k"], "c"), node("Reshape", ["c", "r"], "t")]
    mixed = [
        node("Softmax", ["t"], "s"),
        node("Transpose", ["t"], "v", perm=[0, 2, 1]),
        node("MatMul", ["s", "v"], "m"),
    ]
    head = [node("ReduceMean", ["m"], "f", axes=[2], keepdims=0), node("Gemm", ["f", "w"], "y")]
    shapes = {"x": ["N", 3, 2, 2]}
    with_attention = model([*stem, *mixed, *head], shapes, ["y"], weights, opset=17)
    found = onnxlrp.convert(with_attention)
    assert found.kinds == {"attention": "node_m"}
    assert {n.name: n.rule for n in found.nodes}["node_c"] == "epsilon"
    plain = [*stem, node("Relu", ["t"], "m"), *head]
    found = onnxlrp.convert(model(plain, shapes, ["y"], weights, opset=17))
    assert found.kinds == {}
    assert {n.name: n.rule for n in found.nodes}["node_c"] == "even"


def test_a_composite_of_thousands_of_lines_is_read_at_once(tmp_path):
    file = tmp_path / "long.toml"
    line = "[[rules]]\noperators = ['Conv']\nnodes = ['layer{}']\nrule = 'gamma'\ngamma = 0.5\n"
    file.write_text("".join(line.format(number) for number in range(5000)))
    composite = Composite.load(file)
    assert composite.lines[4999].origin == f"{file}:24996"


@pytest.mark.parametrize("text", ["epsilon = " + "9" * 5000, "a = " + "[" * 100_000])
def test_toml_that_cannot_be_read_is_told_in_one_line(tmp_path, text):
    file = tmp_path / "my.toml"
    file.write_text(text)
    with pytest.raises(CompositeError, match=r"my\.toml"):
        Composite.load(file)


DEPTHWISE = [
    node("Conv", ["x", "w1"], "c1", strides=[2, 2]),
    node("Relu", ["c1"], "r1"),
    node("Conv", ["r1", "apart"], "c2", group=4),
    node("GlobalAveragePool", ["c2"], "g"),
    node("Flatten", ["g"], "f"),
    node("Gemm", ["f", "w3"], "logits"),
]


def test_the_default_looks_for_depthwise_convolutions():
    weights = {"w1": WEIGHTS["w1"], "w3": WEIGHTS["w3"], "apart": normal(4, 1, 2, 2, seed=5)}
    proto = model(DEPTHWISE, {"x": ["N", 3, 9, 9]}, ["logits"], weights)
    found = onnxlrp.convert(proto)
    assert found.kinds == {"depthwise": "node_c2"}
    (line,) = tables.kinds(found)
    assert line == (
        "a network with depthwise convolutions (at node_c2), so default has Conv,ConvTranspose: "
        "gamma; reference zero (where --reference names none)"
    )
    feeds = {"x": normal(2, 3, 9, 9), "target": np.array([0, 1])}
    named = onnxlrp.convert(proto, "epsilon_gamma_even").to_proto()
    result = run(found.to_proto(), feeds)
    np.testing.assert_array_equal(result["relevance"], run(named, feeds)["relevance"])
    change = (result["logits"] - result["reference_scores"])[[0, 1], [0, 1]]
    np.testing.assert_allclose(result["relevance"].sum(axis=(1, 2, 3)), change, rtol=1e-4)
    other = onnxlrp.convert(proto, reference=np.ones(1)).to_proto()
    assert np.abs(run(other, feeds)["relevance"] - result["relevance"]).max() > 0.01
    # A plain network has neither.
    plain = onnxlrp.convert(model(NETWORK, {"x": ["N", 3, 9, 9]}, ["logits"], WEIGHTS))
    assert plain.kinds == {}
    assert "reference_scores" not in [name for name, *_ in plain.outputs]


def test_a_composite_may_bring_a_reference(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('reference = "zero"\n[[rules]]\nrule = "epsilon"\n')
    assert Composite.load(own).reference == {"": "zero"}
    assert Composite.load("epsilon").reference == {}
    assert 'reference = "zero"' in Composite.load("deeplift").to_toml()
    own.write_text('reference = { depthwise = "mean" }\n[[rules]]\nrule = "epsilon"\n')
    kept = tmp_path / "kept.toml"
    kept.write_text(Composite.load(own).to_toml())
    assert Composite.load(kept).reference_for(["depthwise"]) == "mean"
    assert Composite.load(kept).reference_for(["attention"]) == ""
    own.write_text('reference = { small = "mean" }\n[[rules]]\nrule = "epsilon"\n')
    with pytest.raises(CompositeError, match="unknown network 'small'; there are attention, dep"):
        Composite.load(own)
    own.write_text('reference = "grey"\n[[rules]]\nrule = "epsilon"\n')
    wanted = r"own.toml:1: 'reference' must be one of zero, mean, black, blur, input, not"
    with pytest.raises(CompositeError, match=wanted):
        Composite.load(own)
