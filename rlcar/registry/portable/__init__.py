"""Writes published policies for programs without Python: as an ONNX model, and as C source.

`recording` runs a policy in NumPy once and records its operations as a graph, which the writers
translate. No writer knows an algorithm.
"""
