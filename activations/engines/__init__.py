"""Engines run the forward pass and hand out what passes at the sites asked for."""
