"""Code that the algorithms for recorded data share: settings, observations, presets."""
