"""Search strategies: which candidates to try, on how many items, and which to keep.

A strategy is a generator: it yields requests (candidates and how many items of the shared order), is sent their
scores, and returns its finalists. It sees ids, prices and scores; never a text, a model or a file.
"""
