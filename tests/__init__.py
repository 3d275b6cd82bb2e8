"""One folder a subject; what several subjects need stands in `support`."""
