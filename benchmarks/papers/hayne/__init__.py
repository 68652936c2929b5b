"""Hayne et al., "Much Easier Said Than Done" (arXiv 2211.04367): selectivity, activity, probes and ablation.

``python -m benchmarks.papers.hayne --imagenet FOLDER --weights FOLDER`` runs the same protocol on the paper's four
networks, as torchvision has them. It needs a folder of ImageNet.
"""
