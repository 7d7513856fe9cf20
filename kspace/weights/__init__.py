"""The shipped models: NAME.safetensors each, with its card NAME.json; :mod:`kspace.weights.store` reads them."""
