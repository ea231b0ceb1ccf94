"""The live page and what feeds it."""
