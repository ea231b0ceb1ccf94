"""Gates before traffic: a candidate is compared with the stable version before any car gets it.

`settings` (which needs no JAX) holds the sections of a file, `simulation` and `data` the two gates,
`run` runs those that a file asks for, and `paired` is the decision itself.
"""
