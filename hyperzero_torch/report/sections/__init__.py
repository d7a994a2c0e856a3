"""Sections of the report: text, tables and figures in their order."""
