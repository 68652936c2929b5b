"""Amjad, Liu and Geiger: information-ordered cumulative ablation of dense networks, layer by layer and pooled.

The paper (IEEE TNNLS 2022, arXiv 1804.06679) orders the neurons of trained fully connected networks. It uses entropy,
mutual information with the class, and a class selectivity by Kullback-Leibler divergence. Test performance is measured
as neurons are ablated. Our quantiser has one bit: ReLU and tanh above 0, sigmoid above 0.5. Units are ranked on
training images and evaluated on test images.
"""
