"""One run of :func:`promptsearch.optimize`, phase by phase: set up, race, read, confirm, measure.

Invariant: this is where the task, the model and the search meet; strategies stay without a model and engines without
a task.
"""
