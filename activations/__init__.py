"""Floor 1: models and pairs, sites, tokenised inputs, engines, capture and the HDF5 store."""
