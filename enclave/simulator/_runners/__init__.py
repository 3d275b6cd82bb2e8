"""What runs inside the sandbox before the user's code: scripts, started by their path and never imported."""
