"""The constants of observation normalisation, for JAX, NumPy and the metadata of versions."""

# (x - mean) / sqrt(variance + epsilon), limited to +-limit.
NORMALISER = {"epsilon": 1e-8, "limit": 10.0}
