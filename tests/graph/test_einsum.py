"""Einsum, written out: it computes what numpy does, and its products have the rules of products."""

import numpy as np
import pytest
from support import close, explain, lines, model, node, normal, run

import onnxlrp
from onnxlrp.graph.expanding import expand

SIZES = dict(zip("abcdehijknuvwxyz", (2, 3, 4, 2, 3, 4, 5, 3, 2, 2, 3, 4, 3, 2, 3, 2), strict=True))
EQUATIONS = (
    *("ij,jk->ik", "bij,bjk->bik", "bhid,bhjd->bhij", "bhij,bhjd->bhid", "bihd,bjhd->bhij"),
    *("nchw,nvw->ncvh", "nchw,vw->ncvh", "bij,bij->bij", "bij,bi->bij", "bi,bj->bij", "ij,jk"),
    *(
        "bij,bij->b",
        "bijk,bijk->bj",
        "bij,kij->bk",
        "nabc,uabc->nu",
        "bij->bji",
        "bij->bi",
        "bij->",
    ),
    *("bn,anm,bm->ba".replace("m", "k"), "bi,bj,bk->bijk", "bij,bjk,bk->bi", "xy,z->xyz", "ji,i"),
    *("b i j , b j k -> b k i", "xaby,abz->xyz"),
)


def operands(equation):
    terms = equation.replace(" ", "").split("->")[0].split(",")
    return [normal(*(SIZES[i] for i in term), seed=k) for k, term in enumerate(terms)]


def written(equation, arrays, symbolic=True, opset=18):
    """Build a model of one Einsum; sizes are the equation's letters."""
    names = "stuv"[: len(arrays)]
    terms = equation.replace(" ", "").split("->")[0].split(",")
    plain = "..." not in equation and symbolic
    shapes = {
        n: list(t) if plain else a.shape for n, t, a in zip(names, terms, arrays, strict=True)
    }
    one = node("Einsum", list(names), equation=equation)
    return model([one], shapes, ["y"], {}, opset), dict(zip(names, arrays, strict=True))


