"""Dhamdhere, Sundararajan and Yan, "How Important Is a Neuron?" (arXiv 1805.12233): conductance and its rivals.

One file for each question: do conductances add up (``completeness``), how few filters flip a prediction (``flips``), do
scores predict measured drops (``correlation``), are the top filters good features (``features``), and do the filters of
a sentiment network take sides (``labour``).
"""
