"""The page that joins the papers, with two tables of ours: all attributions, and spectra against curves."""
