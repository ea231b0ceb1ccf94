"""Constants of the normal distribution."""

HALF_LOG_TWO_PI = 0.918938533  # ln(2 pi) / 2, in the logarithm of the density
UNIT_ENTROPY = 1.418938533  # ln(2 pi e) / 2, the entropy of a standard normal
