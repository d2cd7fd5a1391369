"""The audit: is an explainer right, and where does relevance go? `check` says."""

from onnxlrp.audit.balance import balance, terms
from onnxlrp.audit.checking import check
from onnxlrp.audit.findings import Audit, Finding, Layer
from onnxlrp.audit.running import trace
from onnxlrp.audit.words import findings
from onnxlrp.audit.written import read

__all__ = ["Audit", "Finding", "Layer", "balance", "check", "findings", "read", "terms", "trace"]
