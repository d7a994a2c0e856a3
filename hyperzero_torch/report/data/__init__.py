"""Rows and numbers that the report shows, from the study's history."""
