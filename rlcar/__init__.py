"""Cars that learn to drive inside a world model."""

__version__ = "0.1.0"
