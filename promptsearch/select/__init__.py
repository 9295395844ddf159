"""Chooses demonstrations by numbers and texts alone: for one query, for a whole task, or for nobody in particular.

A selector is made once from the examples (``SELECTORS[name](examples)`` in ``promptsearch.select.registry``)
and then asked as often as one likes; what can be kept between questions (an index, a graph, token vectors) it
keeps. It sees vectors, texts and labels; never a model, a template or a score.
"""
