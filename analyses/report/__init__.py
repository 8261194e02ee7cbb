"""The report of a study: figures and one self-contained page."""
