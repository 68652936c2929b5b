"""Marshall and Kirchner (arXiv 2401.17975): the spectrum of a code, its trajectories, and the effect of dropout.

One file for each question: ``known`` (codes whose spectrum is known), ``spectra`` (layers of networks), ``dropout``
(what dropout changes), ``copying`` (error correction), ``trajectories``.
"""
