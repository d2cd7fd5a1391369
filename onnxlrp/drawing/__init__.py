"""Relevance made visible: colours, heatmaps, charts, sheets."""
