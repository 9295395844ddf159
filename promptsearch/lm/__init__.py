"""Language models: what the rest of the package asks of them, and the engines that answer.

This layer sees texts, labels and tokens; it never sees a task, a pool or a search.
"""
