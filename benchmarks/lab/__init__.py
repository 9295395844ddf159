"""The laboratory: what makes demonstrations work, one experiment for each claim, on any GGUF file.

Data flows one way: a claim names *conditions* (``conditions``), each is measured on *material* (``material``) by a
*bench* (``bench``) into cells, *effects* (``effects``) turn cells into paired estimates over seeds and items, a
*report* (``reports``) turns these into verdicts, and ``pages`` and ``figures`` show them.
Invariant: a verdict follows from an interval alone, and everything shown is computed from the kept cells.
"""
