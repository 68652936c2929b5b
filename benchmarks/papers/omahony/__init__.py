"""O'Mahony, Nikolov and O'Sullivan (WACV 2025, arXiv 2411.10019): mid-range logits and spurious associations.

One file for each question: ``shortcut`` (a bias becomes a shortcut), ``levels`` (which samples lie at each level of a
logit), ``retraining`` (a new last layer). ``shapes`` and ``spurious`` make the data and train the networks.
"""
