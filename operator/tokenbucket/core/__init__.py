"""Compute plans and reports from documents and observed state, without input and output."""
