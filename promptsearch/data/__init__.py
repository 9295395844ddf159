"""Rows from outside become labels, duplicate-free splits and clean text; nothing here knows a model."""