@pytest.mark.parametrize("symbolic", [True, False], ids=["symbols", "numbers"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_it_computes_what_numpy_does(equation, symbolic):
    arrays = operands(equation)
    proto, feeds = written(equation, arrays, symbolic)
    expected = np.einsum(equation, *(a.astype(float) for a in arrays))
    proto = expand(proto)
    assert "Einsum" not in {entry.op_type for entry in proto.graph.node}
    close(np.asarray(run(proto, feeds)["y"], np.float64), expected, 1e-5)


@pytest.mark.parametrize(
    "equation", ["...ij,...jk->...ik", "i...,i->...", "...ij,jk", "b...,b...->b..."]
)
def test_an_ellipsis_is_as_many_axes_as_there_are(equation):
    left, right = equation.split("->")[0].split(",")
    arrays = [
        normal(*(2, 3)[: 2 * ("..." in term)], *(SIZES[i] for i in term if i != "."), seed=k)
        for k, term in enumerate((left, right))
    ]
    if left[0] != ".":
        arrays = [
            np.moveaxis(a, -1, 0) if "..." in t else a
            for a, t in zip(arrays, (left, right), strict=True)
        ]
    proto, feeds = written(equation, arrays)
    proto = expand(proto)
    assert "Einsum" not in {entry.op_type for entry in proto.graph.node}
    close(run(proto, feeds)["y"], np.einsum(equation, *arrays), 1e-5)


WEIGHTS = {
    "q": normal(6, 6, seed=1),
    "k": normal(6, 6, seed=2),
    "v": normal(6, 6, seed=3),
    "heads": np.array([0, 0, 2, 3]),
    "rows": np.array([0, 0, -1]),
    "axis": np.array([1]),
    "r": normal(6, 3, seed=4),
}
LETTERS = [
    node("Einsum", ["x", "q"], "xq", equation="btc,cd->btd"),
    node("Einsum", ["x", "k"], "xk", equation="btc,cd->btd"),
    node("Einsum", ["v", "x"], "xv", equation="cd,btc->btd"),
    *(node("Reshape", [f"x{n}", "heads"], f"h{n}") for n in "qkv"),
    node("Einsum", ["hq", "hk"], "s", equation="bihd,bjhd->bhij"),
    node("Softmax", ["s"], "p"),
    node("Einsum", ["p", "hv"], "o", equation="bhij,bjhd->bihd"),
    node("Reshape", ["o", "rows"], "f"),
    node("ReduceMean", ["f", "axis"], "m", keepdims=0),
    node("Einsum", ["m", "r"], "logits", equation="bd,dc->bc"),
]
MATRICES = [
    *(node("MatMul", ["x", n], f"x{n}") for n in "qkv"),
    *(node("Reshape", [f"x{n}", "heads"], f"h{n}") for n in "qkv"),
    *(node("Transpose", [f"h{n}"], f"t{n}", perm=[0, 2, 1, 3]) for n in "qv"),
    node("Transpose", ["hk"], "tk", perm=[0, 2, 3, 1]),
    node("MatMul", ["tq", "tk"], "s"),
    node("Softmax", ["s"], "p"),
    node("MatMul", ["p", "tv"], "h"),
    node("Transpose", ["h"], "o", perm=[0, 2, 1, 3]),
    node("Reshape", ["o", "rows"], "f"),
    node("ReduceMean", ["f", "axis"], "m", keepdims=0),
    node("MatMul", ["m", "r"], "logits"),
]


@pytest.mark.parametrize("composite", ["attn_lrp", "cp_lrp", "epsilon_plus"])
def test_attention_in_letters_has_the_map_of_attention_in_matrices(composite):
    x = normal(2, 4, 6, seed=5)
    composite = onnxlrp.Composite.load(composite)
    maps = []
    for body in (LETTERS, MATRICES):
        proto = model(body, {"x": ["N", "tokens", 6]}, ["logits"], WEIGHTS)
        explained = explain(proto, composite, {"x": x}, target=[1, 2])
        found = {entry.operator for entry in explained.conversion.nodes}
        assert {"Mixture", "MatMul"} <= found
        maps.append(explained.values["relevance"])
    close(*maps)


DIAGONAL = [node("Einsum", ["x"], "d", equation="bii->bi"), node("Gemm", ["d", "r"], "logits")]


def test_a_diagonal_gets_what_it_says_and_all_else_nothing():
    proto = model(DIAGONAL, {"x": ["N", 6, 6]}, ["logits"], {"r": WEIGHTS["r"]})
    x = normal(2, 6, 6, seed=5)
    precise = lines("*: epsilon epsilon=1e-12")
    explained = explain(proto, precise, {"x": x}, target=[1, 2])
    wanted = x * np.eye(6) * WEIGHTS["r"].T[[1, 2]][:, :, None]
    close(explained.values["relevance"], wanted)


@pytest.mark.parametrize("equation", ["ii->i", "ii", "iji,j->i", "iii,i->i", "aba,bcb->ac"])
def test_indices_that_repeat_mean_what_they_mean_to_numpy(equation):
    terms = equation.split("->")[0].split(",")
    sizes = {**SIZES, "a": 2, "b": 3, "c": 4, "i": 3, "j": 4}
    arrays = [normal(*(sizes[i] for i in term), seed=k) for k, term in enumerate(terms)]
    proto, feeds = written(equation, arrays, symbolic=False)
    proto = expand(proto)
    assert "Einsum" not in {entry.op_type for entry in proto.graph.node}
    close(run(proto, feeds)["y"], np.asarray(np.einsum(equation, *arrays)), 1e-5)


def test_a_diagonal_of_a_size_that_is_not_known_is_refused_by_name():
    proto = model(DIAGONAL, {"x": ["N", "a", "a"]}, ["logits"], {"r": WEIGHTS["r"]})
    with pytest.raises(onnxlrp.UnsupportedError, match=r"node_d .* diagonal"):
        onnxlrp.convert(proto, lines("*: epsilon"))
