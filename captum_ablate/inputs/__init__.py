"""What the user hands over, checked once: data, model, layers, units; all of it given back as it came."""
