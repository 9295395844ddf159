"""What labelled examples' vectors say about a query, without any language model."""

from promptsearch.linear import LinearClassifier, fit_linear
from promptsearch.prior.combined import EmbeddingPrior, fit_embedding_prior
from promptsearch.prior.vote import NeighbourLabels, NeighbourVote, fit_neighbour_vote

__all__ = [
    "EmbeddingPrior",
    "LinearClassifier",
    "NeighbourLabels",
    "NeighbourVote",
    "fit_embedding_prior",
    "fit_linear",
    "fit_neighbour_vote",
]
