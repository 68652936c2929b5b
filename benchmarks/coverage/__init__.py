"""How often each interval holds the truth, and each test errs: one file a question, by simulation."""
