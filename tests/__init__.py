"""One folder a subject. What several subjects need stands in `support`."""
