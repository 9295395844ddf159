"""The llama.cpp engine: quantized models on CPU, Metal or CUDA, many prompts at once.

``library`` opens the shared library, ``vocabulary`` turns text into tokens, ``context`` runs batches,
``weights`` makes faster weight types, ``engine`` puts them behind the language model protocol.
"""
