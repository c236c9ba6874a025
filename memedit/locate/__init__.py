"""Where a model keeps a fact: causal tracing, knowledge neurons, the logit lens, and what an edit moved inside."""
