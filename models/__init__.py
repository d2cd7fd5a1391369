"""The bundled trained classifiers and the demo photograph.

They are read through importlib.resources as `onnxlrp.bundled`.
"""
