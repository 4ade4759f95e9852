"""Engine adapters: data and pure functions, one file an engine. Adding one touches `catalog` and no more."""
