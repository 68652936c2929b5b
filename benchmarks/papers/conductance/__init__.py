"""The parts of the study of conductance: ``benchmarks.papers.dhamdhere`` puts them on one page."""
