"""From rankings to results: rank on one part of the data, ablate on another, compare, save and show."""
