"""Exact activation patching."""
