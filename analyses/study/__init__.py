"""The paired study: one TOML file in, one run directory of stores, tables, figures and a report out."""
