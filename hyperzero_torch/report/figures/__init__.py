"""Figures of the report, drawn with Plotly."""
