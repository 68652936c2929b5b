"""Amjad, Liu and Geiger: information-ordered cumulative ablation of dense networks, layer by layer and pooled.

The paper (IEEE TNNLS 2022, arXiv 1804.06679) orders the neurons of trained fully connected networks by entropy, mutual
information with the class, or a KL-based class selectivity, and watches the test performance as they are ablated. Our
quantiser has one bit: ReLU and tanh above 0, sigmoid above 0.5. Ranked on training images, evaluated on test images.
"""

from benchmarks.papers.amjad.report import run

__all__ = ["run"]
