"""Classifiers of tables for `coverage.py`: scikit-learn's by skl2onnx, boosted by onnxmltools.

All are trained on the data that scikit-learn brings: iris, breast cancer, digits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def _sklearn() -> dict[str, Callable[[], Any]]:
    from sklearn import (
        calibration,
        decomposition,
        discriminant_analysis,
        ensemble,
        impute,
        linear_model,
        naive_bayes,
        neural_network,
        pipeline,
        preprocessing,
        svm,
        tree,
    )  # fmt: skip

    chain = pipeline.make_pipeline
    logistic = linear_model.LogisticRegression

    def network(**more: Any) -> Any:
        return neural_network.MLPClassifier((16,), max_iter=300, random_state=0, **more)

    return {
        "LogisticRegression": lambda: logistic(max_iter=5000),
        "RidgeClassifier": lambda: linear_model.RidgeClassifier(),
        "SGDClassifier": lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0),
        "Perceptron": lambda: linear_model.Perceptron(random_state=0),
        "LinearSVC": lambda: svm.LinearSVC(),
        "SVC_linear": lambda: svm.SVC(kernel="linear"),
        "SVC_linear_prob": lambda: svm.SVC(kernel="linear", probability=True, random_state=0),
        "SVC_rbf": lambda: chain(preprocessing.StandardScaler(), svm.SVC()),
        "SVC_poly": lambda: chain(preprocessing.StandardScaler(), svm.SVC(kernel="poly", degree=2)),
        "LDA": lambda: discriminant_analysis.LinearDiscriminantAnalysis(),
        "GaussianNB": lambda: naive_bayes.GaussianNB(),
        "BernoulliNB": lambda: naive_bayes.BernoulliNB(binarize=1.0),
        "MultinomialNB": lambda: naive_bayes.MultinomialNB(),
        "MLP": lambda: network(),
        "MLP_tanh": lambda: network(activation="tanh"),
        "MLP_logistic": lambda: network(activation="logistic"),
        "Scaler_LogReg": lambda: chain(preprocessing.StandardScaler(), logistic()),
        "MinMax_MLP": lambda: chain(preprocessing.MinMaxScaler(), network()),
        "MaxAbs_MLP": lambda: chain(preprocessing.MaxAbsScaler(), network()),
        "Robust_LogReg": lambda: chain(preprocessing.RobustScaler(), logistic()),
        "Normalizer_MLP": lambda: chain(preprocessing.Normalizer(), network()),
        "PCA_MLP": lambda: chain(decomposition.PCA(3), network()),
        "Poly_LogReg": lambda: chain(preprocessing.PolynomialFeatures(2), logistic(max_iter=5000)),
        "Binarizer_LogReg": lambda: chain(preprocessing.Binarizer(threshold=2.0), logistic()),
        "Imputer_Scaler_MLP": lambda: chain(
            impute.SimpleImputer(), preprocessing.StandardScaler(), network()
        ),
        "Quantile_LogReg": lambda: chain(
            preprocessing.KBinsDiscretizer(4, encode="onehot-dense"), logistic()
        ),
        "DecisionTree": lambda: tree.DecisionTreeClassifier(max_depth=4, random_state=0),
        "RandomForest": lambda: ensemble.RandomForestClassifier(8, max_depth=4, random_state=0),
        "ExtraTrees": lambda: ensemble.ExtraTreesClassifier(8, max_depth=4, random_state=0),
        "GradientBoosting": lambda: ensemble.GradientBoostingClassifier(
            n_estimators=8, random_state=0
        ),
        "HistGradientBoosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=8),
        "AdaBoost": lambda: ensemble.AdaBoostClassifier(n_estimators=5, random_state=0),
        "Bagging_LogReg": lambda: ensemble.BaggingClassifier(logistic(max_iter=5000), 3),
        "Voting_soft": lambda: ensemble.VotingClassifier(
            [("a", logistic(max_iter=5000)), ("b", network())], voting="soft"
        ),
        "Calibrated_SVC": lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2),
        "OneVsRest": lambda: _one_vs_rest(),
    }  # fmt: skip


def _one_vs_rest() -> Any:
    from sklearn import linear_model, multiclass

    return multiclass.OneVsRestClassifier(linear_model.LogisticRegression())


def _boosted() -> dict[str, Callable[[], Any]]:
    import catboost
    import lightgbm
    import xgboost

    few: dict[str, Any] = {"n_estimators": 8, "max_depth": 3, "random_state": 0}
    return {
        "lightgbm": lambda: lightgbm.LGBMClassifier(verbose=-1, **few),
        "lightgbm_rf": lambda: lightgbm.LGBMClassifier(
            boosting_type="rf", subsample=0.8, subsample_freq=1, verbose=-1, **few
        ),
        "xgboost": lambda: xgboost.XGBClassifier(**few),
        "xgboost_linear": lambda: xgboost.XGBClassifier(booster="gblinear", n_estimators=8),
        "xgboost_rf": lambda: xgboost.XGBRFClassifier(**few),
        "catboost": lambda: catboost.CatBoostClassifier(
            iterations=8, depth=3, verbose=False, allow_writing_files=False
        ),
    }


_BINARY = ("LogisticRegression", "MLP", "SVC_rbf", "RandomForest", "GradientBoosting")
NAMES = [
    *(f"skl/{name}" for name in _sklearn()),
    *(f"skl/{name}_binary" for name in _BINARY),
    "skl/columns",
    *(f"boost/{name}{kind}" for name in _boosted() for kind in ("", "_binary")),
]


def export(name: str, path: Path) -> dict[str, Any]:
    """Train a classifier and write it as ONNX; return two samples by name of the input."""
    from sklearn import datasets

    library, _, kind = name.partition("/")
    binary = kind.endswith("_binary")
    x, y = (datasets.load_breast_cancer if binary else datasets.load_iris)(return_X_y=True)
    x = x.astype(np.float32)
    if kind == "columns":
        return _columns(x, y, path)
    kind = kind.removesuffix("_binary")
    if library == "boost":
        return _export_boosted(kind, _boosted()[kind]().fit(x, y), x, path)
    import skl2onnx

    made = _sklearn()[kind]().fit(x, y)
    proto = skl2onnx.to_onnx(made, x[:1], target_opset={"": 18, "ai.onnx.ml": 3})
    path.write_bytes(proto.SerializeToString())
    return {proto.graph.input[0].name: x[::90][:2]}


def _columns(x: Any, y: Any, path: Path) -> dict[str, Any]:
    """Scale some columns and count others in bins: an input for each."""
    import pandas
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
    from sklearn import compose, linear_model, pipeline, preprocessing

    table = pandas.DataFrame({f"c{i}": x[:, i] for i in range(3)} | {"kind": np.arange(len(x)) % 3})
    made = pipeline.make_pipeline(
        compose.ColumnTransformer(
            [
                ("real", preprocessing.StandardScaler(), ["c0", "c1", "c2"]),
                ("kind", preprocessing.OneHotEncoder(), ["kind"]),
            ]
        ),
        linear_model.LogisticRegression(),
    ).fit(table, y)
    types = [(f"c{i}", FloatTensorType([None, 1])) for i in range(3)]
    types.append(("kind", Int64TensorType([None, 1])))
    proto = skl2onnx.convert_sklearn(made, initial_types=types, target_opset=18)
    path.write_bytes(proto.SerializeToString())
    rows = table.iloc[[0, 91]]
    return {name: rows[[name]].to_numpy() for name in table.columns}


def _export_boosted(kind: str, made: Any, x: Any, path: Path) -> dict[str, Any]:
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    if kind == "catboost":
        made.save_model(str(path), format="onnx")
        return {"features": x[::90][:2]}
    convert = (
        onnxmltools.convert_lightgbm if kind.startswith("light") else onnxmltools.convert_xgboost
    )
    types = [("row", FloatTensorType([None, x.shape[1]]))]
    proto = convert(made, initial_types=types, target_opset=15)
    path.write_bytes(proto.SerializeToString())
    return {"row": x[::90][:2]}
