"""Dhamdhere, Sundararajan and Yan, "How Important Is a Neuron?" (arXiv 1805.12233): conductance and its rivals.

One file for each question:

- ``completeness``: do conductances add up?
- ``flips``: how few filters carry a prediction?
- ``correlation``: do scores predict measured drops?
- ``features``: are the top filters good features?
- ``labour``: do the filters of a sentiment network take sides?
"""
