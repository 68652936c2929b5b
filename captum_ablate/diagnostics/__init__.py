"""The code of a layer, beside its deficit curve: spectra and mid-range activations."""
