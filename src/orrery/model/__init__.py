"""The Mixture-of-Transformers and its parts."""
