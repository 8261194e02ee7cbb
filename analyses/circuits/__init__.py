"""Circuits: edges between components, direct paths, and what a part of them suffices for."""
