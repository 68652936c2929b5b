"""What the ablation papers compute on top of deficit curves: pure functions and frozen results."""
