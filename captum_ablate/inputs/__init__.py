"""What the user hands over, checked once: data, model, layers, units. All of it leaves a call as it came."""
