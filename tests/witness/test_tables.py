"""Tables: trees against shap, and what the exporters of trained models write."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import onnx
import pytest
import shap
import xgboost
from onnx import helper
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn import (
    calibration,
    datasets,
    discriminant_analysis,
    ensemble,
    feature_selection,
    impute,
    linear_model,
    multiclass,
    naive_bayes,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.compose import ColumnTransformer
from support import Array, explain, lines, run

import onnxlrp
from onnxlrp.audit import check

TREESHAP, SAABAS = lines("*: treeshap stabiliser=1e-9"), lines("*: saabas stabiliser=1e-9")
OPSETS = {"": 18, "ai.onnx.ml": 3}


def data(name: str, kind: type = np.float32) -> tuple[Array, Array]:
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x.astype(kind), y


FLOWERS, TISSUES, PATIENTS = data("iris"), data("breast_cancer"), data("diabetes")


def exported(model: Any, x: Array) -> onnx.ModelProto:
    return to_onnx(model, x[:1], target_opset=OPSETS)


def counted(proto: onnx.ModelProto, trees: Sequence[Any]) -> onnx.ModelProto:
    """Write how many samples reached each node where the exporter writes ones."""
    (node,) = (n for n in proto.graph.node if n.op_type.startswith("TreeEnsemble"))
    counts = [c for fitted in trees for c in fitted.tree_.weighted_n_node_samples]
    (rates,) = (a for a in node.attribute if a.name == "nodes_hitrates")
    assert len(rates.floats) == len(counts)
    rates.CopyFrom(helper.make_attribute("nodes_hitrates", counts))
    return proto


# --- Against shap --------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [3, None])
def test_treeshap_of_a_forest_whose_file_counts_samples(depth):
    x, y = PATIENTS
    forest = ensemble.RandomForestRegressor(5, max_depth=depth, random_state=0).fit(x, y)
    proto = counted(exported(forest, x), forest.estimators_)
    explained = explain(proto, TREESHAP, {"X": x[:20]})
    wanted = shap.TreeExplainer(forest, feature_perturbation="tree_path_dependent")
    found = explained.values["relevance"]
    np.testing.assert_allclose(found, wanted.shap_values(x[:20]), atol=2e-4 * np.abs(found).max())


def test_saabas_of_a_forest_whose_file_counts_samples():
    x, y = PATIENTS
    forest = ensemble.RandomForestRegressor(5, max_depth=4, random_state=0).fit(x, y)
    proto = counted(exported(forest, x), forest.estimators_)
    explained = explain(proto, SAABAS, {"X": x[:20]})
    wanted = shap.TreeExplainer(forest).shap_values(x[:20], approximate=True)
    found = explained.values["relevance"]
    np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(found).max())


def boosted(name: str, x: Array, y: Array) -> tuple[Any, onnx.ModelProto]:
    kind = [("x", FloatTensorType([None, x.shape[1]]))]
    if name == "xgboost":
        model = xgboost.XGBClassifier(n_estimators=10, max_depth=3).fit(x, y)
        return model, convert_xgboost(model, initial_types=kind, target_opset=15)
    model = lightgbm.LGBMClassifier(n_estimators=10, num_leaves=8, verbose=-1).fit(x, y)
    return model, convert_lightgbm(model, initial_types=kind, target_opset=15)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_treeshap_of_boosted_trees_against_a_reference(name, classes):
    """Of two classes and of three, from the raw score; one background row, which shap knows too."""
    x, y = TISSUES if classes == 2 else FLOWERS
    model, proto = boosted(name, x, y)
    background = x[0]
    explainer = shap.TreeExplainer(
        model, background[None], feature_perturbation="interventional", model_output="raw"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = np.asarray(explainer.shap_values(x[::40]))
    if values.ndim == 2:
        values = np.stack([-values, values], axis=2)
    for target in range(classes):
        explained = explain(
            proto, TREESHAP, {"x": x[::40]}, target=target, reference={"x": background}
        )
        found = explained.values["relevance"]
        wanted = values[:, :, target]
        np.testing.assert_allclose(found, wanted, atol=1e-4 * max(np.abs(wanted).max(), 1e-3))


# --- Exporters -----------------------------------------------------------------------------------


def scaled(model: Any) -> Any:
    return pipeline.make_pipeline(preprocessing.StandardScaler(), model)


MODELS: dict[str, tuple[Any, tuple[Array, Array]]] = {
    "LogisticRegression of two": (scaled(linear_model.LogisticRegression()), TISSUES),
    "LogisticRegression of three": (scaled(linear_model.LogisticRegression()), FLOWERS),
    "one against rest": (
        multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
        FLOWERS,
    ),
    "RidgeClassifier": (scaled(linear_model.RidgeClassifier()), TISSUES),
    "SGDClassifier": (scaled(linear_model.SGDClassifier(loss="log_loss")), TISSUES),
    "LinearRegression": (linear_model.LinearRegression(), PATIENTS),
    "MLPClassifier": (scaled(neural_network.MLPClassifier((8,), max_iter=50)), FLOWERS),
    "MLPClassifier of two": (scaled(neural_network.MLPClassifier((8,), max_iter=50)), TISSUES),
    "LDA": (discriminant_analysis.LinearDiscriminantAnalysis(), FLOWERS),
    "QDA": (discriminant_analysis.QuadraticDiscriminantAnalysis(), FLOWERS),
    "MultinomialNB": (naive_bayes.MultinomialNB(), FLOWERS),
    "SVC": (scaled(svm.SVC()), FLOWERS),
    "SVC of two": (scaled(svm.SVC()), TISSUES),
    "SVC with probabilities": (scaled(svm.SVC(probability=True)), FLOWERS),
    "SVC with probabilities of two": (scaled(svm.SVC(probability=True)), TISSUES),
    "linear SVC": (scaled(svm.SVC(kernel="linear")), FLOWERS),
    "polynomial SVC": (scaled(svm.SVC(kernel="poly")), FLOWERS),
    "SVR": (scaled(svm.SVR()), PATIENTS),
    "DecisionTree": (tree.DecisionTreeClassifier(max_depth=4), FLOWERS),
    "RandomForest": (ensemble.RandomForestClassifier(5, random_state=0), FLOWERS),
    "RandomForest of two": (ensemble.RandomForestClassifier(5, random_state=0), TISSUES),
    "ExtraTrees": (ensemble.ExtraTreesClassifier(5, random_state=0), FLOWERS),
    "GradientBoosting": (ensemble.GradientBoostingClassifier(n_estimators=5), FLOWERS),
    "GradientBoosting of two": (ensemble.GradientBoostingClassifier(n_estimators=5), TISSUES),
    "GradientBoostingRegressor": (ensemble.GradientBoostingRegressor(n_estimators=5), PATIENTS),
    "Bagging": (ensemble.BaggingClassifier(n_estimators=3), FLOWERS),
    "calibrated": (
        calibration.CalibratedClassifierCV(linear_model.LogisticRegression(), cv=2),
        FLOWERS,
    ),
    "imputed, chosen": (
        pipeline.make_pipeline(
            impute.SimpleImputer(),
            feature_selection.SelectKBest(k=2),
            linear_model.LogisticRegression(),
        ),
        FLOWERS,
    ),
    "normalised": (
        pipeline.make_pipeline(preprocessing.Normalizer("l1"), linear_model.LogisticRegression()),
        FLOWERS,
    ),
    "columns": (
        pipeline.make_pipeline(
            ColumnTransformer(
                [
                    ("scaled", preprocessing.StandardScaler(), [0, 2]),
                    ("raw", preprocessing.MinMaxScaler(), [1, 3]),
                ]
            ),
            linear_model.LogisticRegression(),
        ),
        FLOWERS,
    ),
}


def holds(proto: onnx.ModelProto, x: Array, tolerance: float) -> None:
    """Convert, compare every tensor that both give, and audit."""
    explainer = onnxlrp.convert(proto).to_proto()
    (source,) = proto.graph.input
    audit = check(proto, explainer, {source.name: x})
    assert audit.passed
    theirs = run(proto, {source.name: x})
    ours = run(explainer, {source.name: x, **{n: np.array([-1]) for n in added(explainer, proto)}})
    for name, value in theirs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=tolerance)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(ours[name], value)
    assert np.isfinite(ours["relevance"]).all()
    assert np.abs(ours["relevance"]).max() > 0


def added(explainer: onnx.ModelProto, proto: onnx.ModelProto) -> set[str]:
    return {v.name for v in explainer.graph.input} - {v.name for v in proto.graph.input}


@pytest.mark.parametrize("name", MODELS)
def test_what_scikit_learns_exporter_writes(name):
    model, (x, y) = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto = exported(model.fit(x, y), x)
    holds(proto, x[::30], tolerance=2e-5)


@pytest.mark.parametrize("table", [TISSUES, FLOWERS], ids=["two", "three"])
@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_what_onnxmltools_writes(name, table):
    x, y = table
    holds(boosted(name, x, y)[1], x[::30], tolerance=1e-6)


@pytest.mark.parametrize("table", [TISSUES, FLOWERS, PATIENTS], ids=["two", "three", "number"])
def test_what_catboost_writes(table, tmp_path):
    x, y = table
    kind = catboost.CatBoostRegressor if table is PATIENTS else catboost.CatBoostClassifier
    model = kind(iterations=5, depth=3, verbose=0, allow_writing_files=False).fit(x, y)
    path = Path(tmp_path) / "model.onnx"
    model.save_model(str(path), format="onnx")
    holds(onnx.load(path), x[::30], tolerance=1e-5)


def test_a_trained_forest_names_what_a_botanist_would():
    """Petals tell the three kinds of iris apart; sepals hardly do (Fisher 1936)."""
    x, y = FLOWERS
    forest = ensemble.RandomForestClassifier(20, random_state=0).fit(x, y)
    explained = explain(exported(forest, x), TREESHAP, {"X": x})
    sepal, petal = np.abs(explained.values["relevance"]).mean(axis=0).reshape(2, 2).sum(axis=1)
    assert petal > 4 * sepal
