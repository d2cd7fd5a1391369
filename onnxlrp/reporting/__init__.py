"""`onnxlrp report`: one page with all maps of a set, which needs no other file."""

from onnxlrp.reporting.entries import Show, entry, thumbnail_side
from onnxlrp.reporting.page import card, page

__all__ = ["Show", "card", "entry", "page", "thumbnail_side"]
