"""Every classification network of torchvision against full forward passes with a hook (``python -m benchmarks.zoo``).

Weights are random; images are noise of the smallest size that the network accepts, from 64 px on. Four inner layers per
network are ablated in a random order. The label's logit of each sample under the evaluator is compared with that of an
independent hook, ``torch.where(mask, reference, activation)``. Results are kept in the cache folder network by network,
smallest network first: a stopped sweep continues where it was.
"""
