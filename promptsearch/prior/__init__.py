"""What labelled examples say about a query, without any language model."""

from promptsearch.linear import LinearClassifier, fit_linear
from promptsearch.prior.combined import Labelled, LabelPrior, fit_label_prior
from promptsearch.prior.ngrams import NgramClassifier, fit_ngram_classifier
from promptsearch.prior.vote import NeighbourLabels, NeighbourVote, fit_neighbour_vote

__all__ = [
    "LabelPrior",
    "Labelled",
    "LinearClassifier",
    "NeighbourLabels",
    "NeighbourVote",
    "NgramClassifier",
    "fit_label_prior",
    "fit_linear",
    "fit_neighbour_vote",
    "fit_ngram_classifier",
]
